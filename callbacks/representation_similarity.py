"""How alike siblings, or a model and its references, are while they train."""

import time
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from callbacks.figures import publish_figure
from callbacks.model_names import short_names
from callbacks.similarity_figures import EmbeddingSample, similarity_figures
from callbacks.similarity_metrics import PairwiseSimilarity, require_comparable, require_enough
from likeness.batch import Batch
from likeness.measures.catalogue import select
from likeness.protocols import SoftmaxModel


class RepresentationSimilarity(pl.Callback):
    """Measures, at validation, between all pairs of siblings or between a model and reference checkpoints.

    Logs ``similarity/<measure>/{mean,min,max}`` over the pairs (both directions where they differ) and its own
    cost, ``similarity/seconds``. Heat maps, and for two-dimensional representations a scatter plot, go to
    ``figures/`` in the run directory when training ends. What is measured are the weights that validation
    uses: with an EMA callback, the averages. Only the first validation loader is read.

    Args:
        measures: Names from ``likeness.measures.catalogue``.
        references: Checkpoints or run directories to compare with; empty compares siblings with each other.
        every_n_validations: How often to measure.
        figures_every_n_validations: How often to draw during training too, keeping each figure under its step;
            only validations that are measured can be drawn.
        max_stored: Inputs that are kept for the measures that need more than sums (d_LLV, neighbours, kernels).
    """

    def __init__(
        self,
        measures: Sequence[str] = ("kl", "m_cca"),
        references: Sequence[str] = (),
        every_n_validations: int = 1,
        figures_every_n_validations: int | None = None,
        max_stored: int = 2000,
    ) -> None:
        super().__init__()
        _require_positive("every_n_validations", every_n_validations)
        _require_positive("figures_every_n_validations", figures_every_n_validations)
        self.measures = select(measures)
        self.reference_paths = tuple(references)
        self.every_n_validations = every_n_validations
        self.figures_every_n_validations = figures_every_n_validations
        self.max_stored = max_stored
        self.values: dict[str, Tensor] = {}  # what was measured last, [P, P] by name
        self._references: list[tuple[str, SoftmaxModel]] = []
        self._metric: PairwiseSimilarity | None = None
        self._validations = 0
        self._measuring = False
        self._seconds = 0.0
        self._unembeddings: list[Tensor] = []
        self._sample = EmbeddingSample()

    @property
    def state_key(self) -> str:
        return self._generate_state_key(references=self.reference_paths)

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validations = state_dict["validations"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, SoftmaxModel):
            raise ValueError(
                "RepresentationSimilarity compares softmax models, with embed() and unembeddings(); "
                f"{type(pl_module).__name__} is none"
            )
        if stage in ("fit", "validate") and not self._references:
            self._references = _load(self.reference_paths)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._metric = self._new_metric(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        fitting = trainer.state.fn == TrainerFn.FITTING
        self._validations += fitting
        self._measuring = not fitting or self._validations % self.every_n_validations == 0
        if self._measuring:
            self._metric = self._metric or self._new_metric(trainer, pl_module)
            self._metric.reset()
            self._seconds, self._unembeddings, self._sample = 0.0, [], EmbeddingSample()

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
        with self._clock(), torch.no_grad():
            if not self._unembeddings:  # not earlier: an EMA callback exchanges the weights just before
                self._unembeddings = self._all_unembeddings(pl_module)
            embeddings = _members(cast(SoftmaxModel, pl_module).embed(batch.x))
            embeddings += [model.embed(batch.x) for _, model in self._references]
            self._metric.update(embeddings, self._unembeddings, batch.id)
            self._sample.add(batch.y, embeddings)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._measuring:
            return
        assert self._metric is not None
        with self._clock():
            self.values = {name: matrix.cpu() for name, matrix in self._metric.compute().items()}
            summaries = self._summaries()
            cadence = self.figures_every_n_validations
            if cadence is not None and self._validations % cadence == 0:
                self._draw(trainer, keep_history=True)
        for key, value in {**summaries, "similarity/seconds": self._seconds}.items():
            pl_module.log(key, value, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer)

    def _new_metric(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> PairwiseSimilarity:
        """The empty metric, once everything that would make a measurement impossible is ruled out."""
        for _, model in self._references:
            if isinstance(model, torch.nn.Module):
                model.to(pl_module.device)
        with torch.no_grad():
            shapes = [(g.shape[0], g.shape[1]) for g in self._all_unembeddings(pl_module)]
        members = len(shapes) - len(self._references)
        names = ["this run"] if members == 1 else [str(member) for member in range(members)]
        names += short_names([name for name, _ in self._references])
        require_comparable(shapes, names)
        require_enough(self.measures, shapes, names, _count_validation_samples(trainer))
        metric = PairwiseSimilarity(self.measures, [dim for _, dim in shapes], names, self.max_stored)
        return metric if pl_module.device.type == "mps" else metric.to(pl_module.device)

    def _all_unembeddings(self, pl_module: pl.LightningModule) -> list[Tensor]:
        own = _members(cast(SoftmaxModel, pl_module).unembeddings())
        return own + [model.unembeddings() for _, model in self._references]

    def _summaries(self) -> dict[str, float]:
        """Mean, minimum and maximum of each measure over the pairs that are compared."""
        summaries = {}
        for name, matrix in self.values.items():
            values = matrix[self._pairs(len(matrix), self.measures[name].symmetric)]
            for statistic in ("mean", "min", "max"):
                summaries[f"similarity/{name}/{statistic}"] = float(getattr(values, statistic)())
        return summaries

    def _pairs(self, models: int, symmetric: bool) -> Tensor:
        """Which of P x P entries count: pairs of members, or of a member and a reference where there are any."""
        index = torch.arange(models)
        if self._references:
            index = index >= models - len(self._references)
        pairs = index[:, None] != index
        return pairs.triu() if symmetric else pairs

    def _draw(self, trainer: pl.Trainer, *, keep_history: bool = False) -> None:
        # A fast_dev_run claims no run directory; its figures would replace those of the run that is there.
        if self._metric is None or not self.values or getattr(trainer, "fast_dev_run", False):
            return
        if trainer.is_global_zero:
            for name, figure in similarity_figures(self.values, self._metric, self._sample):
                publish_figure(trainer, figure, name, keep_history=keep_history)

    @contextmanager
    def _clock(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - start


def _members(tensor: Tensor) -> list[Tensor]:
    """The siblings of [P, N, M], or the one model of [N, M]."""
    return list(tensor) if tensor.ndim == 3 else [tensor]


def _load(paths: Sequence[str]) -> list[tuple[str, SoftmaxModel]]:
    """The models of these checkpoints, ready to be evaluated; random numbers are left as they are."""
    if not paths:
        return []
    from lightning_modules.checkpoints import load_softmax_models

    with isolate_rng():
        return [named for path in paths for named in load_softmax_models(path)]


def _count_validation_samples(trainer: pl.Trainer) -> int | None:
    """Samples in the first validation loader over all ranks; None where that is not known yet."""
    if not trainer.enable_validation and trainer.state.fn == TrainerFn.FITTING:
        rank_zero_warn("RepresentationSimilarity measures at validation, but this training has none")
    loaders = trainer.val_dataloaders
    dataset = getattr(loaders[0] if isinstance(loaders, list) else loaders, "dataset", None)
    return len(dataset) if isinstance(dataset, Sized) else None


def _require_positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
