"""The docstrings of Python's standard library, read out of its source files: real text on every machine."""

import ast
import re
import sysconfig
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from datamodules.errors import DataError

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
