"""Pages as a reader plays them: commands and Python in order, in a folder of their own, beside what the page shows.

A block of ``text`` after a command or code is what it prints: each of its lines must be among those printed, numbers
and spaces aside, for numbers differ between versions of torch.
"""

import contextlib
import io
import re
import shlex
from pathlib import Path

import torch

from scripts.main import main

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")
STATUS = re.compile(r"# status (\d+)")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of each block of code."""
    return BLOCK.findall(page.read_text())


def commands(code: str) -> list[str]:
    """The lines of a block of the shell, with continued ones joined."""
    return [line for line in code.replace("\\\n", " ").splitlines() if line.strip()]


def words(line: str) -> list[str]:
    """A command's words, as a shell reads them: a comment begins behind a space, so ``runs/a#0`` is none."""
    return shlex.split(re.sub(r"(?<!\S)#.*", "", line))


def shape(line: str) -> str:
    """A printed line without what differs between machines: numbers, spaces, rules of tables."""
    return re.sub(r"[\s─-╿-]+", " ", NUMBER.sub("#", line)).strip()


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
            for language, content in blocks(page):
                if language == "python":
                    printed = run_python(content, names, page.name)
                elif language == "bash":
                    printed = "".join(map(run_command, commands(content)))
                elif language == "text":
                    shapes = {shape(line) for line in printed.splitlines()}
                    missing = [line for line in content.splitlines() if shape(line) not in shapes]
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
