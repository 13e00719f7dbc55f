"""How far each layer has moved while a model trains: from its start, its last validation or another model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations, islice
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from callbacks.measure_at_validation import MeasureAtValidation, may_write
from callbacks.run.publishing import publish_figure
from callbacks.validation_pass import Seen
from likeness.adapters.activations import LayerError, Pooling, unwrapped
from likeness.adapters.batches import Inputs, as_inputs
from likeness.adapters.modules import EmbedderModel, Measurable, ModuleModel
from likeness.adapters.sources import adapted
from likeness.adapters.unnoticed import unnoticed
from likeness.checks import require_positive
from likeness.figures.layers import layer_heatmap, training_curves
from likeness.protocols import Embedder, Siblings
from likeness.similarity.layers.answer import LayerComparison
from likeness.similarity.layers.compare import MAX_BYTES, Sampled, Statistics, compared, rule_name
from likeness.similarity.layers.matrices import select_measures
from likeness.similarity.layers.metric import LayerSample, layers_of, require_same_inputs
from likeness.similarity.layers.outputs import LayerOutputs, Side, Stored, one_row_each

INITIALISATION, LAST, SIBLINGS = "initialisation", "last", "siblings"
OWN = "this run"
MEMBER = re.compile(r"(.*)members\.(\d+)(\..*)?$")  # the names of networks that stand one after another


class LayerSimilarity(MeasureAtValidation[LayerSample]):
    """Measures, at validation, how alike the layers of a module are to those it is held against.

    Hooks read the layers in the validation pass itself. The module is any LightningModule; what it is held against
    is run on the validation data once, when training starts: with ``embed()`` where there is one, else by calling it.

    Logs ``layers/<measure>/<layer>``, of each layer with its counterpart (of siblings, the mean over them or over their
    pairs), and the callback's own cost, ``layers/seconds``. Heat maps of all layers against all, and a curve for each
    layer over the steps, go to ``figures/`` in the run directory when training ends.

    The representations of the initialisation, or of the last validation, on the samples that are kept belong to the
    callback's state, ``max_stored`` times all widths in float32, so that a resumed run goes on with the very same
    numbers. A reference is read again from its path. Samples are matched by their ids; where these say that two passes
    saw other samples, or the inputs do, an error names the sample.

    Args:
        against: ``initialisation``, ``last`` for the validation before, ``siblings``, or else the path of a checkpoint
            or a run directory, or a module.
        layers: names, or patterns such as ``network.embedding.*``; by default all layers and blocks that run.
        measures: names of measures that read representations alone, see ``likeness.similarity.catalogue``.
        pooling: how a feature map or sequence becomes a vector.
        every_n_validations: how often to measure.
        figures_every_n_validations: how often to draw during training too, keeping each figure under its step.
        max_stored: samples that are kept, chosen by a hash of their ids.
        prefix: of the keys that are logged and of figures; another one for each callback where there are several.
    """

    prefix = "layers"

    def __init__(
        self,
        against: str | torch.nn.Module = INITIALISATION,
        layers: Sequence[str] | None = None,
        measures: Sequence[str] = ("unbiased_linear_cka",),
        pooling: Pooling = "mean",
        every_n_validations: int = 1,
        figures_every_n_validations: int | None = None,
        max_stored: int = 500,
        prefix: str = "layers",
    ) -> None:
        super().__init__(every_n_validations, layers=())
        require_positive(figures_every_n_validations=figures_every_n_validations, max_stored=max_stored)
        self.against, self.layers, self.pooling = against, layers, pooling
        self.measures = select_measures(measures)
        self.figures_every_n_validations = figures_every_n_validations
        self.max_stored = max_stored
        self.prefix = prefix  # type: ignore[misc]
        self.found: LayerComparison | None = None  # what was measured last
        self.steps: list[int] = []  # at which it was measured, and the values of each layer then
        self.curves: dict[str, dict[str, list[float]]] = {}
        self._earlier: Stored | None = None
        self._own_layers: list[str] = []
        self._outputs: LayerOutputs | None = None
        self._samples = self._count = 0  # samples of this validation so far, and siblings

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(against=self._name, prefix=self.prefix)

    @override
    def state_dict(self) -> dict[str, Any]:
        kept = self._earlier if self.against in (INITIALISATION, LAST) else None
        earlier = None if kept is None else {"ids": kept.ids, "rows": dict(kept.rows)}
        return {**super().state_dict(), "earlier": earlier, "steps": list(self.steps), "curves": self.curves}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        earlier = state_dict["earlier"]
        self._earlier = None if earlier is None else Stored(earlier["ids"], earlier["rows"])
        self.steps, self.curves = state_dict["steps"], state_dict["curves"]

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._count = pl_module.num_members if isinstance(pl_module, Siblings) else 0
        if self.against == SIBLINGS and not self._count:
            raise ValueError(f"LayerSimilarity compares siblings, but {type(pl_module).__name__} has none")

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.enable_validation:
            self._prepare(trainer, pl_module)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        if not self._measuring:
            return
        if not self._own_layers:
            self._prepare(trainer, pl_module)
        self._samples = 0
        self._outputs = LayerOutputs(unwrapped(pl_module), self._own_layers, self._reader(self._count))
        self._outputs.__enter__()

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._unhook()
        super().on_validation_epoch_end(trainer, pl_module)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._unhook()

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer)

    @override
    def _new_metric(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> LayerSample:
        return LayerSample(self.max_stored, MAX_BYTES, OWN)

    @override
    def _update(self, metric: LayerSample, pl_module: pl.LightningModule, seen: Seen) -> None:
        assert self._outputs is not None
        inputs = Inputs(seen.x, seen.y, seen.ids, self._samples, len(seen.ids))
        left_out = self._outputs.left_out
        rows = self._outputs.take()
        for name in self._own_layers:
            if name not in rows:
                raise LayerError(f"layer {name!r} of {OWN}: {left_out.get(name, 'it did not run in validation_step')}")
        self._samples += inputs.size
        metric.update(inputs, rows)

    @override
    def _summarise(self, trainer: pl.Trainer) -> dict[str, float]:
        assert self._metric is not None
        own = self._metric.stored()
        self.found = self._compared(own)
        if self.against == LAST:
            self._earlier = own
        if self.found is None:
            return {}
        self.values = self.found.values
        return self._remember(trainer, self.found)

    def _unhook(self) -> None:
        if self._outputs is not None:
            self._outputs.__exit__(None, None, None)
            self._outputs = None

    def _compared(self, own: Stored) -> LayerComparison | None:
        """The module against whatever it is held against; None where there is nothing yet."""
        members = self._models(OWN, own, self._count)
        if self.against == SIBLINGS:
            return self._mean(list(combinations(members, 2)))
        if self._earlier is None:
            return None
        require_same_inputs(own, self._earlier, self._name)
        is_own = self.against in (INITIALISATION, LAST)
        others = self._models(self._name, self._earlier, self._count if is_own else 0)
        return self._mean(list(zip(members, others if is_own else others * len(members), strict=True)))

    def _mean(self, pairs: Sequence[tuple[Sampled, Sampled]]) -> LayerComparison:
        """The mean over pairs of models; everything else is the first pair's."""
        pooling = rule_name(self.pooling)
        found = [compared(pair, self.measures, Statistics(), pooling=pooling, progress=False) for pair in pairs]
        for name in self.measures:
            found[0].values[name] = torch.stack([one.values[name] for one in found]).nanmean(0)
        return found[0]

    def _models(self, name: str, stored: Stored, count: int) -> list[Sampled]:
        """The layers of one model, or of each sibling."""
        layers = layers_of(stored)
        if not count:
            return [Sampled(name, layers)]
        return [Sampled(f"member {number}", own) for number, own in enumerate(_members(layers, count))]

    def _remember(self, trainer: pl.Trainer, found: LayerComparison) -> dict[str, float]:
        """What is logged; the curves are continued."""
        self.steps.append(trainer.global_step)
        logged: dict[str, float] = {}
        for name in found.values:
            curves = self.curves.setdefault(name, {})
            for layer, value in found.diagonal(name).items():
                curves.setdefault(layer, [float("nan")] * (len(self.steps) - 1)).append(value)
                logged |= {f"{name}/{layer}": value} if value == value else {}
        cadence = self.figures_every_n_validations
        if cadence is not None and self._validations % cadence == 0:
            self._draw(trainer, keep_history=True)
        return logged

    def _draw(self, trainer: pl.Trainer, *, keep_history: bool = False) -> None:
        if self.found is None or not may_write(trainer):
            return
        for name, measure in self.measures.items():
            figure = layer_heatmap(self.found, name)
            publish_figure(trainer, figure, f"{self.prefix}_{name}", keep_history=keep_history)
            if len(self.steps) > 1:
                curves = training_curves(self.steps, self.curves[name], measure.label, self._name, measure.limit)
                publish_figure(trainer, curves, f"{self.prefix}_{name}_curves", keep_history=keep_history)

    @property
    def _name(self) -> str:
        """What the module is held against, in words."""
        return self.against if isinstance(self.against, str) else type(self.against).__name__

    def _prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the layers, and run what the module is held against, where that is not known yet."""
        embeds = isinstance(pl_module, Embedder)
        own = EmbedderModel(cast(Embedder, pl_module), OWN) if embeds else ModuleModel(pl_module, OWN, head=False)
        with unnoticed([pl_module]), trainer.precision_plugin.forward_context():
            self._own_layers = self._side(own, self._count, _batches(trainer)).layers
        if self.against in (LAST, SIBLINGS) or self._earlier is not None:
            return
        if self.against != INITIALISATION:
            (model,) = adapted([self.against], heads=[False])
            self._earlier = self._answers(trainer, model, 0)
        elif trainer.training and trainer.global_step == 0:
            self._earlier = self._answers(trainer, own, self._count)
        elif trainer.training:
            step = trainer.global_step
            rank_zero_warn(
                f"LayerSimilarity joins this run at step {step}, without the layers of its start: it measures nothing"
            )

    def _answers(self, trainer: pl.Trainer, model: Measurable, members: int) -> Stored:
        """Of a model, or of so many siblings, on the validation data, before training starts."""
        sample = LayerSample(self.max_stored, MAX_BYTES, model.name)
        with unnoticed(model.modules), trainer.precision_plugin.forward_context():
            side = self._side(model, members, _batches(trainer))
            with side.watched():
                for batch in _batches(trainer):
                    sample.update(batch, side.collect(batch))
        return sample.stored()

    def _side(self, model: Measurable, members: int, data: Iterator[Inputs]) -> Side:
        side = Side(model, self.layers, self.pooling, self._reader(members), self._reader(members))
        side.prepare(next(data))
        return side

    def _reader(self, members: int) -> Callable[..., Tensor]:
        return partial(_rows, pooling=self.pooling, members=members)


def _rows(
    value: Tensor, name: str, mask: Tensor | None, pooling: Pooling, members: int, size: int | None = None
) -> Tensor:
    """Rows [N, d]; of stacked siblings, whose layers answer [P, N, ...], those of all side by side, [N, P d]."""
    if not members or MEMBER.match(name):
        return one_row_each(value, name, mask, pooling, size)
    if value.ndim not in (3, 4) or len(value) != members:
        raise LayerError(f"it answers {list(value.shape)}, and not something for each of {members} siblings")
    return one_row_each(value.movedim(0, -2).flatten(-2), name, mask, pooling, size)


def _members(layers: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """The layers of each sibling, [N, 1, d], by the names that they share."""
    members: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, rows in layers.items():
        found = MEMBER.match(name)
        if found:
            before, number, after = found.groups()
            members[int(number)][f"{before}{after or ''}".strip(".")] = rows
        else:
            for member, own in zip(members, rows.chunk(count, dim=-1), strict=True):
                member[name] = own
    return members


def _batches(trainer: pl.Trainer) -> Iterator[Inputs]:
    """The batches of the first validation loader, as many as validation reads."""
    loaders: Any = trainer.val_dataloaders
    if isinstance(loaders, CombinedLoader):
        loaders = loaders.iterables
    loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
    samples = 0
    count = trainer.num_val_batches[0]
    for batch in islice(loader, None if count == float("inf") else int(count)):
        inputs = as_inputs(batch, samples)
        samples += inputs.size
        yield inputs
