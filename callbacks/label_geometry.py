"""What the angles between label vectors say about the labels, and what the model does with them, while it trains."""

import csv
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from callbacks.figures import publish_figure
from callbacks.label_figures import label_heatmaps
from callbacks.label_metrics import LabelSimilarity
from likeness.batch import Batch
from likeness.measures.label_agreement import largest_disagreements, rank_correlation
from likeness.protocols import SoftmaxModel

SIMILARITIES = ("raw", "centred", "invariant")
COLUMNS = ("step", "member", "label_a", "label_b", *SIMILARITIES, "together", "gap")
MAX_LABELS = 4096
MAX_DRAWN = 60


class LabelGeometry(pl.Callback):
    """Raw, centred and invariant similarity of labels next to how often they are probable together, at validation.

    Logs ``labels/{raw,centred,invariant}``, Spearman's correlation over all pairs of labels between a similarity of
    their vectors and how often both are probable (the mean over siblings): how far one may read the one off the
    other. The pairs that ``similarity`` misjudges most stand in ``label_disagreements.csv`` in the run directory, and
    in every logger that takes tables. Heat maps of up to 60 labels go to ``figures/`` when training ends. The
    callback's own cost is ``labels/seconds``. With an EMA callback the averaged weights are measured. Only the first
    validation loader is read.

    Args:
        every_n_validations: how often to measure.
        num_disagreements: pairs of labels in the table, of each sibling.
        similarity: whose disagreements the table lists.
        labels: names of the labels; their numbers by default.
    """

    def __init__(
        self,
        every_n_validations: int = 1,
        num_disagreements: int = 10,
        similarity: Literal["raw", "centred", "invariant"] = "raw",
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("every_n_validations", every_n_validations), ("num_disagreements", num_disagreements)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if similarity not in SIMILARITIES:
            raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)}, got {similarity!r}")
        self.every_n_validations = every_n_validations
        self.num_disagreements = num_disagreements
        self.similarity = similarity
        self.labels = None if labels is None else [str(label) for label in labels]
        self.values: dict[str, Tensor] = {}  # what was measured last, [P, K, K] by name
        self._metric: LabelSimilarity | None = None
        self._validations = 0
        self._measuring = False
        self._seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validations = state_dict["validations"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, SoftmaxModel):
            raise ValueError(
                "LabelGeometry measures softmax models, with embed() and unembeddings(); "
                f"{type(pl_module).__name__} is none"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.val_dataloaders is None:
            rank_zero_warn("LabelGeometry measures at validation, but there is no validation loader")
        self._metric = self._new_metric(pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        fitting = trainer.state.fn == TrainerFn.FITTING
        self._validations += fitting
        self._measuring = not fitting or self._validations % self.every_n_validations == 0
        if self._measuring:
            self._metric = self._metric or self._new_metric(pl_module)
            self._metric.reset()
            self._seconds = 0.0

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self._measuring or dataloader_idx > 0:
            return
        assert self._metric is not None
        with self._clock():
            model = cast(SoftmaxModel, pl_module)
            self._metric.update(_members(model.embed(batch.x)), _members(model.unembeddings()), batch.id)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._measuring:
            return
        assert self._metric is not None
        with self._clock():
            self.values = {name: matrices.cpu() for name, matrices in self._metric.compute().items()}
            summaries = {f"labels/{name}": self._correlation(name) for name in SIMILARITIES}
            self._publish_table(trainer)
        for key, value in {**summaries, "labels/seconds": self._seconds}.items():
            pl_module.log(key, value, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.values or not _may_write(trainer) or len(self.values["raw"][0]) > MAX_DRAWN:
            return
        matrices = {name: matrix[0] for name, matrix in self.values.items()}
        publish_figure(trainer, label_heatmaps(matrices, self._names()), "label_similarity")

    def rows(self, step: int) -> list[list[Any]]:
        """The table of the largest disagreements measured last: a row for each pair, in the order of ``COLUMNS``."""
        names, table = self._names(), []
        for member, together in enumerate(self.values["together"]):
            similarity = self.values[self.similarity][member]
            for i, j, gap in zip(*largest_disagreements(similarity, together, self.num_disagreements), strict=True):
                values = [float(self.values[name][member, i, j]) for name in (*SIMILARITIES, "together")]
                table.append([step, member, names[int(i)], names[int(j)], *values, float(gap)])
        return table

    def _new_metric(self, pl_module: pl.LightningModule) -> LabelSimilarity:
        """The empty metric, once everything that would make a measurement impossible is ruled out."""
        with torch.no_grad():
            members, labels, dim = _members(cast(SoftmaxModel, pl_module).unembeddings()).shape
        if not 3 <= labels <= MAX_LABELS:
            raise ValueError(f"LabelGeometry compares pairs of 3 to {MAX_LABELS} labels, the model has {labels}")
        if self.labels is not None and len(self.labels) != labels:
            raise ValueError(f"LabelGeometry was given {len(self.labels)} names, the model has {labels} labels")
        metric = LabelSimilarity(members, labels, dim)
        return metric if pl_module.device.type == "mps" else metric.to(pl_module.device)

    def _correlation(self, name: str) -> float:
        pairs = zip(self.values[name], self.values["together"], strict=True)
        correlations = torch.tensor([rank_correlation(*pair) for pair in pairs], dtype=torch.float64)
        return float(correlations.mean())

    def _publish_table(self, trainer: pl.Trainer) -> None:
        if not _may_write(trainer):
            return
        rows = self.rows(trainer.global_step)
        _write_csv(Path(trainer.default_root_dir, "label_disagreements.csv"), rows)
        for logger in trainer.loggers:
            log_table: Any = getattr(logger, "log_table", None)
            if log_table is not None:
                log_table(key="labels/disagreements", columns=list(COLUMNS), data=rows, step=trainer.global_step)

    def _names(self) -> list[str]:
        return self.labels or [str(label) for label in range(self.values["raw"].shape[1])]

    @contextmanager
    def _clock(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - start


def _members(tensor: Tensor) -> Tensor:
    """[P, N, M] of siblings, also where [N, M] is one model's."""
    return tensor if tensor.ndim == 3 else tensor.unsqueeze(0)


def _may_write(trainer: pl.Trainer) -> bool:
    # A fast_dev_run claims no run directory; its files would replace those of the run that is there.
    return trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False)


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """The whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    os.replace(temporary, path)
