"""Fixtures that tests of several commands share."""

from pathlib import Path

import pytest

from tests.scripts.training import Training


@pytest.fixture
def train(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Training:
    monkeypatch.chdir(root)
    return Training(tmp_path / "run", capsys)
