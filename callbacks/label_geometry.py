"""What the angles between label vectors say about the labels, and what the model does with them, while it trains."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from callbacks.measure_at_validation import MeasureAtValidation, may_write, members
from callbacks.run.publishing import log_table, publish_figure, write_table
from callbacks.run.run_files import note
from callbacks.validation_pass import EMBEDDING, Seen
from likeness.checks import require_positive
from likeness.figures.labels import label_heatmaps
from likeness.figures.output import write_csv
from likeness.label_geometry.metric import LabelSimilarity
from likeness.label_geometry.similarity import largest_disagreements, rank_correlation

SIMILARITIES = ("raw", "centred", "invariant")
COLUMNS = ("step", "member", "label_a", "label_b", *SIMILARITIES, "together", "gap")
MAX_LABELS = 4096
MAX_DRAWN = 60


class LabelGeometry(MeasureAtValidation[LabelSimilarity]):
    """Raw, centred and invariant similarity of labels next to how often they are probable together, at validation.

    Logs ``labels/{raw,centred,invariant}``, Spearman's correlation over all pairs of labels between a similarity of
    their vectors and how often both are probable (the mean over siblings): how far one may read the one off the
    other. The pairs that ``similarity`` misjudges most stand in ``label_disagreements.csv`` in the run directory, and
    in every logger that takes tables. Heat maps of up to 60 labels go to ``figures/label_similarity.{png,pdf,csv}``
    when training ends. The callback's own cost is ``labels/seconds``.

    Args:
        every_n_validations: how often to measure.
        num_disagreements: pairs of labels in the table, of each sibling.
        similarity: whose disagreements the table lists.
        labels: names of the labels; their numbers by default.
        head: the last linear layer of a module without ``embed()`` and ``unembeddings()``, such as ``model.fc``.
    """

    prefix = "labels"

    def __init__(
        self,
        every_n_validations: int = 1,
        num_disagreements: int = 10,
        similarity: Literal["raw", "centred", "invariant"] = "raw",
        labels: Sequence[str] | None = None,
        head: str | None = None,
    ) -> None:
        super().__init__(every_n_validations, head=head)
        require_positive(num_disagreements=num_disagreements)
        if similarity not in SIMILARITIES:
            raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)}, got {similarity!r}")
        self.num_disagreements = num_disagreements
        self.similarity = similarity
        self.labels = None if labels is None else [str(label) for label in labels]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.values or not may_write(trainer) or len(self.values["raw"][0]) > MAX_DRAWN:
            return
        matrices = {name: matrix[0] for name, matrix in self.values.items()}
        names = self._names()
        publish_figure(trainer, label_heatmaps(matrices, names), "label_similarity")
        columns = ("label_a", "label_b", *matrices)
        rows = [
            [a, b, *(float(matrix[i, j]) for matrix in matrices.values())]
            for (i, a), (j, b) in product(enumerate(names), repeat=2)
        ]
        write_table(trainer, "label_similarity", columns, rows)

    def rows(self, step: int) -> list[list[Any]]:
        """The table of the largest disagreements measured last: a row for each pair, in the order of ``COLUMNS``."""
        names, table = self._names(), []
        for member, together in enumerate(self.values["together"]):
            similarity = self.values[self.similarity][member]
            for i, j, gap in zip(*largest_disagreements(similarity, together, self.num_disagreements), strict=True):
                values = [float(self.values[name][member, i, j]) for name in (*SIMILARITIES, "together")]
                table.append([step, member, names[int(i)], names[int(j)], *values, float(gap)])
        return table

    def _new_metric(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> LabelSimilarity:
        count, labels, dim = members(self.looking.unembeddings(pl_module)).shape
        if not 3 <= labels <= MAX_LABELS:
            raise ValueError(f"LabelGeometry compares pairs of 3 to {MAX_LABELS} labels, the model has {labels}")
        if self.labels is not None and len(self.labels) != labels:
            raise ValueError(f"LabelGeometry was given {len(self.labels)} names, the model has {labels} labels")
        return LabelSimilarity(count, labels, dim)

    def _update(self, metric: LabelSimilarity, pl_module: pl.LightningModule, seen: Seen) -> None:
        g = members(self.looking.unembeddings(pl_module))
        metric.update(members(seen.layers[EMBEDDING]), g, seen.ids)

    def _summarise(self, trainer: pl.Trainer) -> dict[str, float]:
        self._publish_table(trainer)
        return {name: self._correlation(name) for name in SIMILARITIES}

    def _correlation(self, name: str) -> float:
        pairs = zip(self.values[name], self.values["together"], strict=True)
        correlations = torch.tensor([rank_correlation(*pair) for pair in pairs], dtype=torch.float64)
        return float(correlations.mean())

    def _publish_table(self, trainer: pl.Trainer) -> None:
        if not may_write(trainer):
            return
        rows = self.rows(trainer.global_step)
        write_csv(note(Path(trainer.default_root_dir, "label_disagreements.csv")), COLUMNS, rows)
        log_table(trainer, "labels/disagreements", COLUMNS, rows)

    def _names(self) -> list[str]:
        return self.labels or [str(label) for label in range(self.values["raw"].shape[1])]
