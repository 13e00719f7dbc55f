"""Flips and crops, against the same done one image at a time."""

import torch
from torchvision.transforms.v2.functional import crop, pad

from datamodules.cifar import random_crop, random_flip
from likeness.seeding import generator

X = torch.randint(0, 256, (400, 3, 7, 5), dtype=torch.uint8, generator=generator(0))


def test_about_half_of_the_images_are_mirrored_and_the_others_left() -> None:
    flipped = random_flip(X, generator(1))
    mirrored = (flipped == X.flip(-1)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], X[~mirrored])
    assert 160 < int(mirrored.sum()) < 240


def test_each_crop_is_a_window_of_the_bordered_image_and_all_windows_occur() -> None:
    cropped = random_crop(X, 2, generator(1))
    assert cropped.shape == X.shape
    assert cropped.dtype == X.dtype
    windows = torch.stack([crop(pad(X, [2, 2, 2, 2]), top, left, 7, 5) for top in range(5) for left in range(5)])
    matches = (windows == cropped).flatten(2).all(2)  # [25, B]
    assert torch.equal(matches.sum(0), torch.ones(len(X), dtype=torch.long))
    assert (matches.sum(1) > 0).all()


def test_no_padding_changes_nothing() -> None:
    assert torch.equal(random_crop(X, 0, generator(1)), X)
