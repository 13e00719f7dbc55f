"""Pairs of tiny language models with what they are by definition, and pairs made here."""

import json
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.reference import FOLDER

NAMES = ("v10_m6", "v12_m5_bias", "v24_m8_m12", "v65_m32")
needs_pairs = pytest.mark.skipif(
    not (FOLDER / "language_models" / "pair_v10_m6.npz").exists(), reason=f"no language models in {FOLDER}"
)


# What is between two distributions, by our names and those of the files.
DIVERGENCES = {
    "kl_12": "kl",
    "kl_21": "kl_reverse",
    "js": "js",
    "total_variation": "tv",
    "agreement": "agree",
    "variance_12": "var_p_of_logit_difference",
}


class Pair(NamedTuple):
    """Two models at the same positions, in float64."""

    first: tuple[Tensor, Tensor, Tensor | None]
    second: tuple[Tensor, Tensor, Tensor | None]
    next_token: Tensor
    results: dict[str, Any]
    arrays: dict[str, Tensor]
    kept: Tensor


@cache
def pair(name: str) -> Pair:
    """One of the reference files."""
    with np.load(FOLDER / "language_models" / f"pair_{name}.npz") as file:
        meta = json.loads(str(file["meta"]))
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
    models = [(arrays[f"f{i}"].double(), arrays[f"g{i}"].double(), arrays.get(f"b{i}")) for i in "12"]
    first, second = ((f, g, None if b is None else b.double()) for f, g, b in models)
    return Pair(first, second, arrays["y"].long(), meta["results"], arrays, torch.tensor(meta["kept_labels"]))


def random_pair(
    samples: int = 60, labels: int = 9, dims: tuple[int, int] = (3, 3), seed: int = 0, bias: bool = True
) -> tuple[tuple[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor | None], Tensor]:
    """Two unrelated models (f, g, b) in float64, and next tokens."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    first, second = ((draw(samples, dim), draw(labels, dim), draw(labels) if bias else None) for dim in dims)
    return first, second, torch.randint(labels, (samples,), generator=random)


def logits(model: tuple[Tensor, Tensor, Tensor | None]) -> Tensor:
    """[N, V]."""
    f, g, b = model
    return f @ g.T if b is None else f @ g.T + b
