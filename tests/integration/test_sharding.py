"""A sentence encoder whose weights are divided among ranks trains as one that every rank holds whole."""

from pathlib import Path

import pytest
import torch

from lightning_modules.checkpoints import load_module
from tests.integration.commands import QUIET, command
from tests.integration.test_torchrun import TWO
from tests.integration.test_world_sizes import logged

BASE = (
    *("--config", "tests/integration/sentence.yaml", *QUIET, "--trainer.accelerator", "cpu"),
    *("--trainer.callbacks", "null", "--trainer.log_every_n_steps", "1", "--trainer.num_sanity_val_steps", "0"),
)
SHARDED = ("--config", "configs/trainer/fsdp.yaml")


def test_sharded_training_is_resumed_and_equals_ddp(tmp_path: Path) -> None:
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    for options in (
        (*BASE, "--run_dir", str(whole), "--trainer.max_steps", "5"),
        (*BASE, *SHARDED, "--run_dir", str(shards), "--trainer.max_steps", "3"),
        (*BASE, *SHARDED, "--run_dir", str(shards), "--trainer.max_steps", "5", "--auto_resume"),
    ):
        ended = command("train", "fit", *options, launcher=TWO)
        assert ended.status == 0, ended.output
    expected, found = logged(whole), logged(shards)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-5)
    of_ddp, of_shards, exported = (load_module(path) for path in (whole, shards, shards / "weights.safetensors"))
    for name, weight in of_ddp.state_dict().items():
        torch.testing.assert_close(of_shards.state_dict()[name], weight, rtol=1e-4, atol=1e-5)
        assert torch.equal(exported.state_dict()[name], of_shards.state_dict()[name])
