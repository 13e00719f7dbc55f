"""What the layers of a module answer in the validation pass itself, so that no callback runs the model again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, cast

import pytorch_lightning as pl
from torch import Tensor

from likeness.adapters.activations import Activations, LayerError, matching_layers
from likeness.adapters.batches import as_inputs
from likeness.adapters.modules import Head, linear_head
from likeness.batch import Batch, PairBatch, Positions
from likeness.protocols import Diffuser, Embedder, Siblings, SoftmaxModel, TokenModel

EMBEDDING = "embed"  # the layer that every Embedder has: what embed() answers; or what enters the head that is named
REPRESENTATIONS = "representations"  # the key under which a validation step hands out what embed() would answer


class Seen(NamedTuple):
    """One validation batch of N samples, and what the layers said of it.

    Of a model of tokens the samples are the positions that it names, and have no labels.
    """

    x: Any  # the inputs
    y: Tensor | None  # [N] class labels
    ids: Tensor  # [N] by which samples are told apart, the same on every rank and at any batch size
    layers: Mapping[str, Tensor]  # [N, M], or [P, N, M] of siblings, by layer
    numbered: bool = True  # whether the samples came with their ids, by which their data set knows them
    rows: Tensor | None = None  # [N], which rows of what a model of tokens answers for x are meant
    next_tokens: Tensor | None = None  # [B, T] what follows at all its positions, -1 where nothing is predicted

    def of(self, embedding: Tensor) -> Tensor:
        """The samples' rows of what a model answers for x."""
        return embedding if self.rows is None else embedding.index_select(-2, self.rows)


class ValidationPass:
    """Looks on while ``validation_step`` runs a batch: hooks are there from its start to its end alone.

    Representations are those that the step hands out under ``representations``, or what enters the layer ``head``. A
    module that does neither is asked for ``embed()``, which is a second pass; a diffusion model always is, since its
    validation looks at noisy samples at random times.

    Args:
        layers: names of submodules, and ``embed``; none for a callback that hooks layers itself.
        head: the last linear layer of a module that knows nothing of ``embed()`` and ``unembeddings()``.
    """

    def __init__(self, layers: Sequence[str] = (EMBEDDING,), head: str | None = None) -> None:
        self.layers, self.head = tuple(layers), head
        self._stack = ExitStack()
        self._activations: Activations | None = None
        self._entered: list[Tensor] = []
        self._samples = 0  # of this validation, on this rank

    def require(self, callback: pl.Callback, pl_module: pl.LightningModule) -> None:
        """Raise ValueError for a module without such layers, naming callback, module and layer."""
        if self.head is not None:
            linear_head(pl_module, self.head, type(pl_module).__name__)
        elif EMBEDDING in self.layers and not isinstance(pl_module, Embedder):
            raise ValueError(
                f"{type(callback).__name__} measures what embed() answers, and {type(pl_module).__name__} has no "
                "embed(): name its layers, or its head"
            )
        for layer in self._hooked():
            try:
                matching_layers(pl_module, [layer])
            except LayerError as error:
                known = ", ".join(name for name, _ in pl_module.named_children())
                raise ValueError(
                    f"there is no layer {layer!r}: name {EMBEDDING} or a submodule, in or below {known}"
                ) from error

    def unembeddings(self, pl_module: pl.LightningModule) -> Tensor:
        """g [K, M] as it is now, or [P, K, M]; of a head that is named with its bias as the last column."""
        if self.head is not None:
            return self._head(pl_module).vectors()
        return cast(SoftmaxModel, pl_module).unembeddings()

    def restart(self) -> None:
        """A validation begins."""
        self._samples = 0

    def begin(self, pl_module: pl.LightningModule) -> None:
        """A batch is about to run."""
        self.stop()
        if self._hooked():
            of_tokens: Any = "positions" if isinstance(pl_module, TokenModel) else "mean"
            of_siblings = _positions_of_siblings if isinstance(pl_module, TokenModel) else _rows_of_siblings
            pooling = of_siblings if isinstance(pl_module, Siblings) else of_tokens
            self._activations = self._stack.enter_context(Activations(pl_module, self._hooked(), pooling))
        if self.head is not None:
            layer = self._head(pl_module).layer
            hook = layer.register_forward_pre_hook(lambda _, inputs: self._entered.append(inputs[0]))
            self._stack.callback(hook.remove)

    def end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any) -> Seen:
        """The batch has run; ``outputs`` are what its validation step answered.

        Raises ValueError for a layer that gives no vector for each sample.
        """
        found = as_inputs(batch, self._samples)
        self._samples += found.size
        try:
            layers = self._answers(pl_module, outputs, found.x)
        finally:
            self.stop()
        ids, numbered = found.ids, hasattr(batch, "id")
        if not numbered:  # what a DistributedSampler in order gives rank r are samples r, r + world, ...
            ids = ids * trainer.world_size + trainer.global_rank
        if self.layers and isinstance(pl_module, TokenModel):
            return _at_positions(batch, pl_module.measured(batch), layers)
        if isinstance(batch, PairBatch):  # behind the first sentences of the pairs come the second ones
            layers = {name: rows[: found.size] for name, rows in layers.items()}
        for name, rows in layers.items():
            if rows.ndim not in (2, 3) or rows.shape[-2] != found.size:
                raise ValueError(
                    f"layer {name!r} gives {list(rows.shape)} for {found.size} samples: it needs a vector for each"
                )
        return Seen(found.x, found.y, ids, layers, numbered)

    def stop(self) -> None:
        """Remove all hooks."""
        self._stack.close()
        self._activations = None
        self._entered.clear()

    def _answers(self, pl_module: pl.LightningModule, outputs: Any, x: Any) -> dict[str, Tensor]:
        handed_out = outputs.get(REPRESENTATIONS) if isinstance(outputs, Mapping) else None
        embedding: Tensor | None = None
        if self.head is not None:
            if len(self._entered) != 1:
                raise ValueError(f"the head {self.head!r} ran {len(self._entered)} times in one validation step")
            embedding = self._head(pl_module).embedding(self._entered[0])
        elif isinstance(handed_out, Tensor) and not isinstance(pl_module, Diffuser):
            embedding = handed_out.detach()
        elif EMBEDDING in self.layers or (self.layers and isinstance(pl_module, Diffuser)):
            embedding = cast(Embedder, pl_module).embed(x).detach()
        taken = {} if self._activations is None else self._activations.take()
        return {name: taken[name] if name != EMBEDDING else cast(Tensor, embedding) for name in self.layers}

    def _hooked(self) -> list[str]:
        return [layer for layer in self.layers if layer != EMBEDDING]

    def _head(self, pl_module: pl.LightningModule) -> Head:
        assert self.head is not None
        return Head(self.head, linear_head(pl_module, self.head, type(pl_module).__name__))


def _at_positions(batch: Batch, positions: Positions, layers: Mapping[str, Tensor]) -> Seen:
    """Of the rows for all positions of a batch of contexts, by layer, those of some positions."""
    seen = Seen(batch.x, None, positions.ids, {}, numbered=False, rows=positions.rows, next_tokens=batch.y)
    for name, rows in layers.items():
        if rows.ndim not in (2, 3) or rows.shape[-2] != batch.x.numel():
            raise ValueError(f"layer {name!r} gives {list(rows.shape)} for the {batch.x.numel()} positions of a batch")
    return seen._replace(layers={name: seen.of(rows) for name, rows in layers.items()})


def _rows_of_siblings(output: Tensor) -> Tensor:
    """Vectors [P, B, M] or [B, M] as they are; of feature maps [B, C, H, W] of one sibling the mean over positions."""
    return output.mean((2, 3)) if output.ndim == 4 else output


def _positions_of_siblings(output: Tensor) -> Tensor:
    """[P, B T, M] of the hidden states [P, B, T, M] of sibling language models."""
    return output.flatten(1, 2)
