"""A progress bar with the time left, on terminals and in notebooks."""

from collections.abc import Iterable, Sized
from typing import TypeVar

Item = TypeVar("Item")
FEW = 4  # steps that are over before a bar could be read


def tracked(
    steps: Iterable[Item], description: str, *, total: int | None = None, shown: bool | None = None
) -> Iterable[Item]:
    """The steps, with a bar on the standard error stream that is gone when the work is done.

    ``total`` is their number where they do not tell it. By default the bar is shown on a terminal and in a notebook,
    where there are more than a few steps.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    total = len(steps) if total is None and isinstance(steps, Sized) else total
    if shown is None:
        shown = (console.is_terminal or console.is_jupyter) and (total is None or total >= FEW)
    return track(steps, description, total=total, console=console, transient=True) if shown else steps
