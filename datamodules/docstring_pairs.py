"""Pairs of sentences out of the standard library's docstrings, scored by how far apart they stand."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from datamodules.resumable import ResumableDataModule
from datamodules.split import SplitName
from datamodules.standard_library import FAMILIES, Docstring, standard_library_docstrings
from datamodules.text_split import PairSplit, remaining_rows, stratified_rows
from likeness.seeding import generator

SCORES = (5.0, 3.0, 2.0, 0.0)  # of one docstring, of one module, of one family, of two families
_WORDS = range(4, 41)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_PAIRS = 0xD0C5
_DRAWN = 50  # candidates for each pair: duplicates and pairs that stand closer together are thrown away
_HELD_OUT = 0.15  # of the docstrings, for validation and for the test each


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
        salt = ("train", "val", "test").index(split)
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
