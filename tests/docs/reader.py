"""Pages as a reader plays them: commands and Python in order, in a folder of their own, beside what the page shows.

A block of ``text`` after a command or code is what it prints: each of its lines must be among those printed, spaces
aside. Whole numbers must be those of the page; others may differ by ``WITHIN``, for processors round differently. Where
a training makes more of that, or numbers depend on the version of Python, the block says so: of ``text within=0.3`` all
numbers may differ by that share. Of numbers below ``SMALL`` only the order of magnitude counts. A line that ends with
three dots is the beginning of one.
"""

import contextlib
import io
import math
import re
import shlex
from pathlib import Path

import torch

from scripts.main import main

BLOCK = re.compile(r"^```(\w*)(?: within=(0\.\d+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")
STATUS = re.compile(r"# status (\d+)")
WITHIN = 0.05  # relative
SMALL, MAGNITUDE = 1e-4, 10.0
ROUNDING = 1e-12  # what is smaller, on the page and printed, is the rounding of a zero


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of each block of code."""
    return [(language, content) for language, _, content in BLOCK.findall(page.read_text())]


def tolerances(page: Path) -> list[float | None]:
    """By which share all numbers of each block may differ, where it says so."""
    return [float(within) if within else None for _, within, _ in BLOCK.findall(page.read_text())]


def commands(code: str) -> list[str]:
    """The lines of a block of the shell, with continued ones joined."""
    return [line for line in code.replace("\\\n", " ").splitlines() if line.strip()]


def words(line: str) -> list[str]:
    """A command's words, as a shell reads them: a comment begins behind a space, so ``runs/a#0`` is none."""
    return shlex.split(re.sub(r"(?<!\S)#.*", "", line))


def shape(line: str) -> str:
    """A printed line without what differs between machines: numbers, spaces, rules of tables."""
    return re.sub(r"[\s─-╿-]+", " ", NUMBER.sub("#", line)).strip()


def numbers(line: str) -> list[str]:
    """The numbers of a printed line as they stand there."""
    return NUMBER.findall(line)


def agree(shown: str, printed: str, within: float | None = None) -> bool:
    """Whether two lines differ by spaces and by no more than numbers may."""
    begins, found = shape(shown.removesuffix("...")), shape(printed)
    if shown.endswith("..."):
        found = found[: len(begins)]
    return begins == found and all(
        _agree(*pair, within) for pair in zip(numbers(shown), numbers(printed), strict=False)
    )


def _agree(shown: str, printed: str, within: float | None) -> bool:
    """Of two numbers."""
    if within is None and shown.isdecimal() and printed.isdecimal():
        return shown == printed
    a, b = (float(number.replace(",", "").replace("\u2212", "-")) for number in (shown, printed))
    if a * b > 0 and max(abs(a), abs(b)) < SMALL:
        less, more = sorted(max(ROUNDING, abs(number)) for number in (a, b))
        return more <= MAGNITUDE * less
    return math.isclose(a, b, rel_tol=WITHIN if within is None else within, abs_tol=ROUNDING)


class Reader:
    """Plays pages in a folder in which ``configs/`` is at hand."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        (folder / "configs").symlink_to(root / "configs")
        self.played: set[Path] = set()

    def play(self, page: Path, *before: Path) -> None:
        """Run everything on the page, once; the pages that it goes on from first."""
        for other in (*before, page):
            if other not in self.played:
                self._play(other)
                self.played.add(other)

    def _play(self, page: Path) -> None:
        names: dict[str, object] = {}
        printed = ""
        torch.manual_seed(0)
        with contextlib.chdir(self.folder):
            for (language, content), within in zip(blocks(page), tolerances(page), strict=True):
                if language == "python":
                    printed = run_python(content, names, page.name)
                elif language == "bash":
                    printed = "".join(map(run_command, commands(content)))
                elif language == "text":
                    lines = printed.splitlines()
                    missing = [
                        line for line in content.splitlines() if not any(agree(line, each, within) for each in lines)
                    ]
                    assert missing == [], f"{page.name} shows what is not printed: {missing}, but {printed}"


def run_python(code: str, names: dict[str, object], source: str) -> str:
    """What the code prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, source, "exec"), names)
    return printed.getvalue()


def run_command(line: str) -> str:
    """What a command prints; it must end with the status that stands behind it, or 0."""
    command, *arguments = words(line)
    assert command == "likeness", line
    expected = STATUS.search(line)
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(printed):
        try:
            main(arguments)
            status: object = 0
        except SystemExit as end:
            status = end.code
    assert status == (int(expected[1]) if expected else 0), f"{line} ended with {status}: {printed.getvalue()}"
    return printed.getvalue()
