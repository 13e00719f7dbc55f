"""The field's common measures of representational similarity by name, each with its two steps.

They read representations [N, M_i] of the same N samples and nothing of the predictive distribution. Other
settings than the defaults: ``dataclasses.replace(PEERS["cknna"], prepare=partial(neighbour_kernel, k=5))``.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from likeness.measures import correlation_analysis, kernel_alignment, neighbour_overlap, procrustes, rsa
from likeness.measures.kinds import OfSamples
from likeness.measures.relations import cosine, reorder_relations
from likeness.measures.samples import reorder_samples


def of_function(
    function: Callable[[Tensor, Tensor], Tensor], label: str, larger_is_more_alike: bool
) -> OfSamples[Tensor]:
    """A measure from any function of x [N, M] and y [N, M'] to a scalar, m_CCA for one; it prepares nothing."""

    def compare(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y) if y.dim() == 2 else torch.stack([function(x, order) for order in y])

    return OfSamples(label, larger_is_more_alike, None, False, lambda x, name: x, compare, reorder_samples)


PEERS: dict[str, OfSamples[Any]] = {
    "linear_cka": OfSamples(
        "linear CKA",
        True,
        1.0,
        True,
        kernel_alignment.linear_features,
        kernel_alignment.linear_alignment,
        reorder_samples,
    ),
    "unbiased_linear_cka": OfSamples(
        "unbiased linear CKA",
        True,
        1.0,
        True,
        kernel_alignment.unbiased_linear_features,
        kernel_alignment.unbiased_linear_alignment,
        reorder_samples,
    ),
    "rbf_cka": OfSamples(
        "RBF CKA, sigma = the median distance",
        True,
        1.0,
        True,
        partial(kernel_alignment.rbf_kernel, bandwidth=1.0),
        cosine,
        reorder_relations,
    ),
    "cknna": OfSamples(
        "CKNNA, k = 10",
        True,
        1.0,
        True,
        partial(kernel_alignment.neighbour_kernel, k=10),
        cosine,
        reorder_relations,
    ),
    "procrustes": OfSamples(
        "orthogonal Procrustes distance", False, math.sqrt(2), True, procrustes.shape, procrustes.chord, reorder_samples
    ),
    "procrustes_angle": OfSamples(
        "angular Procrustes distance, radians",
        False,
        math.pi / 2,
        True,
        procrustes.shape,
        procrustes.angle,
        reorder_samples,
    ),
    "svcca": OfSamples(
        "SVCCA of 99 % of the variance",
        True,
        1.0,
        True,
        partial(correlation_analysis.principal_basis, variance=0.99),
        correlation_analysis.mean_correlation,
        reorder_samples,
    ),
    "pwcca": OfSamples(
        "PWCCA weighted by row",
        True,
        1.0,
        False,
        correlation_analysis.weighted_basis,
        correlation_analysis.weighted_correlation,
        correlation_analysis.reorder_basis,
    ),
    "rsa": OfSamples(
        "RSA, Spearman over Euclidean distances",
        True,
        1.0,
        True,
        partial(rsa.dissimilarities, distance="euclidean", correlation="spearman"),
        cosine,
        reorder_relations,
    ),
    "mutual_knn": OfSamples(
        "mutual 10-nearest-neighbour overlap",
        True,
        1.0,
        True,
        partial(neighbour_overlap.nearest_samples, k=10, metric="euclidean"),
        neighbour_overlap.overlap,
        neighbour_overlap.reorder_neighbours,
    ),
}
