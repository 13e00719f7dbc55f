"""Draws the pictures of the documents from the measures themselves: ``python docs/figures.py [FOLDER]``."""

import math
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository, when it is not installed

from likeness.figures.output import save_figure
from likeness.figures.style import PAGE, PALETTE, REFERENCE, UNKNOWN, blank, in_style
from likeness.label_geometry.similarity import centred_similarity, logit_correlation, raw_similarity
from likeness.seeding import generator
from likeness.similarity.catalogue import REPRESENTATION_MEASURES as MEASURES
from likeness.similarity.catalogue import of_function
from likeness.similarity.comparison import SoftmaxComparison, compare_softmax_models
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.representations.cca import m_cca
from likeness.similarity.representations.permutation_null import null_distribution

BLUE, VERMILION, GREEN, ORANGE, SKY, PINK, BLACK = PALETTE[:7]
CLASS_COLOURS = [BLUE, ORANGE, GREEN, VERMILION, PINK, SKY, REFERENCE]
ORDER = [5, 0, 2, 4, 6, 1, 3]  # of the seven clusters in the second model of Table 1


def circle(angles: Tensor, radius: Tensor | float) -> Tensor:
    """Points [..., 2] at these angles and radii."""
    return torch.stack([angles.cos(), angles.sin()], dim=-1) * torch.as_tensor(radius)[..., None]


def classifier(labels: int = 6, per_label: int = 150) -> tuple[Tensor, Tensor]:
    """f [N, 2] and g [K, 2] of a plausible classifier: clusters around its labels' directions."""
    angles = torch.arange(labels) * 2 * math.pi / labels
    g = circle(angles, 2.0)
    noise = torch.randn(labels, per_label, 2, generator=generator(1))
    return (g[:, None] + 0.8 * noise).flatten(0, 1).double(), g.double()


def linear_map(strength: float, angle: float, stretch: float) -> Tensor:
    """The identity at strength 0; at 1 a stretch of the first axis over the second, along a diagonal, and a turn."""
    turns = [torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) for a in (strength * angle, 0.6)]
    scales = torch.tensor([stretch ** (strength / 2), stretch ** (-strength / 2)])
    return (turns[0] @ turns[1] * scales @ turns[1].T).double()


def compared(f: Tensor, g: Tensor, other_f: Tensor, other_g: Tensor) -> SoftmaxComparison:
    """The models at one choice of labels: the best one differs along a path, and d_SVD would jump with it."""
    options = ComparisonOptions(search="sampled", label_choice=(0, 1))
    return compare_softmax_models(f, g, other_f, other_g, options=options)


Similarity = Callable[[SoftmaxComparison, Tensor, Tensor], float]  # from the comparison, f and f'
SEEN: dict[str, tuple[str, str, float, Similarity]] = {  # colour, line and width: wide ones show beneath
    "1 - total variation": (BLACK, "-", 4.5, lambda found, *_: 1 - found.total_variation),
    "m_SVD(f) = 1 - max d_SVD(f)": (VERMILION, "-", 2.5, lambda found, *_: float(found.m_svd_f)),
    "m_CCA(f)": (SKY, "--", 1.5, lambda found, *_: found.m_cca_f),
    "linear CKA": (ORANGE, "-.", 1.8, lambda _, *embeddings: float(MEASURES["linear_cka"](*embeddings))),
    "RSA": (PINK, "-.", 1.8, lambda _, *embeddings: float(MEASURES["rsa"](*embeddings))),
    "mutual 10-NN": (
        GREEN,
        "-.",
        1.8,
        lambda _, *embeddings: float(MEASURES["mutual_knn"](*embeddings)),
    ),
}


def what_is_seen() -> Figure:
    """Similarity along a path of maps that keep the distribution, and along one that does not."""
    f, g = classifier()
    strengths = torch.linspace(0, 1, 41).tolist()
    same, other = [], []
    for strength in strengths:
        of_f, of_g = linear_map(strength, 0.5, 12.0), linear_map(strength, -1.2, 4.0)
        image = f @ of_f.T
        same.append((compared(f, g, image, g @ torch.linalg.inv(of_f) + strength), image))
        other.append((compared(f, g, image, g @ of_g.T), image))
    caption = (
        "Along changes that keep the distribution, on the left, a good measure of it stays at 1; on the right the "
        "distribution changes."
    )
    figure = blank(PAGE, 2.6, caption)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, models in ((left, same), (right, other)):
        for name, (colour, line, width, measure) in SEEN.items():
            values = [measure(found, f, image) for found, image in models]
            axes.plot(strengths, values, line, color=colour, label=name, linewidth=width)
        axes.set(xlabel="strength of the map", ylim=(0, 1.04), xlim=(0, 1))
    left.set(ylabel="similarity to the model itself")
    left.set_title("one distribution: f → A f, g → A⁻ᵀ g + v")
    right.set_title("another one: f → A f, g → B g")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
    return figure


def cluster_models(length: float, per_label: int = 500) -> tuple[Tensor, Tensor, Tensor]:
    """The two models of Table 1 (Nielsen et al. 2025) with unembeddings of this length: f, f' [N, 2] and g [7, 2].

    In the second, class i has the angle and the angular offsets of class ORDER[i], and its own radii.
    """
    draw = generator(0)
    angles = torch.arange(7) * 2 * math.pi / 7
    offsets = (torch.rand(7, per_label, generator=draw) * 2 - 1) * math.pi / 64
    radii = 2 + (0.01 * torch.randn(7, per_label, generator=draw)).abs()
    places = angles[:, None] + offsets
    f, other_f = (circle(place, radii).flatten(0, 1).double() for place in (places, places[ORDER]))
    return f, other_f, circle(angles, length).double()


def kl_to_zero() -> Figure:
    """The embeddings of both models, and how KL falls while the measures of representations stand still."""
    lengths = list(range(1, 21))
    found = []
    for length in lengths:
        f, other_f, g = cluster_models(length, per_label=100)
        found.append(compare_softmax_models(f, g, other_f, g[ORDER]))
    caption = (
        "KL of the two models goes to zero with the length of the unembeddings, and their representations stay apart."
    )
    figure = blank(PAGE, 2.4, caption)
    first, second, curves = figure.subplots(1, 3, width_ratios=[1, 1, 1.5])
    draw_clusters(first, f, g, "model 1: f(x), and g(y) by colour")
    draw_clusters(second, other_f, g[ORDER], "model 2")
    curves.semilogy(lengths, [c.kl_12 for c in found], color=BLACK, label="KL, nats")
    curves.semilogy(lengths, [c.d_llv for c in found], color=ORANGE, label="d_LLV")
    curves.semilogy(lengths, [c.max_d_svd_f for c in found], color=VERMILION, label="max d_SVD(f), at most 1")
    curves.semilogy(lengths, [c.m_cca_f for c in found], "--", color=BLUE, label="m_CCA(f), 1 if alike")
    curves.set(xlabel="length of the unembeddings", xlim=(1, 20), xticks=[1, 5, 10, 15, 20], ylim=(1e-5, 5))
    curves.legend(loc="lower left")
    return figure


def draw_clusters(axes: Axes, f: Tensor, g: Tensor, title: str) -> None:
    """Embeddings by class, in order, and the directions of their labels."""
    for label, (points, direction) in enumerate(zip(f.chunk(len(g)), g, strict=True)):
        colour, end = CLASS_COLOURS[label], 1.5 * direction / direction.norm()
        axes.scatter(*points.T, s=6, color=colour, linewidths=0)
        axes.annotate("", xy=end.tolist(), xytext=(0, 0), arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.5})
        axes.text(*(1.2 * points.mean(0)).tolist(), str(label + 1), color=colour, ha="center", va="center")
    axes.set(aspect="equal", xlim=(-2.9, 2.9), ylim=(-2.9, 2.9), xticks=[], yticks=[])
    axes.set_title(title)
    axes.spines[:].set_visible(False)


def null_values() -> Figure:
    """What unrelated Gaussian representations of 16 dimensions score, against the number of samples."""
    sizes = [24, 32, 48, 64, 128, 256, 512, 1024]
    measures = {
        "m_CCA": (BLUE, "--", of_function(m_cca, "m_CCA", larger_is_more_alike=True)),
        "linear CKA": (ORANGE, "-", MEASURES["linear_cka"]),
        "mutual 10-NN": (GREEN, "-.", MEASURES["mutual_knn"]),
        "unbiased linear CKA": (VERMILION, "-", MEASURES["unbiased_linear_cka"]),
    }
    caption = "What unrelated representations score: biased measures take few samples for likeness. Bands: 5 % to 95 %."
    figure = blank(5.0, 2.6, caption)
    axes = figure.subplots()
    for name, (colour, line, measure) in measures.items():
        pairs = [torch.randn(2, n, 16, generator=generator(2, n)).double() for n in sizes]
        nulls = [null_distribution(measure, *pair, n=300) for pair in pairs]
        axes.plot(sizes, [null.mean for null in nulls], line, color=colour, label=name)
        band = [[null.quantile(level) for null in nulls] for level in (0.05, 0.95)]
        axes.fill_between(sizes, *band, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(0, color=REFERENCE, linewidth=0.8, zorder=0)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="samples N", ylabel="score of unrelated f, M = 16", xlim=(sizes[0], sizes[-1]))
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.legend()
    return figure


def bounds() -> Figure:
    """d_{f,g} of models under growing noise against d_LLV, with what each bound promises."""
    f, g = classifier(per_label=60)
    other_f, other_g = (torch.randn(x.shape, generator=generator(3)).double() for x in (f, g))
    levels = torch.logspace(-2, 0.5, 40).tolist()
    found = [compare_softmax_models(f, g, f + level * other_f, g + level * other_g) for level in levels]
    d_llv = torch.tensor([float(c.d_llv or 0) for c in found])
    caption = "How far apart representations are, against how far apart distributions are, and the bounds on it."
    figure = blank(PAGE, 2.6, caption)
    axes = figure.subplots()
    x = torch.linspace(0, 1.2, 200)
    axes.plot(x, 4 * x, "--", color=BLUE, label="2 M d_LLV, M = 2")
    axes.plot(x, 2 * x**2, color=BLACK, label="2 d_LLV² (derived)")
    certificates = [c.certificate.value for c in found if c.certificate is not None]
    axes.scatter(d_llv, certificates, s=30, marker="_", color=ORANGE, label="certificate (derived)")
    axes.scatter(d_llv, [c.max_d_svd_f for c in found], s=14, color=VERMILION, label="max d_SVD(f)")
    axes.axhspan(1, 1.3, color=UNKNOWN, linewidth=0)
    axes.text(0.02, 1.15, "says nothing: d_SVD is at most 1", va="center")
    axes.set(xlabel="d_LLV", ylabel="max d_SVD(f) and its bounds", xlim=(0, 1.2), ylim=(0, 1.3))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure


def label_cosines() -> Figure:
    """What happens to the similarity of two labels along changes of coordinates that no probability shows."""
    f, g = classifier()
    strengths = torch.linspace(0, 1, 61).tolist()
    shift = 2.2 * circle(torch.tensor([math.pi * 7 / 6]), 1.0)[0].double()  # from between the labels through the origin
    maps = {strength: linear_map(strength, 0.5, 12.0) for strength in strengths}
    changes = {
        "a translation: g → g + v": [(f, g + strength * shift) for strength in strengths],
        "a linear map: f → A f, g → A⁻ᵀ g": [(f @ a.T, (g + 0.2 * shift) @ torch.linalg.inv(a)) for a in maps.values()],
    }
    caption = (
        "Which similarities of labels move with coordinates that no probability shows: only the flat one does not."
    )
    figure = blank(PAGE, 2.5, caption)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (title, models) in zip(panels, changes.items(), strict=True):
        raw = [float(raw_similarity(v)[0, 1]) for _, v in models]
        centred = [float(centred_similarity(v)[0, 1]) for _, v in models]
        invariant = [float(logit_correlation(v, torch.cov(u.T))[0, 1]) for u, v in models]
        axes.plot(strengths, raw, color=ORANGE, label="raw cosine")
        axes.plot(strengths, centred, "--", color=BLUE, label="centred cosine")
        axes.plot(strengths, invariant, color=BLACK, label="logit correlation")
        axes.set(xlabel="strength of the change", xlim=(0, 1), ylim=(-1.04, 1.04))
        axes.set_title(title)
    panels[0].set(ylabel="similarity of two neighbouring labels")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


FIGURES = {
    "what_is_seen": what_is_seen,
    "kl_to_zero": kl_to_zero,
    "bounds": bounds,
    "null": null_values,
    "label_cosines": label_cosines,
}


def main(folder: Path) -> None:
    """Write each figure of measures.md, in this file, and of hubness.md into the folder as a PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    hubness = runpy.run_path(str(Path(__file__).with_name("hubness_figures.py")))["FIGURES"]
    with in_style():
        for name, draw in {**FIGURES, **hubness}.items():
            save_figure(draw(), folder / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
