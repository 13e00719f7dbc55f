"""Every command in a block of README or docs parses, and the configurations that it names are there."""

import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from scripts import bench, study
from scripts.cli.entry_point import Parser
from scripts.cli.functions import parse_call
from scripts.data import tokenizing
from scripts.main import COMMANDS
from tests.docs.reader import blocks, commands, words

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MISSING = "--config data.yaml"
TRAININGS = ("fit", "validate", "test", "predict")
COMMAND = re.compile(r"^(?:\w+=\S+ )*(?:likeness|python -m scripts\.)\s*(?=\w)")
LINES = sorted(
    {
        (str(page.relative_to(ROOT)), COMMAND.sub("", line))
        for page in PAGES
        for language, content in blocks(page)
        if language in ("", "bash")
        for line in commands(content)
        if COMMAND.match(line)
    }
)


def parse(name: str, arguments: list[str], root: Path) -> None:
    """Read the arguments as the command would; SystemExit or ValueError where it would refuse them."""
    arguments = arguments[: arguments.index(">")] if ">" in arguments else arguments  # the shell's
    if name in ("study", "bench"):
        parse_call(Parser(prog=name), study.STUDIES if name == "study" else bench.BENCHES, arguments)
    elif name == "train":
        assert arguments[0] in TRAININGS
        configs = [arguments[place + 1] for place, word in enumerate(arguments) if word == "--config"]
        assert [config for config in configs if config.startswith("configs/") and not (root / config).is_file()] == []
    elif (name, *arguments[:1]) == ("data", "tokenize"):
        tokenizing.build_parser().parse_args(arguments[1:])
    else:
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        parser(name).parse_args(own)


@functools.cache
def parser(name: str) -> ArgumentParser:
    """The parser of a command."""
    return importlib.import_module(f"scripts.{name}").build_parser()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}-{line[:40]}" for page, line in LINES])
def test_the_command_parses(page: str, line: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    name, *arguments = words(line)
    assert name in COMMANDS, page
    parse(name, arguments, root)


@pytest.mark.long
@pytest.mark.parametrize("line", [line for _, line in LINES if line.startswith("train ")])
def test_the_options_of_a_training_are_there(line: str, root: Path) -> None:
    """Composed as the command would, and printed instead of run."""
    command = [sys.executable, "-m", "scripts.train", *words(line)[1:], "--print_config"]
    if MISSING in line:
        pytest.skip(f"{MISSING} is what another command writes")
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "class_path" in ended.stdout


def test_a_command_that_is_wrong_is_found(root: Path) -> None:
    with pytest.raises((SystemExit, ValueError)):
        parse("evaluate", ["runs/a", "--setps", "10"], root)
    with pytest.raises(AssertionError):
        parse("train", ["fit", "--config", "configs/experiment/nothing.yaml"], root)


def test_many_commands_are_seen() -> None:
    assert len(LINES) > 60
