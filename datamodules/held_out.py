"""Datasets published as train and test: validation is held out of the training samples."""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from datamodules.base import TensorDataModule
from datamodules.split import SplitName, TensorSplit, held_out


class HeldOutDataModule(TensorDataModule):
    """Divides the published training samples into train and val; a subclass reads the published parts."""

    def __init__(self, val_size: int, split_seed: int = 0, **kwargs: Any) -> None:
        """
        Args:
            val_size: Training samples held out for validation. 0 trains on all of them and validates on the test
                samples, as most published tables do; then nothing may be selected by a validation metric.
            split_seed: Decides which training samples are held out.
        """
        super().__init__(**kwargs)
        if val_size < 0:
            raise ValueError(f"val_size must be at least 0, got {val_size}")
        self.val_size = val_size
        self.split_seed = split_seed
        self._published: dict[bool, tuple[Tensor, Tensor]] = {}

    @abstractmethod
    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the published training or test samples, in their published order."""

    def load(self, split: SplitName) -> TensorSplit:
        from_train = split == "train" or (split == "val" and self.val_size > 0)
        if from_train not in self._published:
            self._published[from_train] = self.read(train=from_train)
        x, y = self._published[from_train]
        if not from_train or self.val_size == 0:
            return TensorSplit(x, y)
        train, val = held_out(len(y), self.val_size, self.split_seed)
        return TensorSplit(x, y, train if split == "train" else val)
