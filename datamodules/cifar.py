"""CIFAR-10 and CIFAR-100, in their pickled batches, through torchvision; whole batches are augmented where they lie."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.exceptions import VisibleDeprecationWarning
from torch import Tensor
from torch.nn.functional import pad

from datamodules.base import HeldOutDataModule
from datamodules.errors import corrupt, downloading
from likeness.batch import Batch
from likeness.files.errors import DataError, missing
from likeness.seeding import generator

if TYPE_CHECKING:
    import torchvision.datasets


_AUGMENTATION = 0xA06  # sets this stream apart from every other use of the same seed


class CIFAR10(HeldOutDataModule):
    """32 x 32 colour photographs in 10 classes, 50,000 for training and 10,000 for the test. Krizhevsky 2009."""

    input_shape = (3, 32, 32)
    num_classes = 10
    levels = 256
    dataset_name = "cifar10"

    def __init__(
        self,
        data_dir: str = "data",
        download: bool = True,
        val_size: int = 5_000,
        flip: bool = False,
        crop_padding: int = 0,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            data_dir: Folder that holds, or will hold, the unpacked batches.
            download: Fetch the archive (170 MB) where batches are missing or damaged.
            val_size: Training samples held out for validation; 0 validates on the test samples.
            flip: Mirror half of the training images, at random, left to right.
            crop_padding: Crop training images at random after a black border of so many pixels; 0 does not crop.
        """
        super().__init__(val_size=val_size, **kwargs)
        self.data_dir = Path(data_dir).expanduser()
        self.download = download
        self.flip = flip
        self.crop_padding = crop_padding

    @property
    def files(self) -> "type[torchvision.datasets.CIFAR10]":
        """torchvision's reader, which knows the files and their checksums."""
        from torchvision.datasets import CIFAR10

        return CIFAR10

    def prepare_data(self) -> None:
        if self.download:
            with downloading(self.files.filename, self.data_dir, self.files.url):
                self._dataset(train=False, download=True)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        try:
            dataset = self._dataset(train)
        except RuntimeError as error:  # torchvision does not say which file
            raise self._diagnosis() from error
        return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a training batch on its device, as a function of (seed, epoch, batch, rank)."""
        if self.trainer is None or not self.trainer.training or not (self.flip or self.crop_padding):
            return batch
        epoch, number, _ = self.position()
        random = generator(self.seed, epoch, number, self.trainer.global_rank, _AUGMENTATION, device=batch.x.device)
        x = random_flip(batch.x, random) if self.flip else batch.x
        x = random_crop(x, self.crop_padding, random) if self.crop_padding else x
        return batch._replace(x=x)

    def _dataset(self, train: bool, download: bool = False) -> "torchvision.datasets.CIFAR10":
        with warnings.catch_warnings():  # NumPy 2.4.0 to 2.4.4, about old pickles
            warnings.simplefilter("ignore", VisibleDeprecationWarning)
            return self.files(str(self.data_dir), train=train, download=download)

    def _diagnosis(self) -> DataError:
        """Which of the files is missing or damaged."""
        from torchvision.datasets.utils import check_integrity

        files = self.files
        how = f"set download: true, or unpack {files.url} in {self.data_dir.resolve()}"
        meta = (files.meta["filename"], files.meta["md5"])
        for name, md5 in [*files.train_list, *files.test_list, meta]:
            path = self.data_dir / files.base_folder / name
            if not path.exists():
                return missing(path, how)
            if not check_integrity(path, md5):
                return corrupt(path, f"MD5 {md5}", how)
        return DataError(f"{files.base_folder} in {self.data_dir.resolve()} cannot be read")


class CIFAR100(CIFAR10):
    """CIFAR-10's sister set with 100 fine classes, 500 training images each. Krizhevsky 2009."""

    num_classes = 100
    dataset_name = "cifar100"

    @property
    def files(self) -> "type[torchvision.datasets.CIFAR10]":
        from torchvision.datasets import CIFAR100

        return CIFAR100


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
