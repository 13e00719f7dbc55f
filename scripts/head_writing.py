"""Writing a translated head to disk, block by block where the format allows it."""

import os
from pathlib import Path

import torch
from torch import Tensor

from likeness.measures.label_geometry import LabelRows, row_blocks
from likeness.measures.moments import as_float64


def write_translated(path: Path, g: LabelRows, translation: Tensor, bias: Tensor | None) -> None:
    """g + v [K, M] in float64, whose rounding is too small to move probabilities; bfloat16's is not.

    A ``.npy`` file is written block by block and holds the matrix alone; a ``.safetensors`` file holds ``weight``
    and, where there is one, ``bias``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    if path.suffix == ".npy":
        _write_numpy(temporary, g, translation.cpu())
    else:
        _write_safetensors(temporary, g, translation.cpu(), bias)
    os.replace(temporary, path)


def _write_numpy(path: Path, g: LabelRows, translation: Tensor) -> None:
    import numpy as np

    header = {"descr": "<f8", "fortran_order": False, "shape": tuple(g.shape)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in row_blocks(g.shape):
            (as_float64(g[block]) + translation).numpy().astype("<f8").tofile(file)


def _write_safetensors(path: Path, g: LabelRows, translation: Tensor, bias: Tensor | None) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise ImportError("writing .safetensors needs the package safetensors: pip install safetensors") from error
    tensors = {"weight": torch.cat([as_float64(g[block]) + translation for block in row_blocks(g.shape)])}
    if bias is not None:
        tensors["bias"] = as_float64(bias)
    save_file(tensors, path)
