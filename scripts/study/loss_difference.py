"""Fig 5 of paper A: how near two models' test losses are does not tell how alike their representations are.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), appendix F.4.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lightning_modules.checkpoints import LAST_IN_RUN, load_softmax_models, short_names
from likeness.figures.style import MARKERS, PAGE, PALETTE, blank, in_style
from likeness.numerics import rank_correlation
from likeness.protocols import SoftmaxModel
from likeness.similarity.catalogue import select
from scripts.compare.comparison import compare
from scripts.inputs import choose_device, default_data, load_data
from scripts.reporting import Report, Row, grouped, publish

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURES = ("kl", "m_cca")
COLUMNS = 3
OF_SEEDS = ("seed", "order_seed")  # hyper-parameters in which the models of a pair may differ
OF_LOADING = ("seed", "batch_size", "eval_batch_size", "on_device", "num_workers", "data_dir", "download")


@dataclass
class Group:
    """Models that differ in their seeds only, and their data."""

    panel: str
    data: pl.LightningDataModule
    models: list[tuple[str, SoftmaxModel]]

    @property
    def name(self) -> str:
        """The runs that the models came from."""
        runs = list(dict.fromkeys(name.rpartition("#")[0] or name for name, _ in self.models))
        return runs[0] if len(runs) == 1 else f"{runs[0]} and {len(runs) - 1} more"


def run(
    runs: Sequence[str] = ("runs/width",),
    /,
    *,
    out: Path = Path("runs/loss_difference"),
    data: str | None = None,
    split: Literal["test", "val"] = "test",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Compare all pairs within each group of models; print what the loss says, write pairs and the figure.

    Args:
        runs: Runs, checkpoints, or folders of runs.
        out: Where everything is written.
        data: A data config; by default that of each run.
        split: The split to compare on.
        device: Where models run.
    """
    rows: list[Row] = []
    for group in find_groups(runs, Path(data) if data else None):
        rows += pairs(group, split, choose_device(device))
    groups = summary(rows)
    Report(
        "does the difference of two losses tell how alike the embeddings are?", [printed(group) for group in groups]
    ).show()
    publish(out, tables={"pairs": rows, "groups": groups}, figures={"loss_difference": draw(rows, groups)})


def find_groups(paths: Sequence[str], data: Path | None) -> list[Group]:
    """The models of runs, checkpoints and folders of runs; raises ValueError if no two differ in their seeds only."""
    locations = [location for path in paths for location in _runs_within(path)]
    loaded = [(location, *named) for location in locations for named in load_softmax_models(location)]
    names = short_names([name for _, name, _ in loaded])
    sources = {location: load_data(data or default_data(location)) for location in locations}
    groups: dict[str, Group] = {}
    for name, (location, _, model) in zip(names, loaded, strict=True):
        own_data = sources[location]
        key = json.dumps([_architecture(model), _data_set(own_data)], sort_keys=True, default=str)
        groups.setdefault(key, Group(_panel_name(own_data, model), own_data, [])).models.append((name, model))
    found = [group for group in groups.values() if len(group.models) > 1]
    if not found:
        raise ValueError(f"no two of these models differ in their seeds only: {', '.join(names)}")
    return found


def pairs(group: Group, split: Literal["test", "val"], device: torch.device) -> list[Row]:
    """A row for each pair: the difference of the losses in nats and the similarities."""
    found = compare(group.models, group.data, split, select(MEASURES), device)
    assert found.accuracy is not None  # of classifiers on data with labels
    assert found.nll is not None
    rows: list[Row] = []
    for i, j in combinations(range(len(found.names)), 2):
        row: dict[str, Any] = {"panel": group.panel, "group": group.name}
        row |= {"model_a": found.names[i], "model_b": found.names[j]}
        row |= {"nll_a": float(found.nll[i]), "nll_b": float(found.nll[j])}
        row |= {"accuracy_a": float(found.accuracy[i]), "accuracy_b": float(found.accuracy[j])}
        row |= {"loss_difference": abs(row["nll_a"] - row["nll_b"])}
        row |= {"kl_ab": float(found.values["kl"][i, j]), "kl_ba": float(found.values["kl"][j, i])}
        rows.append(row | {name: float(found.values[name][i, j]) for name in ("m_cca_f", "m_cca_g")})
    return rows


def summary(rows: Sequence[Row]) -> list[Row]:
    """For each group the range of the losses and of m_CCA, and their rank correlation; None for under three pairs."""
    answer: list[Row] = []
    for name, own in grouped(rows, "group").items():
        values = torch.tensor([[row["loss_difference"], row["m_cca_f"]] for row in own], dtype=torch.float64)
        difference, m_cca = values[values.isfinite().all(1)].T
        ranked = len(m_cca) > 2 and bool(difference.std() > 0) and bool(m_cca.std() > 0)
        row: dict[str, Any] = {"panel": own[0]["panel"], "group": name, "pairs": len(own)}
        row |= {"loss_difference": float(difference.max()) if len(difference) else None}
        row |= {"min_m_cca": float(m_cca.min()) if len(m_cca) else None}
        row |= {"max_m_cca": float(m_cca.max()) if len(m_cca) else None}
        answer.append(row | {"spearman": float(rank_correlation(difference, m_cca)) if ranked else None})
    return answer


def printed(group: Row) -> Row:
    """A group as the terminal shows it."""
    m_cca = "-" if group["min_m_cca"] is None else f"{group['min_m_cca']:.2f} to {group['max_m_cca']:.2f}"
    row = {"models": group["group"], "pairs": group["pairs"], "losses differ by, at most": group["loss_difference"]}
    return row | {"m_CCA": m_cca, "rank correlation": group["spearman"]}


@in_style()
def draw(rows: Sequence[Row], groups: Sequence[Row]) -> Figure:
    """m_CCA against the difference of the losses: a panel for each data set, K and M, a colour for each group."""
    panels = grouped(groups, "panel")
    height, width = -(-len(panels) // COLUMNS), min(len(panels), COLUMNS)
    caption = (
        "Each point is a pair of models: losses that are close, on the left, do not make embeddings alike, on top."
    )
    figure = blank(PAGE / 2 * width, 2.9 * height, caption)
    all_axes = figure.subplots(height, width, sharey=True, squeeze=False).flatten()
    for axes, (panel, own) in zip(all_axes, panels.items(), strict=False):
        _draw_panel(axes, rows, own)
        axes.set_title(panel)
    for axes in all_axes[len(panels) :]:
        axes.set_visible(False)
    for axes in all_axes[::COLUMNS]:
        axes.set_ylabel("m_CCA of the embeddings")
    return figure


def _draw_panel(axes: Axes, rows: Sequence[Row], groups: Sequence[Row]) -> None:
    from matplotlib.ticker import NullFormatter

    for index, group in enumerate(groups):
        own = [row for row in rows if row["group"] == group["group"]]
        rank = "" if group["spearman"] is None else f", rank correlation {group['spearman']:+.2f}"
        style: dict[str, Any] = {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)]}
        x, y = ([row[name] for row in own] for name in ("loss_difference", "m_cca_f"))
        axes.scatter(x, y, s=8, alpha=0.7, linewidths=0, label=f"{group['group']}{rank}", **style)
    axes.set(xscale="log", xlabel="|difference of the losses| (nats)", ylim=(0, 1.02))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="lower left", handletextpad=0.2)


def _runs_within(path: str) -> list[str]:
    """The path itself, or the runs in it where it is a folder of runs."""
    folder = Path(path)
    if not folder.is_dir() or (folder / LAST_IN_RUN).is_file():
        return [path]
    return sorted(str(run.parents[1]) for run in folder.glob(f"*/{LAST_IN_RUN}")) or [path]


def _architecture(model: SoftmaxModel) -> dict[str, Any]:
    hparams: Any = getattr(model, "hparams", {})
    return {name: value for name, value in hparams.items() if name not in OF_SEEDS}


def _data_set(data: pl.LightningDataModule) -> dict[str, Any]:
    """What tells two data sets apart: the class, and the options that are not about loading."""
    options = {name: value for name, value in vars(data).items() if isinstance(value, int | float | str)}
    own = {name: value for name, value in options.items() if name[0] != "_" and name not in OF_LOADING}
    return {"class": type(data).__name__, **own}


def _panel_name(data: pl.LightningDataModule, model: SoftmaxModel) -> str:
    hparams: Any = getattr(model, "hparams", {})
    return f"{type(data).__name__}, K = {hparams.get('num_classes')}, M = {hparams.get('dim')}"
