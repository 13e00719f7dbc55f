"""What models are trained on: ``class_path: datamodules.<name>`` in configs/data."""

from datamodules.base import TensorDataModule
from datamodules.cifar import CIFAR10, CIFAR100
from datamodules.digits import Digits
from datamodules.docstring_pairs import DocstringPairs
from datamodules.docstrings import Docstrings
from datamodules.errors import DataError
from datamodules.imagenet32 import ImageNet32
from datamodules.mnist import MNIST
from datamodules.newsgroups import NewsGroups20
from datamodules.photo_patches import PhotoPatches
from datamodules.radial import Radial
from datamodules.resumable import ResumableDataModule
from datamodules.sentence_pairs import SentencePairs
from datamodules.sentences import Sentences
from datamodules.swirl import Swirl

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
