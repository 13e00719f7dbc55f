"""ImageNet at 32 x 32, in either of its two releases, which are different data."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules import imagenet32_files as files
from datamodules.held_out import HeldOutDataModule


class ImageNet32(HeldOutDataModule):
    """32 x 32 colour photographs: about 1.28 million for training and 50,000, the published validation set, as test.

    ``release: new`` is the anti-aliased one on image-net.org (Chrabaszcz et al. 2017), with 1,000 classes;
    ``release: old`` is the withdrawn one (van den Oord et al. 2016), without labels. Likelihoods on the two do not
    compare, so ``dataset_name`` tells them apart: "imagenet32" or "imagenet32_old".

    The first use converts the published files into one file that processes map into memory and share (4 GB).
    """

    input_shape = (3, 32, 32)
    levels = 256

    def __init__(
        self,
        data_dir: str = "data/imagenet32",
        release: Literal["new", "old"] = "new",
        val_size: int = 10_000,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            data_dir: Folder that holds the published files, which cannot be fetched without an account: for the new
                release train_data_batch_1 to 10 and val_data, as .npz or as pickles; for the old one
                train_32x32.tar and valid_32x32.tar.
            release: Which of the two.
            val_size: Training samples held out for validation; 0 validates on the published validation set.
        """
        super().__init__(val_size=val_size, **kwargs)
        self.data_dir = Path(data_dir)
        self.release = release
        self.num_classes = 1000 if release == "new" else 1
        self.dataset_name = "imagenet32" if release == "new" else "imagenet32_old"

    def prepare_data(self) -> None:
        read = files.read_new if self.release == "new" else files.read_old
        for train in (True, False):
            if not self._cache(train).exists():
                files.write_cache(read(self.data_dir, train), self._cache(train), self._size(train), self.data_dir)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        images, labels = files.read_cache(self._cache(train), self._size(train))
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _cache(self, train: bool) -> Path:
        return self.data_dir / "cache" / f"{self.dataset_name}_{'train' if train else 'val'}.npy"

    def _size(self, train: bool) -> int:
        return files.SIZES[self.release, train]
