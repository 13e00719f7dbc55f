"""What is shown of runs: a line for each, and below, as far as there is room, what each has come to."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from scripts.report.sections.overview import duration
from scripts.reporting import shown
from scripts.watch.headlines import ASCII_BARS, BARS, Value, curves, score, sparkline, values
from scripts.watch.standing import ACTIVE, FAULTS, FINISHED, RUNNING, STARTING, STOPPED, URGENCY, WAITING, Standing

STYLES = {
    **dict.fromkeys((*ACTIVE, STARTING), "green"),
    **dict.fromkeys(FAULTS, "bold red"),
    STOPPED: "yellow",
    **dict.fromkeys((WAITING, FINISHED), "dim"),
}
GAP = 2  # characters between columns
LOSS = "train/loss"
DISPENSABLE = ("", "epoch", "validation")  # columns that a narrow console has no room for, the first to go first
LEFT = ("run", "state", "", "validation")
SHORT, LONGEST = 16, 40  # bars of a curve
LEAST_NAME = 12
DAY = 24 * 3600.0  # seconds
FAULT_LINES = 4  # of the words in which a run tells why it failed
SEPARATOR = "  "


def screen(standings: Sequence[Standing], now: float, console: Console, height: int | None = None) -> Group:
    """All runs in this many lines; None is room for everything."""
    head = [_line(console, f"{datetime.fromtimestamp(now):%H:%M:%S}  {_summary(standings)}"), Text()]
    if height is None:
        return Group(*head, _table(standings, console), *_details(standings, console, None))
    room = height - len(head) - 1
    if len(standings) <= room:
        return Group(*head, _table(standings, console), *_details(standings, console, room - len(standings)))
    listed, left_out = _divided(standings, min(room - 1, max(_unsettled(standings), height // 2)))
    more = _line(console, f"and {_summary(left_out)}", style="dim")
    return Group(*head, _table(listed, console), more, *_details(listed, console, room - len(listed) - 1))


def _summary(standings: Sequence[Standing]) -> str:
    counts = Counter(standing.kind for standing in standings)
    known = [f"{counts[kind]} {kind}" for kind in URGENCY if counts[kind]]
    return f"{len(standings)} {'run' if len(standings) == 1 else 'runs'}: {', '.join(known)}"


def _unsettled(standings: Sequence[Standing]) -> int:
    """How many of them somebody may want to do something about."""
    return sum(standing.kind not in (WAITING, FINISHED) for standing in standings)


def _divided(standings: Sequence[Standing], count: int) -> tuple[list[Standing], list[Standing]]:
    """So many of them, the most urgent, and the others, in the order in which they were named."""
    by_urgency = sorted(range(len(standings)), key=lambda place: _urgency(standings[place]))
    chosen = {*by_urgency[: max(count, 1)]}
    return [standings[n] for n in sorted(chosen)], [one for n, one in enumerate(standings) if n not in chosen]


def _table(standings: Sequence[Standing], console: Console) -> Table:
    """A line for each; where the console is narrow, columns are left out, and names lose their middle."""
    rows = [_row(standing, _bars(console)) for standing in standings]
    widths = {head: max(cell_len(text) for text in (head, *(row[head] for row in rows))) for head in rows[0]}
    heads = [head for head in rows[0] if any(row[head] for row in rows)]
    for head in DISPENSABLE:
        if head in heads and _total(widths, heads) > console.width:
            heads.remove(head)
    room = max(widths["run"] + console.width - _total(widths, heads), LEAST_NAME)
    table = Table.grid(padding=(0, GAP, 0, 0))
    for head in heads:
        table.add_column(justify="left" if head in LEFT else "right", no_wrap=True)
    table.add_row(*(Text(head, style="dim") for head in heads))
    for row, standing in zip(rows, standings, strict=True):
        cells = row | {"run": _shortened(row["run"], room)}
        table.add_row(*(Text(cells[head], STYLES[standing.kind] if head == "state" else "") for head in heads))
    return table


def _total(widths: dict[str, int], heads: Sequence[str]) -> int:
    return sum(widths[head] for head in heads) + GAP * (len(heads) - 1)


def _row(standing: Standing, bars: str) -> dict[str, str]:
    metrics = standing.run.metrics
    total = "" if standing.total is None else f"/{'~' if standing.estimated else ''}{standing.total:,}"
    loss = metrics.curves.get(LOSS)
    return {
        "run": printable(standing.run.name),
        "state": standing.kind,
        "step": "" if standing.step is None else f"{standing.step:,}{total}",
        "epoch": "" if standing.epoch is None else str(standing.epoch),
        "steps/s": "" if standing.rate is None else _significant(standing.rate),
        "left": duration(standing.left),
        "loss": shown(metrics.last.get(LOSS)),
        "": "" if loss is None else sparkline(LOSS, loss, SHORT, bars),
        "validation": printable(score(metrics)),
    }


def _bars(console: Console) -> str:
    return ASCII_BARS if console.options.ascii_only else BARS


def _details(standings: Sequence[Standing], console: Console, room: int | None) -> Iterator[Text]:
    """What the most urgent runs have come to, of each all or nothing."""
    for standing in standings if room is None else sorted(standings, key=_urgency):
        if standing.kind == WAITING:
            continue
        lines = list(_of_one(standing, console))
        if room is not None and len(lines) + 1 > room:
            return
        room = None if room is None else room - len(lines) - 1
        yield Text()
        yield from lines


def _urgency(standing: Standing) -> int:
    return URGENCY.index(standing.kind)


def _of_one(standing: Standing, console: Console) -> Iterator[Text]:
    """The lines of a run, none longer than the console is wide."""
    classes = ", ".join(map(printable, standing.run.classes))
    yield _line(console, printable(standing.run.name), f": {classes}" if classes else "", style="bold")
    for words in _said(standing, console.width):
        yield _line(console, "  ", words, after=STYLES[standing.kind])
    found = curves(standing.run.metrics)
    families = values(standing.run.metrics)
    label = max(map(len, [*found, *families]), default=0) + GAP
    for key, curve in found.items():
        newest = shown(standing.run.metrics.last[key])
        drawn = sparkline(key, curve, min(LONGEST, max(console.width - label - 14, 1)), _bars(console))
        yield _line(console, f"  {printable(key):{label}}", f"{newest:10}{drawn}")
    for family, known in families.items():
        yield _line(console, f"  {family.replace('_', ' '):{label}}", SEPARATOR.join(map(_value, known)))
    if times := _times(standing):
        yield _line(console, "  ", times, after="dim")


def _said(standing: Standing, width: int) -> list[str]:
    """Why a run does not run, in its own words, and what its files hold that is no number."""
    words = [standing.run.state] if standing.kind not in (RUNNING, STARTING, FINISHED, WAITING) else []
    notes = [f"{len(standing.run.notes)} notes, the first: {standing.run.notes[0]}"] if _damaged(standing) else []
    return [
        line for text in (*words, *notes) for line in textwrap.wrap(printable(text), max(width - 2, 20))[:FAULT_LINES]
    ]


def _damaged(standing: Standing) -> bool:
    return bool(standing.run.segments and standing.run.notes)


def _times(standing: Standing) -> str:
    """How long ago it ended or wrote, and how often it began."""
    starts = len(standing.run.segments)
    written = {"last row": standing.since_row} if standing.since_end is None else {"ended": standing.since_end}
    ago = {**written, "checkpoint": standing.since_checkpoint}
    known = [f"{what} {_ago(seconds)}" for what, seconds in ago.items() if seconds is not None]
    if known and standing.since_checkpoint is None:
        known.append("no checkpoint")
    return ", ".join([*known, *([f"{starts} starts"] if starts > 1 else [])])


def _ago(seconds: float) -> str:
    days = int(seconds // DAY)
    return f"{days} days ago" if days > 1 else f"{duration(seconds)} ago"


def _value(value: Value) -> str:
    chance = "" if value.chance is None else f" (chance {_significant(value.chance)})"
    return f"{printable(value.name)} {_significant(value.value)}{chance}"


def _significant(number: float) -> str:
    return f"{number:,.0f}" if 100 <= abs(number) < 1e6 else f"{number:.3g}"


def _line(console: Console, start: str, rest: str = "", style: str = "", after: str = "") -> Text:
    text = Text.assemble((start, style), (rest, after), no_wrap=True)
    text.truncate(console.width, overflow="ellipsis")
    return text


def _shortened(name: str, room: int) -> str:
    """A name without its middle, where runs of a study differ least."""
    if cell_len(name) <= room:
        return name
    end = room // 2
    return f"{name[: room - end - 1]}…{name[-end:]}"


def printable(text: str) -> str:
    """A text of a file, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
