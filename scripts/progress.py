"""Progress bars of doors: on a terminal alone, and gone when the work is done."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def tracked(steps: Sequence[Item], description: str) -> Iterable[Item]:
    """The steps, with a progress bar on a terminal where there are more than a few."""
    console = Console(stderr=True)
    hidden = len(steps) < 4 or not console.is_terminal
    return track(steps, description, console=console, transient=True, disable=hidden)
