"""Small text files in the formats that the real ones are published in, and a module that remembers its texts."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.splits import SplitName, TextSplit
from datamodules.texts import TextDataModule
from likeness.batch import Batch
from tests.datamodules.toys import Recorder


class Words(TextDataModule[TextSplit]):
    """Sample i of the only published part is the text "number i" with label i mod 3."""

    num_classes = 3
    dataset_name = "words"

    def __init__(self, size: int = 41, val_size: int = 11, test_size: int = 7, **kwargs: Any) -> None:
        super().__init__(published=("train",), val_size=val_size, test_size=test_size, **kwargs)
        self.size = size

    def read(self, part: SplitName) -> TextSplit:
        return TextSplit([f"number {i}" for i in range(self.size)], torch.arange(self.size) % 3)


class TextRecorder(Recorder):
    """A recorder that checks that its texts came through as they were."""

    def training_step(self, batch: Batch[list[str]], batch_idx: int) -> Tensor:
        assert isinstance(batch, Batch)
        assert isinstance(batch.x, list)
        assert [int(text.removeprefix("number ")) % 3 for text in batch.x] == batch.y.tolist()
        self.trained.append(batch.id.tolist())
        return self.weight * len(batch.x)


def write_csv(path: Path, rows: Sequence[Sequence[Any]], **kwargs: Any) -> str:
    """Rows as Python's csv module writes them; with no options as a spreadsheet does."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **kwargs).writerows(rows)
    return str(path)


def write_lines(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    return str(path)
