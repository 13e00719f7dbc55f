"""Docstrings of Python's standard library, as labelled texts and as pairs of sentences with constructed scores.

They are read out of its source files: real text on every machine, without a file, a download or a model.
"""

import ast
import re
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.base import ResumableDataModule
from datamodules.splits import PARTS, PairSplit, SplitName, TextSplit, remaining_rows, stratified_rows
from datamodules.texts import TextDataModule
from likeness.files.errors import DataError
from likeness.seeding import generator

MIN_WORDS = 4
# Modules and packages by what they are for. What a version of Python does not have is left out.
FAMILIES = {
    "concurrency": "asyncio concurrent multiprocessing queue sched selectors subprocess threading",
    "debugging": "bdb cProfile doctest faulthandler pdb profile pstats pydoc timeit trace traceback tracemalloc "
    "unittest",
    "files": "_pyio bz2 filecmp fileinput fnmatch genericpath glob gzip io lzma ntpath os pathlib posixpath shutil "
    "stat tarfile tempfile zipfile",
    "formats": "base64 configparser csv dbm html json pickle pickletools plistlib quopri shelve tomllib wave xml",
    "introspection": "ast code codeop dis importlib inspect modulefinder pkgutil pyclbr runpy site symtable sysconfig "
    "tokenize typing zipimport",
    "mail": "email imaplib mailbox mimetypes poplib smtplib",
    "networks": "ftplib http ipaddress socket socketserver ssl urllib uuid webbrowser wsgiref xmlrpc",
    "numbers": "_pydatetime _pydecimal _strptime calendar colorsys datetime fractions numbers random statistics "
    "zoneinfo",
    "programs": "argparse cmd getopt getpass hashlib hmac logging optparse platform pty secrets signal venv warnings",
    "structures": "_collections_abc _py_abc _weakrefset abc bisect collections contextlib copy copyreg dataclasses "
    "enum functools graphlib heapq operator reprlib types weakref",
    "text": "codecs difflib encodings gettext linecache locale pprint re shlex string textwrap",
}
SCORES = (5.0, 3.0, 2.0, 0.0)  # of one docstring, of one module, of one family, of two families
_WORDS = range(4, 41)  # in a sentence
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_PAIRS = 0xD0C5
_DRAWN = 50  # candidates for each pair: duplicates and pairs that stand closer together are thrown away
_HELD_OUT = 0.15  # of the docstrings, for validation and for the test each
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_WORD = re.compile(r"\w\w+")
_PARAGRAPH = re.compile(r"\n\s*\n")


class Docstring(NamedTuple):
    """A documented thing's text with its white space collapsed, and where it stands."""

    text: str
    family: str  # a key of FAMILIES
    module: str  # "json.decoder"


@cache
def standard_library_docstrings() -> tuple[Docstring, ...]:
    """Every docstring of at least four words, of two letters or more, of the modules in FAMILIES; each text once.

    In the order of family, module and line, so the same in every process of one version of Python. Nothing is
    imported: the source files are parsed. Examples at the prompt are left out. Raises DataError where a family has no
    source files.
    """
    library = Path(sysconfig.get_path("stdlib"))
    found: dict[str, Docstring] = {}
    for family, modules in FAMILIES.items():
        before = len(found)
        for path in chain.from_iterable(_sources(library, name) for name in modules.split()):
            for text in _texts(path):
                found.setdefault(text, Docstring(text, family, _module_name(library, path)))
        if len(found) == before:
            raise DataError(f"{library} has no source files of {modules}: is Python installed without them?")
    return tuple(found.values())


def _sources(library: Path, name: str) -> list[Path]:
    if (library / f"{name}.py").is_file():
        return [library / f"{name}.py"]
    inside = (library / name).rglob("*.py")
    return sorted(path for path in inside if not {"test", "tests"} & set(path.relative_to(library).parts))


def _module_name(library: Path, path: Path) -> str:
    return ".".join(path.relative_to(library).with_suffix("").parts).removesuffix(".__init__")


def _texts(path: Path) -> Iterator[str]:
    for node in _statements(ast.parse(path.read_bytes())):
        text = _prose(ast.get_docstring(node) or "") if isinstance(node, _DOCUMENTED) else ""
        if len(_WORD.findall(text)) >= MIN_WORDS:
            yield text


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The node and every statement inside, in the order of lines; no expressions, which are most of a file."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler):
            yield from _statements(child)


def _prose(docstring: str) -> str:
    paragraphs = _PARAGRAPH.split(docstring)
    return " ".join(" ".join(part for part in paragraphs if not part.lstrip().startswith(">>>")).split())


class Docstrings(TextDataModule[TextSplit]):
    """Docstrings labelled by what their module is for: files, formats, concurrency and eight more families.

    About 5,400 distinct texts, 280 to 700 in a family, with Python 3.11; another version has slightly others. A batch's
    ``x`` is a list of B texts.
    """

    class_names = tuple(FAMILIES)
    num_classes = len(FAMILIES)
    dataset_name = "docstrings"

    def __init__(self, val_size: int = 500, test_size: int = 1_000, **kwargs: Any) -> None:
        """
        Args:
            val_size: Docstrings kept for validation; 0 validates on the test docstrings.
            test_size: Docstrings kept for the test; the rest is trained on.
        """
        super().__init__(published=("train",), val_size=val_size, test_size=test_size, **kwargs)

    def read(self, part: SplitName) -> TextSplit:
        docstrings = standard_library_docstrings()
        labels = [self.class_names.index(docstring.family) for docstring in docstrings]
        return TextSplit([docstring.text for docstring in docstrings], torch.tensor(labels))


class DocstringPairs(ResumableDataModule[PairSplit]):
    """Sentence pairs for training and testing in STS-B's form where neither is at hand; a batch is a ``PairBatch``.

    The scores are constructed and are no human judgement: two sentences of one docstring score 5, of one module 3, of
    one family of modules 2, of two families 0; each score is a quarter of a split. No docstring is in two splits.
    """

    dataset_name = "docstring_pairs"

    def __init__(self, train_size: int = 6_000, eval_size: int = 800, split_seed: int = 0, **kwargs: Any) -> None:
        """
        Args:
            train_size: Pairs to train on, a multiple of 4.
            eval_size: Pairs to validate on, and as many to test on, a multiple of 4.
            split_seed: Decides which docstrings are in which split, and the pairs.
        """
        super().__init__(**kwargs)
        for name, size in {"train_size": train_size, "eval_size": eval_size}.items():
            if size < 4 or size % 4:
                raise ValueError(f"{name} must be a positive multiple of 4, as many pairs of each score, got {size}")
        self.sizes: dict[SplitName, int] = {"train": train_size, "val": eval_size, "test": eval_size}
        self.split_seed = split_seed

    def load(self, split: SplitName) -> PairSplit:
        docstrings = standard_library_docstrings()
        rows = _rows(docstrings, self.split_seed)[split]
        sentences, standing = _sentences([docstrings[row] for row in rows.tolist()])
        salt = PARTS.index(split)
        quarters = [
            _pairs(standing, closeness, self.sizes[split] // 4, (self.split_seed, salt, closeness))
            for closeness in range(4)
        ]
        first, second = torch.stack(quarters, 1).flatten(0, 1).T.tolist()  # the four scores in turn
        scores = torch.tensor(SCORES).repeat(self.sizes[split] // 4)
        return PairSplit([sentences[row] for row in first], [sentences[row] for row in second], scores)


def held_out_docstrings(count: int) -> int:
    """How many of ``count`` docstrings are kept out of the training pairs.

    ``Docstrings`` with this ``test_size``, no ``val_size`` and the same ``split_seed`` tests on these very docstrings.
    """
    return 2 * int(_HELD_OUT * count)


def _rows(docstrings: Sequence[Docstring], seed: int) -> dict[SplitName, Tensor]:
    families = torch.tensor([list(FAMILIES).index(docstring.family) for docstring in docstrings])
    held_out = stratified_rows(families, held_out_docstrings(len(families)), seed)
    return {"train": remaining_rows(len(families), held_out), "val": held_out[::2], "test": held_out[1::2]}


def _sentences(docstrings: Sequence[Docstring]) -> tuple[list[str], Tensor]:
    """The distinct sentences [n], and [n, 3] int64 from which docstring, module and family each is."""
    found: dict[str, tuple[int, int, int]] = {}
    modules = {name: number for number, name in enumerate(dict.fromkeys(d.module for d in docstrings))}
    families = {name: number for number, name in enumerate(FAMILIES)}
    for number, docstring in enumerate(docstrings):
        for sentence in _SENTENCE_END.split(docstring.text):
            if len(sentence.split()) in _WORDS:
                found.setdefault(sentence, (number, modules[docstring.module], families[docstring.family]))
    return list(found), torch.tensor(list(found.values()))


def _pairs(standing: Tensor, closeness: int, count: int, seeds: tuple[int, ...]) -> Tensor:
    """``count`` distinct pairs [count, 2] of rows i < j whose standings differ in just ``closeness`` columns.

    standing: [n, 3], each column ascending: the rows from which j is drawn, those that share column ``closeness`` with
    i, stand together. Raises ValueError where there are not so many pairs.
    """
    random = generator(*seeds, _PAIRS)
    i = torch.randint(len(standing), (count * _DRAWN,), generator=random)
    shared = standing[:, closeness].contiguous() if closeness < 3 else torch.zeros(len(standing), dtype=torch.long)
    low, high = (torch.searchsorted(shared, shared[i], right=right) for right in (False, True))
    j = low + (torch.rand(len(i), generator=random, dtype=torch.float64) * (high - low)).long()
    wanted = (i < j) & ((standing[i] != standing[j]).sum(1) == closeness)
    pairs = list(dict.fromkeys(zip(i[wanted].tolist(), j[wanted].tolist(), strict=True)))
    if len(pairs) < count:
        raise ValueError(f"{count} pairs of score {SCORES[closeness]:g} wanted, but only {len(pairs)} were found")
    return torch.tensor(pairs[:count])
