"""Hugging Face data sets: a folder that ``save_to_disk`` wrote, or a name in the local cache of the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from datamodules.errors import OptionError
from datamodules.own.arrays import read_cell
from datamodules.own.datamodule import OwnDataModule
from datamodules.own.labels import coded
from datamodules.own.samples import Selected, Source
from datamodules.splits import PARTS, SplitName
from likeness.files.errors import DataError


class DatasetRows(Source):
    """The rows of a Hugging Face data set, which stay in its Arrow files: pictures, texts, or lists of numbers."""

    def __init__(
        self, dataset: Any, column: str, channels: int, where: str, codes: Tensor | None, names: Sequence[str]
    ) -> None:
        super().__init__(codes, names)
        self.dataset = dataset
        self.column = column
        self.channels = channels
        self.where = where
        self.is_text = getattr(dataset.features[column], "dtype", None) in ("string", "large_string")

    @override
    def __len__(self) -> int:
        return len(self.dataset)

    @override
    def read(self, rows: Tensor) -> list[Any]:
        numbers = rows.tolist()
        cells = self.dataset[numbers][self.column]
        if self.is_text:
            return [cell or "" for cell in cells]
        return [read_cell(cell, self.channels, self.place(row)) for row, cell in zip(numbers, cells, strict=True)]

    @override
    def place(self, row: int) -> str:
        return f"{self.where}, row {row}, column {self.column!r}"


class HuggingFaceDataset(OwnDataModule):
    """A column of pictures, texts or lists of numbers of a data set as ``datasets`` keeps it, read from disk.

    Its splits are the parts: train, val (valid, validation, dev) and test. A data set without splits is the training
    part, or ``split_column`` names a column of parts. Nothing is downloaded: a name of the hub is looked up in the
    local cache.
    """

    def __init__(
        self,
        path: str,
        input_column: str = "image",
        label_column: str | None = "label",
        config_name: str | None = None,
        split_column: str | None = None,
        dataset_name: str = "hf_dataset",
        **kwargs: Any,
    ) -> None:
        """
        Args:
            path: Folder that ``save_to_disk`` wrote, or the name of a data set on the hub.
            input_column: Column of the inputs.
            label_column: Column of the labels, classes, texts or whole numbers; null for data without.
            config_name: Which configuration of a data set on the hub.
            split_column: Column that says to which part each row belongs.
            dataset_name: What metrics and tables call the data.
        """
        super().__init__(dataset_name=dataset_name, **kwargs)
        self.path = path
        self.input_column = input_column
        self.label_column = label_column
        self.config_name = config_name
        self.split_column = split_column
        self._splits: dict[SplitName, Any] = {}

    def parts(self) -> Sequence[SplitName]:
        return tuple(self._open())

    def open(self, part: SplitName) -> Source:
        dataset = self._open()[part]
        where = f"{self.path}, {self.called(part)}"
        for column in (self.input_column, self.label_column):
            if column is not None and column not in dataset.features:
                raise DataError(f"{where} has no column {column!r}, but: {', '.join(dataset.features)}")
        codes, names = self._labels(dataset, where)
        source = DatasetRows(
            _undecoded(dataset, self.input_column), self.input_column, self.channels, where, codes, names
        )
        if self.split_column is None:
            return source
        rows = np.flatnonzero(np.array(dataset[self.split_column][:]) == self.called(part))
        return Selected(source, torch.from_numpy(rows))

    def _open(self) -> dict[SplitName, Any]:
        """The data set of each part that is there."""
        if not self._splits:
            found = open_dataset(self.path, self.config_name)
            if not isinstance(found, Mapping):
                self._splits = self._of_column(found) if self.split_column else {"train": found}
            elif self.split_column:
                raise OptionError(f"{self.path} has the splits {', '.join(found)} already: leave out split_column")
            else:
                names = split_names(
                    found, {part: self.spellings(part) for part in PARTS}, self.path, ": say which by part_names"
                )
                self._splits = {part: found[name] for part, name in names.items()}
            if not self._splits:
                raise DataError(f"{self.path} has the splits {', '.join(found)}: name them by part_names")
        return self._splits

    def _of_column(self, dataset: Any) -> dict[SplitName, Any]:
        if self.split_column not in dataset.features:
            raise DataError(f"{self.path} has no column {self.split_column!r}, but: {', '.join(dataset.features)}")
        where = f"{self.path}, column {self.split_column!r}"
        return dict.fromkeys(self.parts_in(dataset[self.split_column][:], where), dataset)

    def _labels(self, dataset: Any, where: str) -> tuple[Tensor | None, tuple[str, ...]]:
        if self.label_column is None:
            return None, ()
        cells = dataset[self.label_column][:]
        names = getattr(dataset.features[self.label_column], "names", None)
        if names is None:
            return coded(cells, lambda row: f"{where}, row {row}, column {self.label_column!r}")
        for row, cell in enumerate(cells):
            if cell is None or not 0 <= cell < len(names):
                raise DataError(
                    f"{where}, row {row}, column {self.label_column!r}: {cell} is no class: set label_column: null for "
                    "data without labels"
                )
        return torch.tensor(cells, dtype=torch.long), tuple(names)


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote this folder: a data set, or one of several splits."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def may_be_hub_name(name: str) -> bool:
    """Whether this may be a data set of the hub: ``name`` or ``owner/name``, whose end is none of a kind of file."""
    path = Path(name)
    return (
        re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", name) is not None
        and re.fullmatch(r"\.[A-Za-z]{2}\w*", path.suffix) is None
        and not (path.parent.name and path.parent.exists())
    )


def split_names(
    found: Mapping[str, Any], spellings: Mapping[SplitName, Sequence[str]], path: str, advice: str = ""
) -> dict[SplitName, str]:
    """What the splits of a data set are called that are the parts.

    Raises DataError, ending with ``advice``, where two could be one part.
    """
    there = {part: [name for name in names if name in found] for part, names in spellings.items()}
    for part, names in there.items():
        if len(names) > 1:
            both = f"the splits {names[0]} and {names[1]} that could both be the {part} part"
            raise DataError(f"{path} has {both}{advice}")
    return {part: names[0] for part, names in there.items() if names}


def open_dataset(path: str, config_name: str | None = None) -> Any:
    """The data set or mapping of splits in a folder, else in the local cache under this name of the hub.

    Raises DataError naming what is not there. There is no request to the hub, nor does an inquiry wait for one.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(f'{path} needs the package datasets to be read: pip install -e ".[data]"') from error
    folder = Path(path).expanduser()
    try:
        if folder.is_dir():
            return datasets.load_from_disk(str(folder), keep_in_memory=False)
        with _offline(datasets.config):
            return datasets.load_dataset(path, config_name)
    except FileNotFoundError as error:
        raise DataError(f"{path} is no folder that save_to_disk wrote, and in no local cache: {error}") from error
    except (OSError, ValueError, RuntimeError) as error:
        if folder.is_dir():
            raise DataError(f"{folder} cannot be read as a Hugging Face data set: {error}") from error
        raise DataError(
            f"{path} is no folder, and there is no such data set in the local cache ({error}): call "
            f"datasets.load_dataset({path!r}) once where there is a network"
        ) from error


@contextmanager
def _offline(config: Any) -> Iterator[None]:
    """Inside, ``datasets`` asks nothing of the hub; its retries would take half a minute to fail."""
    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _undecoded(dataset: Any, column: str) -> Any:
    """The one column, pictures as the bytes that they are stored in."""
    import datasets

    dataset = dataset.select_columns([column])
    pictures = isinstance(dataset.features[column], datasets.Image)
    return dataset.cast_column(column, datasets.Image(decode=False)) if pictures else dataset
