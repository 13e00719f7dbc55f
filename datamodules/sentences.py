"""Texts from files: with class labels (AG News, Yahoo Answers, ...), or in pairs with scores (the STS benchmark)."""

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from datamodules.splits import PairSplit, SplitName, TextSplit, stratified_rows
from datamodules.texts import TextFilesDataModule, nonempty_rows
from likeness.files.errors import DataError
from likeness.files.text_files import Table, ordered_labels

HIGHEST = 5.0  # the score of two sentences that mean the same, in a PairBatch


class Sentences(TextFilesDataModule[TextSplit]):
    """Texts and their class labels from CSV, TSV or Parquet files; a batch's ``x`` is a list of B texts.

    The classes are the distinct labels of the training file, numbered from 0: in the order of the numbers where all
    labels are numbers, else in the order of the alphabet.
    """

    def __init__(
        self,
        train_file: str,
        text_columns: tuple[str, ...] = ("text",),
        label_column: str | None = "label",
        class_names: tuple[str, ...] | None = None,
        share: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            train_file: CSV, TSV or Parquet file, told apart by its suffix; Parquet needs the extra ``parquet``.
            text_columns: Columns of text; several are joined by a space.
            label_column: Column of the labels, texts or numbers; None where there are none.
            class_names: Names of the classes, in their order; None calls them as the labels are written.
            share: Share of each class that is kept of each file, drawn by ``split_seed``.
        """
        super().__init__(train_file=train_file, **kwargs)
        if not text_columns:
            raise ValueError("text_columns must name at least one column, got none")
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {share}")
        self.text_columns = tuple(text_columns)
        self.label_column = label_column
        self.share = share
        self._given_names = class_names

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes are called, [K]; reads the training file."""
        return self._given_names or tuple(self._training[0])

    @property
    def num_classes(self) -> int:
        """K, the number of different labels; 1 where there are none. Reads the training file."""
        return len(self._training[0])

    def read(self, part: SplitName) -> TextSplit:
        labels, training = self._training
        return training if part == "train" else self._split(self.table(part, self._columns), labels)

    @property
    def _columns(self) -> list[str]:
        labels = [] if self.label_column is None else [self.label_column]
        return [*self.text_columns, *labels]

    @cached_property
    def _training(self) -> tuple[dict[str, int], TextSplit]:
        """The class of each label as it is written in the training file, and the samples there."""
        table = self.table("train", self._columns)
        labels = {label: class_ for class_, label in enumerate(ordered_labels(self._labels(table)))}
        if self._given_names is not None and len(self._given_names) != len(labels):
            raise DataError(
                f"class_names has {len(self._given_names)} names, but {table.path} has {len(labels)} labels: "
                f"{', '.join(list(labels)[:20])}"
            )
        return labels, self._split(table, labels)

    def _split(self, table: Table, labels: dict[str, int]) -> TextSplit:
        texts = self.texts(table, self.text_columns)
        rows = nonempty_rows(f"{table.path}, {table.unit}", texts, table.places, self.empty)
        split = TextSplit(texts, self._classes(table, labels)).select(torch.tensor(rows, dtype=torch.long))
        size = round(self.share * len(split))
        return split if self.share == 1 else split.select(stratified_rows(split.y, size, self.split_seed))

    def _labels(self, table: Table) -> list[str]:
        """The labels [N] as they are written; the empty text for data that have none."""
        return [""] * len(table.places) if self.label_column is None else table.labels(self.label_column)

    def _classes(self, table: Table, labels: dict[str, int]) -> Tensor:
        """The classes [N] int64. Raises DataError for a label that the training file does not have."""
        written = self._labels(table)
        for row, label in enumerate(written):
            if label not in labels:
                raise DataError(
                    f"{table.place(row, str(self.label_column))}: label {label!r} is none of the {len(labels)} labels "
                    f"of {self.paths['train']}"
                )
        return torch.tensor([labels[label] for label in written])


class SentencePairs(TextFilesDataModule[PairSplit]):
    """Two sentences and a score a row, from CSV, TSV or Parquet files; a batch is a ``PairBatch``.

    The STS benchmark (Cer et al. 2017) has 5,749 pairs for training, 1,500 for development and 1,379 for the test.
    """

    def __init__(
        self,
        train_file: str,
        sentence_columns: tuple[str, str] = ("sentence1", "sentence2"),
        score_column: str = "score",
        score_range: tuple[float, float] = (0.0, HIGHEST),
        **kwargs: Any,
    ) -> None:
        """
        Args:
            train_file: CSV, TSV or Parquet file, told apart by its suffix; Parquet needs the extra ``parquet``.
            sentence_columns: The two columns of text.
            score_column: Column of the scores.
            score_range: Scores in the files of unrelated sentences and of those that mean the same; mapped to 0..5.
        """
        super().__init__(train_file=train_file, **kwargs)
        low, high = score_range
        if not low < high:
            raise ValueError(f"score_range must be two numbers, the lower first, got {low} and {high}")
        self.sentence_columns = sentence_columns
        self.score_column = score_column
        self.score_range = score_range

    def read(self, part: SplitName) -> PairSplit:
        table = self.table(part, [*self.sentence_columns, self.score_column])
        first, second = (self.texts(table, [column]) for column in self.sentence_columns)
        shorter = [min(pair, key=len) for pair in zip(first, second, strict=True)]
        rows = nonempty_rows(f"{table.path}, {table.unit}", shorter, table.places, self.empty)
        return PairSplit(first, second, self._scores(table)).select(torch.tensor(rows, dtype=torch.long))

    def _scores(self, table: Table) -> Tensor:
        low, high = self.score_range
        written = [self._score(table, row) for row in range(len(table.places))]
        scores = (torch.tensor(written, dtype=torch.float64) - low) * (HIGHEST / (high - low))
        return scores.float()

    def _score(self, table: Table, row: int) -> float:
        cell = table.columns[self.score_column][row]
        try:
            score = float(cell)
        except (TypeError, ValueError):
            score = math.nan
        low, high = self.score_range
        if not low <= score <= high:
            raise DataError(
                f"{table.place(row, self.score_column)}: expected a score from {low} to {high}, got {cell!r}"
            )
        return score
