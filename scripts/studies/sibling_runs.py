"""Siblings on the radial data, each (K, width) a run directory of the training door that a later call continues."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_modules.checkpoint_file import read_checkpoint
from likeness.measures.threads import threads_for
from scripts import train
from scripts.errors import Stopped

BATCH_SIZE = 128


@dataclass(frozen=True)
class SiblingRun:
    """``seeds`` classifiers of paper A's synthetic experiments: f and g are MLPs of one width, M = 2, Adam."""

    num_classes: int
    width: int
    seeds: int
    steps: int
    learning_rate: float

    def __str__(self) -> str:
        return f"K = {self.num_classes}, width {self.width}, {self.seeds} seeds, {self.steps} steps"

    def folder(self, out: Path) -> Path:
        """The run directory."""
        return out / f"K{self.num_classes}_width{self.width}"

    def ensure_trained(self, out: Path, device: str) -> None:
        """Train, continue from the last checkpoint, or leave alone what has all its steps.

        Raises ValueError naming the setting in which a run that is there differs, Stopped on Ctrl-C and SIGTERM.
        """
        folder = self.folder(out)
        last, begun = folder / "checkpoints" / "last.ckpt", []
        if last.is_file():
            if self._steps_done(last) == self.steps:
                return
            begun = ["--ckpt_path", "last"]
        elif folder.exists():  # stopped before its first checkpoint: nothing is lost
            begun = ["--overwrite", "true"]
        try:
            with threads_for(self.seeds * BATCH_SIZE * self.width):
                train.main(["fit", *self._arguments(folder, device), *begun])
        except Stopped as stop:
            raise Stopped(f"stopped in {folder}; the same command continues", stop.status) from stop

    def _arguments(self, folder: Path, device: str) -> list[str]:
        """The run as the training door takes it."""
        networks = ("embedding", "unembedding")
        options: dict[str, Any] = {
            "run_dir": folder,
            "seed_everything": 0,
            "model.init_args.num_members": self.seeds,
            **{f"model.init_args.{network}.init_args.width": self.width for network in networks},
            "model.init_args.optimizer.init_args.lr": self.learning_rate,
            "data.init_args.num_classes": self.num_classes,
            "data.init_args.batch_size": BATCH_SIZE,
            "trainer.max_steps": self.steps,
            "trainer.max_epochs": -1,
            "trainer.accelerator": {"cuda": "gpu"}.get(device, device),
            "trainer.devices": 1,
            "trainer.enable_model_summary": "false",
            "trainer.enable_progress_bar": str(sys.stderr.isatty()).lower(),
            "trainer.num_sanity_val_steps": 0,
        }
        configs = ["--config", "configs/model/siblings_mlp.yaml", "--config", "configs/data/radial.yaml"]
        return [*configs, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]

    def _steps_done(self, checkpoint: Path) -> int:
        """Of a run with the same settings; raises ValueError where one differs or it was trained for longer."""
        content = read_checkpoint(checkpoint, mmap=True)
        found, done = _settings(content.get("hyper_parameters", {})), int(content["global_step"])
        wanted = {
            "num_classes": self.num_classes,
            "width": self.width,
            "seeds": self.seeds,
            "learning_rate": self.learning_rate,
        }
        for name, value in wanted.items():
            if found[name] != value:
                raise ValueError(f"{checkpoint} is of {name} {found[name]}, not {value}: choose another --out")
        if done > self.steps:
            raise ValueError(f"{checkpoint} has done {done} steps, more than {self.steps}: choose another --out")
        return done


def ensure_all_trained(runs: Sequence[SiblingRun], out: Path, device: str) -> None:
    """Train what is not trained yet, one run after another; see :meth:`SiblingRun.ensure_trained`."""
    for number, run in enumerate(runs, start=1):
        print(f"likeness: run {number} of {len(runs)}: {run}", file=sys.stderr, flush=True)
        run.ensure_trained(out, device)


def _settings(hparams: dict[str, Any]) -> dict[str, Any]:
    embedding, optimizer = (hparams.get(name, {}).get("init_args", {}) for name in ("embedding", "optimizer"))
    return {
        "num_classes": hparams.get("num_classes"),
        "width": embedding.get("width"),
        "seeds": hparams.get("num_members"),
        "learning_rate": optimizer.get("lr"),
    }
