"""Tensors in files of others. Nothing in a PyTorch file is run, and a safetensors file is read by its library."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

STATE_DICTS = ("state_dict", "model_state_dict", "model")  # where training scripts put one


def open_safetensors(path: Path) -> Any:
    """The opened file, of which nothing but the header is read; raises ValueError naming a file that is none."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(f"reading {path} needs the package safetensors: pip install safetensors") from error
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file, by name, in a checkpoint those of its state dict; nothing in it is executed.

    They stay on disk until they are read, but in files of before torch 1.6. Raises ValueError naming the file.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        reason = "holds more than tensors and plain values" if "GLOBAL" in str(error) else "is not a PyTorch file"
        raise ValueError(f"{path} {reason}, or is truncated") from error
    if isinstance(content, Tensor):
        return {"": content}
    for key in STATE_DICTS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def read_numpy(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file, left on disk; raises ValueError naming the file if it holds no real numbers."""
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a readable .npy file: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiuV":
        raise ValueError(f"{path} holds {getattr(array, 'dtype', type(array).__name__)}, not real numbers")
    if array.dtype.kind == "V" and array.dtype.itemsize != 2:
        raise ValueError(f"{path} holds {array.dtype}, not real numbers")
    return array
