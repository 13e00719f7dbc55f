"""The trainings of a study: each a run directory of the training command that a later call continues."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from lightning_modules.checkpoint_files import read_checkpoint
from lightning_modules.checkpoints import LAST_IN_RUN
from scripts import train
from scripts.cli.entry_point import Stopped


class TrainingRun(ABC):
    """One training of ``steps`` steps."""

    steps: int

    @abstractmethod
    def folder(self, out: Path) -> Path:
        """The run directory."""

    @abstractmethod
    def arguments(self) -> list[str]:
        """The configurations of the run and its options, all but how and how long it is trained."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What tells this run from one of another setting, by name."""

    @abstractmethod
    def settings_of(self, folder: Path, hparams: dict[str, Any]) -> dict[str, Any]:
        """The same of the run in ``folder``, whose checkpoint has these hyper-parameters; names may be missing."""

    def threads(self) -> AbstractContextManager[None]:
        """How many threads it is trained with: as many as torch would take."""
        return nullcontext()

    def ensure_trained(self, out: Path, device: str) -> None:
        """Train, continue from the last checkpoint, or leave alone what has all its steps.

        Raises ValueError naming the setting in which a run that is there differs, Stopped on Ctrl-C and SIGTERM.
        """
        folder = self.folder(out)
        begun: list[str] = []
        if (folder / LAST_IN_RUN).is_file():
            if self._steps_done(folder) == self.steps:
                return
            begun = ["--ckpt_path", "last"]
        elif folder.exists():  # stopped before its first checkpoint: nothing is lost
            begun = ["--overwrite", "true"]
        try:
            with self.threads():
                train.main(["fit", *self.arguments(), *self._training(folder, device), *begun])
        except Stopped as stop:
            raise Stopped(f"stopped in {folder}; the same command continues", stop.status) from stop

    def _training(self, folder: Path, device: str) -> list[str]:
        return as_arguments(
            {
                "run_dir": folder,
                "trainer.max_steps": self.steps,
                "trainer.max_epochs": -1,
                "trainer.accelerator": {"cuda": "gpu"}.get(device, device),
                "trainer.devices": 1,
                "trainer.enable_model_summary": False,
                "trainer.enable_progress_bar": sys.stderr.isatty(),
                "trainer.num_sanity_val_steps": 0,
            }
        )

    def _steps_done(self, folder: Path) -> int:
        """Of a run with the same settings; raises ValueError where one differs or it was trained for longer."""
        checkpoint = folder / LAST_IN_RUN
        content = read_checkpoint(checkpoint, mmap=True)
        found, done = self.settings_of(folder, content.get("hyper_parameters", {})), int(content["global_step"])
        for name, value in self.settings().items():
            if name in found and found[name] != value:
                raise ValueError(f"{checkpoint} is of {name} {found[name]}, not {value}: choose another --out")
        if done > self.steps:
            raise ValueError(f"{checkpoint} has done {done} steps, more than {self.steps}: choose another --out")
        return done


def as_arguments(options: dict[str, Any]) -> list[str]:
    """Options by name as words of a command line, with values as YAML has them."""
    return [word for name, value in options.items() for word in (f"--{name}", _word(value))]


def _word(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def ensure_all_trained(runs: Sequence[TrainingRun], out: Path, device: str) -> None:
    """Train what is not trained yet, one run after another; see :meth:`TrainingRun.ensure_trained`."""
    for number, run in enumerate(runs, start=1):
        print(f"likeness: run {number} of {len(runs)}: {run}", file=sys.stderr, flush=True)
        run.ensure_trained(out, device)


def given(**options: Any) -> dict[str, Any]:
    """The options of a study that the command line names; the others are None, and keep their setting's value."""
    return {name: value for name, value in options.items() if value is not None}


def flattened(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names: ``{"model.init_args.levels": 17}``."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
