"""Fig 16, left, of paper A: on constructed pairs d_{f,g} grows with d_LLV and stays under both bounds.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), appendix F.6. The classifiers that it constructs, here
and for Table 1, are clusters of embeddings around label vectors on a circle. NumPy's ``default_rng(0)`` draws what the
authors' code draws, in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from likeness.figures.style import COLUMN, MARKERS, PALETTE, blank, in_style
from likeness.similarity.comparison import compare_softmax_models
from likeness.similarity.options import ComparisonOptions
from scripts.reporting import Report, Row, grouped, publish

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PERMUTATION = (5, 0, 2, 4, 6, 1, 3)  # class i of the second model of Table 1 has the place of class PERMUTATION[i]
PER_CLASS = 500
_HALF_ANGLE = math.pi / 64  # of a cluster
_RADIAL_SPREAD = 0.01
NOISE = {4: 0.005, 5: 0.004, 6: 0.004, 10: 0.0025, 18: 0.002}  # by number of labels: of the first of the levels
LEVELS = 250
NUM_SAMPLES = 300  # input sets that the paper draws
FIELDS = ("kl_12", "d_llv", "term_1", "term_2", "max_d_svd_f", "d_svd_g", "d_fg", "m_cca_f")
DIM = 2


def run(out: Path = Path("runs/constructed")) -> None:
    """Print the largest share of each bound that was used, and write all pairs and the figure.

    Args:
        out: Where everything is written.
    """
    rows = [row for num_classes in NOISE for row in pairs(num_classes, LEVELS)]
    Report(f"{len(rows)} pairs of models (Fig 16): d_fg over its bounds", summary(rows)).show()
    publish(out, tables={"constructed": rows}, figures={"constructed": draw(rows)})


def pairs(num_classes: int, levels: int, per_class: int = PER_CLASS) -> list[Row]:
    """The model of K labels against itself with ever more noise on f, a row for each level.

    The input set is the one that is best at the lowest level; pivot and left-out label are searched anew.
    """
    noise = [NOISE[num_classes] * step for step in range(1, levels + 1)]
    f, g, noisy = perturbed_models(num_classes, noise, per_class)
    options = ComparisonOptions(search="sampled", num_samples=NUM_SAMPLES)
    rows: list[Row] = []
    for level, other in zip(noise, noisy, strict=True):
        found = compare_softmax_models(f, g, other, g, options=options)
        options = ComparisonOptions(input_set=found.input_set)
        assert found.paper_bound is not None  # as K >= M + 2
        assert found.squared_bound is not None
        bounds = {"paper_bound": found.paper_bound.value, "squared_bound": found.squared_bound.value}
        fields = {name: getattr(found, name) for name in FIELDS}
        rows.append({"num_classes": num_classes, "noise": level} | fields | bounds)
    return rows


def permuted_pair(length: float, per_class: int = PER_CLASS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """f, g, f', g' of Table 1 for unembeddings of this length: f [7 n, 2] by class, g [7, 2], in float64.

    In the second model clusters and label vectors have changed places; radii stay with their inputs.
    """
    order = list(PERMUTATION)
    angles, radii = _clusters(np.random.default_rng(0), len(order), per_class, radius=2.0)
    g = label_vectors(len(order), length)
    return _points(angles, radii), g, _points(angles[order], radii), g[order]


def perturbed_models(
    num_classes: int, levels: list[float], per_class: int = PER_CLASS
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """f [K n, 2], g [K, 2] and, for each level, f + level * normal noise; of Fig 16, in float64."""
    rng = np.random.default_rng(0)
    f = _points(*_clusters(rng, num_classes, per_class, radius=5.0))
    noisy = [f + level * torch.from_numpy(rng.normal(size=tuple(f.shape))) for level in levels]
    return f, label_vectors(num_classes, 20.0), noisy


def label_vectors(num_classes: int, length: float) -> Tensor:
    """g(y) [K, 2] at equal angles."""
    angles = 2 * np.pi * np.arange(num_classes) / num_classes
    return torch.from_numpy(length * np.stack([np.cos(angles), np.sin(angles)], axis=1))


def _clusters(
    rng: np.random.Generator, num_classes: int, per_class: int, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Angles and radii [K, n] of the embeddings; angles are drawn first."""
    shape = (num_classes, per_class)
    centres = 2 * np.pi * np.arange(num_classes)[:, None] / num_classes
    angles = centres + rng.uniform(-_HALF_ANGLE, _HALF_ANGLE, shape)
    return angles, radius + np.abs(rng.normal(0, _RADIAL_SPREAD, shape))


def _points(angles: np.ndarray, radii: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1).reshape(-1, 2))


def summary(rows: Sequence[Row]) -> list[Row]:
    """For each K the largest distances, and how near d_fg comes to its bounds."""
    answer: list[Row] = []
    for num_classes, own in grouped(rows, "num_classes").items():
        d_llv, d_fg, paper, squared = (_column(own, name) for name in ("d_llv", "d_fg", "paper_bound", "squared_bound"))
        row: dict[str, int | float] = {"K": num_classes, "max d_llv": float(d_llv.max()), "max d_fg": float(d_fg.max())}
        answer.append(
            row | {"max d_fg / 2M d_llv": float((d_fg / paper).max()), "/ 2 d_llv^2": float((d_fg / squared).max())}
        )
    return answer


@in_style()
def draw(rows: Sequence[Row]) -> Figure:
    """d_{f,g} against d_LLV by number of labels, with the paper's bound and the derived one."""
    caption = (
        "How far apart representations of constructed models are, against how far apart their distributions are: no "
        "point may lie above the dashed bound of the paper, nor above the derived one."
    )
    figure = blank(COLUMN, 3.2, caption)
    axes = figure.add_subplot(xscale="log", yscale="log")
    for (num_classes, own), colour, marker in zip(grouped(rows, "num_classes").items(), PALETTE, MARKERS, strict=False):
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "s": 6,
            "linewidths": 0,
            "label": f"K = {num_classes}",
        }
        axes.scatter(_column(own, "d_llv"), _column(own, "d_fg"), **style)
    d_llv = _column(rows, "d_llv")
    x = np.geomspace(0.8 * d_llv.min(), 1.25 * d_llv.max())
    axes.plot(x, np.minimum(2 * DIM * x, 1), "--", color="black", label="2 M d_LLV (paper)")
    axes.plot(x, np.minimum(2 * x**2, 1), "-", color="black", label="2 d_LLV² (derived, not in the paper)")
    axes.set(xlabel="d_LLV", ylabel="d_{f,g}, the largest d_SVD", xlim=(x[0], x[-1]), ylim=(None, 2))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _column(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=float)
