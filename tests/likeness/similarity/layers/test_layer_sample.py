"""What layers answer, gathered from ranks."""

import pickle

import pytest
import torch

from likeness.adapters.batches import Inputs
from likeness.similarity.layers.metric import LayerSample
from likeness.similarity.layers.outputs import Stored


def test_layers_that_answer_the_same_are_one_after_ranks_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on one rank, so that they are kept, and later compared, once."""
    rows, ids = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    sample = LayerSample(10, 2**20, "model")
    sample.update(Inputs(rows, None, ids, 0, 6), {"block": rows, "block.last": rows, "other": 2 * rows})

    def gathered(parts: list[Stored], own: Stored) -> None:
        other = pickle.loads(pickle.dumps(own))
        parts[:] = [own, Stored(other.ids + 6, other.rows)]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gathered)
    found = sample.stored().rows
    assert found["layer block"].shape == (10, 1, 3)
    assert found["layer block"] is found["layer block.last"]
    assert torch.equal(found["layer other"], 2 * found["layer block"])
