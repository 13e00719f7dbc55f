"""The help of every command: a purpose, options that are described, an example that runs; and the exit statuses."""

import importlib
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ActionParser, ArgumentParser
from pytorch_lightning.cli import LightningCLI

from callbacks.run.preemption import OUT_OF_TIME
from likeness.files.errors import DataError
from scripts import bench, hubness, study
from scripts.cli.entry_point import COMMON, INTERRUPT_STATUS, STATUSES, Parser, Stopped, UsageError, run_command
from scripts.cli.examples import EXAMPLES
from scripts.cli.functions import parse_call
from scripts.data import tokenizing
from scripts.main import COMMANDS, dispatch, usage

FUNCTIONS = {"study": study.STUDIES, "bench": bench.BENCHES}
SUBCOMMANDS = {
    **FUNCTIONS,
    "hubness": hubness.COMMANDS,
    "import_published": ("close-dist", "diffenc", "mulan"),
    "train": LightningCLI.subcommands(),
    "data": ("tokenize",),
}
ALL = [*COMMANDS, *(f"{command} {name}" for command, names in SUBCOMMANDS.items() for name in names)]
WRITTEN = {  # by `make demo`, and by other examples
    *("runs/demo", "runs/demo/config.yaml", "runs/demo_diffenc"),
    *("runs/encoder", "runs/samples/samples.npz", "runs/digits.stream"),
}


def test_every_command_and_subcommand_has_an_example() -> None:
    assert sorted(EXAMPLES) == sorted(ALL)


@pytest.mark.parametrize("command", [name for name in ALL if name.split()[0] != "train" or name == "train"])
def test_help_says_what_for_and_how(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        dispatch([*command.split(), "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    parts = shown.split("\n\n")
    assert parts[0].startswith(f"usage: likeness {command.split()[0]}")
    assert len(parts[1].split()) > 3
    assert parts[1].count("\n") < 4
    assert parts[-2:] == [f"example:\n  likeness {command} {EXAMPLES[command]}", f"{COMMON}\n"]


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in (*FUNCTIONS, "train")])
def test_every_option_is_described(command: str) -> None:
    parser = importlib.import_module(f"scripts.{command}").build_parser()
    assert [name for name, text in options(parser) if not text] == []


def options(parser: ArgumentParser) -> Iterator[tuple[str, str | None]]:
    """Each option of a parser and of its subcommands, with its help."""
    for action in parser._actions:
        if isinstance(action.choices, dict) and not isinstance(action, ActionParser):
            for subparser in action.choices.values():
                yield from options(subparser)
        else:
            yield f"{parser.prog} {action.dest}", action.help


@pytest.mark.parametrize("command", [name for name in EXAMPLES if not name.startswith("train")])
def test_examples_parse(command: str) -> None:
    parse([*command.split(), *shlex.split(EXAMPLES[command])])


def parse(words: list[str]) -> Any:
    """The options of a command line that is not run."""
    name, *rest = words
    if name in FUNCTIONS:
        common = getattr(importlib.import_module(f"scripts.{name}"), "_add_common", lambda command: None)
        return parse_call(Parser(prog=f"likeness {name}"), FUNCTIONS[name], rest, common)
    if words[:2] == ["data", "tokenize"]:
        return tokenizing.build_parser().parse_args(rest[1:])
    return importlib.import_module(f"scripts.{name}").build_parser().parse_args(rest)


def test_an_example_that_does_not_parse_is_seen() -> None:
    with pytest.raises(SystemExit):
        parse(["evaluate", "runs/demo", "--depth", "10"])


def test_the_example_of_a_training_composes(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as end:
        dispatch(["train", *shlex.split(EXAMPLES["train"]), "--print_config"])
    assert end.value.code == 0
    assert "run_dir: runs/a" in capsys.readouterr().out


def test_files_in_examples_are_there(root: Path) -> None:
    """Those that are read: what ``--out`` and ``--run_dir`` name is written, and names in capitals are the user's."""
    read = {
        word.partition("#")[0]
        for line in EXAMPLES.values()
        for before, word in zip(["", *line.split()], line.split(), strict=False)
        if "/" in word and before not in ("--out", "--run_dir") and not word.startswith("hf:")
    }
    outputs = {"runs/sentence_transformer", "runs/digits.npy"}  # the last word of export_encoder and decompress
    assert {path for path in read - WRITTEN - outputs if not (root / path).exists()} == set()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "0"),
        (RuntimeError("x"), "1"),
        (UsageError("x"), "2"),
        (DataError("x"), "2"),
        (Stopped("x", OUT_OF_TIME), "75"),
    ],
)
def test_commands_end_as_the_help_says(error: Exception | None, status: str) -> None:
    def main(argv: object) -> None:
        if error is not None:
            raise error

    with pytest.raises(SystemExit) as end:
        run_command(main, [])
    assert str(end.value.code) == status
    assert status in STATUSES


def test_the_signals_have_the_numbers_that_the_help_says() -> None:
    text = STATUSES["128 + N"].replace("Ctrl-C", "SIGINT")
    assert INTERRUPT_STATUS == 130
    named = re.findall(r"(\d+) (SIG\w+)", text)
    assert [int(status) for status, name in named] == [128 + signal.Signals[name] for _, name in named]
    assert {name for _, name in named} == {"SIGHUP", "SIGINT", "SIGUSR1", "SIGTERM"}


def test_exit_statuses_are_in_the_help_and_on_the_page(root: Path) -> None:
    page = (root / "docs" / "reference" / "commands.md").read_text()
    assert re.findall(r"^\| (\d+|128 \+ N) \|", page, re.M) == list(STATUSES)
    for status, meaning in STATUSES.items():
        assert f"  {status:18s}{meaning}" in usage()
