"""Encoded pictures as uint8 tensors, by one rule for files, Parquet and Hugging Face data sets.

The format is told by the content, whatever the suffix says; of several frames the first is taken; the rotation that
EXIF asks for is applied. Transparent pixels are laid over white. Of 16 bits the upper 8 are kept. Everything else
(CMYK, palettes, grey, ...) is converted as Pillow does, to RGB or, for one channel, to grey.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from datamodules.own.samples import SampleError

if TYPE_CHECKING:
    from PIL import Image

MODES = {1: "L", 3: "RGB"}
SIXTEEN_BITS = 1 << 16
# What Pillow's readers raise of bytes that are not what they should be.
DAMAGE = (OSError, SyntaxError, EOFError, ValueError, RuntimeError, LookupError, ArithmeticError, struct.error)


def decode(encoded: Path | bytes, channels: int, place: str) -> Tensor:
    """A picture [channels, H, W] uint8, its channels last in memory, as resizing likes them.

    Raises SampleError beginning with ``place`` where it is no picture, or cut short.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(encoded, bytes) and not encoded:
        raise SampleError(f"{place} holds no bytes")
    try:
        with Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded)) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            pixels = np.array(_eight_bits(upright, channels, place))  # writable, unlike Pillow's own memory
    except UnidentifiedImageError as error:
        empty = isinstance(encoded, Path) and encoded.stat().st_size == 0
        raise SampleError(f"{place} {'holds no bytes' if empty else 'is no picture'}") from error
    except (*DAMAGE, Image.DecompressionBombError) as error:
        if isinstance(error, SampleError):
            raise
        raise SampleError(f"{place} cannot be decoded: {error}") from error
    return torch.from_numpy(pixels if channels == 3 else pixels[..., None]).permute(2, 0, 1)


def _eight_bits(image: Image.Image, channels: int, place: str) -> Image.Image:
    """The picture in RGB or in grey, 8 bits a value."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        pixels = np.asarray(image)
        if image.mode == "F" or pixels.min() < 0 or pixels.max() >= SIXTEEN_BITS:
            raise SampleError(f"{place} has 32-bit pixels, which say nothing of black and white: store 8 or 16 bits")
        image = Image.fromarray((pixels >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        image = image.convert("RGB")
    return image.convert(MODES[channels])


class Fit:
    """Pictures of any size as [C, H, W]: resized until they cover H x W, and cut around their centre."""

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = (size, size) if isinstance(size, int) else tuple(size)

    def __call__(self, picture: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import center_crop, resize

        if picture.shape[-2:] == self.size:
            return picture
        pairs = list(zip(self.size, picture.shape[-2:], strict=True))
        scale = max(wanted / given for wanted, given in pairs)
        covering = [max(wanted, round(given * scale)) for wanted, given in pairs]
        resized: Tensor = resize(picture, covering, antialias=True)
        return center_crop(resized, list(self.size))
