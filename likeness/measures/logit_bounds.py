"""What d_logit says about representations, and what a KL divergence says about d_logit.

"Logit Distance Bounds Representational Similarity" (arXiv 2602.15438); the constants are derived anew, and exact.
For one subset of labels the bound stands in :class:`likeness.measures.logit_distance.SubsetDistances`.
"""

import math

import torch
from torch import Tensor

from likeness.measures.bounds import Bound
from likeness.measures.log_probability_vectors import LabelVectors
from likeness.measures.logit_distance import Head


def d_rep_bound(d_logit_squared: Tensor, head: Head, power: Tensor) -> Bound:
    """d_rep^2 <= d_logit^2 / smallest singular value(W)^2, for A = pinv(W) W'.

    Informative where it is less than ``power`` = E |f|^2, which a constant 0 would do.
    """
    value = d_logit_squared / head.smallest.square()
    return Bound(value, value < power)


def correlation_deficit(vectors: LabelVectors, factor: Head, first: int = 0, second: int = 1) -> Tensor:
    """sum_i (1 - rho_i^2) lambda_i, which is at most d_logit^2 (Theorem F.1).

    lambda are the eigenvalues of the covariance over inputs of the first model's u, rho the canonical correlations
    of the two embeddings; both descend, and a missing rho is 0.
    """
    bases = [torch.linalg.qr(vectors.roots[model])[0] for model in (first, second)]
    rho = torch.linalg.svdvals(bases[0].T @ bases[1]).clamp(max=1)
    rho = torch.cat([rho, rho.new_zeros(bases[0].shape[1] - len(rho))])
    return ((1 - rho.square()) * _logit_variances(vectors, factor, first)).sum()


def m_cca_bound(d_logit_squared: Tensor, vectors: LabelVectors, factor: Head, first: int = 0, second: int = 1) -> Bound:
    """m_CCA(f, f') >= 1 - d_logit^2 / (M lambda_M), with lambda_M the smallest of :func:`correlation_deficit`.

    M is the smaller of the two dimensions. Informative above 0.
    """
    smallest = _logit_variances(vectors, factor, first)[-1]
    value = 1 - d_logit_squared / (min(vectors.dims[first], vectors.dims[second]) * smallest)
    return Bound(value, value > 0)


def d_logit_bound(kl: Tensor, log_tau: float, num_labels: int) -> Bound:
    """d_logit^2 <= KL / (tau c) where p and p' are at least tau = exp(``log_tau``) on all inputs and labels.

    R = -log tau and c = (tau - 1 + R) / R^2. For trained classifiers tau is next to 0 and the bound useless:
    informative where it is less than K R^2, which always holds.
    """
    rate = -log_tau
    constant = kl.new_tensor(math.exp(log_tau) * (math.expm1(log_tau) + rate) / rate**2)
    value = (kl / constant).where(kl > 0, 0.0)
    return Bound(value, value < num_labels * rate**2)


def _logit_variances(vectors: LabelVectors, factor: Head, model: int) -> Tensor:
    """The M nonzero eigenvalues of the covariance of u(x) over the N inputs (N in the denominator), descending."""
    root = torch.linalg.qr(vectors.roots[model], mode="r")[1]
    singular: Tensor = torch.linalg.svdvals(factor.triangle @ root.T)
    return singular.square() * (vectors.samples - 1) / vectors.samples
