"""``~`` at the beginning of a path is the user's home directory, in every command's options."""

from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from scripts import (
    compare,
    dashboard,
    evaluate,
    export_encoder,
    hubness,
    import_published,
    inspect_head,
    sample,
    sweep,
)
from scripts.cli.entry_point import Parser, UsageError, with_home
from scripts.cli.functions import parse_call
from scripts.study import STUDIES

HOME = "/anywhere/me"


@pytest.fixture
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", HOME)


@pytest.mark.usefixtures("_home")
def test_the_home_directory_is_found_at_any_depth() -> None:
    config = Namespace(run_dir="~/x", data=Namespace(roots=["~", "a~/b"], kind={"file": "~/y"}), steps=3)  # type: ignore[no-untyped-call]
    found = with_home(config)
    assert found.as_dict() == {
        "run_dir": "/anywhere/me/x",
        "data": {"roots": ["/anywhere/me", "a~/b"], "kind": {"file": "/anywhere/me/y"}},
        "steps": 3,
    }


def test_without_a_home_directory_a_tilde_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what it does without HOME and a passwd entry
    with pytest.raises(UsageError, match="~/x is in your home directory, and there is none"):
        with_home({"run_dir": "~/x"})


def given(config: Any) -> list[str]:
    """The plain values of nested options that are texts or paths."""
    if isinstance(config, Namespace):
        config = vars(config)
    if isinstance(config, dict):
        return [text for value in config.values() for text in given(value)]
    if isinstance(config, list | tuple):
        return [text for value in config for text in given(value)]
    return [str(config)] if isinstance(config, str | Path) else []


COMMANDS = [
    (compare.build_parser, "~/1 ~/2#3 --data=~/3 --out ~/4", 4),
    (dashboard.build_parser, "~/1", 1),
    (evaluate.build_parser, "~/1 --data ~/2 --features=~/3 --out=~/4", 4),
    (export_encoder.build_parser, "~/1 ~/2", 2),
    (
        hubness.build_parser,
        "analyse ~/1 --labels ~/2 --texts=~/3 --queries ~/4 --query_labels=~/5 --query_texts ~/6",
        6,
    ),
    (hubness.build_parser, "compare ~/1 --encoder=~/2 --bank ~/3 --out=~/4", 4),
    (hubness.build_parser, "reduce ~/1 --method base --encoder ~/2 --bank=~/3 --out ~/4", 4),
    (import_published.build_parser, "close-dist ~/1 ~/2 --out=~/3", 3),
    (import_published.build_parser, "diffenc --params ~/1 --model-config=~/2 --out ~/3", 3),
    (inspect_head.build_parser, "~/1 --labels=~/2 --features ~/3 --data ~/4 --save_equivalent=~/5.npy --out ~/6", 6),
    (sample.build_parser, "~/1 --out=~/2", 2),
    (sweep.build_parser, "~/1", 1),
]


@pytest.mark.parametrize(
    ("build", "words", "paths"), COMMANDS, ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.usefixtures("_home")
def test_paths_of_commands(build: Any, words: str, paths: int) -> None:
    found = [text for text in given(build().parse_args(words.split())) if HOME in text or "~" in text]
    assert sorted(text[: len(HOME) + 2] for text in found) == [f"{HOME}/{number}" for number in range(1, paths + 1)]


@pytest.mark.parametrize("words", ["constructed --out=~/1", "loss_difference ~/2 --data ~/3 --out ~/1"])
@pytest.mark.usefixtures("_home")
def test_paths_of_functions(words: str) -> None:
    call = parse_call(Parser(prog="likeness study"), STUDIES, words.split())
    assert call.options["out"] == Path(HOME, "1")
    assert not [text for text in given([*call.arguments, call.options]) if text.startswith("~")]


@pytest.mark.usefixtures("_home")
def test_labels_are_no_paths() -> None:
    """A tokenizer has a token ``~``."""
    parsed = inspect_head.build_parser().parse_args(["head.npy", "--pair", "~", "~/", "--neighbours", "~"])
    assert (parsed.pair, parsed.neighbours) == (["~", "~/"], ["~"])
