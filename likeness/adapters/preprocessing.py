"""Images as models of other libraries were trained to see them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

# Where torchvision and timm say nothing: the statistics of ImageNet, on which nearly all of their models were trained.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Preprocessing:
    """Images as a model takes them: the shorter side resized, the middle cut out, values normalised.

    Takes uint8 images [N, C, H, W], lists of pictures of PIL, and single-channel images, which are repeated. Float
    images pass unchanged: they are taken to be preprocessed. ``crop`` None keeps the size, and so does ``resize`` None.
    """

    resize: int | None
    crop: int | None
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    interpolation: str = "bilinear"

    def __call__(self, images: Any) -> Any:
        """[N, 3, crop, crop] float32."""
        if isinstance(images, Tensor):
            return self.normalised(self.sized(images).float() / 255) if images.dtype == torch.uint8 else images
        if isinstance(images, list) and images and hasattr(images[0], "convert"):
            return torch.cat([self(_pixels(image)) for image in images])
        return images

    def sized(self, images: Tensor) -> Tensor:
        """Resized and cropped, in the type that they came in."""
        from torchvision.transforms import InterpolationMode, functional  # as the presets of its models, bit for bit

        if self.resize is not None and min(images.shape[-2:]) != self.resize:
            mode = InterpolationMode(self.interpolation)
            images = functional.resize(images, [self.resize], interpolation=mode, antialias=True)
        if self.crop is not None and images.shape[-2:] != (self.crop, self.crop):
            images = functional.center_crop(images, [self.crop, self.crop])
        return images

    def normalised(self, images: Tensor) -> Tensor:
        """Of images in [0, 1], [N, C, H, W]."""
        if images.shape[1] == 1 and len(self.mean) == 3:
            images = images.expand(-1, 3, -1, -1)
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    def at(self, size: str | int | None) -> Preprocessing:
        """The same at the size that is asked for, without cropping; itself where that is None."""
        return self if size is None else replace(self, resize=int(size), crop=int(size))


def _pixels(image: Any) -> Tensor:
    from torchvision.transforms import functional

    pixels: Tensor = functional.pil_to_tensor(image.convert("RGB"))
    return pixels.unsqueeze(0)
