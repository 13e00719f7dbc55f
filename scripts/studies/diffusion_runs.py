"""VDM, DiffEnc without parameters and DiffEnc: three models from one training configuration, the last one's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.studies.training_run import TrainingRun, as_arguments

# What makes each model of the configuration of a DiffEnc; score network, data and training stay the same.
MODELS: dict[str, dict[str, Any]] = {
    "VDM": {"model.class_path": "lightning_modules.VariationalDiffusion"},
    "NT": {"model.init_args.encoder": None, "model.init_args.lean": False},
    "DiffEnc": {},
}
ROOT = Path(__file__).resolve().parents[2]
COMPARED = ("model", "data", "trainer.precision", "trainer.gradient_clip_val")


@dataclass(frozen=True)
class DiffusionRun(TrainingRun):
    """One of the ``MODELS``, trained with one seed."""

    config: Path
    model: str
    seed: int
    steps: int

    def __str__(self) -> str:
        return f"{self.model}, seed {self.seed}, {self.steps} steps"

    def folder(self, out: Path) -> Path:
        return out / f"{self.model.lower()}_seed{self.seed}"

    def arguments(self) -> list[str]:
        return ["--config", str(self.config), *as_arguments({"seed_everything": self.seed, **MODELS[self.model]})]

    def settings(self) -> dict[str, Any]:
        """What the configuration says; a VDM's own says nothing of encoders, and so nothing is asked of them."""
        said = flattened(read_yaml(self.config)) | MODELS[self.model]
        return {name: value for name, value in said.items() if name.startswith(COMPARED)}

    def settings_of(self, folder: Path, hparams: dict[str, Any]) -> dict[str, Any]:
        return flattened(read_yaml(folder / "config.yaml"))


def located(config: Path) -> Path:
    """The file itself, or the project's own of that name."""
    return config if config.is_file() or not (ROOT / config).is_file() else ROOT / config


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a configuration file; raises FileNotFoundError naming it where there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration {path}")
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def flattened(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names: ``{"model.init_args.levels": 17}``."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
