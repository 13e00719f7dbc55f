"""What a page consists of: sections of figures, tables and pictures, as plain values that several drawers read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from likeness.figures.embeddings import Planes

Cell = str | int | float | None


@dataclass(frozen=True)
class Curve:
    """A line through (x, y), [N] each, NaN where there is no value, with a band from ``low`` to ``high``, [N] each.

    Curves of one ``colour``, a number, belong together; ``dashed`` ones are references.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Lines:
    """Curves over one axis. ``caption`` says what to see, and what the bands are."""

    name: str  # of its files
    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    caption: str = ""
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Matrix:
    """A value for each pair (row, column), [P, Q], NaN where there is none.

    ``remarks``, [P][Q], say more of each pair where it is pointed at. Bright is alike: large, or small where
    ``smaller_is_alike``. The colours of ``signed`` values go from blue at -1 to red at 1.
    """

    name: str
    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray
    value_label: str = ""
    caption: str = ""
    remarks: Sequence[Sequence[str]] | None = None
    signed: bool = False
    smaller_is_alike: bool = False


@dataclass(frozen=True)
class Scatter:
    """Embeddings of models in the plane, a panel for each model."""

    name: str
    title: str
    planes: Planes
    caption: str = ""


@dataclass(frozen=True)
class Frame:
    """One picture of a series, as PNG bytes."""

    label: str
    png: bytes = field(repr=False)


@dataclass(frozen=True)
class Picture:
    """A picture that was drawn already, or several of them as they followed each other.

    ``pdf`` has the last of them for papers, as bytes that are offered and never shown; none where it is empty.
    """

    name: str
    title: str
    frames: Sequence[Frame]
    caption: str = ""
    pdf: bytes = field(default=b"", repr=False)

    @property
    def contents(self) -> dict[str, bytes]:
        """The files of the last frame, by their kind."""
        return {"png": self.frames[-1].png} | ({"pdf": self.pdf} if self.pdf else {})


@dataclass(frozen=True)
class Table:
    """Rows of cells, None where there is nothing to say. ``folded``: shown when it is asked for."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Listing:
    """A text as it stands in a file, shown when it is asked for."""

    name: str
    title: str
    text: str


Drawn = Lines | Matrix | Scatter  # by the page itself
Figure = Drawn | Picture
Part = Figure | Table | Listing


@dataclass(frozen=True)
class Section:
    """Parts under a heading, with a sentence on what they are about."""

    title: str
    parts: Sequence[Part]
    about: str = ""

    @property
    def anchor(self) -> str:
        """The name of the heading within its page."""
        return slug(self.title)


@dataclass(frozen=True)
class Page:
    """Sections under a title. ``lines`` are names by which curves can be chosen."""

    title: str
    sections: Sequence[Section]
    about: str = ""
    lines: Sequence[str] = ()

    def parts(self) -> Iterable[Part]:
        """Those of all sections, in their order."""
        return (part for section in self.sections for part in section.parts)


def slug(text: str) -> str:
    """A text as a name of files and anchors: letters, digits, ``_.~-``, at most 80 of them."""
    return re.sub(r"[^A-Za-z0-9_.~-]+", "-", text).strip("-.")[:80] or "unnamed"


def shown(value: Cell) -> str:
    """A cell as a reader sees it: four significant digits of a number, nothing of None."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def distinct(sections: Iterable[Section]) -> list[Section]:
    """The same sections with a number behind the names of parts whose files would be one another's."""
    seen: dict[str, int] = {}

    def renamed(part: Part) -> Part:
        name = slug(part.name)[:72]
        seen[name.lower()] = count = seen.get(name.lower(), 0) + 1
        return replace(part, name=name if count == 1 else f"{name}~{count}")

    return [replace(section, parts=[renamed(part) for part in section.parts]) for section in sections]
