"""Docstrings of Python's standard library as labelled texts: real text that needs no file, download or model."""

from typing import Any

import torch

from datamodules.split import SplitName
from datamodules.standard_library import FAMILIES, standard_library_docstrings
from datamodules.text_split import TextSplit
from datamodules.texts import TextDataModule


class Docstrings(TextDataModule[TextSplit]):
    """Docstrings labelled by what their module is for: files, formats, concurrency and eight more families.

    About 5,400 distinct texts, 280 to 700 in a family, with Python 3.11; another version has slightly others. A batch's
    ``x`` is a list of B texts.
    """

    class_names = tuple(FAMILIES)
    num_classes = len(FAMILIES)
    dataset_name = "docstrings"

    def __init__(self, val_size: int = 500, test_size: int = 1_000, **kwargs: Any) -> None:
        """
        Args:
            val_size: Docstrings kept for validation; 0 validates on the test docstrings.
            test_size: Docstrings kept for the test; the rest is trained on.
        """
        super().__init__(published=("train",), val_size=val_size, test_size=test_size, **kwargs)

    def read(self, part: SplitName) -> TextSplit:
        docstrings = standard_library_docstrings()
        labels = [self.class_names.index(docstring.family) for docstring in docstrings]
        return TextSplit([docstring.text for docstring in docstrings], torch.tensor(labels))
