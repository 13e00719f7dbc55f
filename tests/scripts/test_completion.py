"""Completion in a real bash, of words as readline hands them over."""

import subprocess
from pathlib import Path

import pytest
from pytorch_lightning.cli import LightningCLI

from scripts.completion import all_words, bash_script
from scripts.main import COMMANDS


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "likeness"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LightningCLI, "subcommands", lambda: {"fit": {"model", "datamodule"}})  # each takes a second
        file.write_text(bash_script(dict(all_words(["train", "evaluate", "data", "hubness", "bench"]))))
    return file


def complete(script: Path, *words: str) -> list[str]:
    """What bash proposes for the last word. There is no PATH: completion starts no program."""
    program = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _likeness; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = ["/bin/bash", "--norc", "-uc", program, "bash", str(script), *words]
    ended = subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout.split()


def test_bash_knows_that_the_function_is_that_of_likeness(script: Path) -> None:
    program = 'source "$0"; complete -p likeness'
    ended = subprocess.run(["/bin/bash", "--norc", "-ec", program, script], capture_output=True, text=True, check=True)
    assert ended.stdout == "complete -o default -F _likeness likeness\n"


@pytest.mark.parametrize(
    ("words", "proposed"),
    [
        (["hub"], ["hubness"]),
        (["hubness", ""], ["analyse", "reduce", "compare", "lm"]),
        (["hubness", "reduce", "--eng"], ["--engine"]),
        (["hubness", "reduce", "--engine", ""], ["flat", "hnsw"]),
        (["hubness", "reduce", "--engine", "=", "h"], ["hnsw"]),
        (["hubness", "reduce", "--engine", "="], ["flat", "hnsw"]),
        (["hubness", "analyse", "--eng"], []),
        (["evaluate", "--rat"], ["--ratio"]),
        (["evaluate", "--ratio", ""], ["one", "learned", "fitted"]),
        (["evaluate", "runs/demo", "--split", "t"], ["train", "test"]),
        (["evaluate", "--deb"], ["--debug"]),
        (["evaluate", "runs/"], []),
        (["train", "f"], ["fit"]),
        (["train", "fit", "--trainer.max_e"], ["--trainer.max_epochs"]),
        (["train", "fit", "--config", "train", "--auto"], ["--auto_resume"]),
        (["data", "tokenize", "--vocab"], ["--vocab_size"]),
        (["bench", "loss", "--net"], ["--network"]),
    ],
    ids=lambda given: " ".join(given),
)
def test_words_are_completed(script: Path, words: list[str], proposed: list[str]) -> None:
    assert complete(script, "likeness", *words) == proposed


def test_all_commands_are_proposed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from scripts import completion

    asked: list[str] = []
    monkeypatch.setattr(completion, "all_words", lambda commands: asked.extend(commands) or {})
    assert completion.main(["bash"]) == 0
    assert asked == [*COMMANDS]
    assert "complete -o default" in capsys.readouterr().out
