"""What models are trained on: ``class_path: datamodules.<name>`` in configs/data."""

from datamodules.base import TensorDataModule
from datamodules.cifar import CIFAR10, CIFAR100
from datamodules.digits import Digits
from datamodules.errors import DataError
from datamodules.imagenet32 import ImageNet32
from datamodules.mnist import MNIST
from datamodules.photo_patches import PhotoPatches
from datamodules.radial import Radial
from datamodules.swirl import Swirl

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "DataError",
    "Digits",
    "ImageNet32",
    "PhotoPatches",
    "Radial",
    "Swirl",
    "TensorDataModule",
]
