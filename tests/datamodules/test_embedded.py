"""The datasets that need no file of their own: digits, swirl and photo patches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits, load_sample_images

from datamodules import Digits, PhotoPatches, Swirl
from datamodules.base import TensorDataModule
from datamodules.points import NOISE


def ready(data: TensorDataModule) -> TensorDataModule:
    data.prepare_data()
    data.setup()
    return data


@given(st.integers(0, 100))
@settings(max_examples=10)
def test_digits_are_divided_without_loss_or_overlap(split_seed: int) -> None:
    splits = ready(Digits(split_seed=split_seed)).splits
    x = torch.cat([split.x for split in splits.values()]).flatten(1).numpy()
    y = torch.cat([split.y for split in splits.values()]).numpy()
    images, labels = load_digits(return_X_y=True)
    together, source = np.column_stack([x, y]), np.column_stack([images, labels])
    np.testing.assert_array_equal(*(rows[np.lexsort(rows.T)] for rows in (together, source)))


def test_digits_are_divided_by_class_and_seed() -> None:
    splits = ready(Digits()).splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 1257, "val": 180, "test": 360}
    share = torch.stack([split.y.bincount() / len(split) for split in splits.values()])
    assert float((share - share[0]).abs().max()) < 0.01
    again, other = ready(Digits()).splits["test"], ready(Digits(split_seed=1)).splits["test"]
    assert torch.equal(again.x, splits["test"].x)
    assert not torch.equal(other.x, splits["test"].x)


def test_digits_have_17_levels() -> None:
    data = ready(Digits())
    x = data.splits["train"].x
    assert x.dtype == torch.uint8
    assert x.unique().tolist() == list(range(data.levels))


def test_the_swirl_follows_its_curve_with_noise_of_its_own_for_each_point() -> None:
    """Before rounding down, (x / 4 - 30) is the curve r = 2 t + pi plus noise of 0.25 in each coordinate."""
    x = (ready(Swirl(size=10_000)).splits["train"].x.double() + 0.5) / 4 - 30
    turn = torch.linspace(0, 3 * math.pi, 5_000, dtype=torch.float64)
    curve = (2 * turn + math.pi)[:, None] * torch.stack([turn.cos(), turn.sin()], 1)
    away = torch.cat([torch.cdist(part, curve).min(1).values for part in x.split(2000)])
    # One coordinate of noise stays after the nearest point is taken, and rounding adds a uniform of width 1/4.
    assert float(away.square().mean().sqrt()) == pytest.approx(math.sqrt(NOISE**2 + 1 / 16 / 12), rel=0.03)


def test_the_swirl_fits_its_integers() -> None:
    splits = ready(Swirl()).splits
    assert {name: len(split) for name, split in splits.items()} == dict.fromkeys(("train", "val", "test"), 1024)
    x = torch.cat([split.x for split in splits.values()])
    assert x.dtype == torch.uint8
    assert int(x.min()) > 20
    assert int(x.max()) < 220
    assert not torch.equal(splits["val"].x, splits["test"].x)


def test_photo_patches_lie_in_their_own_region_of_their_own_photograph() -> None:
    data = ready(PhotoPatches(crop_size=16, train_size=60, eval_size=40))
    photographs = [image.transpose(2, 0, 1) for image in load_sample_images().images]
    regions = {"train": (0, 384), "val": (384, 512), "test": (512, 640)}
    for name, (left, right) in regions.items():
        split = data.splits[name]
        for crop, label in zip(split.x.numpy(), split.y.tolist(), strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(
                photographs[label][:, :, left:right], (16, 16), axis=(1, 2)
            )
            corner = (windows[..., 0, 0] == crop[:, None, None, 0, 0]).all(0)
            assert (windows[:, corner].swapaxes(0, 1) == crop).all((1, 2, 3)).any()


def test_photo_patches_are_all_different_and_balanced() -> None:
    data = ready(PhotoPatches(train_size=2000, eval_size=300))
    x = torch.cat([split.x for split in data.splits.values()]).flatten(1)
    assert len(x.unique(dim=0)) == len(x) == 2600
    assert data.splits["train"].y.bincount().tolist() == [1000, 1000]
    assert data.input_shape == tuple(data.splits["train"].x.shape[1:]) == (3, 32, 32)
    assert int(x.max()) > 250


def test_photo_patches_are_drawn_by_seed() -> None:
    first, again, other = (
        ready(PhotoPatches(train_size=8, eval_size=8, crop_seed=seed)).splits["train"].x for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_impossible_crops_are_refused() -> None:
    with pytest.raises(ValueError, match="crop_size must be between 1 and 128, got 129"):
        PhotoPatches(crop_size=129)
    with pytest.raises(ValueError, match=r"301 crops asked for.* 300 places"):
        ready(PhotoPatches(crop_size=128, eval_size=602, train_size=2))
