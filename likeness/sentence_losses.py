"""Losses between the embeddings of sentence pairs: the likeness that people gave them, or telling pairs apart."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from likeness.gathering import gather_rows, num_ranks, rank, sum_over_ranks
from likeness.measures.feature_moments import at_least_float32

HIGHEST = 5.0  # the score of two sentences that mean the same
SentenceLossName = Literal["cosine", "euclidean", "ranking"]
SentenceLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def sentence_loss(name: SentenceLossName, scale: float = 20.0, positive_score: float = 4.0) -> SentenceLoss:
    """The loss of (u, v, score) that ``name`` means; the other arguments are those of :func:`ranking_loss`.

    Raises ValueError for another name.
    """
    ranking = partial(ranking_loss, scale=scale, positive_score=positive_score)
    losses: dict[str, SentenceLoss] = {"cosine": cosine_loss, "euclidean": euclidean_loss, "ranking": ranking}
    if name not in losses:
        raise ValueError(f"loss must be one of {', '.join(losses)}, got {name!r}")
    return losses[name]


def cosine_loss(u: Tensor, v: Tensor, score: Tensor) -> Tensor:
    """Mean squared error of cos(u, v) from score / 5, a scalar.

    u, v: embeddings [B, M]; score [B] in 0..5. Sentences that have nothing in common are to be at right angles.
    Equal to the loss on distances, (1 - cos) from 1 - score / 5. Reimers & Gurevych 2019 (arXiv 1908.10084).
    """
    u, v = (at_least_float32(x) for x in (u, v))
    return F.mse_loss(F.cosine_similarity(u, v), score.to(u.dtype) / HIGHEST)


def euclidean_loss(u: Tensor, v: Tensor, score: Tensor) -> Tensor:
    """Mean squared error of |u - v| from sqrt(2 - 2 score / 5), a scalar.

    u, v: embeddings [B, M]; score [B] in 0..5. The target is the distance of unit vectors with cosine score / 5: from
    sqrt(2), at right angles, to 0. Equal embeddings have gradient 0. Nielsen & Hansen 2024 (arXiv 2311.18364).
    """
    u, v = (at_least_float32(x) for x in (u, v))
    distance = torch.linalg.vector_norm(u - v, dim=-1)
    return F.mse_loss(distance, (2 - 2 * score.to(u.dtype) / HIGHEST).clamp(min=0).sqrt())


def ranking_loss(u: Tensor, v: Tensor, score: Tensor, scale: float = 20.0, positive_score: float = 4.0) -> Tensor:
    """Multiple negatives ranking: cross-entropy in nats of finding v_i among all v by scale cos(u_i, v_j), a scalar.

    u, v: embeddings [B, M]; score [B]. A pair counts where its score is at least ``positive_score``; every v is a
    negative of all other pairs. Over R ranks, which must all enter with as many pairs each, v runs over all of them,
    and the mean of the ranks' losses is the loss of the whole batch; 0 where no pair counts.
    Henderson et al. 2017 (arXiv 1705.00652).
    """
    u, v = (F.normalize(at_least_float32(x), dim=-1) for x in (u, v))
    own = rank() * len(u) + torch.arange(len(u), device=u.device)
    losses = F.cross_entropy(scale * u @ gather_rows(v).mT, own, reduction="none")
    counts = (score >= positive_score).to(losses.dtype)
    return num_ranks() * (losses * counts).sum() / sum_over_ranks(counts.sum()).clamp(min=1)
