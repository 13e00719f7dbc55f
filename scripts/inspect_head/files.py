"""Tensors in files of others, read row by row and not at once, and a translated head written the same way.

A PyTorch file is read without running anything in it, a safetensors file by its own library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from likeness.files.tensors import open_safetensors, read_state_dict
from likeness.files.writing import replacing
from likeness.label_geometry.similarity import LabelRows, row_blocks
from likeness.numerics import as_float64

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".npy", ".safetensors")
# The weights of a Hugging Face model directory, in the order in which transformers looks for them.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class NumpyRows:
    """The rows of a ``.npy`` matrix that stays on disk."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix

    @property
    def shape(self) -> Sequence[int]:
        return self.matrix.shape

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.is_bfloat16 else str(self.matrix.dtype)

    @property
    def is_bfloat16(self) -> bool:
        """numpy has no bfloat16: libraries that add it write two bytes without a type."""
        return self.matrix.dtype.kind == "V" and self.matrix.dtype.itemsize == 2

    def __getitem__(self, rows: slice) -> Tensor:
        if self.is_bfloat16:
            return torch.from_numpy(self.matrix[rows].view("int16").copy()).view(torch.bfloat16)
        return torch.from_numpy(self.matrix[rows].astype("float64"))


class SafetensorRows:
    """The rows of one tensor of a ``.safetensors`` file that stays on disk."""

    def __init__(self, file: Any, key: str) -> None:
        self.file, self.key = file, key
        self.shape: Sequence[int] = file.get_slice(key).get_shape()

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the rows are stored; raises ValueError for one that torch does not have."""
        try:
            return (self[:1] if self.shape else self.whole()).dtype
        except Exception as error:  # safetensors has no class of its own for it
            stored = self.file.get_slice(self.key).get_dtype()
            raise ValueError(f"{self.key} is stored as {stored}, which cannot be read as numbers: {error}") from error

    def __getitem__(self, rows: slice) -> Tensor:
        block: Tensor = self.file.get_slice(self.key)[rows]
        return block

    def whole(self) -> Tensor:
        """The tensor, in memory."""
        tensor: Tensor = self.file.get_tensor(self.key)
        return tensor


class ScaledRows:
    """The rows of a quantised matrix [K, M]: stored numbers times a scale for each block of ``block`` entries."""

    def __init__(self, rows: LabelRows, scale: Tensor, block: tuple[int, int]) -> None:
        self.rows, self.scale, self.block = rows, as_float64(scale), block
        self.shape = rows.shape

    def __getitem__(self, rows: slice) -> Tensor:
        start, stop, _ = rows.indices(self.shape[0])
        height, width = self.block
        scale = self.scale[start // height : -(-stop // height)].repeat_interleave(height, 0)
        scale = scale[start % height : start % height + stop - start].repeat_interleave(width, 1)
        return as_float64(self.rows[start:stop].to(torch.float32)) * scale[:, : self.shape[1]]


class TensorFiles:
    """The tensors of a model by name, in one file or several; of each file nothing but the header is read at first."""

    def __init__(self, source: Path, where: Mapping[str, Path] | None = None) -> None:
        """``where`` names the file of each tensor; by default all are in ``source``."""
        self.source = source
        self._files: dict[Path, Mapping[str, Tensor | SafetensorRows]] = {}
        self._where = dict.fromkeys(self._open(source), source) if where is None else where

    @classmethod
    def of_folder(cls, folder: Path) -> TensorFiles:
        """Those of a Hugging Face model directory; of sharded weights only the shards that are asked for are opened.

        Raises ValueError where it has no weights, or several files and no index of them.
        """
        names = [name for name in WEIGHTS if (folder / name).is_file()]
        if not names:
            if (folder / "adapter_config.json").is_file():
                raise ValueError(f"{folder} is an adapter: merge it into the model that it adapts, and name that")
            names = [path.name for path in sorted(folder.iterdir()) if path.suffix == ".safetensors"]
            names = names or [path.name for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES]
            if len(names) != 1:
                found = ", ".join(names) or "none"
                raise ValueError(f"{folder} should hold one file of weights or an index of several, found {found}")
        file = folder / names[0]
        if file.suffix != ".json":
            return cls(file)
        index = read_json(file)
        where = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
            raise ValueError(f"{file} is no index of weights: it has no weight_map")
        return cls(file, {key: folder / Path(name).name for key, name in where.items()})

    @property
    def names(self) -> list[str]:
        return list(self._where)

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def __getitem__(self, name: str) -> Tensor | SafetensorRows:
        file = self._where[name]
        if not file.is_file():
            raise FileNotFoundError(f"{self.source} says that {name} stands in {file.name}, which is missing")
        tensors = self._open(file)
        if name not in tensors:
            raise ValueError(f"{self.source} says that {name} stands in {file.name}, which does not hold it")
        return tensors[name]

    def whole(self, name: str) -> Tensor:
        """A tensor in memory."""
        tensor = self[name]
        return tensor if isinstance(tensor, Tensor) else tensor.whole()

    def matrices(self, names: Iterable[str]) -> list[str]:
        """Those of the names whose tensors have two dimensions."""
        return [name for name in names if len(self[name].shape) == 2]

    def _open(self, file: Path) -> Mapping[str, Tensor | SafetensorRows]:
        if file not in self._files:
            if file.suffix == ".safetensors":
                opened = open_safetensors(file)
                self._files[file] = {name: SafetensorRows(opened, name) for name in list(opened.keys())}
            else:
                self._files[file] = read_state_dict(file)
        return self._files[file]


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises ValueError naming one that is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def write_translated(path: Path, g: LabelRows, translation: Tensor, bias: Tensor | None) -> None:
    """g + v [K, M] in float64, whose rounding is too small to move probabilities; bfloat16's is not.

    A ``.npy`` file is written block by block and holds the matrix alone; a ``.safetensors`` file holds ``weight``
    and, where there is one, ``bias``.
    """
    with replacing(path) as temporary:
        if path.suffix == ".npy":
            _write_numpy(temporary, g, translation.cpu())
        else:
            _write_safetensors(temporary, g, translation.cpu(), bias)


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
