"""A checkpoint whose bytes changed after it was written is found out."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from callbacks.run.checkpoints import AtomicCheckpointIO
from lightning_modules.checkpoint_files import CheckpointError, damage, read_checkpoint

CONTENT = {"pytorch-lightning_version": "2.6.6", "state_dict": {"w": torch.arange(100.0)}}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("sealed") / "one.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    return path


def test_a_sealed_checkpoint_reads_as_any_other(sealed: Path) -> None:
    assert damage(sealed) is None
    for content in (read_checkpoint(sealed), read_checkpoint(sealed, mmap=True), torch.load(sealed, weights_only=True)):
        assert torch.equal(content["state_dict"]["w"], torch.arange(100.0))


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_every_altered_byte_is_found(sealed: Path, where: float, mask: int) -> None:
    raw = bytearray(sealed.read_bytes())
    raw[int(where * len(raw))] ^= mask
    altered = sealed.with_name("altered.ckpt")
    altered.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"altered\.ckpt is"):
        read_checkpoint(altered)


def test_every_altered_byte_of_the_seal_is_found(sealed: Path) -> None:
    raw = sealed.read_bytes()
    altered = sealed.with_name("altered.ckpt")
    for position in range(len(raw) - 110, len(raw)):
        for bit in (1, 128):
            altered.write_bytes(raw[:position] + bytes([raw[position] ^ bit]) + raw[position + 1 :])
            with pytest.raises(CheckpointError):
                read_checkpoint(altered)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_found(sealed: Path, kept: float) -> None:
    raw = sealed.read_bytes()
    cut = sealed.with_name("cut.ckpt")
    cut.write_bytes(raw[: int(kept * len(raw))])
    with pytest.raises(CheckpointError, match=r"cut\.ckpt is"):
        read_checkpoint(cut)


def test_files_of_other_programs_need_no_seal(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "plain.ckpt")
    assert damage(tmp_path / "plain.ckpt") is None
    assert read_checkpoint(tmp_path / "plain.ckpt")["state_dict"]["w"].sum() == 4950


def test_what_was_last_stays_as_the_one_before(tmp_path: Path) -> None:
    writer = AtomicCheckpointIO()
    for epoch in range(3):
        writer.save_checkpoint({**CONTENT, "epoch": epoch}, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["epoch"] == 2
    assert read_checkpoint(tmp_path / "previous.ckpt")["epoch"] == 1
    assert len(list(tmp_path.iterdir())) == 2
