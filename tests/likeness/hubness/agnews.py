"""Embeddings [7600, 384] of the AG News test texts by all-MiniLM-L6-v2, and their labels."""

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.reference import FOLDER

needs_agnews = pytest.mark.skipif(
    not (FOLDER / "agnews_minilm.npz").exists(), reason=f"no agnews_minilm.npz in {FOLDER}"
)


@functools.cache
def agnews() -> tuple[Tensor, Tensor]:
    """Embeddings [7600, 384] of length 1 in float32, and labels 1 to 4, [7600]."""
    with np.load(FOLDER / "agnews_minilm.npz") as file:
        return torch.from_numpy(file["embeddings"]), torch.from_numpy(file["labels"])
