"""What d_LLV says about d_{f,g}, the largest d_SVD of embeddings and unembeddings (see :mod:`svd_distance`)."""

from typing import NamedTuple

import torch
from torch import Tensor

from likeness.measures.cloud import Cloud, Pairs


class Bound(NamedTuple):
    """A bound, and whether it says more than what holds of any two models; elementwise."""

    value: Tensor
    informative: Tensor

    def sqrt(self) -> "Bound":
        """Of a distance, from that of its square."""
        return Bound(self.value.sqrt(), self.informative)


def paper_bound(d_llv: Tensor, dim: int | Tensor) -> Bound:
    """d_{f,g} <= 2 M d_LLV, with M = ``dim``. Nielsen et al. 2025 (arXiv 2506.03784), Theorem 4.7."""
    return on_d_svd(2 * dim * d_llv)


def squared_bound(d_llv: Tensor) -> Bound:
    """d_{f,g} <= 2 d_LLV^2, whatever M. Derived, not in the paper.

    With unit-variance u and u', sd(u_y - u'_y) <= 2 term 1 means Corr(u_y, u'_y) >= 1 - 2 term_1^2, and the nuclear
    norm in m_SVD is at least the trace; the same on the input side with term 2. It is the sharper one for d_LLV < M,
    so wherever either is informative: the paper's from 1 / (2 M) down, this one from 1 / sqrt(2).
    """
    return on_d_svd(2 * d_llv.square())


def on_d_svd(value: Tensor) -> Bound:
    """A bound on d_SVD, which never exceeds 1."""
    return Bound(value, value < 1)


def correlation_certificate(cloud: Cloud, pairs: Pairs, pivot: Tensor, left_out: Tensor, dim: int) -> Bound:
    """max_J d_SVD(L_J^T f, L'_J^T f') <= 1 - mean of the M smallest Corr(u_y, u'_y). Derived, not in the paper.

    u_y = lp(y|.) - lp(y0|.), over the labels y but pivot y0 and left-out one; no subset J is enumerated. For B pairs
    of the models whose label cloud [P, K, R] is given, with choices [B]; [B]. At most 2 term_1^2 at the same choice.
    """
    losses = label_correlation_losses(cloud, pairs, pivot, left_out)
    return on_d_svd(losses.topk(dim).values.mean(-1))


def label_correlation_losses(cloud: Cloud, pairs: Pairs, pivot: Tensor, left_out: Tensor) -> Tensor:
    """1 - Corr(u_y, u'_y) of :func:`correlation_certificate` for each label, [B, K]; -inf for those not compared."""
    losses = cloud.own.new_empty(len(pivot), len(cloud))
    for rows in cloud.blocks(len(pivot) * cloud.width):
        u, v = (unit(cloud.take(index, rows) - cloud.take(index, pivot[:, None])) for index in pairs)
        losses[:, rows] = 0.5 * (u - v).square().sum(-1)
    excluded = torch.stack([pivot, left_out], dim=1)
    return losses.scatter(1, excluded, -torch.inf)


def unit(vectors: Tensor) -> Tensor:
    """The vectors [..., R] at unit length; nan for zero ones."""
    return torch.nn.functional.normalize(vectors, dim=-1, eps=0.0)
