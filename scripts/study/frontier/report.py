"""Tables, figure and claims of the frontier study, of whatever runs are measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from likeness.figures.style import PAGE, PALETTE, REFERENCE, blank, in_style
from likeness.files.writing import replacing
from scripts.reporting import Report, Row, publish, write_json
from scripts.study.frontier.claims import Claim, decided
from scripts.study.frontier.pairs import FITTED, OWN, Paired, Place, Results, Side, arm_rows, compared, pair_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ARMS_TITLE = "bits per dimension of the test images, mean ± standard error over seeds"
PAIRS_TITLE = "differences to controls, of equal seeds and noise: paired t over seeds, errors over seeds and images"
LETTERS = {"a_map": "a'", "a_matched": "a''"}  # in the figure
LEAST = 5  # pairs in whose width a panel's title has room


def report(results: Results, out: Path) -> None:
    """Print tables and claims, and write them with all runs and the figure."""
    arms, pairs, claims = arm_rows(results), pair_rows(results), decided(results)
    Report(ARMS_TITLE, [printed_arm(row) for row in arms]).show()
    Report(PAIRS_TITLE, pairs).show()
    for claim in claims:
        print(claim.text())
    publish(
        out,
        tables={"runs": _with_all_columns(results.rows), "arms": arms, "pairs": pairs},
        figures={"differences": draw_differences(results)},
    )
    for path in write_claims(claims, out):
        print(f"likeness: wrote {path}")


def printed_arm(row: Row) -> Row:
    """A row of the arms as the terminal shows it."""
    shown: Row = {name: row[name] for name in ("data", "arm", "what", "parameters", "seeds", "steps")}
    for name, column in {"bpd": "bpd", "fitted volatility": "bpd_fitted", "one gamma": "bpd_scalar"}.items():
        error = row[f"{column}_se"]
        value = None if row[column] is None else f"{row[column]:.4f}"
        shown[name] = value if value is None or error is None else f"{value} ±{error:.4f}"
    return shown


def _with_all_columns(rows: Sequence[Row]) -> list[Row]:
    """A few runs have more columns than others."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def write_claims(claims: Sequence[Claim], out: Path) -> list[Path]:
    """As text, and as JSON."""
    path = out / "claims.txt"
    with replacing(path) as temporary:
        temporary.write_text("\n\n".join(claim.text() for claim in claims) + "\n", encoding="utf-8")
    rows = [claim.row() | {"numbers": list(claim.numbers)} for claim in claims]
    return [path, write_json(out / "claims.json", rows)]


@in_style()
def draw_differences(results: Results) -> Figure:
    """A panel for each data set: of each pair a dot for each seed, and the mean with its standard error over seeds."""
    shown = {place: _drawn(results, place) for place in results.places()}
    panels = [(place, pairs) for place, pairs in shown.items() if pairs]
    rows = [row for row in (panels[:1], panels[1:]) if row]
    caption = (
        "By how much each ingredient changes the bound against its control: below the line it is tighter. A faint dot "
        "for each seed, beside them mean and standard error over seeds."
    )
    figure = blank(PAGE, 2.9 * max(len(rows), 1), caption)
    for number, row in enumerate(rows):
        grid = figure.add_gridspec(len(rows), 1)[number].subgridspec(
            1, len(row), width_ratios=[max(len(pairs), LEAST) for _, pairs in row]
        )
        for column, (place, pairs) in enumerate(row):
            axes = figure.add_subplot(grid[column])
            _panel(axes, pairs)
            axes.set_title(str(place))
            axes.set_ylabel("" if column else "difference (bits/dim)")
    return figure


def _drawn(results: Results, place: Place) -> list[tuple[Side, Side, Paired]]:
    pairs = [(side, control, results.paired(place, side, control)) for side, control in compared()]
    return [(side, control, found) for side, control, found in pairs if found is not None]


def _letter(side: Side) -> str:
    name = LETTERS.get(side.arm, side.arm)
    return name if side.column == OWN else f"{name} fitted" if side.column == FITTED else f"{name} scalar"


def _panel(axes: Axes, pairs: Sequence[tuple[Side, Side, Paired]]) -> None:
    axes.axhline(0, color=REFERENCE, lw=0.8, ls=":")
    for place, (side, _, found) in enumerate(pairs):
        color = PALETTE[side.column != OWN]  # another training, or another evaluation of the same models
        values = np.array(found.by_seed)
        axes.scatter(np.full(len(values), place - 0.15), values, s=8, color=color, alpha=0.5, linewidths=0)
        axes.errorbar(place + 0.15, found.mean, found.se, fmt="o", color=color)
    names = [f"{_letter(side)} - {_letter(control)}" for side, control, _ in pairs]
    axes.set_xticks(range(len(pairs)), names, rotation=90)
    axes.set_xlim(-0.6, len(pairs) - 0.4)
