"""Checkpoints are whole or not there, and plain."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.run.checkpoints import AtomicCheckpointIO
from lightning_modules.checkpoint_files import CheckpointError, read_checkpoint

CONTENT: dict[str, Any] = {"pytorch-lightning_version": "2.6.6", "state_dict": {"w": torch.arange(3.0)}}


def test_paths_become_strings_and_the_file_loads_safely(tmp_path: Path) -> None:
    target = tmp_path / "new" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({**CONTENT, "callbacks": {"c": [Path("a/b")]}}, target)
    found = AtomicCheckpointIO().load_checkpoint(target)
    assert found["callbacks"] == {"c": ["a/b"]}
    assert torch.equal(found["state_dict"]["w"], torch.arange(3.0))
    assert [path.name for path in target.parent.iterdir()] == ["last.ckpt"]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, target)
    before = target.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"last\.ckpt could not be written: .*No space left"):
        AtomicCheckpointIO().save_checkpoint({**CONTENT, "epoch": 2}, target)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path: Path, kept: float) -> None:
    target = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, target)
    raw = target.read_bytes()
    target.write_bytes(raw[: kept if isinstance(kept, int) else int(kept * len(raw))])
    with pytest.raises(CheckpointError, match=r"last\.ckpt is (refused: it is )?truncated"):
        read_checkpoint(target)


def test_a_checkpoint_that_could_execute_code_is_refused(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({**CONTENT, "attack": Attack()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"evil\.ckpt is refused"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "plain.pt")
    with pytest.raises(CheckpointError, match=r"plain\.pt is not a Lightning checkpoint"):
        read_checkpoint(tmp_path / "plain.pt")
