"""What the hubness grid is measured on: labelled texts in two parts and their embeddings, which are kept on disk.

The encoders of the hubness grid: those that are trained for it, and what tables say of each.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from datamodules import DataError, Docstrings
from datamodules.docstrings import held_out_docstrings, standard_library_docstrings
from datamodules.splits import TextSplit, remaining_rows, stratified_rows
from datamodules.texts import TextDataModule
from lightning_modules.checkpoint_files import read_checkpoint
from lightning_modules.checkpoints import LAST_IN_RUN
from likeness.checks import require_one_of, require_positive
from likeness.files.writing import replacing
from likeness.losses import SentenceLossName
from likeness.networks.text_pooling import HeadName
from scripts.cli.configurations import located, read_configuration
from scripts.hubness.encoders import text_encoder
from scripts.hubness.files import Source
from scripts.hubness.points import Encoding, Points, open_points
from scripts.inputs import load_data, names_a_model
from scripts.reporting import write_array
from scripts.study.training_run import TrainingRun, as_arguments, ensure_all_trained

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
        require_positive(seeds=self.seeds, steps=self.steps)

    def runs(self, family: str) -> list[EncoderRun]:
        """Those of one family, in the order of training."""
        steps = self.steps or int(read_configuration(located(FAMILIES[family].config))["trainer"]["max_steps"])
        every = product(self.heads, self.losses, range(self.seeds))
        return [EncoderRun(family, *which, steps) for which in every]


def train_encoders(training: Training, out: Path, device: str) -> tuple[list[str], list[Skipped]]:
    """The trained encoders by their checkpoint or run directory, and the families that cannot be trained.

    What is there already is kept; see :meth:`TrainingRun.ensure_trained`.
    """
    trained, skipped = [], []
    for family in training.families:
        every = training.runs(family)
        if not all((run.folder(out) / LAST_IN_RUN).is_file() for run in every):
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
        if not names_a_model(name):
            return cls(name, model, Path(name).name)
        path = Path(name)
        hparams = read_checkpoint(path / LAST_IN_RUN if path.is_dir() else path, mmap=True)["hyper_parameters"]
        encoder = hparams.get("encoder") or {}
        base = encoder.get("init_args", {}).get("name") or encoder.get("class_path", "").rpartition(".")[2]
        return cls(name, model, Path(base).name or model, *map(hparams.get, ("head", "loss", "seed")))


PARTS = ("index", "queries")
TEST_SHARE = 0.2  # of the rows of a file
# What commands raise for data and models that are not there, cannot be read or do not fit.
UNAVAILABLE = (DataError, FileNotFoundError, ImportError, ValueError)


class Skipped(NamedTuple):
    """A part of the grid that is left out."""

    what: str
    why: Exception


@dataclass(frozen=True)
class Corpus:
    """Labelled texts: those of the index, and those that are classified by their neighbours in it."""

    name: str
    index: TextSplit
    queries: TextSplit

    @classmethod
    def of(cls, name: str) -> Corpus:
        """``docstrings``, a data set by the name of its file in configs/data, or a data config of one's own.

        Nothing is chosen on validation samples, so those that would be held out for it are in the index; the
        docstrings that are queries are no part of the training pairs of ``DocstringPairs``.
        Raises DataError, FileNotFoundError or ValueError where there are no such texts with labels.
        """
        data = _docstrings() if name == Docstrings.dataset_name else load_data(_config(name))
        if not isinstance(data, TextDataModule):
            raise ValueError(f"{type(data).__name__} holds no texts with labels")
        if "val" not in data.published:
            data.val_size = 0
        data.prepare_data()
        index, queries = data.load("train"), data.load("test")
        if not isinstance(index, TextSplit) or len(index.y.unique()) < 2:
            raise ValueError(f"{type(data).__name__} holds no texts with two labels or more")
        return cls(name, index, queries)


@dataclass(frozen=True)
class Embedded:
    """The points of one encoder on one data set, on the CPU."""

    index: Points
    queries: Points

    def fingerprint(self) -> str:
        """Of all numbers and labels."""
        parts = (self.index, self.queries)
        vectors = [part.vectors.contiguous().numpy().tobytes() for part in parts]
        return _digest([*vectors, *("\n".join(part.labels or ()).encode() for part in parts)])

    def to(self, device: torch.device) -> Embedded:
        """With the vectors on a device."""
        return Embedded(*(replace(part, vectors=part.vectors.to(device)) for part in (self.index, self.queries)))


def embed_corpus(corpus: Corpus, encoder: Encoder, folder: Path, device: torch.device) -> Embedded:
    """The embeddings of a corpus: those kept in ``folder`` if they are of these texts and this encoder, else new ones.

    TF-IDF counts its words over both parts, without their labels. Raises what ``text_encoder`` does.
    """
    splits = dict(zip(PARTS, (corpus.index, corpus.queries), strict=True))
    texts = [text for split in splits.values() for text in split.x]
    source = {"texts": _digest(map(str.encode, texts)), "index": len(corpus.index), "encoder": _stamp(encoder)}
    vectors = _kept(folder, source)
    if vectors is None:
        embed = text_encoder(encoder.name, texts, None, device)
        vectors = {part: embed(split.x).numpy() for part, split in splits.items()}
        _keep(folder, source, vectors)
    points = [
        Points(torch.from_numpy(vectors[part]), f"{part} of {corpus.name}", [str(y) for y in split.y.tolist()])
        for part, split in splits.items()
    ]
    return Embedded(*points)


def open_embeddings(file: str) -> Embedded:
    """Embeddings with labels out of a file, every fifth of each label as queries.

    Raises what ``open_points`` does, and ValueError for a file without labels.
    """
    points = open_points([Source(file)], Encoding())[0]
    if points.labels is None:
        raise ValueError(f"{file} holds no labels")
    number = {label: place for place, label in enumerate(sorted(set(points.labels)))}
    strata = torch.tensor([number[label] for label in points.labels])
    queries = stratified_rows(strata, round(TEST_SHARE * len(points)), 0)
    return Embedded(*(_rows(points, rows) for rows in (remaining_rows(len(points), queries), queries)))


def file_name(name: str) -> str:
    """A name as one of a file or folder."""
    return re.sub(r"[^\w.+=,-]+", "_", name).strip("_")


def write_whole(path: Path, text: str) -> None:
    """The whole file or none of it; its folder is made."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _docstrings() -> Docstrings:
    return Docstrings(val_size=0, test_size=held_out_docstrings(len(standard_library_docstrings())))


def _config(name: str) -> Path:
    return Path(name) if Path(name).suffix == ".yaml" else Path("configs", "data", f"{name}.yaml")


def _rows(points: Points, rows: torch.Tensor) -> Points:
    assert points.labels is not None
    return Points(points.vectors[rows], points.source, [points.labels[row] for row in rows.tolist()])


def _stamp(encoder: Encoder) -> str:
    """The encoder's name and, of one in files, when they were last changed."""
    path = Path(encoder.name)
    files = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
    return f"{encoder.name} {max((file.stat().st_mtime_ns for file in files), default=0)}"


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.hexdigest()


def _kept(folder: Path, source: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    about = folder / "source.json"
    if not about.is_file() or json.loads(about.read_text()) != source:
        return None
    return {part: np.load(folder / f"{part}.npy", allow_pickle=False) for part in PARTS}


def _keep(folder: Path, source: Mapping[str, Any], vectors: Mapping[str, Any]) -> None:
    (folder / "source.json").unlink(missing_ok=True)  # it says that what stands beside it is whole
    for part, array in vectors.items():
        write_array(folder / f"{part}.npy", array)
    write_whole(folder / "source.json", json.dumps(source))
