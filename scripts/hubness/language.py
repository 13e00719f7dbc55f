"""The prediction hubs of a causal language model on texts, as the command measures them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from likeness.adapters.causal_models import read_causal
from likeness.adapters.causal_scorers import Rows, TokenScorer
from likeness.language.prediction_hubs import (
    NULLS,
    HubThreshold,
    PointDistance,
    PredictionHubs,
    TokenHubs,
    point_hubs,
    prediction_hubs,
)
from likeness.language.reduced_predictions import (
    REDUCTIONS,
    ReducedPredictions,
    reduced_predictions,
    split_documents,
)
from likeness.language.token_batches import TokenPositions, encoded
from likeness.progress import tracked
from scripts.hubness.files import Source
from scripts.hubness.points import texts_of


@dataclass(frozen=True)
class LanguageSearch:
    """What is measured of a language model."""

    texts: str
    column: str | None = None
    corpus: str | None = None
    positions: int = 8192
    prefix: str | int = "separator"
    rows: Rows = "tokens"
    k: int = 10
    hub_multiple: float = 10.0
    hub_count: float | None = None
    length: int | None = None
    stride: int | None = None
    batch_size: int = 16
    among: Sequence[str] = ("tokens", "contexts")
    include_self: bool = False
    reductions: Sequence[str] = REDUCTIONS
    seed: int = 0

    @property
    def threshold(self) -> HubThreshold:
        """Which tokens are hubs."""
        return HubThreshold(self.hub_multiple, self.hub_count)


@dataclass(frozen=True)
class LanguageHubs:
    """What was found."""

    model: TokenScorer
    search: LanguageSearch
    positions: TokenPositions
    frequencies: Tensor  # [V]
    predictions: PredictionHubs
    points: dict[tuple[str, PointDistance], TokenHubs]  # by what is among its likes, and the distance
    reduced: list[ReducedPredictions]  # without a reduction, and with each; [] where none is asked for
    warnings: tuple[str, ...]

    @property
    def corpus(self) -> str:
        """Whose frequencies they are."""
        return self.search.corpus or self.search.texts


def measure(name: str, search: LanguageSearch, device: torch.device) -> LanguageHubs:
    """Read the model and the texts, and count. Raises what names the model, file or text that is wrong."""
    model = read_causal(name, rows=search.rows)
    model.model.to(device)
    positions = model.positions(
        texts_of(Source(search.texts, texts=search.column)),
        search.positions,
        prefix=search.prefix,
        length=search.length,
        stride=search.stride,
        batch_size=search.batch_size,
        seed=search.seed,
    )
    notes: list[str] = []
    frequencies = _frequencies(model, search, positions)
    if len(positions.t) < search.positions:
        notes.append(f"{search.texts} has {len(positions.t):,} positions that count, not {search.positions:,}")
    predictions = _predictions(model, search, positions, frequencies, notes)
    points = _points(model, search, positions, frequencies)
    reduced = _reduced(model, search, positions, notes)
    return LanguageHubs(model, search, positions, frequencies, predictions, points, reduced, tuple(notes))


def _frequencies(model: TokenScorer, search: LanguageSearch, positions: TokenPositions) -> Tensor:
    """How often each label is next at the positions, or occurs in the corpus."""
    if search.corpus is None:
        return torch.bincount(positions.next.cpu(), minlength=model.kept)
    documents = encoded(model.tokenizer, texts_of(Source(search.corpus)), None)
    tokens = torch.tensor([token for document in documents for token in document])
    return torch.bincount(tokens, minlength=model.kept)[: model.kept]


def _predictions(
    model: TokenScorer, search: LanguageSearch, positions: TokenPositions, frequencies: Tensor, notes: list[str]
) -> PredictionHubs:
    nulls: tuple[str, ...] = NULLS
    if (occurring := int((frequencies > 0).sum())) < search.k:
        nulls = ("gaussian",)
        notes.append(f"no null of frequencies: {occurring} tokens occur, and {search.k} are drawn")
    g, bias = model.output_embedding()
    return prediction_hubs(
        model.bare(positions.f),
        g,
        bias=bias,
        k=search.k,
        next_tokens=positions.next,
        frequencies=frequencies,
        threshold=search.threshold,
        soft_cap=model.facts.soft_cap,
        nulls=nulls,
        seed=search.seed,
    )


def _points(
    model: TokenScorer, search: LanguageSearch, positions: TokenPositions, frequencies: Tensor
) -> dict[tuple[str, PointDistance], TokenHubs]:
    """Tokens among tokens and contexts among contexts, by each distance; the constant of a bias is no coordinate."""
    g, _ = model.output_embedding()
    clouds = {"tokens": g, "contexts": model.bare(positions.f)}
    pairs = [(kind, distance) for kind in search.among for distance in get_args(PointDistance)]
    return {
        (kind, distance): point_hubs(
            clouds[kind],
            distance,
            k=search.k,
            frequencies=frequencies if kind == "tokens" else None,
            threshold=search.threshold,
            include_self=search.include_self,
            seed=search.seed,
        )
        for kind, distance in tracked(pairs, "searching")
    }


def _reduced(
    model: TokenScorer, search: LanguageSearch, positions: TokenPositions, notes: list[str]
) -> list[ReducedPredictions]:
    """Fitted on half of the documents and tested on the others."""
    if not search.reductions:
        return []
    if model.facts.soft_cap is not None:
        notes.append(f"no reductions: {model.why_no_head}")
        return []
    bank, test = split_documents(positions.document, seed=search.seed)
    g, bias = model.output_embedding()
    f = model.bare(positions.f)
    return reduced_predictions(
        f[bank], f[test], g, positions.next[test], bias=bias, reductions=search.reductions, k=search.k
    )
