"""One model, three heads with the same probabilities: a pair of labels at cosine .8, 1 and -1.

Nielsen and Grivas (arXiv 2603.29488), lemmas 2.2 and 2.3; the cosines between are derived, not in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from likeness.figures.style import PALETTE, REFERENCE, SMALL, blank, in_style
from likeness.label_geometry.equivalent_heads import EquivalentHead, equivalent_head
from likeness.label_geometry.similarity import raw_similarity
from scripts.inputs import default_data, load_data
from scripts.inspect_head.heads import Head, find_pair, open_head
from scripts.reporting import Report, Row, publish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 600  # embeddings in a panel
GRID = 300  # points of the regions' picture along an axis
REACH = 0.6  # of the longer arrow of the pair, in half sides of a panel


@dataclass(frozen=True)
class PlanarModel:
    """A model with M = 2 on the inputs of a split."""

    f: Tensor  # [N, 2]
    y: Tensor  # [N]
    g: Tensor  # [K, 2]
    bias: Tensor | None  # [K]


def run(
    model: str = "runs/demo#0",
    /,
    *,
    out: Path = Path("runs/cosines"),
    pair: tuple[str, str] = ("0", "1"),
    cosines: Sequence[float] = (0.8, 1.0, -1.0),
    data: str | None = None,
    split: Literal["test", "val"] = "test",
) -> None:
    """Print the proof that the heads are equal, write it and the figure.

    Args:
        model: A run or checkpoint with M = 2; RUN#3 is a member.
        out: Where everything is written.
        pair: Two labels.
        cosines: Cosines of the angle between the two, in [-1, 1]; one head for each.
        data: A data config; by default that of the run.
        split: The split to embed.
    """
    head = open_head(model)
    study(head, find_pair(head, *pair), embed(head, model, Path(data) if data else None, split), cosines, split, out)


def study(
    head: Head,
    pair: tuple[int, int],
    model: PlanarModel,
    cosines: Sequence[float],
    split: str,
    out: Path,
) -> None:
    """Print and write what is equal in the heads of one model."""
    heads = [equivalent_head(model.f, model.g, pair, cosine, model.bias) for cosine in cosines]
    rows = table(model, pair, heads)
    Report(
        f"labels {pair[0]} and {pair[1]} of {head.source}, on {len(model.f)} inputs of the {split} split", rows
    ).show()
    publish(out, tables={"cosines": rows}, figures={"cosines": draw(model, pair, heads)})


@torch.no_grad()
def embed(head: Head, path: str, data: Path | None, split: Literal["test", "val"]) -> PlanarModel:
    """f of a split in float64; raises ValueError for a head that is no model of this project, or not in the plane."""
    if head.model is None:
        raise ValueError(f"{path} is weights alone: a run or checkpoint of this project is needed")
    if head.rows.shape[1] != 2:
        raise ValueError(f"{path} has M = {head.rows.shape[1]}: only a model with M = 2 can be drawn")
    module = load_data(data or default_data(path))
    module.prepare_data()
    module.setup("validate" if split == "val" else "test")
    loader = module.val_dataloader() if split == "val" else module.test_dataloader()
    batches = [(head.model.embed(batch.x)[:, :2].double(), batch.y) for batch in loader]
    f, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    bias = None if head.bias is None else head.bias.double()
    return PlanarModel(f, y, head.rows[:].double(), bias)


def table(model: PlanarModel, pair: tuple[int, int], heads: Sequence[EquivalentHead]) -> list[Row]:
    """The cosine as trained, and for each head what moved and what did not; log-probabilities in nats."""
    trained = float(raw_similarity(model.g[list(pair)])[0, 1])
    rows: list[Row] = [{"head": "as trained", "cosine": trained, "|v|": 0.0, "logits moved": 0.0, "log p moved": 0.0}]
    for head in heads:
        moved = {"logits moved": head.logit_change, "log p moved": head.log_probability_change}
        rows.append({"head": "g + v", "cosine": head.cosine, "|v|": float(head.translation.norm()), **moved})
    return rows


@in_style()
def draw(model: PlanarModel, pair: tuple[int, int], heads: Sequence[EquivalentHead]) -> Figure:
    """A panel for each head: embeddings, the regions where each label is likeliest, and g(y) + v as arrows.

    Regions are computed from each panel's own head. Arrows start at zero, in each panel on a scale of its own; the
    grey ones are the other labels'.
    """
    caption = (
        f"One model, the same probabilities for every input, and yet labels {pair[0]} and {pair[1]} at any cosine: a "
        "vector v was added to all g(y). Grey are the other labels."
    )
    figure = blank(2.3 * len(heads), 2.8, caption)
    radius = 1.1 * float(model.f.abs().max())
    for axes, head in zip(figure.subplots(1, len(heads), squeeze=False)[0], heads, strict=True):
        g = model.g + head.translation
        _draw_regions(axes, g, model.bias, radius)
        _draw_embeddings(axes, model)
        longest = float(g[list(pair)].norm(dim=1).max())
        _draw_labels(axes, (g * (REACH * radius / longest)).numpy(), pair)
        axes.set_title(f"cos(g({pair[0]}) + v, g({pair[1]}) + v) = {head.cosine:.2f}")
        axes.set_xlabel(f"largest change of log p: {head.log_probability_change:.0e} nats", fontsize=SMALL)
        axes.set(xlim=(-radius, radius), ylim=(-radius, radius), aspect="equal", xticks=[], yticks=[])
    figure.suptitle("One f, unembeddings g + v: the same probabilities for every input")
    return figure


def _draw_regions(axes: Axes, g: Tensor, bias: Tensor | None, radius: float) -> None:
    from matplotlib.colors import ListedColormap

    line = torch.linspace(-radius, radius, GRID, dtype=g.dtype)
    points = torch.cartesian_prod(line, line).view(GRID, GRID, 2).transpose(0, 1)
    likeliest = (points @ g.T + (0 if bias is None else bias)).argmax(-1)
    colours = ListedColormap([_colour(label) for label in range(len(g))])
    extent = (-radius, radius, -radius, radius)
    style: dict[str, Any] = {"cmap": colours, "vmin": -0.5, "vmax": len(g) - 0.5, "interpolation": "nearest"}
    axes.imshow(likeliest.numpy(), origin="lower", extent=extent, alpha=0.18, **style)


def _draw_embeddings(axes: Axes, model: PlanarModel) -> None:
    colours = np.array([_colour(label) for label in range(len(model.g))])[model.y[:SHOWN].numpy()]
    axes.scatter(model.f[:SHOWN, 0], model.f[:SHOWN, 1], s=3, c=colours.tolist(), alpha=0.6, linewidths=0)


def _draw_labels(axes: Axes, arrows: np.ndarray, pair: tuple[int, int]) -> None:
    """The pair's arrows, in colour and numbered, over the others."""
    from matplotlib.patheffects import withStroke

    for label, tip in enumerate(arrows):
        if label not in pair:
            axes.plot([0, tip[0]], [0, tip[1]], color=REFERENCE, linewidth=0.8)
    outline = [withStroke(linewidth=2.5, foreground="white")]
    style: dict[str, Any] = {"arrowstyle": "-|>", "lw": 1.6, "mutation_scale": 11, "shrinkA": 0, "shrinkB": 0}
    for label in sorted(pair, key=lambda label: -np.linalg.norm(arrows[label])):
        tip, colour = arrows[label], _colour(label)
        axes.annotate("", xy=tip, xytext=(0, 0), arrowprops={**style, "color": colour, "path_effects": outline})
        x, y = tip * (1 + 0.16 * np.linalg.norm(arrows[list(pair)], axis=1).max() / np.linalg.norm(tip))
        text = axes.text(x, y, str(label), color=colour, ha="center", va="center", fontsize=9, weight="bold")
        text.set(path_effects=outline)


def _colour(label: int) -> str:
    return PALETTE[label % len(PALETTE)]
