"""The encoders of the hubness grid: those that are trained for it, and what tables say of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, get_args

from lightning_modules.checkpoint_file import LAST, read_checkpoint
from likeness.measures.samples import require_one_of
from likeness.networks.pooling import HeadName
from likeness.sentence_losses import SentenceLossName
from scripts.studies.diffusion_runs import located, read_yaml
from scripts.studies.hubness_grid_data import UNAVAILABLE, Skipped
from scripts.studies.training_run import TrainingRun, as_arguments, ensure_all_trained
from scripts.text_encoding import is_of_this_project

STSB = Path("configs/experiment/hubness_stsb.yaml")
BEST = "best.ckpt"  # on the validation split, of a training that selects


class Family(NamedTuple):
    """Encoders of one training configuration that differ in head, loss and seed."""

    config: Path
    pretrained: str | None = None  # the model that is trained further, by its name; None is a new one


FAMILIES = {
    "small": Family(Path("configs/experiment/hubness_docstrings.yaml")),
    "mpnet": Family(STSB, "microsoft/mpnet-base"),
    "distilroberta": Family(STSB, "distilbert/distilroberta-base"),
    "minilm": Family(STSB, "microsoft/MiniLM-L12-H384-uncased"),
}


@dataclass(frozen=True)
class EncoderRun(TrainingRun):
    """One sentence encoder of a family."""

    family: str
    head: str
    loss: str
    seed: int
    steps: int

    def __str__(self) -> str:
        return f"{self.family}, head {self.head}, loss {self.loss}, seed {self.seed}, {self.steps} steps"

    def folder(self, out: Path) -> Path:
        return out / "encoders" / f"{self.family}_{self.head}_{self.loss}_seed{self.seed}"

    def arguments(self) -> list[str]:
        options = {
            "seed_everything": self.seed,
            "model.init_args.head": self.head,
            "model.init_args.loss": self.loss,
            "model.init_args.scheduler.init_args.steps": self.steps,
        }
        if self.pretrained is not None:
            options["model.init_args.encoder.init_args.name"] = self.pretrained
        return ["--config", str(self._config), *as_arguments(options)]

    def settings(self) -> dict[str, Any]:
        own = {"head": self.head, "loss": self.loss, "seed": self.seed, "length of the schedule": self.steps}
        return own if self.pretrained is None else own | {"encoder": self.pretrained}

    def settings_of(self, folder: Path, hparams: dict[str, Any]) -> dict[str, Any]:
        found = {name: hparams[name] for name in ("head", "loss", "seed") if name in hparams}
        scheduler, encoder = ((hparams.get(name) or {}).get("init_args", {}) for name in ("scheduler", "encoder"))
        return found | {"length of the schedule": scheduler.get("steps"), "encoder": encoder.get("name")}

    @property
    def pretrained(self) -> str | None:
        """The model that is trained further."""
        return FAMILIES[self.family].pretrained

    def require_at_hand(self) -> None:
        """Raise one of ``UNAVAILABLE`` where the training's data or the model that it starts from is missing."""
        from likeness.networks import PretrainedTransformer
        from scripts.compare import load_data

        data = load_data(self._config)
        data.prepare_data()
        data.setup("fit")
        if self.pretrained is not None:
            PretrainedTransformer(self.pretrained)

    @property
    def _config(self) -> Path:
        return located(FAMILIES[self.family].config)


@dataclass(frozen=True)
class Training:
    """The encoders that are trained: every family with every head, loss and seed."""

    families: Sequence[str] = ("small",)
    heads: Sequence[str] = ("none", "n")
    losses: Sequence[str] = ("cosine",)
    seeds: int = 2
    steps: int | None = None  # None is what the family's configuration says

    def __post_init__(self) -> None:
        for family in self.families:
            require_one_of(family, tuple(FAMILIES), "train")
        for head in self.heads:
            require_one_of(head, get_args(HeadName), "heads")
        for loss in self.losses:
            require_one_of(loss, get_args(SentenceLossName), "losses")
        for name, value in {"seeds": self.seeds, "steps": self.steps}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def runs(self, family: str) -> list[EncoderRun]:
        """Those of one family, in the order of training."""
        steps = self.steps or int(read_yaml(located(FAMILIES[family].config))["trainer"]["max_steps"])
        every = product(self.heads, self.losses, range(self.seeds))
        return [EncoderRun(family, *which, steps) for which in every]


def train_encoders(training: Training, out: Path, device: str) -> tuple[list[str], list[Skipped]]:
    """The trained encoders by their checkpoint or run directory, and the families that cannot be trained.

    What is there already is kept; see :meth:`TrainingRun.ensure_trained`.
    """
    trained, skipped = [], []
    for family in training.families:
        every = training.runs(family)
        if not all((run.folder(out) / "checkpoints" / LAST).is_file() for run in every):
            try:
                every[0].require_at_hand()
            except UNAVAILABLE as error:
                skipped.append(Skipped(f"training {len(every)} encoders {family}", error))
                continue
        ensure_all_trained(every, out, device)
        trained += [_selected(run.folder(out)) for run in every]
    return trained, skipped


def _selected(run: Path) -> str:
    best = run / "checkpoints" / BEST
    return str(best if best.is_file() else run)


class Encoder(NamedTuple):
    """What texts are embedded by, and what tables say of it."""

    name: str  # as ``text_encoder`` takes it
    model: str
    base: str  # what it was made from: encoders of one base differ in head, loss and seed
    head: str | None = None
    loss: str | None = None
    seed: int | None = None

    @classmethod
    def of(cls, name: str, model: str) -> Encoder:
        """TF-IDF, a model of sentence-transformers, or a run or checkpoint of this project, called ``model``.

        Raises FileNotFoundError and ValueError for a run that cannot be read.
        """
        if not is_of_this_project(name):
            return cls(name, model, Path(name).name)
        path = Path(name)
        hparams = read_checkpoint(path / "checkpoints" / LAST if path.is_dir() else path, mmap=True)["hyper_parameters"]
        encoder = hparams.get("encoder") or {}
        base = encoder.get("init_args", {}).get("name") or encoder.get("class_path", "").rpartition(".")[2]
        return cls(name, model, Path(base).name or model, *map(hparams.get, ("head", "loss", "seed")))
