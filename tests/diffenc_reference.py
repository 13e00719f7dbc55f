"""What the DiffEnc authors' code answers at random weights, with their arrays channels first."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.reference import FOLDER

NAMES = ("vdm_v_8x8x1", "diffenc_nontrainable_8x8x3", "diffenc_trainable_16x16x3")
TRAINABLE = NAMES[2]

needs_diffenc = pytest.mark.skipif(
    not (FOLDER / "diffenc" / f"{TRAINABLE}.npz").exists(), reason=f"no reference data in {FOLDER / 'diffenc'}"
)


@cache
def arrays(name: str) -> dict[str, Tensor]:
    """Images and everything of their shape as [B, C, H, W], other arrays as they are; no parameters."""
    with np.load(FOLDER / "diffenc" / f"{name}.npz") as file:
        stored = {key: file[key] for key in file.files if file[key].dtype.kind in "fi" and not key.startswith("param:")}
    moved = {key: np.moveaxis(value, -1, 1) if value.ndim == 4 else value for key, value in stored.items()}
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in moved.items()}


@cache
def parameters(name: str) -> dict[str, np.ndarray]:
    """The parameters by Flax path, in Flax's layouts."""
    with np.load(FOLDER / "diffenc" / f"{name}.npz") as file:
        return {key.removeprefix("param:"): file[key] for key in file.files if key.startswith("param:")}


@cache
def configuration(name: str) -> dict[str, Any]:
    """The model in the authors' JSON schema."""
    with np.load(FOLDER / "diffenc" / f"{name}.npz") as file:
        return json.loads(str(file["model_config"]))  # type: ignore[no-any-return]
