"""How runs are getting on, in the terminal, again and again: ``python -m scripts.watch RUN [RUN ...]``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveFloat
from rich.console import Console
from rich.live import Live

from scripts.cli.entry_point import INTERRUPT_STATUS, Parser
from scripts.cli.watch import Interrupted
from scripts.reporting import WIDE

if TYPE_CHECKING:
    from scripts.watch.following import FollowedRun
    from scripts.watch.standing import Standing


def main(argv: Sequence[str] | None = None) -> None:
    """Show the runs until all have finished or Ctrl-C; or once, and exit with 1 where one failed or was killed."""
    from scripts.watch.following import followed

    arguments = build_parser().parse_args(argv)
    runs = followed(arguments.runs)
    console = Console() if sys.stdout.isatty() else Console(width=WIDE, force_terminal=False, color_system=None)
    if arguments.once or not sys.stdout.isatty() or console.is_dumb_terminal:
        sys.exit(show_once(runs, console))
    watch(runs, console, arguments.every)


def build_parser() -> ArgumentParser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness watch",
        description=(
            "Show how runs are getting on: state, steps, pace, time left, losses, measures, checkpoints. Ends when all "
            "have finished, and by Ctrl-C."
        ),
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="Run directories, also of runs that have not begun.")
    parser.add_argument("--every", type=PositiveFloat, default=2.0, help="Seconds between two looks.")
    parser.add_argument(
        "--once",
        action="store_true",
        help="Print once and exit, with status 1 where a run failed or was killed; so it is where no terminal is.",
    )
    return parser


def show_once(runs: Sequence[FollowedRun], console: Console) -> int:
    """Print everything, and answer the exit status."""
    from scripts.watch.screen import screen
    from scripts.watch.standing import FAULTS

    now = time.time()
    standings = look(runs, now)
    console.print(screen(standings, now, console))
    return int(any(standing.kind in FAULTS for standing in standings))


def watch(
    runs: Sequence[FollowedRun],
    console: Console,
    every: float,
    now: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Show the runs until all have finished or Ctrl-C; what was shown last stays on the terminal."""
    from scripts.watch.screen import screen
    from scripts.watch.standing import FINISHED

    last = None
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                standings = look(runs, now())
                last = screen(standings, now(), console, console.height)
                live.update(last, refresh=True)
                if all(standing.kind == FINISHED for standing in standings):
                    break
                pause(every)
    except (KeyboardInterrupt, Interrupted) as asked:
        if isinstance(asked, Interrupted) and asked.status != INTERRUPT_STATUS:
            raise
    if last is not None:
        console.print(last)


def look(runs: Sequence[FollowedRun], now: float) -> list[Standing]:
    """How the runs stand."""
    from scripts.watch.standing import standing

    return [standing(run.look(), now) for run in runs]
