"""What datamodules of texts and of sentence pairs share: parts that are published and parts that are held out."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from datamodules.base import ResumableDataModule
from datamodules.splits import PairSplit, SplitName, TextSplit, remaining_rows, stratified_rows
from likeness.files.errors import DataError
from likeness.files.text_files import CSV, Table, TableFormat, read_table

EmptyTexts = Literal["error", "drop", "keep"]
AnyTexts = TypeVar("AnyTexts", TextSplit, PairSplit)
_NAMED = 5  # of the empty texts, in a message


class TextDataModule(ResumableDataModule[AnyTexts]):
    """Texts, published in one, two or three parts; a missing part is held out of the training samples.

    Held-out samples are drawn by ``split_seed`` in the proportions of the labels (of the rounded scores, for pairs).
    """

    def __init__(
        self,
        published: tuple[SplitName, ...],
        val_size: int = 0,
        test_size: int = 0,
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            published: The parts that can be read, "train" among them.
            val_size: Training samples held out for validation where no such part is published; 0 validates on the
                test samples, and then nothing may be selected by a validation metric.
            test_size: Training samples held out for the test where no such part is published.
            split_seed: Decides which training samples are held out.
        """
        super().__init__(**kwargs)
        for part, size in {"val": val_size, "test": test_size}.items():
            if size < 0:
                raise ValueError(f"{part}_size must be at least 0, got {size}")
            if size > 0 and part in published:
                raise ValueError(f"{part}_size must be 0 where a {part} part is published, got {size}")
        if test_size == 0 and "test" not in published:
            raise ValueError("test_size must be at least 1 where no test part is published, got 0")
        self.published = published
        self.val_size = val_size
        self.test_size = test_size
        self.split_seed = split_seed
        self._train: AnyTexts | None = None

    @abstractmethod
    def read(self, part: SplitName) -> AnyTexts:
        """One published part in its published order."""

    def load(self, split: SplitName) -> AnyTexts:
        if split == "val" and split not in self.published and self.val_size == 0:
            return self.load("test")
        if split != "train" and split in self.published:
            return self.read(split)
        if self._train is None:
            self._train = self.read("train")
        return self._train.select(self._rows(self._train.strata)[split])

    def _rows(self, strata: Tensor) -> dict[SplitName, Tensor]:
        """The training samples that belong to each split that is not published."""
        if (held_out := self.val_size + self.test_size) and held_out >= len(strata):
            raise ValueError(f"{held_out} samples for val and test leave none of the {len(strata)} to train on")
        test = stratified_rows(strata, self.test_size, self.split_seed)
        rest = remaining_rows(len(strata), test)
        val = stratified_rows(strata[rest], self.val_size, self.split_seed)
        return {"train": rest[remaining_rows(len(rest), val)], "val": rest[val], "test": test}


class TextFilesDataModule(TextDataModule[AnyTexts]):
    """Texts in CSV, TSV or Parquet files, one for each published part."""

    def __init__(
        self,
        train_file: str,
        val_file: str | None = None,
        test_file: str | None = None,
        file_format: TableFormat = CSV,
        replace_with_space: tuple[str, ...] = (),
        empty: EmptyTexts = "error",
        dataset_name: str = "texts",
        **kwargs: Any,
    ) -> None:
        """
        Args:
            train_file: CSV, TSV or Parquet file, told apart by its suffix; Parquet needs the extra ``parquet``.
            val_file: Validation samples; without it ``val_size`` training samples are held out.
            test_file: Test samples; without it ``test_size`` training samples are held out.
            file_format: How the cells of CSV and TSV files are written.
            replace_with_space: What stands for white space in the texts, replaced in this order: a backslash in AG
                News, a written-out new line in Yahoo Answers.
            empty: What to do about texts of nothing but white space: refuse them, drop or keep them.
            dataset_name: What metrics and tables call the data.
        """
        files: dict[SplitName, str | None] = {"train": train_file, "val": val_file, "test": test_file}
        paths: dict[SplitName, Path] = {
            part: Path(name).expanduser() for part, name in files.items() if name is not None
        }
        super().__init__(published=tuple(paths), **kwargs)
        self.paths = paths
        self.file_format = file_format
        self.replace_with_space = replace_with_space
        self.empty: EmptyTexts = empty
        self.dataset_name = dataset_name

    def table(self, part: SplitName, columns: Sequence[str]) -> Table:
        """These columns of the file of a published part."""
        return read_table(self.paths[part], columns, self.file_format)

    def texts(self, table: Table, columns: Sequence[str]) -> list[str]:
        """The texts of a table, one a row: these columns, joined by spaces."""
        texts = [" ".join(cells) for cells in zip(*(table.texts(name) for name in columns), strict=True)]
        for written in self.replace_with_space:
            texts = [text.replace(written, " ") for text in texts]
        return [text.strip() for text in texts]


def nonempty_rows(where: str, texts: Sequence[str], places: Sequence[int], empty: EmptyTexts) -> list[int]:
    """The rows whose text is something; all of them where empty texts are kept.

    ``where`` and ``places`` [N], the texts' numbers in their source, are for the message. Raises DataError with the
    count and the first places where empty texts are an error.
    """
    rows = [row for row, text in enumerate(texts) if empty == "keep" or text.strip()]
    if (missing := len(texts) - len(rows)) == 0:
        return rows
    there = set(rows)
    first = [str(places[row]) for row in range(len(texts)) if row not in there][:_NAMED]
    found = f"{where} {', '.join(first)}{', ...' if missing > _NAMED else ''}"
    texts_are = f"{missing} empty text{'s' if missing > 1 else ''}"
    if empty == "error":
        raise DataError(f"{texts_are} in {found}; set empty: drop, or empty: keep")
    rank_zero_info(f"dropped {texts_are} in {found}")
    return rows
