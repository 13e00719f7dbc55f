"""Fig 3, right, 17 and 18 of paper A: wider networks have closer distributions and more alike representations.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784). Radial data, seeds trained as siblings, distances over
all pairs of the seeds that are accurate enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from datamodules import Radial
from lightning_modules.checkpoints import load_module
from likeness.batch import Batch
from likeness.measures.all_pairs import compare_all_pairs
from likeness.measures.comparison_options import ComparisonOptions
from likeness.measures.distribution import is_correct, log_probabilities, nll
from scripts.studies.output import StudyRow, publish, show
from scripts.studies.sibling_runs import SiblingRun
from scripts.studies.training_run import ensure_all_trained
from scripts.studies.width_figure import draw

DIM = 2
MIN_SEEDS = 5  # of sufficient accuracy, for a mean over their pairs
MEANS = ("d_llv", "d_fg", "m_cca_f")
MEASURES = ("d_llv", "term_1", "term_2", "d_fg", "max_d_svd_f", "d_svd_g", "m_cca_f", "m_cca_g")


@dataclass(frozen=True)
class Setting:
    """What is trained: every width at every number of classes, each with this many seeds."""

    classes: Sequence[int]
    widths: Sequence[int]
    seeds: int
    steps: int
    learning_rate: float

    def runs(self) -> list[SiblingRun]:
        """In the order of training. Raises ValueError where d_{f,g} or a mean over seeds would be undefined."""
        if min(self.classes) < DIM + 2:
            raise ValueError(f"classes must be at least M + 2 = {DIM + 2}, got {min(self.classes)}")
        if self.seeds < MIN_SEEDS:
            raise ValueError(f"seeds must be at least {MIN_SEEDS}, got {self.seeds}")
        rest = (self.seeds, self.steps, self.learning_rate)
        return [SiblingRun(labels, width, *rest) for labels in self.classes for width in self.widths]


FULL = Setting((4, 6, 10, 18), (16, 32, 64, 128, 256), seeds=20, steps=15_000, learning_rate=1e-4)
# Fewer steps are larger ones: with the paper's learning rate 3,000 steps do not reach an accuracy of 0.9.
SMALL = Setting((4, 6), (16, 64), seeds=8, steps=3_000, learning_rate=2e-3)


def run(out: Path, setting: Setting, min_accuracy: float, options: ComparisonOptions, device: str) -> None:
    """Train what is not trained yet, compare, print the means, write pairs, models and the figure."""
    runs = setting.runs()
    ensure_all_trained(runs, out, device)
    seeds, pairs, means = [], [], []
    for trained in runs:
        found = Trained.of(trained, out)
        own = found.pairs(min_accuracy, options)
        seeds += found.seeds()
        pairs += own
        means.append(found.mean(own, min_accuracy))
    title = f"mean ± standard deviation over pairs of seeds with a test accuracy above {min_accuracy:g}"
    show(title, [printed(row) for row in means])
    publish(out, tables={"seeds": seeds, "pairs": pairs, "means": means}, figures={"width": draw(means, pairs)})


@dataclass(frozen=True)
class Trained:
    """P siblings on the test split."""

    run: SiblingRun
    embeddings: Tensor  # [P, N, M]
    unembeddings: Tensor  # [P, K, M]
    accuracy: Tensor  # [P]
    nll: Tensor  # [P] in nats

    @classmethod
    @torch.no_grad()
    def of(cls, run: SiblingRun, out: Path) -> Trained:
        """From a finished run directory."""
        batch = test_split(run.num_classes)
        module = load_module(run.folder(out)).eval()
        f, g = module.embed(batch.x), module.unembeddings()  # type: ignore[operator]
        log_p = log_probabilities(f, g)
        return cls(run, f, g, is_correct(log_p, batch.y).double().mean(1), nll(log_p, batch.y).mean(1))

    def seeds(self) -> list[StudyRow]:
        """A row for each seed."""
        scores = zip(self.accuracy.tolist(), self.nll.tolist(), strict=True)
        return [self._place() | {"seed": seed, "accuracy": a, "nll": n} for seed, (a, n) in enumerate(scores)]

    def pairs(self, min_accuracy: float, options: ComparisonOptions) -> list[StudyRow]:
        """A row for each pair of the seeds above an accuracy; ``kl_ab`` is KL(p_a || p_b)."""
        kept = (self.accuracy > min_accuracy).nonzero().flatten()
        if len(kept) < 2:
            return []
        names = [f"seed {seed}" for seed in kept.tolist()]
        found = compare_all_pairs(self.embeddings[kept], self.unembeddings[kept], names=names, options=options)
        rows = []
        for i, j in combinations(range(len(kept)), 2):
            row = self._place() | {"seed_a": int(kept[i]), "seed_b": int(kept[j])}
            kl = {"kl_ab": float(found["kl"][i, j]), "kl_ba": float(found["kl"][j, i])}
            rows.append(row | kl | {name: float(found[name][i, j]) for name in MEASURES})
        return rows

    def mean(self, pairs: Sequence[StudyRow], min_accuracy: float) -> StudyRow:
        """Means and standard deviations over pairs; None for fewer than ``MIN_SEEDS`` accurate seeds."""
        accurate = int((self.accuracy > min_accuracy).sum())
        row = self._place() | {"seeds": f"{accurate} of {self.run.seeds}"}
        for name in MEANS:
            values = torch.tensor([pair[name] for pair in pairs], dtype=torch.float64)
            enough = accurate >= MIN_SEEDS
            row |= {
                name: float(values.mean()) if enough else None,
                f"{name}_sd": float(values.std()) if enough else None,
            }
        return row

    def _place(self) -> StudyRow:
        return {"num_classes": self.run.num_classes, "width": self.run.width}


def printed(mean: StudyRow) -> StudyRow:
    """The means as the terminal shows them."""
    row = {"K": mean["num_classes"], "width": mean["width"], "seeds": mean["seeds"]}
    for name in MEANS:
        value = mean[name]
        row[name] = "too few" if value is None else f"{value:.3f} ± {mean[f'{name}_sd']:.3f}"
    return row


def test_split(num_classes: int) -> Batch:
    """The paper's 2,000 test points."""
    data = Radial(num_classes=num_classes)
    data.setup("test")
    split = data.splits["test"]
    return split[torch.arange(len(split))]
