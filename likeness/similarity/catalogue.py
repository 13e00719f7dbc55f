"""Every pairwise measure by name, with what a callback, a table and a figure need to know of it.

There are four kinds, by what a measure reads: predictions (:class:`DivergenceMeasure`), the joint moments of the
embeddings (:class:`MomentMeasure`), softmax models (:class:`SoftmaxMeasure`), and representations of the same samples
(:class:`RepresentationMeasure`), the field's common measures among them. A new measure is one pure function and one
entry here. Its keys are ``similarity/<name>/{mean,min,max}``.

Other settings than the defaults: ``replace(REPRESENTATION_MEASURES["cknna"], prepare=partial(neighbour_kernel, k=5))``.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

import torch
from torch import Tensor

from likeness.similarity.joint_moments import JointMoments
from likeness.similarity.pairwise import PairValues
from likeness.similarity.representations import cca, cka, mutual_knn, procrustes, rsa
from likeness.similarity.representations.samples import (
    Compare,
    Prepare,
    S,
    compare_all,
    compare_two,
    cosine,
    reorder_relations,
    reorder_samples,
)

_ALIKE: dict[str, Any] = {"larger_is_more_alike": True, "limit": 1.0}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number for each ordered pair of P models."""

    label: str  # in figures; "row" is the first model of a pair and "column" the second
    larger_is_more_alike: bool = False
    limit: float | None = None  # its largest value; None where there is none
    symmetric: bool = True


@dataclass(frozen=True, kw_only=True)
class DivergenceMeasure(Measure):
    """A mean over samples of something between predictive distributions."""

    key: str  # a field of :class:`likeness.similarity.predictions.Predictions`


@dataclass(frozen=True, kw_only=True)
class MomentMeasure(Measure):
    """A function of the joint moments alone, which need no head."""

    function: Callable[[JointMoments], PairValues]


@dataclass(frozen=True, kw_only=True)
class SoftmaxMeasure(Measure):
    """One of :class:`likeness.similarity.pairwise.PairwiseDistances`, from joint moments and unembeddings."""

    key: str
    needs_inputs: bool = False  # whether it reads embeddings of single inputs too, as the input side of d_LLV does


@dataclass(frozen=True, kw_only=True)
class RepresentationMeasure(Measure, Generic[S]):
    """A function of stored representations: what is prepared of each model once, and the comparison."""

    prepare: Prepare[S]
    compare: Compare[S]
    reorder: Callable[[S, Tensor], S]  # what was prepared, with the samples in each of B orders [B, N]

    def function(self, samples: Sequence[Tensor], names: Sequence[str]) -> PairValues:
        """The measure of all pairs of P representations [N, M_i]; ``names`` are for messages."""
        return compare_all(self.prepare, self.compare, samples, names, self.symmetric)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The measure of x [N, M] and y [N, M'], a scalar."""
        return compare_two(self.prepare, self.compare, x, y)


def needs_inputs(measure: Measure) -> bool:
    """Whether inputs must be kept for it, not only sums over them."""
    return isinstance(measure, RepresentationMeasure) or (isinstance(measure, SoftmaxMeasure) and measure.needs_inputs)


def reads_labels(measure: Measure) -> bool:
    """Whether it is said of label vectors or predictions too, which only softmax models have."""
    return isinstance(measure, DivergenceMeasure | SoftmaxMeasure)


def of_function(
    function: Callable[[Tensor, Tensor], Tensor], label: str, larger_is_more_alike: bool
) -> RepresentationMeasure[Tensor]:
    """A measure from any function of x [N, M] and y [N, M'] to a scalar, m_CCA for one; it prepares nothing."""

    def compare(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y) if y.dim() == 2 else torch.stack([function(x, order) for order in y])

    return RepresentationMeasure(
        label=label,
        larger_is_more_alike=larger_is_more_alike,
        symmetric=False,
        prepare=lambda x, name: x,
        compare=compare,
        reorder=reorder_samples,
    )


REPRESENTATION_MEASURES: dict[str, RepresentationMeasure[Any]] = {
    "linear_cka": RepresentationMeasure(
        label="linear CKA",
        **_ALIKE,
        prepare=cka.linear_features,
        compare=cka.linear_alignment,
        reorder=reorder_samples,
    ),
    "unbiased_linear_cka": RepresentationMeasure(
        label="unbiased linear CKA",
        **_ALIKE,
        prepare=cka.unbiased_linear_features,
        compare=cka.unbiased_linear_alignment,
        reorder=reorder_samples,
    ),
    "rbf_cka": RepresentationMeasure(
        label="RBF CKA, sigma = the median distance",
        **_ALIKE,
        prepare=partial(cka.rbf_kernel, bandwidth=1.0),
        compare=cosine,
        reorder=reorder_relations,
    ),
    "cknna": RepresentationMeasure(
        label="CKNNA, k = 10",
        **_ALIKE,
        prepare=partial(cka.neighbour_kernel, k=10),
        compare=cosine,
        reorder=reorder_relations,
    ),
    "procrustes": RepresentationMeasure(
        label="orthogonal Procrustes distance",
        limit=math.sqrt(2),
        prepare=procrustes.shape,
        compare=procrustes.chord,
        reorder=reorder_samples,
    ),
    "procrustes_angle": RepresentationMeasure(
        label="angular Procrustes distance, radians",
        limit=math.pi / 2,
        prepare=procrustes.shape,
        compare=procrustes.angle,
        reorder=reorder_samples,
    ),
    "svcca": RepresentationMeasure(
        label="SVCCA of 99 % of the variance",
        **_ALIKE,
        prepare=partial(cca.principal_basis, variance=0.99),
        compare=cca.mean_correlation,
        reorder=reorder_samples,
    ),
    "pwcca": RepresentationMeasure(
        label="PWCCA weighted by row",
        **_ALIKE,
        symmetric=False,
        prepare=cca.weighted_basis,
        compare=cca.weighted_correlation,
        reorder=cca.reorder_basis,
    ),
    "rsa": RepresentationMeasure(
        label="RSA, Spearman over Euclidean distances",
        **_ALIKE,
        prepare=partial(rsa.dissimilarities, distance="euclidean", correlation="spearman"),
        compare=cosine,
        reorder=reorder_relations,
    ),
    "mutual_knn": RepresentationMeasure(
        label="mutual 10-nearest-neighbour overlap",
        **_ALIKE,
        prepare=partial(mutual_knn.nearest_samples, k=10, metric="euclidean"),
        compare=mutual_knn.overlap,
        reorder=mutual_knn.reorder_neighbours,
    ),
}

MEASURES: dict[str, Measure] = {
    "kl": DivergenceMeasure(label="KL(row || column), nats", symmetric=False, key="kl"),
    "js": DivergenceMeasure(label="Jensen-Shannon divergence, nats", limit=math.log(2), key="js"),
    "tv": DivergenceMeasure(label="total variation distance", limit=1.0, key="total_variation"),
    "agreement": DivergenceMeasure(label="agreement of the likeliest labels", **_ALIKE, key="agreement"),
    "m_cca_f": MomentMeasure(label="m_CCA of the embeddings f", **_ALIKE, function=cca.m_cca_f),
    "m_cca_g": SoftmaxMeasure(label="m_CCA of the unembeddings g", **_ALIKE, key="m_cca_g"),
    "d_llv": SoftmaxMeasure(label="d_LLV", key="d_llv", needs_inputs=True),
    "term_1": SoftmaxMeasure(label="d_LLV, term 1 (labels)", key="term_1"),
    "term_2": SoftmaxMeasure(label="d_LLV, term 2 (inputs)", key="term_2", needs_inputs=True),
    "term_3": SoftmaxMeasure(label="d_LLV, term 3 (labels)", key="term_3"),
    "term_4": SoftmaxMeasure(label="d_LLV, term 4 (inputs)", key="term_4", needs_inputs=True),
    "max_d_svd_f": SoftmaxMeasure(label="largest d_SVD of the embeddings f", limit=1.0, key="max_d_svd_f"),
    "max_d_svd_f_of_ties": SoftmaxMeasure(
        label="largest d_SVD of f over tied choices of labels", limit=1.0, key="max_d_svd_f_of_ties"
    ),
    "d_svd_g": SoftmaxMeasure(label="d_SVD of the unembeddings g", limit=1.0, key="d_svd_g", needs_inputs=True),
    "d_fg": SoftmaxMeasure(label="d_{f,g}", limit=1.0, key="d_fg", needs_inputs=True),
    "d_logit": SoftmaxMeasure(label="d_logit", key="d_logit"),
    "d_logit_normalised": SoftmaxMeasure(label="d_logit^2 / E|u_row|^2", symmetric=False, key="d_logit_normalised"),
    "d_rep": SoftmaxMeasure(label="d_rep (row from column)", symmetric=False, key="d_rep"),
    "linear_cka_f": MomentMeasure(
        label="linear CKA of the embeddings f, streamed", **_ALIKE, function=cka.linear_cka_f
    ),
    **REPRESENTATION_MEASURES,
}

FAMILIES = {
    "m_cca": ("m_cca_f", "m_cca_g"),
    "likelihood": ("d_llv", "term_1", "term_2", "max_d_svd_f", "d_svd_g", "d_fg"),
    "logit": ("d_logit", "d_logit_normalised", "d_rep"),
    "peers": tuple(REPRESENTATION_MEASURES),
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
