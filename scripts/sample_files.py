"""What is written of samples: an ``.npz`` file, and a picture of them."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from torch import Tensor

from callbacks.figures import PALETTE, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_DRAWN = 256  # images in a grid
SMALLEST = 64  # pixels of a side, to which images are enlarged by a whole factor


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """An uncompressed ``.npz`` file, the whole or none of it; its folder is made."""
    return _write(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def write_picture(path: Path, samples: Tensor, levels: int) -> Path | None:
    """A grid of grey or RGB images, or a scatter plot of points; None where there is nothing that can be drawn."""
    if samples.dim() == 2 and samples.shape[1] == 2:
        return save_figure(_scatter(samples.numpy(), levels), path)
    if samples.dim() != 4 or samples.shape[1] not in (1, 3):
        return None
    from torchvision.transforms.functional import to_pil_image

    image = to_pil_image(image_grid(samples[:MAX_DRAWN], levels))
    return _write(path, lambda file: image.save(file, format="PNG"))


def image_grid(images: Tensor, levels: int) -> Tensor:
    """Grey levels [N, 1 or 3, H, W] as one RGB image, uint8 [3, H', W'], nearly square, with a border of one pixel."""
    from torchvision.utils import make_grid

    factor = math.ceil(SMALLEST / max(images.shape[-2:]))
    to_bytes = (images.double() * (255 / (levels - 1))).round().to(torch.uint8)
    enlarged = to_bytes.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    return make_grid(enlarged, nrow=math.ceil(math.sqrt(len(images))), padding=1, pad_value=255)


def _scatter(points: np.ndarray, levels: int) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="tight")
    axes = figure.add_subplot()
    axes.scatter(points[:, 0], points[:, 1], s=4, color=PALETTE[0], alpha=0.6, linewidths=0)
    axes.set(xlim=(0, levels - 1), ylim=(0, levels - 1), aspect="equal", title=f"{len(points)} samples")
    return figure


def _write(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        write(file)
    os.replace(temporary, path)
    return path
