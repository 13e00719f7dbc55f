"""The main figures, of numbers that are functions of nothing but their places.

``python -m tests.likeness.figures.drawings`` writes the golden images anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import ft2font
from matplotlib.figure import Figure
from PIL import Image

from likeness.diffusion.diagnostics.bound_profiles import DepthPoint, GammaProfile
from likeness.figures.diffusion import depth_figure, heat_maps, loss_figure
from likeness.figures.embeddings import embedding_scatter
from likeness.figures.hubness import k_occurrence_figure
from likeness.figures.labels import label_heatmaps
from likeness.figures.output import as_image
from likeness.figures.similarity import similarity_heatmap
from likeness.hubness.analysis import analyse_hubness
from likeness.pages.parts import Curve, Lines
from likeness.pages.static import draw
from likeness.similarity.catalogue import MEASURES


def loss() -> Figure:
    edges = torch.linspace(-13, 5, 25)
    middle = (edges[1:] + edges[:-1]) / 2

    def profile(height: float) -> GammaProfile:
        rate = height * torch.exp(-((middle + 3) ** 2) / 18)
        return GammaProfile(edges, torch.full((24,), 50.0), rate, 0.1 * rate**2, rate / 18, 0.1 * rate / 18)

    return loss_figure({"train": profile(3.0), "val": profile(3.6)})


def depth() -> Figure:
    def point(steps: int | None) -> DepthPoint:
        excess = 0.0 if steps is None else 20 / steps
        fitted = excess / 2
        return DepthPoint(steps, 3 + excess, 0.1, excess, excess / 9, 3 + fitted, 0.1, fitted, fitted / 9)

    return depth_figure([point(steps) for steps in (10, 30, 100, 300, 1000, None)])


def occurrences() -> Figure:
    """A chain, in which each point has its successors for neighbours, beside one in which all have the first points."""
    chain = torch.tensor([[(i + j) % 60 for j in range(1, 6)] for i in range(60)])
    first = [[j if j < i else j + 1 for j in range(3)] for i in range(60)]
    stars = torch.tensor([[*near, 20 + (i + 7) % 20, 40 + (i + 9) % 20] for i, near in enumerate(first)])
    points = torch.eye(60)
    return k_occurrence_figure(
        {name: analyse_hubness(points, 5, neighbours=own) for name, own in (("chain", chain), ("stars", stars))}
    )


def labels() -> Figure:
    places = torch.arange(6.0)
    turned = {"raw": 0.3, "invariant": 0.9}
    return label_heatmaps(
        {name: torch.cos(speed * (places[:, None] - places)) for name, speed in turned.items()},
        ["cat", "dog", "car", "bus", "oak", "elm"],
    )


def _classes(turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of three classes on arcs, [60, 2], and their label vectors, [3, 2]."""
    centres = 2 * np.pi * np.arange(3) / 3 + turn
    angles = np.repeat(centres, 20) + np.tile(np.linspace(-0.6, 0.6, 20), 3)
    radii = 1 + 0.3 * np.tile(np.sin(np.arange(20)), 3)
    return (
        np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1),
        np.stack([np.cos(centres), np.sin(centres)], axis=1),
    )


def embeddings() -> Figure:
    (f, g), (other_f, other_g) = _classes(0.2), _classes(1.0)
    return embedding_scatter([f, other_f], np.repeat(np.arange(3), 20), [g, other_g], ["run/0", "run/1"])


def similarity() -> Figure:
    values = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0) ** 1.2)) / 3
    np.fill_diagonal(values, np.nan)
    names = [f"run/{model}" for model in range(5)]
    return similarity_heatmap(values, names, names, MEASURES["kl"])


def encoder() -> Figure:
    rows, columns = np.mgrid[:8, :8] / 7
    images = np.stack([rows, columns])
    maps = [np.stack([np.sin(6 * t * rows), -np.cos(6 * t * columns)]) for t in (0.2, 0.6, 1.0)]
    return heat_maps(images, maps, (0.2, 0.6, 1.0), "Change of the mean")


def curves() -> Figure:
    steps = np.arange(0.0, 100, 5)

    def curve(number: int) -> Curve:
        y = 2 / (1 + 0.1 * steps) + 0.3 * number
        return Curve(f"run {number}", steps, y, y - 0.1, y + 0.1, number)

    return draw(Lines("loss", "Loss", "step", "nats", [curve(number) for number in range(4)], "Lower is better."))


MAIN: dict[str, Callable[[], Figure]] = {
    of.__name__: of for of in (loss, depth, occurrences, labels, embeddings, similarity, encoder, curves)
}
GOLDEN = Path(__file__).parent / "golden"
DPI = 60


def drawn_with() -> dict[str, str]:
    """What letters and lines depend on: other versions draw other pixels."""
    major, minor, *_ = matplotlib.__version__.split(".")
    return {"matplotlib": f"{major}.{minor}", "freetype": ft2font.__freetype_version__}


def write_small(figure: Figure, path: Path) -> Path:
    figure.set_dpi(DPI)
    Image.fromarray(as_image(figure)).save(path, optimize=True)
    return path


if __name__ == "__main__":
    for name, of in MAIN.items():
        print(f"wrote {write_small(of(), GOLDEN / f'{name}.png')}")
    (GOLDEN / "drawn_with.json").write_text(json.dumps(drawn_with()) + "\n")
