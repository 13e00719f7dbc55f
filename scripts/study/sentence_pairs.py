"""Whether less hubness means better sentence similarity: Spearman's correlation on scored pairs, method by method.

Nielsen and Hansen 2023 (arXiv 2311.18364) reduce the hubness of Sentence-BERT's embeddings and find better neighbours;
here the same reductions are judged by the task that the encoder was made for. An encoder is not trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from likeness.figures.style import COLUMN, PALETTE, REFERENCE, blank, in_style
from likeness.hubness.analysis import hubness_of_neighbours
from likeness.neighbours.distances import DistanceName
from likeness.numerics import rank_correlation
from likeness.progress import tracked
from scripts.hubness.encoders import text_encoder
from scripts.hubness.methods import BASE, build_method
from scripts.inputs import choose_device, load_data
from scripts.reporting import Report, Row, publish

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("centring", "f_norm", "csls", "local_scaling", "mutual_proximity", "f_norm+mutual_proximity")
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class ScoredPairs:
    """Sentences, each once, with the rows of both sentences of every pair."""

    embeddings: Tensor  # [n, M]
    first: Tensor  # [P] rows
    second: Tensor  # [P] rows
    score: Tensor  # [P]


def run(
    encoder: str,
    /,
    *,
    out: Path = Path("runs/sentence_pairs"),
    data: Path = Path("configs/data/stsb.yaml"),
    split: Literal["test", "val"] = "test",
    methods: Sequence[str] = METHODS,
    metric: DistanceName = "cosine",
    k: int = 10,
    resamples: int = 1_000,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Print and write Spearman's correlation and hubness for the embeddings as they are and after each reduction.

    Args:
        encoder: A run, a folder or hub name of a Sentence-BERT model, or tfidf.
        out: Where everything is written.
        data: Configuration of scored pairs.
        split: The split whose sentences are embedded; reductions are fitted on all of them.
        methods: Reductions, as the hubness command writes them.
        metric: Metric of the embeddings, and of the reductions that know it.
        k: Neighbours of each sentence, for the indices of hubness.
        resamples: Bootstrap samples of the pairs, for the interval of the change.
        seed: Seed of the resampling.
        device: Where the encoder runs.
    """
    pairs = embed(encoder, data, split, choose_device(device))
    similar = {name: similarities(name, pairs, metric, k) for name in tracked([BASE, *methods], "reducing hubness")}
    rows = table({name: s for name, (s, _) in similar.items()}, pairs.score, resamples, seed)
    for row in rows:
        row |= similar[str(row["method"])][1]
    title = f"Spearman's correlation on {len(pairs.score)} pairs of {len(pairs.embeddings)} sentences ({split} split)"
    Report(title, rows).show()
    publish(out, tables={"sentence_pairs": rows}, figures={"sentence_pairs": draw(rows)})


def embed(encoder: str, data: Path, split: Literal["test", "val"], device: torch.device) -> ScoredPairs:
    """The sentences of a split, embedded once each; raises ValueError where the data are no scored pairs."""
    module: Any = load_data(data)
    module.prepare_data()
    module.setup("validate" if split == "val" else "test")
    found = module.splits[split]
    if not hasattr(found, "score"):
        raise ValueError(f"{data} has no pairs of sentences with scores")
    sentences = list(dict.fromkeys([*found.first, *found.second]))
    rows = {sentence: row for row, sentence in enumerate(sentences)}
    first, second = (torch.tensor([rows[s] for s in side]) for side in (found.first, found.second))
    return ScoredPairs(text_encoder(encoder, sentences, None, device)(sentences), first, second, found.score)


def similarities(method: str, pairs: ScoredPairs, metric: DistanceName, k: int) -> tuple[Tensor, Row]:
    """Minus the distance of each pair [P] under a method, of both directions the mean, and indices of hubness.

    A sentence with itself is more alike than any two; a reduction has no distance for it.
    """
    fitted = build_method(method, metric).fit(pairs.embeddings)
    distances = fitted.distances()
    both = distances[pairs.first, pairs.second] + distances[pairs.second, pairs.first]
    both = both.where(pairs.first != pairs.second, -torch.inf)
    n = len(pairs.embeddings)
    report = hubness_of_neighbours(fitted.rerank(None, k).ids, n, query_ids=torch.arange(n))
    return -both.double() / 2, {"k_skewness": report.k_skewness, "robin_hood": report.robin_hood}


def table(similar: dict[str, Tensor], score: Tensor, resamples: int, seed: int) -> list[Row]:
    """Spearman's correlation by method, and its change with the interval of 95 % over resampled pairs."""
    random = np.random.default_rng(seed)
    samples = [torch.from_numpy(random.integers(0, len(score), len(score))) for _ in range(resamples)]
    over_samples = {
        name: torch.stack([rank_correlation(s[i], score[i]) for i in samples]) for name, s in similar.items()
    }
    base = float(rank_correlation(similar[BASE], score))
    rows: list[Row] = []
    for name, s in similar.items():
        value, low, high = float(rank_correlation(s, score)), None, None
        if name != BASE:
            low, high = np.quantile((over_samples[name] - over_samples[BASE]).numpy(), INTERVAL).tolist()
        change = None if name == BASE else value - base
        row: Row = {"method": name, "spearman": value, "se": float(over_samples[name].std())}
        rows.append(row | {"change": change, "change_low": low, "change_high": high})
    return rows


@in_style()
def draw(rows: Sequence[Row]) -> Figure:
    """The change of Spearman's correlation, with its interval, against the k-skewness that is left."""
    caption = (
        "What reductions of hubness do to the agreement with people: above the line they help. Bars are 95 % intervals "
        "of the change."
    )
    figure = blank(COLUMN, 3.2, caption)
    axes = figure.subplots()
    base, *reduced = rows
    axes.axhline(0, color=REFERENCE, linewidth=0.8)
    axes.scatter([base["k_skewness"]], [0], color="black", marker="s", label=str(base["method"]), zorder=3)
    for row, colour in zip(reduced, PALETTE, strict=False):
        below, above = row["change"] - row["change_low"], row["change_high"] - row["change"]
        style: dict[str, Any] = {"fmt": "o", "color": colour, "label": str(row["method"])}
        axes.errorbar([row["k_skewness"]], [row["change"]], [[below], [above]], **style)
    axes.set(xlabel="k-skewness that is left", ylabel="change of Spearman's correlation")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
