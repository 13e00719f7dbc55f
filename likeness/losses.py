"""Losses other than the likelihood of labels: a student's distance from its teacher, and those of sentence pairs.

"Logit Distance Bounds Representational Similarity" (arXiv 2602.15438) compares students of KL, L1 and L2. L1 and L2
read the logits as they are, so they also see a shift of all logits of an input, which softmax ignores; the logit
distance does not, d_logit^2 <= L2, and what it bounds are the representations. The losses of sentence pairs compare
embeddings: with the likeness that people gave the pair, or with those of other pairs.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from likeness.distributed import gather_rows, num_ranks, rank, sum_over_ranks
from likeness.numerics import at_least_float32, cosines, unit_length
from likeness.similarity.logit_distance import d_logit_squared

LossName = Literal["kl", "l1", "l2", "d_logit"]
HIGHEST = 5.0  # the score of two sentences that mean the same
SentenceLossName = Literal["cosine", "euclidean", "ranking"]
SentenceLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over inputs of KL(teacher || student) in nats, at temperature 1, from logits [N, K]."""
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True)


def l1(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean absolute difference of logits [N, K] over inputs and labels."""
    return F.l1_loss(student, teacher)


def l2(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over inputs of the squared distance of logits [N, K], summed over labels."""
    return F.mse_loss(student, teacher, reduction="none").sum(-1).mean()


# d_logit^2 rather than d_logit, whose gradient grows without bound where the two are nearly equal; as a mean over
# inputs it is also what batches estimate without bias.
LOSSES: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {"kl": kl, "l1": l1, "l2": l2, "d_logit": d_logit_squared}


def distillation_loss(name: LossName) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of this name: from logits [N, K] of teacher and student to a scalar, zero where they predict the same.

    Raises ValueError for an unknown name, listing the known ones.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown distillation loss {name!r}: the known ones are {', '.join(LOSSES)}")
    return LOSSES[name]


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
    return F.mse_loss(cosines(u, v), score.to(u.dtype) / HIGHEST)


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
    u, v = (unit_length(at_least_float32(x)) for x in (u, v))
    own = rank() * len(u) + torch.arange(len(u), device=u.device)
    losses = F.cross_entropy(scale * u @ gather_rows(v).mT, own, reduction="none")
    counts = (score >= positive_score).to(losses.dtype)
    return num_ranks() * (losses * counts).sum() / sum_over_ranks(counts.sum()).clamp(min=1)
