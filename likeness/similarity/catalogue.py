"""Every pairwise measure by name, with what a callback, a table and a figure need to know of it.

A new measure is one pure function and one line here. Its keys are ``similarity/<name>/{mean,min,max}``.

The kinds of pairwise measures, by what they read: what a callback, a table and a figure need to know of each.

The field's common measures of representational similarity by name, each with its two steps.

They read representations [N, M_i] of the same N samples and nothing of the predictive distribution. Other
settings than the defaults: ``dataclasses.replace(PEERS["cknna"], prepare=partial(neighbour_kernel, k=5))``.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

import torch
from torch import Tensor

from likeness.similarity import cca as correlation_analysis
from likeness.similarity import cka as kernel_alignment
from likeness.similarity import mutual_knn as neighbour_overlap
from likeness.similarity import procrustes, rsa
from likeness.similarity.cca import m_cca_f, m_cca_g
from likeness.similarity.cka import linear_cka_f
from likeness.similarity.joint_moments import JointMoments
from likeness.similarity.predictions import agreement_sum, jensen_shannon, kl_sum, pairwise_sum, total_variation_sum
from likeness.similarity.samples import (
    Compare,
    Prepare,
    S,
    compare_all,
    compare_two,
    cosine,
    reorder_relations,
    reorder_samples,
)


@dataclass(frozen=True)
class Measure:
    """A number for each ordered pair of P models."""

    label: str  # in figures; "row" is the first model of a pair and "column" the second
    larger_is_more_alike: bool
    limit: float | None  # its largest value; None where there is none
    symmetric: bool


@dataclass(frozen=True)
class SampleMean(Measure):
    """The mean over samples of something between predictive distributions."""

    pair_sums: Callable[[Tensor], Tensor]  # from log-probabilities [P, N, K] to sums over samples [P, P]


@dataclass(frozen=True)
class OfMoments(Measure):
    """A function of the joint moments and of the unembeddings [K, M_i]; it answers [P, P]."""

    function: Callable[[JointMoments, Sequence[Tensor]], Tensor]
    spans: str | None = None  # "samples" or "labels": of these it needs more than a model has dimensions


@dataclass(frozen=True)
class OfModels(Measure):
    """One of :class:`likeness.similarity.pairwise.PairwiseDistances`, from joint moments and unembeddings."""

    key: str


@dataclass(frozen=True)
class OfModelsAndInputs(OfModels):
    """One of these that reads embeddings of stored inputs too: those on the input side of d_LLV."""


@dataclass(frozen=True)
class OfSamples(Measure, Generic[S]):
    """A function of stored representations: what is prepared of each model once, and the comparison."""

    prepare: Prepare[S]
    compare: Compare[S]
    reorder: Callable[[S, Tensor], S]  # what was prepared, with the samples in each of B orders [B, N]

    def function(self, samples: Sequence[Tensor], names: Sequence[str]) -> Tensor:
        """The measure of all pairs, [P, P], of P representations [N, M_i]; ``names`` are for messages."""
        return compare_all(self.prepare, self.compare, samples, names, self.symmetric)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The measure of x [N, M] and y [N, M'], a scalar."""
        return compare_two(self.prepare, self.compare, x, y)


STORED = (OfModelsAndInputs, OfSamples)  # these need inputs to be kept, not only sums over them


def reads_labels(measure: Measure) -> bool:
    """Whether it is said of label vectors or predictions too, which only softmax models have."""
    return isinstance(measure, SampleMean | OfModels) or (isinstance(measure, OfMoments) and measure.spans == "labels")


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


LOG_2 = 0.6931471805599453

MEASURES: dict[str, Measure] = {
    "kl": SampleMean("KL(row || column), nats", False, None, False, kl_sum),
    "js": SampleMean("Jensen-Shannon divergence, nats", False, LOG_2, True, partial(pairwise_sum, jensen_shannon)),
    "tv": SampleMean("total variation distance", False, 1.0, True, total_variation_sum),
    "agreement": SampleMean("agreement of the likeliest labels", True, 1.0, True, agreement_sum),
    "m_cca_f": OfMoments("m_CCA of the embeddings f", True, 1.0, True, m_cca_f, spans="samples"),
    "m_cca_g": OfMoments("m_CCA of the unembeddings g", True, 1.0, True, m_cca_g, spans="labels"),
    "d_llv": OfModelsAndInputs("d_LLV", False, None, True, "d_llv"),
    "term_1": OfModels("d_LLV, term 1 (labels)", False, None, True, "term_1"),
    "term_2": OfModelsAndInputs("d_LLV, term 2 (inputs)", False, None, True, "term_2"),
    "term_3": OfModels("d_LLV, term 3 (labels)", False, None, True, "term_3"),
    "term_4": OfModelsAndInputs("d_LLV, term 4 (inputs)", False, None, True, "term_4"),
    "max_d_svd_f": OfModels("largest d_SVD of the embeddings f", False, 1.0, True, "max_d_svd_f"),
    "d_svd_g": OfModelsAndInputs("d_SVD of the unembeddings g", False, 1.0, True, "d_svd_g"),
    "d_fg": OfModelsAndInputs("d_{f,g}", False, 1.0, True, "d_fg"),
    "d_logit": OfModels("d_logit", False, None, True, "d_logit"),
    "d_logit_normalised": OfModels("d_logit^2 / E|u_row|^2", False, None, False, "d_logit_normalised"),
    "d_rep": OfModels("d_rep (row from column)", False, None, False, "d_rep"),
    "linear_cka_f": OfMoments("linear CKA of the embeddings f, streamed", True, 1.0, True, linear_cka_f),
    **PEERS,
}

FAMILIES = {
    "m_cca": ("m_cca_f", "m_cca_g"),
    "likelihood": ("d_llv", "term_1", "term_2", "max_d_svd_f", "d_svd_g", "d_fg"),
    "logit": ("d_logit", "d_logit_normalised", "d_rep"),
    "peers": tuple(PEERS),
}


def select(names: Iterable[str]) -> dict[str, Measure]:
    """The measures of these names, in their order; the name of a family stands for all its members.

    Raises ValueError for an unknown name, listing the known ones.
    """
    members = [member for name in names for member in FAMILIES.get(name, (name,))]
    for name in members:
        if name not in MEASURES:
            raise ValueError(f"unknown measure {name!r}: the known ones are {', '.join([*MEASURES, *FAMILIES])}")
    return {name: MEASURES[name] for name in members}
