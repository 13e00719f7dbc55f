"""Fixtures that tests of several commands share."""

import shutil
from pathlib import Path

import pytest

from tests.scripts.training import Training, status


@pytest.fixture
def train(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Training:
    monkeypatch.chdir(root)
    return Training(tmp_path / "run", capsys)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a training that is done."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert status("fit", run_dir) == 0
    return run_dir


@pytest.fixture
def trained(train: Training, finished: Path) -> Training:
    """The command where such a run is."""
    shutil.copytree(finished, train.run_dir)
    return train
