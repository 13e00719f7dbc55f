"""Table 1 of paper A: KL goes to zero and the representations stay as far apart as they were.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), Theorem 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from likeness.figures.style import FAINT, PAGE, PALETTE, blank, in_style
from likeness.similarity.comparison import compare_softmax_models
from likeness.similarity.options import ComparisonOptions
from scripts.reporting import Report, Row, publish
from scripts.study.constructed import permuted_pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LENGTHS = tuple(range(1, 21))
NUM_SAMPLES = 100  # input sets that the paper draws
PRINTED = ("length", "kl_12", "d_llv", "m_cca_f", "m_cca_g", "max_d_svd_f", "d_svd_g")
STILL = {"d_llv": "d_LLV", "max_d_svd_f": "max d_SVD(f)", "m_cca_f": "m_CCA(f), 1 if alike"}
LINES = ("-", "--", ":")


def run(out: Path = Path("runs/kl_to_zero")) -> None:
    """Print the table, and write it and the figure.

    Args:
        out: Where everything is written.
    """
    rows = table(LENGTHS)
    Report(
        "KL goes to zero, representations stay apart (Table 1)", [{name: row[name] for name in PRINTED} for row in rows]
    ).show()
    publish(out, tables={"kl_to_zero": rows}, figures={"kl_to_zero": draw(rows)})


def table(lengths: Sequence[float]) -> list[Row]:
    """A row for each length of the unembeddings; ``term_2_sampled`` is of the paper's search, the rest exact."""
    rows = []
    for length in lengths:
        models = permuted_pair(length)
        exact = compare_softmax_models(*models)
        sampled = compare_softmax_models(*models, options=ComparisonOptions(search="sampled", num_samples=NUM_SAMPLES))
        names = ("kl_12", "kl_21", "d_llv", "term_1", "term_2", "m_cca_f", "m_cca_g", "max_d_svd_f", "d_svd_g")
        row = {"length": length} | {name: getattr(exact, name) for name in names}
        rows.append(row | {"term_2_sampled": sampled.term_2})
    return rows


@in_style()
def draw(rows: Sequence[Row]) -> Figure:
    """Both models' embeddings, KL by logarithm, and the distances that stand still."""
    caption = (
        "Two models whose classes lie in another order: as unembeddings grow longer KL goes to zero, and the distance "
        "of the representations stays."
    )
    figure = blank(PAGE, 4.4, caption)
    *models, left, right = figure.subplots(2, 2).flat
    f, g, other_f, other_g = permuted_pair(length=1.0)
    _draw_model(models[0], f, g, "model 1: f(x) and g(y)")
    _draw_model(models[1], other_f, other_g, "model 2: classes exchanged")
    lengths = [row["length"] for row in rows]
    left.semilogy(lengths, [row["kl_12"] for row in rows], "o-", color=PALETTE[0])
    left.set_ylabel("mean KL (nats)")
    left.set_title("predictions become equal")
    for (name, label), colour, line in zip(STILL.items(), PALETTE, LINES, strict=False):
        right.plot(lengths, [row[name] for row in rows], line, color=colour, label=label)
    right.set_ylim(-0.05, 1.5)
    right.set_title("representations do not")
    right.legend()
    right.set_ylabel("distance, or similarity m_CCA")
    for axes in (left, right):
        axes.set(xlabel="length of the unembeddings", xticks=[1, 5, 10, 15, 20])
    return figure


def _draw_model(axes: Axes, f: Tensor, g: Tensor, title: str) -> None:
    """Clusters f [K n, 2] by class, in order, the directions of their labels and the labels' names."""
    for label, (points, direction, colour) in enumerate(zip(f.chunk(len(g)), g, PALETTE, strict=False)):
        axes.scatter(points[:, 0], points[:, 1], s=3, color=colour, linewidths=0)
        arrow = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=(1.6 * direction).tolist(), xytext=(0, 0), arrowprops=arrow)
        x, y = (2.5 * direction).tolist()
        axes.text(x, y, str(label), color=colour, ha="center", va="center", weight="bold")
    axes.set(xlim=(-2.9, 2.9), ylim=(-2.9, 2.9), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title)
    axes.spines[:].set(visible=True, color=FAINT)
