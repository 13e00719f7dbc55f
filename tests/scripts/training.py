"""Trainings through the command, in the process of the test."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from scripts.cli.entry_point import run_command
from scripts.train import main

DIGITS = ("--config", "configs/data/digits.yaml", "--data.batch_size", "64")
MODEL = ("--model", "lightning_modules.SoftmaxClassifier", "--model.embedding.width", "8")
SHORT = (
    *("--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"),
    *("--trainer.limit_val_batches", "1", "--trainer.num_sanity_val_steps", "0", "--trainer.log_every_n_steps", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
)


class Training:
    """The command in this process, in an empty run directory."""

    def __init__(self, run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.run_dir = run_dir
        self.capsys = capsys

    def __call__(self, subcommand: str, *options: str) -> tuple[int, str]:
        """Exit status, and what stands on standard error."""
        return status(subcommand, self.run_dir, *options), self.capsys.readouterr().err

    @property
    def checkpoint(self) -> dict[str, Any]:
        return torch.load(self.run_dir / "checkpoints" / "last.ckpt", weights_only=True)

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load((self.run_dir / "config.yaml").read_text())


def status(subcommand: str, run_dir: Path, *options: str) -> int:
    """Exit status of the command, which trains the model for two batches."""
    with pytest.raises(SystemExit) as end:
        run_command(main, [subcommand, *MODEL, *DIGITS, *SHORT, "--run_dir", str(run_dir), *options])
    assert isinstance(end.value.code, int)
    return end.value.code


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file; the lock is taken and let go by every start."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
