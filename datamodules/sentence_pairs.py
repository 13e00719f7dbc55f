"""Pairs of sentences with how alike they are, from files: the STS benchmark in either of its releases, and others."""

import math
from typing import Any

import torch
from torch import Tensor

from datamodules.errors import DataError
from datamodules.split import SplitName
from datamodules.text_files import Table
from datamodules.text_split import PairSplit
from datamodules.texts import TextFilesDataModule, nonempty_rows

HIGHEST = 5.0  # the score of two sentences that mean the same, in a PairBatch


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
