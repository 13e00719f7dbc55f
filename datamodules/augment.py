"""Augmentation of whole image batches where they lie, with randomness from a given generator."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def random_flip(x: Tensor, random: torch.Generator) -> Tensor:
    """Mirror each image of x [B, C, H, W] left to right with probability 1/2."""
    flip = torch.rand(len(x), generator=random, device=x.device) < 0.5
    return torch.where(flip[:, None, None, None], x.flip(-1), x)


def random_crop(x: Tensor, padding: int, random: torch.Generator) -> Tensor:
    """Crop each image of x [B, C, H, W] back to H x W at a random place, after a zero border of ``padding``."""
    batch, _, height, width = x.shape
    top, left = torch.randint(2 * padding + 1, (2, batch), generator=random, device=x.device)
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = left[:, None] + torch.arange(width, device=x.device)
    image = torch.arange(batch, device=x.device)[:, None, None]
    bordered = pad(x, (padding, padding, padding, padding))
    cropped = bordered[image, :, rows[:, :, None], columns[:, None, :]]  # [B, H, W, C]
    return cropped.permute(0, 3, 1, 2).contiguous()
