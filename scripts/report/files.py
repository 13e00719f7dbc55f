"""Tables and pictures that callbacks and commands have left in run directories."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from likeness.figures.output import read_caption
from likeness.pages.parts import Cell, Frame, Picture, Table
from scripts.report.groups import Study
from scripts.report.runs import Run

MAX_ROWS = 1000
PICTURED = 6  # groups of runs whose pictures are shown
FRAMES = 8  # of a picture that was drawn again and again
MAX_BYTES = 6_000_000  # of a picture with all its frames
SIGNATURE = b"\x89PNG\r\n\x1a\n"
STEP = re.compile(r"-step=(\d+)$")

Rows = list[dict[str, Cell]]


def read_rows(path: Path, limit: int = MAX_ROWS) -> Rows:
    """The rows of a CSV file, numbers as such, empty cells as None; none where it cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            pairs = zip(range(limit), reader, strict=False)
            return [{str(key): _cell(value) for key, value in row.items() if key is not None} for _, row in pairs]
    except (OSError, csv.Error):
        return []


def _cell(text: str | None) -> Cell:
    if text is None or text == "":
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    if not np.isfinite(number):
        return text
    return int(number) if number.is_integer() and re.fullmatch(r"-?\d{1,15}", text) else number


def column(rows: Rows, name: str) -> np.ndarray:
    """A column as numbers, NaN where it has none."""
    values = (row.get(name) for row in rows)
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], float)


def table(
    name: str, title: str, found: Iterable[tuple[str, Rows]], caption: str = "", *, folded: bool = False
) -> Table | None:
    """Rows of several runs as one table, each with the name of its run where there are several; None without any."""
    named = [(run, rows) for run, rows in found if rows]
    if not named:
        return None
    columns = list(dict.fromkeys(key for _, rows in named for row in rows for key in row))
    several = len(named) > 1
    lines: list[Sequence[Cell]] = [
        [*([run] if several else []), *(row.get(key) for key in columns)] for run, rows in named for row in rows
    ]
    if any(len(rows) == MAX_ROWS for _, rows in named):
        caption = f"{caption} Of each run the first {MAX_ROWS:,} rows at most.".strip()
    return Table(name, title, [*(["run"] if several else []), *columns], lines, caption, folded)


def figure_rows(study: Study, name: str, limit: int) -> Iterator[tuple[Run, Rows, str]]:
    """``figures/<name>.csv`` of one run of each group, of six groups at most, with an end for titles."""
    for group in study.groups[:PICTURED]:
        for run in group.runs:
            if rows := read_rows(run.path / "figures" / f"{name}.csv", limit):
                yield run, rows, f": {run.name}" if len(study.runs) > 1 else ""
                break


def pictures(study: Study, wanted: re.Pattern[str], order: Sequence[str]) -> list[Picture]:
    """What callbacks drew under names that fit, of one run of each group, of six groups at most.

    Those whose names begin with what ``order`` has are in that order, the runs of each side by side.
    """
    groups = study.groups[:PICTURED]
    found: list[Picture] = []
    for group in groups:
        run = next((run for run in group.runs if run.pictures()), None)
        if run is not None:
            found += _of_run(run, wanted, several=len(study.runs) > 1)
    return sorted(found, key=lambda picture: _place(picture, order))


def _place(picture: Picture, order: Sequence[str]) -> int:
    stem = picture.name.rpartition("/")[2]
    return next((place for place, name in enumerate(order) if stem.startswith(name)), len(order))


def _of_run(run: Run, wanted: re.Pattern[str], *, several: bool) -> Iterable[Picture]:
    series: dict[str, list[tuple[int | None, Path]]] = {}
    for path in run.pictures():
        step = STEP.search(path.stem)
        stem = path.stem[: step.start()] if step else path.stem
        if wanted.match(stem):
            series.setdefault(stem, []).append((int(step[1]) if step else None, path))
    for stem, files in series.items():
        frames = _frames(files)
        if frames:
            title = stem.replace("_", " ").capitalize()
            said, pdf = read_caption(frames[-1].png), _pdf(run.path / "figures" / f"{stem}.pdf")
            yield Picture(f"{run.name}/{stem}", f"{title}: {run.name}" if several else title, frames, said, pdf)


def _pdf(path: Path) -> bytes:
    """The same picture for papers; nothing where there is none, as in runs from before, or no PDF of usual size."""
    try:
        content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
    except OSError:
        return b""
    return content if content.startswith(b"%PDF-") else b""


def _frames(files: Sequence[tuple[int | None, Path]]) -> list[Frame]:
    """The last picture and, spread over the run, some of those before it, as far as there is room in a page."""
    ordered = sorted(files, key=lambda entry: (entry[0] is None, entry[0] or 0))
    chosen = sorted({*np.linspace(0, len(ordered) - 1, min(len(ordered), FRAMES)).round().astype(int).tolist()})
    frames: list[Frame] = []
    room = MAX_BYTES
    for step, path in (ordered[number] for number in reversed(chosen)):
        try:
            content = path.read_bytes() if path.stat().st_size <= room else b""
        except OSError:
            continue
        if content.startswith(SIGNATURE):
            room -= len(content)
            frames.insert(0, Frame("at the end" if step is None else f"step {step:,}", content))
    return frames
