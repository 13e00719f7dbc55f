"""What the frontier study trains on: three data sets small enough for two cores, with the statistics of real images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules import CIFAR10, MNIST
from datamodules.own.array_files import StoredArray
from likeness.files.errors import missing
from likeness.seeding import hashed
from scripts.reporting import write_arrays

PARTS = ("train", "test")
CROP = 8  # pixels
CIFAR_FILE = "cifar10.npz"


def halved(images: Tensor) -> Tensor:
    """The whole part of the mean of each 2 x 2 block of grey levels [N, H, W], [N, H / 2, W / 2] uint8."""
    count, height, width = images.shape
    blocks = images.reshape(count, height // 2, 2, width // 2, 2).long()
    return (blocks.sum((2, 4)) // 4).to(torch.uint8)


def crops(images: Tensor, size: int = CROP) -> Tensor:
    """One crop of each image [N, C, H, W], [N, C, size, size]: its place is a function of the image's number."""
    count, _, height, width = images.shape
    number = torch.arange(count)
    place = hashed(number)
    rows, columns = height - size + 1, width - size + 1
    top, left = place % rows, place // rows % columns
    inside = torch.arange(size)
    rows_of, columns_of = (start[:, None] + inside for start in (top, left))
    cut = images[number[:, None, None], :, rows_of[:, :, None], columns_of[:, None, :]]  # [N, size, size, C]
    return cut.permute(0, 3, 1, 2).contiguous()


def small_mnist(data_dir: Path, part: str) -> tuple[Tensor, Tensor]:
    """MNIST at 14 x 14, [N, 1, 14, 14] uint8, and its labels, from its idx files."""
    images, labels = MNIST(data_dir=str(data_dir), download=False).read(train=part == "train")
    return halved(images[:, 0])[:, None], labels


def small_cifar10(data_dir: Path, part: str) -> tuple[Tensor, Tensor]:
    """8 x 8 crops of CIFAR-10, [N, 3, 8, 8] uint8, and labels, from ``cifar10.npz`` or the published batches."""
    if (file := data_dir / CIFAR_FILE).is_file():
        images, labels = (torch.from_numpy(StoredArray(file, f"{key}_{part}").values()) for key in "xy")
        return crops(images.permute(0, 3, 1, 2)), labels
    images, labels = CIFAR10(data_dir=str(data_dir), download=False).read(train=part == "train")
    return crops(images), labels


@dataclass(frozen=True)
class DataSet:
    """Where images come from and how the trainings on them differ from those of the digits."""

    steps: int  # of a training
    read: Callable[[Path, str], tuple[Tensor, Tensor]] | None = None  # from a folder; None needs no file
    batch_size: int = 16
    gamma_min: float = -7.9
    fourier_exponents: tuple[int, ...] = (0, 1, 2, 3)
    test_images: int | None = None  # that are evaluated; None is all

    def options(self, file: Path) -> dict[str, Any]:
        """Of a training, over a configuration of the digits."""
        if self.read is None:
            return {}
        return {
            "data.class_path": "datamodules.Arrays",
            "data.init_args.file": str(file),
            "data.init_args.x_key": "x_{part}",
            "data.init_args.y_key": "y_{part}",
            "data.init_args.val_fraction": 0.0,
            "data.init_args.batch_size": self.batch_size,
            "data.init_args.on_device": True,
            "model.init_args.schedule.init_args.gamma_min": self.gamma_min,
            "model.init_args.network.init_args.fourier_exponents": list(self.fourier_exponents),
        }


# 256 levels are 16 times as fine as 17: noise starts where it is as fine beside them, features are four octaves higher.
OF_256_LEVELS: Mapping[str, Any] = {
    "batch_size": 32,
    "gamma_min": -13.3,
    "fourier_exponents": (4, 5, 6, 7),
    "test_images": 4000,
}
DATA = {
    "digits": DataSet(steps=2000),
    "cifar10": DataSet(steps=4000, read=small_cifar10, **OF_256_LEVELS),
    "mnist": DataSet(steps=1500, read=small_mnist, **OF_256_LEVELS),
}


def arrays_file(name: str, data_dir: Path, out: Path) -> Path:
    """The file of a data set's images, written once; of the digits a name without a file.

    Raises FileNotFoundError where the data are not at hand.
    """
    path, read = out / "data" / f"{name}.npz", DATA[name].read
    if read is None or path.is_file():
        return path
    if not data_dir.is_dir():
        raise missing(data_dir, "--data_dir names the folder of the data")
    arrays: dict[str, Any] = {}
    for part in PARTS:
        images, labels = read(data_dir, part)
        arrays |= {f"x_{part}": images.numpy(), f"y_{part}": labels.numpy()}
    return write_arrays(path, arrays)


def fingerprint(file: Path) -> str | None:
    """Of the images in a file; None of the digits, which come with a library."""
    if not file.is_file():
        return None
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update(StoredArray(file, f"x_{part}").values().tobytes())
    return digest.hexdigest()[:16]
