"""Arrays in files: images or points, their labels by name, and encoded pictures in Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from datamodules.errors import OptionError
from datamodules.own.array_files import ParquetColumn, StoredArray, keys
from datamodules.own.datamodule import OwnDataModule
from datamodules.own.labels import coded
from datamodules.own.pictures import decode
from datamodules.own.samples import SampleError, Selected, Source
from datamodules.splits import PARTS, SplitName
from likeness.files.columns import open_columns
from likeness.files.errors import DataError, missing
from likeness.files.text_files import is_parquet

Layout = Literal["auto", "hwc", "chw"]
PART = "{part}"
COLOURS = (1, 3, 4)  # how many channels an axis has that is taken for one


class ArrayRows(Source):
    """The rows of an array as inputs: uint8 or float32, images [C, H, W], points [D].

    Floating-point numbers become float32. Other integers and booleans become uint8, where they are that small.
    """

    def __init__(self, array: StoredArray, layout: Layout, codes: Tensor | None, names: Sequence[str]) -> None:
        super().__init__(codes, names)
        self.array = array
        self.layout = resolved_layout(array, layout)
        if codes is not None and len(codes) != array.shape[0]:
            raise DataError(f"{array} has {array.shape[0]} rows, but there are {len(codes)} labels")

    @override
    def __len__(self) -> int:
        return self.array.shape[0]

    @override
    def read(self, rows: Tensor) -> Tensor:
        x = self.array.rows(rows)
        if self.layout == "hw":
            x = x[:, None]
        elif self.layout == "hwc":
            x = x.permute(0, 3, 1, 2)
        if x.is_floating_point():
            values = x.float()
            self._require(values.isfinite(), x, rows, "a finite number in float32")
            return values.contiguous()
        if x.dtype in (torch.uint8, torch.bool):
            return x.to(torch.uint8).contiguous()
        self._require((x.long() >= 0) & (x.long() < 256), x, rows, "0 to 255; store it as uint8 or float")
        return x.to(torch.uint8).contiguous()

    @override
    def place(self, row: int) -> str:
        return f"{self.array}, row {row}"

    def _require(self, right: Tensor, x: Tensor, rows: Tensor, expected: str) -> None:
        wrong = (~right.flatten(1).all(1)).nonzero()
        if wrong.numel():
            sample = int(wrong[0, 0])
            value = x[sample][~right[sample]][0]
            raise SampleError(f"{self.place(int(rows[sample]))} has an input of {value.item():g}, expected {expected}")


def resolved_layout(array: StoredArray, layout: Layout) -> Literal["points", "hw", "hwc", "chw"]:
    """What the axes of an array mean: [N, D] points, [N, H, W], [N, H, W, C] or [N, C, H, W].

    Raises DataError for other numbers of axes, and where the channels could be first or last.
    """
    shape, dtype = array.shape, array.dtype
    if not (dtype.startswith(("float", "int", "uint", "bfloat")) or dtype == "bool"):
        raise DataError(f"{array} holds {dtype}, not real numbers")
    if len(shape) in (2, 3):
        return "points" if len(shape) == 2 else "hw"
    if len(shape) != 4:
        raise DataError(f"{array} is {list(shape)}, where inputs are [N, D], [N, H, W], [N, H, W, C] or [N, C, H, W]")
    if layout != "auto":
        return layout
    first, last = shape[1] in COLOURS, shape[3] in COLOURS
    if first == last:
        raise OptionError(f"which axis of {array}, {list(shape)}, are the channels? Set layout: chw, or layout: hwc")
    return "chw" if first else "hwc"


class ParquetRows(Source):
    """The rows of a Parquet column: encoded pictures, or lists of numbers as points [D] float32."""

    def __init__(self, column: ParquetColumn, channels: int, codes: Tensor | None, names: Sequence[str]) -> None:
        super().__init__(codes, names)
        self.column = column
        self.channels = channels

    @override
    def __len__(self) -> int:
        return self.column.length

    @override
    def read(self, rows: Tensor) -> list[Tensor]:
        cells = self.column.cells(rows)
        return [read_cell(cell, self.channels, self.place(row)) for row, cell in zip(rows.tolist(), cells, strict=True)]

    @override
    def place(self, row: int) -> str:
        return f"{self.column.path}, row {row + 1}, column {self.column.key!r}"


def read_cell(cell: Any, channels: int, place: str) -> Tensor:
    """A picture of bytes, or of a mapping with them or a path, as ``datasets`` has it; numbers as a point.

    Raises SampleError beginning with ``place``.
    """
    if isinstance(cell, dict) and {"bytes", "path"} & {*cell}:
        cell = cell["bytes"] if cell.get("bytes") is not None else Path(cell["path"]) if cell.get("path") else None
    if isinstance(cell, bytes | Path):
        return decode(cell, channels, place)
    if isinstance(cell, list) and cell and all(isinstance(number, int | float) for number in cell):
        point = torch.tensor(cell, dtype=torch.float32)
        if point.isfinite().all():
            return point
        raise SampleError(f"{place} has a number that is not finite")
    raise SampleError(f"{place} holds {'nothing' if cell is None else type(cell).__name__}, no picture and no numbers")


class Arrays(OwnDataModule):
    """Images or points in .npz, .npy or .safetensors files; encoded pictures or lists of numbers in Parquet files.

    In ``file``, ``labels_file``, ``x_key`` and ``y_key`` the word ``{part}`` stands for train, val and test (see
    ``part_names``): ``x_{part}`` in one file, or ``data/{part}.npy``. A part is there if its file and key are. Without
    the word everything is the training part, or ``split_key`` names a column of parts. Arrays stay on disk, but for
    compressed .npz files.
    """

    def __init__(
        self,
        file: str,
        x_key: str = "x",
        y_key: str | None = "y",
        labels_file: str | None = None,
        split_key: str | None = None,
        layout: Layout = "auto",
        cache_dir: str | None = None,
        dataset_name: str = "arrays",
        **kwargs: Any,
    ) -> None:
        """
        Args:
            file: .npz, .npy, .safetensors or Parquet file, or a file for each part.
            x_key: Name of the inputs in the file; an .npy file has none.
            y_key: Name of the labels, texts or whole numbers; null for data without.
            labels_file: File of the labels, where they do not stand beside the inputs.
            split_key: Name of the array or column that says to which part each sample belongs.
            layout: Whether channels come last or first; auto takes an axis of 1, 3 or 4 for them.
            cache_dir: Where a Parquet column is unpacked to, once; null is the folder ``cache`` beside the file.
            dataset_name: What metrics and tables call the data.
        """
        super().__init__(dataset_name=dataset_name, **kwargs)
        if split_key is not None and any(PART in text for text in (file, x_key)):
            raise ValueError(f"split_key {split_key} and {PART} in file or x_key both divide the samples: give one")
        self.file = file
        self.x_key = x_key
        self.y_key = y_key
        self.labels_file = labels_file
        self.split_key = split_key
        self.layout: Layout = layout
        self.cache_dir = cache_dir
        self._there: tuple[SplitName, ...] = ()

    def prepare_data(self) -> None:
        paths = {self._path(self.file, part) for part in PARTS}
        for path in paths:
            if path.is_file() and is_parquet(path):
                for key in {self._word(self.x_key, part) for part in PARTS} & {*keys(path)}:
                    ParquetColumn(path, key, self._cache()).convert()

    def parts(self) -> Sequence[SplitName]:
        if not self._there:
            self._there = self._of_column() if self.split_key else self._of_names()
        return self._there

    def open(self, part: SplitName) -> Source:
        path = self._path(self.file, part)
        codes, names = self._labels(part, path)
        if is_parquet(path):
            column = ParquetColumn(path, self._word(self.x_key, part), self._cache())
            source: Source = ParquetRows(column, self.channels, codes, names)
        else:
            array = StoredArray(path, "" if path.suffix == ".npy" else self._word(self.x_key, part))
            source = ArrayRows(array, self.layout, codes, names)
        if self.split_key is None:
            return source
        rows = np.flatnonzero(self._column(path, self.split_key) == self.called(part))
        return Selected(source, torch.from_numpy(rows))

    def _of_names(self) -> tuple[SplitName, ...]:
        """The parts whose file and key are there; the training part where neither names a part."""
        if not any(PART in text for text in (self.file, self.x_key)):
            if not self._path(self.file, "train").is_file():
                raise missing(self._path(self.file, "train"), "file names the arrays")
            return ("train",)
        there = tuple(part for part in PARTS if self._has(part))
        if not there:
            wanted = ", ".join(f"{self._path(self.file, p)}[{self._word(self.x_key, p)}]" for p in PARTS)
            raise missing(self._path(self.file, "train"), f"none of {wanted} is there")
        return there

    def _has(self, part: SplitName) -> bool:
        path = self._path(self.file, part)
        return path.is_file() and (path.suffix == ".npy" or self._word(self.x_key, part) in keys(path))

    def _of_column(self) -> tuple[SplitName, ...]:
        path = self._path(self.file, "train")
        return self.parts_in(self._column(path, str(self.split_key)).tolist(), f"{path}[{self.split_key}]")

    def _labels(self, part: SplitName, path: Path) -> tuple[Tensor | None, tuple[str, ...]]:
        if self.y_key is None:
            return None, ()
        key = self._word(self.y_key, part)
        where = path if self.labels_file is None else self._path(self.labels_file, part)
        if self.labels_file is None and path.suffix == ".npy":
            raise DataError(f"{path} is one array: name the labels_file, or set y_key: null for data without labels")
        return coded(self._column(where, key), lambda row: f"{where}[{key}], row {row}")

    def _column(self, path: Path, key: str) -> np.ndarray:
        """Labels or names of parts [N], or what somebody took for them."""
        if path.suffix in (".npy", ".npz", ".safetensors"):
            return StoredArray(path, "" if path.suffix == ".npy" else key).values()
        columns = open_columns(path)
        if key not in columns.shapes:
            key = next(iter(columns.shapes)) if list(columns.shapes) == [""] else key
        if key not in columns.shapes:
            raise DataError(f"{path} has no column {key!r} of labels, but: {columns.listed(columns.lists())}")
        return np.array(columns.labels(key))

    def _path(self, template: str, part: SplitName) -> Path:
        return Path(self._word(template, part)).expanduser()

    def _word(self, template: str, part: SplitName) -> str:
        return template.replace(PART, self.called(part))

    def _cache(self) -> Path | None:
        return None if self.cache_dir is None else Path(self.cache_dir).expanduser()
