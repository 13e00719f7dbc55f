"""Draws the pictures of hubness.md; ``python docs/figures.py [FOLDER]`` runs it with the others."""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository, when it is not installed

from likeness.figures.hubness import CHANCE, k_occurrence_figure
from likeness.figures.style import FAINT, PAGE, PALETTE, REFERENCE, TINY, blank
from likeness.hubness.analysis import analyse_hubness
from likeness.hubness.null import null_indices
from likeness.hubness.reductions import reduction
from likeness.seeding import generator
from scripts.hubness.analysis import Search
from scripts.hubness.comparison import compare_methods
from scripts.hubness.comparison_tables import comparison_figure
from scripts.hubness.files import Source
from scripts.hubness.methods import METHODS
from scripts.hubness.points import Encoding, Points, open_points

BLUE, VERMILION, GREEN, ORANGE = PALETTE[:4]
DIMENSIONS = (2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 300)


def docstrings() -> Points:
    """Those of the standard library by TF-IDF."""
    return open_points([Source("docstrings")], Encoding())[0]


def gaussian(n: int, dim: int, mean: float = 0.0) -> Tensor:
    """n points of N(mean, 1) in each of ``dim`` dimensions."""
    return mean + torch.randn(n, dim, generator=generator(7, dim), dtype=torch.float64)


def by_dimension(n: int = 2000) -> Figure:
    """The Robin Hood index of Gaussian points against their dimension, by metric, and what chance gives."""
    caption = (
        "Hubness grows with the dimension, by which distance it does and by which it does not, and what chance gives."
    )
    figure = blank(PAGE, 2.5, caption)
    axes = figure.subplots()
    curves = {
        "Euclidean": (BLUE, "-", lambda x: analyse_hubness(x)),
        "inner product": (ORANGE, "-", lambda x: analyse_hubness(x, metric="dot")),
        "Euclidean, after\nmutual proximity": (
            GREEN,
            "-",
            lambda x: analyse_hubness(x, neighbours=reduction("mutual_proximity").fit(x).rerank(None, 10)),
        ),
        "cosine": (VERMILION, "-", lambda x: analyse_hubness(x, metric="cosine")),
    }
    for name, (colour, line, measure) in curves.items():
        values = [measure(gaussian(n, dim)).robin_hood for dim in DIMENSIONS]
        axes.plot(DIMENSIONS, values, line, color=colour, label=name, marker="o", ms=3)
    chance = null_indices(n, n, 10, in_sample=True).robin_hood
    axes.axhline(chance, color=REFERENCE, ls="--", label=CHANCE)
    axes.set_xscale("log")
    axes.set_xticks([2, 5, 10, 20, 50, 100, 200], ["2", "5", "10", "20", "50", "100", "200"])
    axes.minorticks_off()
    axes.set(xlabel="dimension", ylabel="Robin Hood index, k = 10", ylim=(0, 1), xlim=(2, 300))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure


def of_chance(n: int = 10_000) -> Figure:
    """Indices of random neighbours against the mean k-occurrence."""
    means = torch.logspace(-0.5, 2, 40).tolist()
    queries = [max(3, round(mean * n / 10)) for mean in means]
    nulls = [null_indices(n, m, 10, in_sample=False) for m in queries]
    caption = "What indices of hubness are where neighbours are random: they depend on the mean k-occurrence."
    figure = blank(5.0, 2.5, caption)
    axes = figure.subplots()
    for name, colour, label in (
        ("k_skewness", BLUE, "k-skewness"),
        ("robin_hood", VERMILION, "Robin Hood"),
        ("antihub_rate", GREEN, "antihub rate"),
    ):
        values = [getattr(null, name) for null in nulls]
        axes.plot([10 * m / n for m in queries], values, color=colour, label=label)
    for mean, name in ((0.633, "AG News"), (6.66, "20 Newsgroups"), (10, "in-sample, k = 10")):
        axes.axvline(mean, color=FAINT, lw=0.8, zorder=0)
        axes.annotate(name, (mean, 1.75), (3 if mean == 10 else -3, 0), textcoords="offset points", fontsize=TINY,
                      ha="left" if mean == 10 else "right", va="top", rotation=90)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50, 100], ["0.5", "1", "2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.set(xlabel="mean k-occurrence, k m / n", ylabel="if neighbours are random", ylim=(0, 1.8), xlim=(0.32, 100))
    axes.legend(loc="upper right")
    return figure


def distribution() -> Figure:
    """k-occurrences of the docstrings, as they are and after local scaling."""
    points = docstrings().vectors
    found = reduction("local_scaling").fit(points).rerank(None, 10)
    reports = {"docstrings": analyse_hubness(points), "after local scaling": analyse_hubness(points, neighbours=found)}
    return k_occurrence_figure(reports)


def methods() -> Figure:
    """Methods on the docstrings."""
    return comparison_figure(compare_methods(docstrings(), None, METHODS, Search()))


FIGURES = {
    "hubness_dimension": by_dimension,
    "hubness_chance": of_chance,
    "hubness_docstrings": distribution,
    "hubness_methods": methods,
}
