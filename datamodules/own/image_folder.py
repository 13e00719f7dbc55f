"""Pictures in folders that are named after their classes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import override

from datamodules.own.datamodule import OwnDataModule
from datamodules.own.pictures import decode
from datamodules.own.samples import Source
from datamodules.splits import PARTS, SplitName
from likeness.files.errors import DataError, missing
from likeness.files.text_files import ordered_labels

LITTER = ("Thumbs.db", "desktop.ini")
_SHOWN = 5


class PictureFiles(Source):
    """The files below the class folders of one folder, in the order of their names; each is a sample.

    Hidden files and ``LITTER`` are none. Without class folders the files of the folder itself are the samples.
    """

    def __init__(self, folder: Path, channels: int) -> None:
        self.folder = folder
        self.channels = channels
        names = class_folders(folder)
        files = [list(_files(folder, name)) for name in names]
        if empty := [name for name, found in zip(names, files, strict=True) if not found]:
            raise DataError(f"{folder / empty[0]} is a class without a file in it")
        own = [os.fsencode(entry) for entry in sorted(_own_files(folder))]
        if names and own:
            rank_zero_info(f"no samples, for they stand beside the class folders of {folder}: {_listed(own)}")
        counts = torch.tensor([len(found) for found in files], dtype=torch.long)
        super().__init__(torch.arange(len(names)).repeat_interleave(counts) if names else None, names)
        # One block of memory, which workers share: as a million Python texts each would copy it sooner or later.
        self.files = np.array([file for found in files for file in found] if names else own, dtype=np.bytes_)

    @override
    def __len__(self) -> int:
        return len(self.files)

    @override
    def read(self, rows: Tensor) -> list[Tensor]:
        paths = [self.path(row) for row in rows.tolist()]
        return [decode(path, self.channels, str(path)) for path in paths]

    @override
    def place(self, row: int) -> str:
        return str(self.path(row))

    def path(self, row: int) -> Path:
        """The file of a sample."""
        return self.folder / os.fsdecode(bytes(self.files[row]))


class ImageFolder(OwnDataModule):
    """Pictures of any size below folders named after their classes: ``train/cat/1.jpg``, or ``cat/1.jpg``.

    Every file below a class folder is a sample, decoded by the loaders' workers when its batch is due; hidden files are
    none. Where ``data_dir`` has none of the folders train, val (valid, validation, dev) and test, all of it is the
    training part.
    """

    def __init__(self, data_dir: str, dataset_name: str = "image_folder", **kwargs: Any) -> None:
        """
        Args:
            data_dir: The folder of the parts, or of the classes.
            dataset_name: What metrics and tables call the data.
        """
        super().__init__(dataset_name=dataset_name, **kwargs)
        self.data_dir = Path(data_dir).expanduser()
        self._folders: dict[SplitName, Path] = {}

    def parts(self) -> Sequence[SplitName]:
        return tuple(self._find())

    def open(self, part: SplitName) -> PictureFiles:
        return PictureFiles(self._find()[part], self.channels)

    def labels(self, part: SplitName) -> Sequence[str] | None:
        return class_folders(self._find()[part]) or None  # no need to list a million files for their folders' names

    def _find(self) -> dict[SplitName, Path]:
        """The folder of each part that is there."""
        if self._folders:
            return self._folders
        if not self.data_dir.is_dir():
            raise missing(self.data_dir, "data_dir is a folder of pictures in folders named after their classes")
        found = {part: self._of(part) for part in PARTS}
        self._folders = {part: folder for part, folder in found.items() if folder is not None}
        if not self._folders:
            if self.part_names:
                raise DataError(f"{self.data_dir} has none of the folders {', '.join(self.part_names.values())}")
            self._folders = {"train": self.data_dir}
        elif others := sorted({*class_folders(self.data_dir)} - {path.name for path in self._folders.values()}):
            rank_zero_info(f"no part of the data: {', '.join(others[:_SHOWN])} in {self.data_dir}")
        return self._folders

    def _of(self, part: SplitName) -> Path | None:
        there = [folder for name in self.spellings(part) if (folder := self.data_dir / name).is_dir()]
        if len(there) > 1:
            raise DataError(f"{there[0]} and {there[1]} could both be the {part} part: say which by part_names")
        return there[0] if there else None


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, without hidden ones: numbers as numbers, others by the alphabet."""
    with os.scandir(folder) as entries:
        return ordered_labels(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _own_files(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in entries if entry.is_file() and _is_sample(entry.name))


def _files(root: Path, name: str) -> Iterator[bytes]:
    """The files below a class folder, as paths from ``root``, in the order of their names."""
    for folder, below, files in os.walk(root / name, followlinks=True):
        below[:] = sorted(entry for entry in below if not entry.startswith("."))
        relative = os.path.relpath(folder, root)
        yield from (os.fsencode(os.path.join(relative, file)) for file in sorted(files) if _is_sample(file))


def _is_sample(name: str) -> bool:
    return not name.startswith(".") and name not in LITTER


def _listed(names: Sequence[bytes]) -> str:
    shown = ", ".join(os.fsdecode(name) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
