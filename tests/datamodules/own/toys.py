"""Writers of small data of one's own: folders of pictures, arrays and Hugging Face data sets."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.datamodules.files import images


def picture(seed: int, height: int = 12, width: int = 10) -> np.ndarray:
    """A random picture [H, W, 3]."""
    return images(1, seed, (height, width, 3))[0]


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write_classes(
    folder: Path, counts: dict[str, int], draw: Callable[[int], np.ndarray] = picture, first: int = 0
) -> Path:
    """A folder for each class with so many PNG pictures."""
    number = first
    for name, count in counts.items():
        for _ in range(count):
            save(folder / name / f"{number:04d}.png", draw(number))
            number += 1
    return folder


def write_parts(folder: Path, sizes: dict[str, int], classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """A folder for each part with so many pictures of each class, all of them different."""
    for index, (part, size) in enumerate(sizes.items()):
        write_classes(folder / part, dict.fromkeys(classes, size), first=1000 * index)
    return folder


def write_npz(path: Path, sizes: dict[str, int], shape: tuple[int, ...] = (8, 8, 3), classes: int = 3) -> Path:
    """x_{part} uint8 [N, *shape] and y_{part} for each part."""
    arrays = {f"x_{part}": images(size, seed, shape) for seed, (part, size) in enumerate(sizes.items())}
    labels = {f"y_{part}": np.arange(size) % classes for part, size in sizes.items()}
    np.savez(path, **arrays, **labels)
    return path


def write_dataset(folder: Path, sizes: dict[str, int]) -> Path:
    """A DatasetDict with the columns image, label, text, point and part."""
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "text": datasets.Value("string"),
            "point": datasets.List(datasets.Value("float32")),
            "part": datasets.Value("string"),
        }
    )
    datasets.disable_progress_bars()
    datasets.DatasetDict(
        {
            part: datasets.Dataset.from_dict(
                {
                    "image": [{"bytes": png(picture(100 * index + row)), "path": None} for row in range(size)],
                    "label": [row % 2 for row in range(size)],
                    "text": [f"{part} {row}" for row in range(size)],
                    "point": [[float(row), -float(row)] for row in range(size)],
                    "part": [("train", "val", "test")[row % 3] for row in range(size)],
                },
                features=features,
            )
            for index, (part, size) in enumerate(sizes.items())
        }
    ).save_to_disk(str(folder))
    return folder
