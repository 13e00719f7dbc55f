"""Texts as data of language models: where they come from, and at which of their positions models are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

from likeness.adapters.causal_scorers import Rows
from likeness.checks import require_one_of, require_positive
from likeness.files.columns import TEXTS, open_columns
from likeness.files.errors import DataError


@dataclass(frozen=True)
class Texts:
    """Texts, and how language models read them.

    Args:
        texts: texts, or a file of them: lines, or the column of a table that is called as texts usually are.
        positions: how many positions are looked at, at most: in an order of the texts that ``seed`` draws, without
            position 0 of each text and repeated prefixes.
        prefix: what stands before each text: "none", "bos", "separator", or a token's id.
        rows: "tokens" leaves out the rows of the head beyond the tokenizer's ids, and conditions on the others; "all"
            keeps them.
        length: tokens of a window; by default what all models take, at most 1,024.
        stride: tokens from one window to the next; by default their length.
        batch_size: windows that a model sees at once.
        shared_tokens: compare models with different tokenizers by the tokens that both have.
        column: of the texts in a table, where it has an unusual name.
        seed: of the order of the texts, and of whatever is drawn.
        name: what they are called in titles; by default that of their file.

    Example:
        >>> from likeness import Texts
        >>> Texts(["one text", "another"], positions=100, prefix="none").read()
        ['one text', 'another']
    """

    texts: Sequence[str] | str | Path
    positions: int = 16_384
    prefix: str | int = "separator"
    rows: Rows = "tokens"
    length: int | None = None
    stride: int | None = None
    batch_size: int = 16
    shared_tokens: bool = False
    column: str | None = None
    seed: int = 0
    name: str | None = None

    def __post_init__(self) -> None:
        require_positive(positions=self.positions, length=self.length, stride=self.stride, batch_size=self.batch_size)
        require_one_of(self.rows, get_args(Rows), "rows")

    @classmethod
    def of(cls, data: Any) -> Self | None:
        """Data as texts where they are some: these themselves, a path, or a list of texts; else None."""
        if isinstance(data, cls):
            return data
        if isinstance(data, str | Path):
            return cls(data)
        whole = isinstance(data, list | tuple) and len(data) > 0 and all(isinstance(text, str) for text in data)
        return cls(tuple(data)) if whole else None

    @property
    def source(self) -> str:
        """What they are called in titles."""
        if self.name is not None or isinstance(self.texts, str | Path):
            return self.name or Path(str(self.texts)).name
        return f"{len(self.texts):,} texts"

    def read(self) -> list[str]:
        """All of them. Raises DataError naming a file that is missing or holds no texts that can be told."""
        if not isinstance(self.texts, str | Path):
            return list(self.texts)
        columns = open_columns(Path(self.texts).expanduser())
        names = [self.column] if self.column is not None else columns.usual(TEXTS) or columns.lists()
        if len(names) != 1 and not columns.usual(TEXTS):
            raise DataError(f"name the column of the texts in {columns.path}: it holds {columns.listed(names)}")
        if names[0] not in columns.lists():
            raise DataError(f"{columns.path} has no texts {names[0]!r}, but {columns.listed(columns.lists())}")
        return columns.texts(names[0])
