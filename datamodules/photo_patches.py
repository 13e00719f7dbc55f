"""Crops of scikit-learn's two sample photographs: real 8-bit colour with no download."""

from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from datamodules.base import TensorDataModule
from datamodules.splits import SplitName, TensorSplit

# Columns of the 427 x 640 photographs: no pixel belongs to two splits.
_REGIONS: dict[SplitName, slice] = {
    "train": slice(0, 384),
    "val": slice(384, 512),
    "test": slice(512, 640),
}


class PhotoPatches(TensorDataModule):
    """Square RGB crops, uint8, labelled with the photograph they come from: a temple (0) or a flower (1).

    Training crops come from the left 384 columns of both photographs, validation from the next 128, test from the
    last 128. Crops of one split overlap each other, and no two are the same.
    """

    num_classes = 2
    levels = 256
    dataset_name = "photo_patches"

    def __init__(
        self,
        crop_size: int = 32,
        train_size: int = 10_000,
        eval_size: int = 1_000,
        crop_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            crop_size: Height and width of a crop, at most 128.
            train_size: Training crops, half of them from each photograph.
            eval_size: Crops in each of validation and test.
            crop_seed: Decides where the crops are.
        """
        super().__init__(**kwargs)
        if not 1 <= crop_size <= 128:
            raise ValueError(f"crop_size must be between 1 and 128, got {crop_size}")
        self.input_shape = (3, crop_size, crop_size)
        self.sizes: dict[SplitName, int] = {"train": train_size, "val": eval_size, "test": eval_size}
        self.crop_seed = crop_seed

    def load(self, split: SplitName) -> TensorSplit:
        from sklearn.datasets import load_sample_images

        photographs = load_sample_images().images  # two arrays [427, 640, 3]
        labels = np.arange(self.sizes[split]) % len(photographs)
        x = np.empty((len(labels), *self.input_shape), np.uint8)
        for label, photograph in enumerate(photographs):
            chosen = labels == label
            random = np.random.default_rng((self.crop_seed, sorted(_REGIONS).index(split), label))
            x[chosen] = self._crops(photograph[:, _REGIONS[split]], int(chosen.sum()), random)
        return TensorSplit(torch.from_numpy(x), torch.from_numpy(labels).long())

    def _crops(self, region: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
        windows = sliding_window_view(region, self.input_shape[1:], axis=(0, 1))  # [H', W', 3, size, size]
        places = windows.shape[0] * windows.shape[1]
        if count > places:
            raise ValueError(f"{count} crops asked for, but this region has only {places} places for one")
        rows, columns = np.divmod(random.choice(places, count, replace=False), windows.shape[1])
        return windows[rows, columns]
