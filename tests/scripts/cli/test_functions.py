"""Subcommands that are functions: their options, and what is imported for them."""

from collections.abc import Sequence
from typing import Literal

import pytest

from scripts.cli.entry_point import Parser
from scripts.cli.functions import Subcommand, parse_call


def measure(
    runs: Sequence[str] = ("runs/a",),
    /,
    *,
    widths: Sequence[int] | None = None,
    pair: tuple[str, str] = ("0", "1"),
    small: bool = False,
    share: float = 0.5,
    split: Literal["test", "val"] = "test",
) -> None:
    """Measure something.

    Args:
        runs: Folders of runs.
        widths: Of the networks.
        pair: Two labels.
        small: Less of everything.
        share: Of the samples.
        split: The split that is read.
    """


SUBCOMMANDS = {
    "measure": Subcommand(f"{__name__}.measure", "measures"),
    "absent": Subcommand("no_such_package.function", "is not at hand"),
}
DEFAULTS = {"widths": None, "pair": ["0", "1"], "small": False, "share": 0.5, "split": "test"}


@pytest.mark.parametrize(
    ("words", "runs", "changed"),
    [
        ([], ["runs/a"], {}),
        (["b", "c"], ["b", "c"], {}),
        (["b", "--widths", "4", "5"], ["b"], {"widths": [4, 5]}),
        (["--widths"], ["runs/a"], {"widths": []}),
        (["--small"], ["runs/a"], {"small": True}),
        (["--small", "true", "--share", "0.1"], ["runs/a"], {"small": True, "share": 0.1}),
        (["--no_small", "--pair", "3", "8"], ["runs/a"], {"pair": ["3", "8"]}),
        (["--split", "val"], ["runs/a"], {"split": "val"}),
    ],
)
def test_options_are_the_arguments(words: list[str], runs: list[str], changed: dict[str, object]) -> None:
    call = parse_call(Parser(prog="likeness tool"), SUBCOMMANDS, ["measure", *words])
    assert call.function is measure
    assert list(call.arguments[0]) == runs
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in call.options.items()}
    assert options == DEFAULTS | changed


def test_common_options_are_kept_apart() -> None:
    def add(command: Parser) -> None:
        command.add_argument("--threads", type=int)

    call = parse_call(Parser(prog="likeness tool"), SUBCOMMANDS, ["measure", "--threads", "2"], add)
    assert call.common == {"threads": 2}
    assert call.options.keys() == DEFAULTS.keys()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["measures"], "measures"),
        (["measure", "--width", "3"], "--width"),
        (["measure", "--widths", "wide"], "wide"),
        (["measure", "--pair", "3"], "--pair"),
        (["measure", "--split", "train"], "train"),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_call(Parser(prog="likeness tool"), SUBCOMMANDS, words)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_help_has_what_the_docstring_says(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_call(Parser(prog="likeness tool"), SUBCOMMANDS, ["measure", "--help"])
    shown = capsys.readouterr().out
    for meaning in ("Folders of runs.", "Of the networks.", "Two labels.", "Less of everything.", "Of the samples."):
        assert meaning in shown
