"""Completion in real shells: bash with words as readline hands them over, zsh at a terminal, fish by its own door."""

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytorch_lightning.cli import LightningCLI

from scripts import completion
from scripts.completion import shells, words
from scripts.main import COMMANDS

Complete = Callable[..., list[str]]


@pytest.fixture(scope="module")
def known() -> dict[str, words.Words]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LightningCLI, "subcommands", lambda: {"fit": {"model", "datamodule"}})  # each takes a second
        return dict(words.all_words(["train", "evaluate", "data", "hubness", "bench"]))


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def complete(
    request: pytest.FixtureRequest, known: dict[str, words.Words], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Complete]:
    """What a shell proposes for the last word of a line; it stands in a folder that holds ``a_file`` alone."""
    shell = shutil.which(request.param)
    if shell is None:
        pytest.skip(f"there is no {request.param} here")
    script = tmp_path_factory.mktemp(request.param) / "likeness"
    script.write_text(shells.SCRIPTS[request.param](known))
    folder = tmp_path_factory.mktemp("folder")
    (folder / "a_file").touch()
    if request.param == "zsh":
        with Zsh(shell, script, folder) as zsh:
            yield zsh.complete
    else:
        ask = {"bash": ask_bash, "fish": ask_fish}[request.param]
        yield lambda *line: ask(shell, script, folder, line)


def ask_bash(bash: str, script: Path, folder: Path, line: tuple[str, ...]) -> list[str]:
    """Readline takes ``=`` for a word; names of files are its own matter. There is no PATH: no program is started."""
    program = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _likeness; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    line = tuple(
        part for word in line for part in (word.replace("=", " = ").rstrip().split(" ") if "=" in word else [word])
    )
    command = [bash, "--norc", "-uc", program, "bash", str(script), *line]
    ended = subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True, check=True, cwd=folder)
    assert ended.stderr == ""
    return ended.stdout.split() or [path.name for path in folder.glob(f"{line[-1]}*")]


def ask_fish(fish: str, script: Path, folder: Path, line: tuple[str, ...]) -> list[str]:
    program = 'source $argv[1]; complete --do-complete "$argv[2..]"'
    command = [fish, "--no-config", "-c", program, str(script), *line]
    home = {"HOME": str(folder.parent), "PATH": os.environ["PATH"]}
    ended = subprocess.run(command, env=home, capture_output=True, text=True, check=True, cwd=folder)
    assert ended.stderr == ""
    return [proposal.split("\t")[0].rpartition("=")[2] for proposal in ended.stdout.splitlines()]


class Zsh:
    """An interactive zsh; each match that completion finds is noted in a file."""

    def __init__(self, zsh: str, script: Path, folder: Path) -> None:
        self.notes = script.with_name("notes")
        setup = script.with_name("setup")
        setup.write_text(
            "autoload -Uz compinit; compinit -D -u\n"
            f"source {script}\n"
            f'compadd() {{ local -a hits; builtin compadd -O hits "$@"; print -l -- $hits >> {self.notes}; '
            'builtin compadd "$@"; }\n'
        )
        self.terminal, other_end = pty.openpty()
        environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(script.parent), "PS1": "ready>"}
        self.process = subprocess.Popen(
            [zsh, "-f", "-i"],
            stdin=other_end,
            stdout=other_end,
            stderr=other_end,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        os.close(other_end)
        self._run(f"source {setup}")

    def __enter__(self) -> "Zsh":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)

    def complete(self, *line: str) -> list[str]:
        self.notes.unlink(missing_ok=True)
        os.write(self.terminal, " ".join(line).encode() + b"\t\x15")  # and the line is thrown away
        self._run("")
        return self.notes.read_text().split() if self.notes.exists() else []

    def _run(self, command: str) -> None:
        """Run a command, and wait for the prompt after it: before that, the line would not be zsh's to edit."""
        os.write(self.terminal, f"{command}\nprint do''ne\n".encode())
        shown, end = "", time.monotonic() + 60
        while not re.search("done.*ready>", shown, re.DOTALL):
            if select.select([self.terminal], [], [], 0.01)[0]:
                shown += os.read(self.terminal, 65536).decode(errors="replace")
            assert time.monotonic() < end, f"zsh does not answer: {shown}"


def test_links_between_arguments_are_no_options(known: dict[str, words.Words]) -> None:
    options = known["train fit"].options
    assert {"-c", "--config", "--run_dir", "--trainer.max_epochs"} <= {*options}
    assert [option for option in options if not option.startswith("-") or {*option} & {*" >+"}] == []


def test_bash_knows_that_the_function_is_that_of_likeness(known: dict[str, words.Words]) -> None:
    program = f"{shells.bash_script(known)}\ncomplete -p likeness"
    ended = subprocess.run(["/bin/bash", "--norc", "-ec", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "complete -o default -F _likeness likeness\n"


@pytest.mark.parametrize(
    ("line", "proposed"),
    [
        (["hub"], ["hubness"]),
        (["hubness", ""], ["analyse", "compare", "lm", "reduce"]),
        (["hubness", "reduce", "--eng"], ["--engine"]),
        (["hubness", "reduce", "--engine", ""], ["flat", "hnsw"]),
        (["hubness", "reduce", "--engine=h"], ["hnsw"]),
        (["hubness", "reduce", "--engine="], ["flat", "hnsw"]),
        (["hubness", "analyse", "--eng"], []),
        (["evaluate", "--rat"], ["--ratio"]),
        (["evaluate", "--ratio", ""], ["fitted", "learned", "one"]),
        (["evaluate", "runs/demo", "--split", "t"], ["test", "train"]),
        (["evaluate", "--deb"], ["--debug"]),
        (["evaluate", "a"], ["a_file"]),
        (["evaluate", "b"], []),
        (["train", "f"], ["fit"]),
        (["train", "fit", "--trainer.max_e"], ["--trainer.max_epochs"]),
        (["train", "fit", "--config", "train", "--auto"], ["--auto_resume"]),
        (["data", "tokenize", "--vocab"], ["--vocab_size"]),
        (["bench", "loss", "--net"], ["--network"]),
    ],
    ids=lambda given: " ".join(given),
)
def test_words_are_completed(complete: Complete, line: list[str], proposed: list[str]) -> None:
    assert sorted({*complete("likeness", *line)}) == proposed


@pytest.mark.parametrize("shell", [*shells.SCRIPTS])
def test_all_commands_are_proposed(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "all_words", lambda commands: [("", words.Words([*commands], {}))])
    assert completion.main([shell]) == 0
    script = capsys.readouterr().out
    assert f"likeness completion {shell}" in script
    assert " ".join(COMMANDS) in script
