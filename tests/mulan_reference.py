"""What the MuLAN authors' code answers at random weights, with their arrays channels first."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.reference import FOLDER

EPSILON, VELOCITY = "mulan_epsilon_gaussian_perpixel_8x8x1", "mulan_velocity_topk_8x8x3"
EACH = pytest.mark.parametrize("name", [EPSILON, VELOCITY])
needs_mulan = pytest.mark.skipif(
    not (FOLDER / "mulan" / f"{VELOCITY}.npz").exists(), reason=f"no reference data in {FOLDER / 'mulan'}"
)


@cache
def arrays(name: str) -> dict[str, Tensor]:
    """Images and everything of their shape as [B, C, H, W], the polynomials' coefficients too; no parameters."""
    with np.load(FOLDER / "mulan" / f"{name}.npz") as file:
        stored = {key: file[key] for key in file.files if file[key].dtype.kind in "fi" and ":" not in key}
    shape = stored["images"].shape
    images = {key: value.reshape(shape) for key, value in stored.items() if value.size == np.prod(shape)}
    stored |= {key: np.moveaxis(value, -1, 1) for key, value in images.items()}
    return {key: torch.from_numpy(np.array(value, order="C")) for key, value in stored.items()}


@cache
def parameters(name: str, prefix: str = "param:") -> dict[str, np.ndarray]:
    """The parameters by Flax path, in Flax's layouts; of the prefix ``grad:`` the gradients."""
    with np.load(FOLDER / "mulan" / f"{name}.npz") as file:
        return {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}


@cache
def configuration(name: str) -> dict[str, Any]:
    """The model in the authors' JSON schema."""
    with np.load(FOLDER / "mulan" / f"{name}.npz") as file:
        return json.loads(str(file["model_config"]))  # type: ignore[no-any-return]
