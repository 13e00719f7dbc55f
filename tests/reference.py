"""Numbers and checkpoints that other people's code produced; tests that need them skip where they are absent."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "reference"
NAME = (
    "2025-04-22trained_radial_classification_SmallMLP_classes4_seed{seed}_features{width}"
    "_fd2_data20000_lr0_0001_steps15000"
)

needs_reference = pytest.mark.skipif(
    not (FOLDER / "close_dist_pairs.json").exists(), reason=f"no reference data in {FOLDER}"
)


@cache
def published() -> dict[str, Any]:
    """What the authors' code answers for their 20 checkpoints and 40 pairs."""
    return json.loads((FOLDER / "close_dist_pairs.json").read_text())


def radial_test_split(num_classes: int = 4, size: int = 2000, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs [N, 2] float32 and labels [N] of the radial data, as the authors draw their test split."""
    x = np.random.default_rng(seed).normal(0, 3, (size, 2)).astype(np.float32)
    upper = np.where(x[:, 1:] < 0, -x, x).astype(np.float64)
    angle = np.arccos(upper[:, 0] / np.linalg.norm(upper, axis=1))
    label = np.minimum(np.floor(angle / (math.pi / num_classes)), num_classes - 1)
    return torch.from_numpy(x), torch.from_numpy(label).long()


def representations(width: int, seed: int) -> tuple[Tensor, Tensor]:
    """f [2000, 2] on the radial test split and g [4, 2] of one of the authors' classifiers, in float32."""
    path = FOLDER / "close_dist" / NAME.format(seed=seed, width=width)
    state = torch.load(path, weights_only=True, map_location="cpu")
    f_net, g_net = (_small_mlp(state, prefix) for prefix in ("f_net", "g_net"))
    with torch.no_grad():
        return f_net(radial_test_split()[0]), g_net(torch.eye(4)[:, :-1])


def _small_mlp(state: dict[str, Tensor], prefix: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(1, 5):
        weight = state[f"{prefix}.l{index}.weight"]
        bias = state.get(f"{prefix}.l{index}.bias")
        linear = nn.Linear(*reversed(weight.shape), bias=bias is not None)
        linear.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
        layers += [linear, nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers[:-1])
