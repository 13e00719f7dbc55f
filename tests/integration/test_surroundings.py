"""Training where nothing is as usual: no home, no name of the user, another folder, any terminal and locale."""

import os
import pty
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Never

import pytest

from scripts.cli.entry_point import run_command
from scripts.train import main
from tests.integration.commands import ROOT, TIMEOUT

# Of a container's user that no file of passwords knows.
NAMELESS = """
import pwd, runpy, sys
def unknown(key): raise KeyError(key)
pwd.getpwuid = pwd.getpwnam = unknown
sys.argv = ["train", *sys.argv[1:]]
runpy.run_module("scripts.train", run_name="__main__")
"""
BARE = {
    "PATH": "/usr/bin:/bin",
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "TMPDIR": "/nowhere/at/all",
    "COLUMNS": "20",
}
LINE = (
    *("fit", "--config", "configs/experiment/demo.yaml", "--run_dir", "run", "--trainer.accelerator", "cpu"),
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3", "--trainer.check_val_every_n_epoch", "1"),
)


def train(folder: Path, environment: dict[str, str], *options: str, terminal: bool) -> tuple[int, str]:
    """Exit status and output of the command, started in ``folder``, perhaps on a terminal."""
    screen, output = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", NAMELESS, *LINE, *options], cwd=folder, env=environment, stdout=output, stderr=output
    )
    os.close(output)
    shown = b""
    try:
        while block := os.read(screen, 4096):
            shown += block
    except OSError:
        pass  # how a terminal says that nobody writes to it any more
    os.close(screen)
    return process.wait(TIMEOUT), shown.decode(errors="replace")


@pytest.mark.parametrize(
    ("own", "terminal"),
    [
        pytest.param({"TERM": "dumb", "NO_COLOR": "1"}, False, marks=pytest.mark.long),
        pytest.param({"TERM": "xterm", "PYTHONIOENCODING": "latin-1"}, True, marks=pytest.mark.long),
    ],
)
def test_a_training_needs_nothing_of_its_surroundings(own: dict[str, str], terminal: bool, tmp_path: Path) -> None:
    status, output = train(tmp_path, BARE | own, terminal=terminal)
    assert status == 0, output
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_a_home_that_is_not_there_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(key: object) -> Never:
        raise KeyError(key)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(SystemExit) as end:
        run_command(main, [*LINE, "--run_dir", "~/run"])
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "likeness: error: ~/run is in your home directory, and there is none: HOME is not set"
    )
    assert list(tmp_path.iterdir()) == []
