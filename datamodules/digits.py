"""scikit-learn's digits: 1,797 real scanned digits that come with the library."""

from typing import Any

import numpy as np
import torch

from datamodules.base import TensorDataModule
from datamodules.splits import SplitName, TensorSplit


class Digits(TensorDataModule):
    """8 x 8 scans of handwritten digits with 17 grey levels (0 to 16), 10 classes, no download.

    The source is one set; it is divided once and for all by ``split_seed``, each class in the same proportion.
    Alpaydin and Kaynak 1998, UCI Optical Recognition of Handwritten Digits (its test part).
    """

    input_shape = (1, 8, 8)
    num_classes = 10
    levels = 17
    dataset_name = "digits"

    def __init__(self, val_size: int = 180, test_size: int = 360, split_seed: int = 0, **kwargs: Any) -> None:
        """
        Args:
            val_size: Digits kept for validation.
            test_size: Digits kept for the test; the rest of the 1,797 is trained on.
            split_seed: Decides which digits these are.

        Raises ValueError where a split has fewer digits than there are classes: each split holds all of them.
        """
        super().__init__(**kwargs)
        sizes = {
            "val_size": val_size,
            "test_size": test_size,
            "1797 - val_size - test_size": 1797 - val_size - test_size,
        }
        for name, size in sizes.items():
            if size < self.num_classes:
                raise ValueError(f"{name} must be at least {self.num_classes}, one digit of each class, got {size}")
        self.val_size = val_size
        self.test_size = test_size
        self.split_seed = split_seed

    def load(self, split: SplitName) -> TensorSplit:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        kept = {"random_state": self.split_seed}
        rest, test = train_test_split(np.arange(len(labels)), test_size=self.test_size, stratify=labels, **kept)
        train, val = train_test_split(rest, test_size=self.val_size, stratify=labels[rest], **kept)
        rows = np.sort({"train": train, "val": val, "test": test}[split])
        x = images[rows].astype(np.uint8).reshape(-1, *self.input_shape)
        return TensorSplit(torch.from_numpy(x), torch.from_numpy(labels[rows]).long())
