"""Siblings on the radial data, a training for each number of labels K and width."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likeness.measures.threads import threads_for
from scripts.studies.training_run import TrainingRun, as_arguments

BATCH_SIZE = 128


@dataclass(frozen=True)
class SiblingRun(TrainingRun):
    """``seeds`` classifiers of paper A's synthetic experiments: f and g are MLPs of one width, M = 2, Adam."""

    num_classes: int
    width: int
    seeds: int
    steps: int
    learning_rate: float

    def __str__(self) -> str:
        return f"K = {self.num_classes}, width {self.width}, {self.seeds} seeds, {self.steps} steps"

    def folder(self, out: Path) -> Path:
        return out / f"K{self.num_classes}_width{self.width}"

    def threads(self) -> AbstractContextManager[None]:
        return threads_for(self.seeds * BATCH_SIZE * self.width)

    def arguments(self) -> list[str]:
        networks = ("embedding", "unembedding")
        options: dict[str, Any] = {
            "seed_everything": 0,
            "model.init_args.num_members": self.seeds,
            **{f"model.init_args.{network}.init_args.width": self.width for network in networks},
            "model.init_args.optimizer.init_args.lr": self.learning_rate,
            "data.init_args.num_classes": self.num_classes,
            "data.init_args.batch_size": BATCH_SIZE,
        }
        configs = ["--config", "configs/model/siblings_mlp.yaml", "--config", "configs/data/radial.yaml"]
        return [*configs, *as_arguments(options)]

    def settings(self) -> dict[str, Any]:
        return {
            "num_classes": self.num_classes,
            "width": self.width,
            "seeds": self.seeds,
            "learning_rate": self.learning_rate,
        }

    def settings_of(self, folder: Path, hparams: dict[str, Any]) -> dict[str, Any]:
        embedding, optimizer = (hparams.get(name, {}).get("init_args", {}) for name in ("embedding", "optimizer"))
        return {
            "num_classes": hparams.get("num_classes"),
            "width": embedding.get("width"),
            "seeds": hparams.get("num_members"),
            "learning_rate": optimizer.get("lr"),
        }
