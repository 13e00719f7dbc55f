"""What models are trained on: ``class_path: datamodules.<name>`` in configs/data."""

from datamodules.base import ResumableDataModule, TensorDataModule
from datamodules.cifar import CIFAR10, CIFAR100
from datamodules.digits import Digits
from datamodules.docstrings import DocstringPairs, Docstrings
from datamodules.errors import DataError
from datamodules.imagenet32 import ImageNet32
from datamodules.mnist import MNIST
from datamodules.newsgroups import NewsGroups20
from datamodules.photo_patches import PhotoPatches
from datamodules.points import Radial, Swirl
from datamodules.sentences import SentencePairs, Sentences

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "DataError",
    "Digits",
    "DocstringPairs",
    "Docstrings",
    "ImageNet32",
    "NewsGroups20",
    "PhotoPatches",
    "Radial",
    "ResumableDataModule",
    "SentencePairs",
    "Sentences",
    "Swirl",
    "TensorDataModule",
]
