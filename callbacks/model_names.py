"""How models that came from files are called in tables and figures."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def short_names(names: Sequence[str]) -> list[str]:
    """The runs' names in place of ``PATH`` or ``PATH#member``; whole paths where runs share a name.

    A model that occurs again gets a number: demo#0, demo#0 (2).
    """
    locations = {name: _split(name)[0] for name in names}
    shared = Counter(_run_name(location) for location in set(locations.values()))
    seen: Counter[str] = Counter()
    answer = []
    for name in names:
        location, member = _split(name)
        run = _run_name(location)
        short = (run if shared[run] == 1 else location) + member
        seen[short] += 1
        answer.append(short if seen[short] == 1 else f"{short} ({seen[short]})")
    return answer


def _split(name: str) -> tuple[str, str]:
    location, mark, member = name.rpartition("#")
    return (location, mark + member) if member.isdecimal() and mark else (name, "")


def _run_name(location: str) -> str:
    """``demo`` for runs/demo and its last checkpoint, ``demo/best`` for another checkpoint, else the file's name."""
    path = Path(location).absolute()
    if path.suffix != ".ckpt":
        return path.name
    if path.parent.name != "checkpoints":
        return path.stem
    run = path.parent.parent.name
    return run if path.stem == "last" else f"{run}/{path.stem}"
