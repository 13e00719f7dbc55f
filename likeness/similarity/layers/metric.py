"""The answers of layers on a fixed sample of the data, gathered from batches and ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric

from likeness.adapters.batches import Inputs
from likeness.similarity.layers.outputs import LayerStore, Stored, each_once

INPUTS = "inputs"  # the name under which the mean of each input is kept, by which other inputs are noticed


class LayerSample(Metric):
    """At most ``max_stored`` samples of every layer, the same at any order, batch size and number of ranks.

    Which they are depends on the samples' ids alone; see :class:`likeness.similarity.layers.outputs.LayerStore`.
    """

    full_state_update = False

    def __init__(self, max_stored: int, max_bytes: int, of: str) -> None:
        super().__init__()
        self.settings = (max_stored, max_bytes, of)
        self.store = LayerStore(*self.settings)

    def update(self, batch: Inputs, rows: Mapping[str, Tensor]) -> None:
        """Add a batch, and what each layer answered, [N P, d]."""
        own = {f"layer {name}": tensor for name, tensor in rows.items()}
        if isinstance(batch.x, Tensor):
            own[INPUTS] = batch.x.flatten(1).double().mean(1, keepdim=True)
        self.store.add(batch.ids, own)

    def compute(self) -> dict[str, Tensor]:
        """What was kept of each layer, [N, P, d], on all ranks."""
        return layers_of(self.stored())

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self.store = LayerStore(*self.settings)

    def stored(self) -> Stored:
        """What was kept by all ranks, on the CPU."""
        own = self.store.stored()
        own = Stored(own.ids, each_once(own.rows, Tensor.cpu))
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return own
        parts: list[Stored | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, own)
        merged = LayerStore(*self.settings)
        for part in parts:
            if part is not None and len(part.ids):
                merged.add(part.ids, each_once(part.rows, lambda rows: rows.flatten(0, 1)))
        return merged.stored()


def layers_of(stored: Stored) -> dict[str, Tensor]:
    """The layers by their own names."""
    return {name.removeprefix("layer "): rows for name, rows in stored.rows.items() if name != INPUTS}


def require_same_inputs(stored: Stored, earlier: Stored, of: str) -> None:
    """Raise ValueError naming a sample that is not the same in both, or in one alone."""
    if not torch.equal(stored.ids, earlier.ids):
        alone = sorted(set(stored.ids.tolist()) ^ set(earlier.ids.tolist()))
        raise ValueError(f"{of} saw other samples than this validation: sample {alone[0]} is in one of them alone")
    if INPUTS in stored.rows and INPUTS in earlier.rows:
        other = (stored.rows[INPUTS] != earlier.rows[INPUTS]).flatten()
        if bool(other.any()):
            sample = int(stored.ids[other.nonzero()[0, 0]])
            raise ValueError(
                f"{of} saw another input as sample {sample} than this validation: the data came in another order, or "
                "are augmented; give samples ids, or turn shuffling off"
            )
