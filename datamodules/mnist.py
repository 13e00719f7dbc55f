"""MNIST, in its idx files, through torchvision."""

from pathlib import Path
from typing import Any

from torch import Tensor

from datamodules.base import HeldOutDataModule
from datamodules.errors import corrupt, downloading
from likeness.files.errors import missing

# MD5 of the unpacked files: torchvision checks the archives it downloads, not what becomes of them.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


class MNIST(HeldOutDataModule):
    """28 x 28 handwritten digits, 256 grey levels, 60,000 for training and 10,000 for the test.

    LeCun, Bottou, Bengio and Haffner 1998.
    """

    input_shape = (1, 28, 28)
    num_classes = 10
    levels = 256
    dataset_name = "mnist"

    def __init__(self, data_dir: str = "data", download: bool = True, val_size: int = 5_000, **kwargs: Any) -> None:
        """
        Args:
            data_dir: Folder that holds, or will hold, MNIST/raw.
            download: Fetch the files (12 MB) where they are missing.
            val_size: Training samples held out for validation; 0 validates on the test samples.
        """
        super().__init__(val_size=val_size, **kwargs)
        self.data_dir = Path(data_dir).expanduser()
        self.download = download

    @property
    def folder(self) -> Path:
        return self.data_dir / "MNIST" / "raw"

    def prepare_data(self) -> None:
        if not self.download:
            return
        from torchvision.datasets import MNIST as Files
        from torchvision.datasets.utils import check_integrity

        for name, md5 in MD5.items():  # torchvision would keep a damaged file, for it is there
            if not check_integrity(self.folder / name, md5):
                (self.folder / name).unlink(missing_ok=True)
        if all((self.folder / name).exists() for name in MD5):
            return
        with downloading("MNIST's four idx files", self.folder, Files.mirrors[0]):
            Files(self.data_dir, download=True)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        from torchvision.datasets.mnist import read_image_file, read_label_file

        part = "train" if train else "t10k"
        images = read_image_file(self._verified(f"{part}-images-idx3-ubyte"))
        return images[:, None], read_label_file(self._verified(f"{part}-labels-idx1-ubyte"))

    def _verified(self, name: str) -> str:
        from torchvision.datasets.utils import check_integrity

        path = self.folder / name
        if not path.exists():
            raise missing(path, "set download: true, or unpack the file of that name from MNIST's home page")
        if not check_integrity(path, MD5[name]):
            raise corrupt(path, f"MD5 {MD5[name]}", "set download: true to fetch it anew")
        return str(path)
