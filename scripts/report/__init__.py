"""A page of one or more runs, in one HTML file that needs no network: ``python -m scripts.report RUN [RUN ...]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from scripts.cli.entry_point import Parser

if TYPE_CHECKING:
    from likeness.pages.parts import Page
    from scripts.report.groups import Study

NAMED = 4  # lines that are named in the title


def main(argv: Sequence[str] | None = None) -> int:
    """Read the runs, write the page, and with ``--open`` show it; raises what went wrong."""
    arguments = build_parser().parse_args(argv)
    folder = Path(arguments.out) if arguments.out else default_folder(arguments.runs)
    written = report(arguments.runs, folder, arguments.title)
    print(f"likeness: wrote {written[0]}" + (f" and {len(written) - 1} files beside it" if written[1:] else ""))
    if arguments.open:
        import webbrowser

        webbrowser.open(written[0].resolve().as_uri())
    return 0


def build_parser() -> ArgumentParser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness report",
        description="Write a page of runs, finished, running or crashed: one HTML file, and its figures beside it.",
        epilog="--debug shows the traceback of an error.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="Run directories.")
    parser.add_argument("--out", type=str | None, help="A folder; by default RUN/report, or runs/report of several.")
    parser.add_argument("--title", type=str | None, help="Title of the page; by default the names of the runs.")
    parser.add_argument("--open", action="store_true", help="Show the page in a browser.")
    return parser


def default_folder(runs: Sequence[str]) -> Path:
    """Where the page of these runs is written where nobody says."""
    return Path(runs[0], "report") if len(runs) == 1 else Path("runs", "report")


def report(runs: Sequence[str], folder: Path, title: str | None = None) -> list[Path]:
    """Write the page of these run directories into a folder; answers what was written, the page first.

    Raises UsageError naming a directory that is no run's.
    """
    from likeness.pages.writing import write_page
    from scripts.report.groups import Study
    from scripts.report.runs import read_runs

    return write_page(page_of(Study(read_runs(runs)), title), folder)


def page_of(study: Study, title: str | None = None) -> Page:
    """The page of some runs; a section that has nothing to show is left out."""
    from likeness.pages.parts import Page, distinct
    from scripts.report.sections import SECTIONS

    found = [part for section in SECTIONS if (part := section(study)) is not None]
    names = [group.label for group in study.groups]
    own = ", ".join(names) if len(names) <= NAMED else f"{len(study.runs)} runs"
    return Page(title or own, distinct(found), lines=names)
