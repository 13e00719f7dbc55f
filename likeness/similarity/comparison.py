"""Everything that can be said about how alike two softmax models are.

What a comparison of two softmax models says, field by field.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from likeness.numerics import threads_for
from likeness.similarity import d_svd as bounds
from likeness.similarity import logit_distance
from likeness.similarity import logit_distance as logit_bounds
from likeness.similarity.cloud import one_pair
from likeness.similarity.d_llv import InputChoice, combine, input_side, label_side
from likeness.similarity.d_svd import LabelSvd, d_fg, input_svd, label_svd
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.predictions import Predictions, lowest_log_probability
from likeness.similarity.softmax_models import SoftmaxModels


@dataclass(frozen=True)
class Certificate:
    """A bound, and whether it says more than what holds of any two models."""

    value: float
    informative: bool


@dataclass(frozen=True, kw_only=True)
class SoftmaxComparison:
    """How alike two softmax models are on the same inputs and labels. Distances are 0 for equivalent models.

    Equivalent are models with f1 = A f2 and g1 = A^-T g2 + v, A invertible: no data tells them apart. What is None is
    undefined, for the reason that ``undefined`` gives under its name. A, B and C stand for
    arXiv 2506.03784, 2603.29488 and 2602.15438.
    """

    # Predictions
    kl_12: float
    """KL(p1 || p2), mean over inputs, nats."""
    kl_21: float
    """KL(p2 || p1), mean over inputs, nats."""
    js: float
    """Jensen-Shannon divergence, mean over inputs, nats; at most log 2."""
    total_variation: float
    """Half the L1 distance, mean over inputs; at most 1."""
    agreement: float
    """Fraction of the inputs on which both models prefer the same label."""
    accuracy_1: float | None = None
    """Fraction of the inputs on which model 1 prefers the given label."""
    accuracy_2: float | None = None
    """Fraction of the inputs on which model 2 prefers the given label."""

    # Likelihood distance (A, Def 4.4)
    d_llv: float | None = None
    """Log-likelihood variance distance: max of term 1, term 2, lambda term 3, lambda term 4, or their sum."""
    term_1: float
    """Label side: largest standard deviation over inputs of a difference of standardised log-probabilities."""
    term_2: float | None = None
    """Input side: the same over labels."""
    term_3: float
    """Label side: largest difference of the standard deviations of log-ratios."""
    term_4: float | None = None
    """Input side: the same over labels."""
    pivot: int
    """Label y0 of the label side."""
    left_out: int
    """Label that the label side leaves out."""
    ties: tuple[tuple[int, int], ...]
    """(pivot, left out) whose term 1 is the same within 1e-6, the chosen one first; at most 64."""
    input_set: tuple[int, ...] | None = None
    """Positions of the inputs x0 (pivot), x1 .. xM of the input side."""

    # Representations
    m_cca_f: float
    """Mean canonical correlation of f over the inputs; 1 also for independent linear maps, hence weaker than d_SVD."""
    m_cca_g: float
    """The same of g over the K labels; with K <= M1 + M2 some correlations are 1 whatever g."""
    m_svd_f: float | None = None
    """1 - max_d_svd_f."""
    m_svd_g: float | None = None
    """1 - d_svd_g."""
    max_d_svd_f: float | None = None
    """Largest 1 - m_SVD of L^T f over label subsets at (pivot, left_out); of those tried where they are too many."""
    max_d_svd_f_upper: float | None = None
    """What no label subset exceeds: equal to max_d_svd_f where all were tried, else the correlation certificate."""
    max_d_svd_f_of_ties: float | None = None
    """Largest max_d_svd_f over the tied choices: the choice is not unique, and d_SVD depends on it."""
    d_svd_g: float | None = None
    """1 - m_SVD of N^T g over the labels, at the input set."""
    d_fg: float | None = None
    """The larger of max_d_svd_f and d_svd_g (A, Def 4.5)."""
    d_fg_upper: float | None = None
    """The larger of max_d_svd_f_upper and d_svd_g."""

    # Bounds on d_fg
    paper_bound: Certificate | None = None
    """2 M d_llv (A, Theorem 4.7)."""
    squared_bound: Certificate | None = None
    """2 d_llv^2. Derived, not in the paper."""
    certificate: Certificate | None = None
    """1 - mean of the M smallest correlations of log-ratios, on max_d_svd_f alone. Derived, not in the paper."""

    # Logit distances (C)
    d_logit: float
    """Root mean square over inputs of the distance of the logits centred over labels."""
    d_logit_normalised: float
    """d_logit^2 over the mean square of model 1's centred logits."""
    d_rep: float
    """Root mean square of f1 - A f2 with A = pinv(W1) W2, W the centred unembeddings."""
    d_rep_mean: float | None = None
    """The same with A = L1^-T L2^T, averaged in squares over pivots and label subsets; heavy-tailed."""
    d_rep_median: float | None = None
    """Median over pivots and label subsets."""
    d_rep_kept: float | None = None
    """Fraction of the pivots and label subsets whose L1 is well conditioned, which the two before are over."""
    d_rep_bound: Certificate
    """On d_rep: d_logit over the smallest singular value of W1."""
    d_rep_mean_bound: float | None = None
    """On d_rep_mean: from the log-ratios of each subset and the smallest singular value of its L1."""
    correlation_deficit: float
    """sum (1 - rho_i^2) lambda_i, at most d_logit^2: canonical correlations of f, variances of model 1's logits."""
    m_cca_bound: Certificate
    """m_cca_f is at least this: 1 - d_logit^2 / (M lambda_M)."""
    d_logit_bound: Certificate
    """On d_logit, from kl_12 and the smallest probability of either model. Constant derived; useless in practice."""

    undefined: Mapping[str, str] = field(default_factory=dict)
    """Why a field is None."""


Fields = dict[str, Any]  # of a SoftmaxComparison
OF_F = ("m_svd_f", "max_d_svd_f", "max_d_svd_f_upper", "max_d_svd_f_of_ties", "certificate")
OF_INPUTS = ("d_llv", "term_2", "term_4", "input_set", "m_svd_g", "d_svd_g", "squared_bound", "paper_bound")
OF_BOTH = ("d_fg", "d_fg_upper")
OF_SUBSETS = ("d_rep_mean", "d_rep_median", "d_rep_kept", "d_rep_mean_bound")


def compare_softmax_models(
    f1: Tensor,
    g1: Tensor,
    f2: Tensor,
    g2: Tensor,
    *,
    labels: Tensor | None = None,
    ids1: Tensor | None = None,
    ids2: Tensor | None = None,
    options: ComparisonOptions | None = None,
) -> SoftmaxComparison:
    """Compare p(y | x) = softmax_y f(x) . g(y) of two models on the same N inputs, in float64.

    f1 [N, M], g1 [K, M], f2 [N, M'], g2 [K, M']; a head with a bias has f = [f, 1] and g = [g, b]. M and M' may
    differ: what then is undefined is None. ``labels`` [N] are the true ones, for the accuracies; ``ids1`` and ``ids2``
    [N] say which samples the rows of f1 and f2 are, and must match.

    Raises:
        ValueError: with the shapes, or the model, sample or label named, where N, K, ids or a model's two M do not
            match, N <= M, K <= M, K < 3, a value is not finite, or labels are out of range; its subclasses
            ConstantLogRatioError where two labels' log-ratio is constant over the inputs, RankDeficientError where
            f or g does not span its dimensions, SingularInputsError where no input set does.
    """
    _check_ids(ids1, ids2, len(f1), len(f2))
    options = options or ComparisonOptions()
    with threads_for(options.largest_tensor([f1, f2], [g1, g2])):
        models, predicted = SoftmaxModels.evaluated([f1, f2], [g1, g2])
        _check_labels(labels, len(f1), models.num_labels)
        undefined = _undefined(models, labels, options)
        return SoftmaxComparison(
            **_predictions(predicted, labels),
            **_likelihood_distances(models, options, undefined),
            m_cca_f=float(models.m_cca_f[0, 1]),
            m_cca_g=float(models.m_cca_g[0, 1]),
            **_logit_distances(models, predicted, options, undefined),
            undefined=undefined,
        )


def _undefined(models: SoftmaxModels, labels: Tensor | None, options: ComparisonOptions) -> dict[str, str]:
    """Which fields are None, and why."""
    (dim, other_dim), num_labels = models.dims, models.num_labels
    reasons: dict[str, str] = {}
    if labels is None:
        reasons |= dict.fromkeys(("accuracy_1", "accuracy_2"), "no labels were given")
    if num_labels < dim + 2:
        reasons |= dict.fromkeys(OF_F + OF_BOTH, f"L needs K = M + 2 labels, but K = {num_labels} and M = {dim}")
    if dim != other_dim:
        why = f"the models have different M: {dim} and {other_dim}"
        reasons |= dict.fromkeys((*OF_F, *OF_BOTH, *OF_SUBSETS, "paper_bound"), why)
        if options.input_set is None:
            reasons |= dict.fromkeys(OF_INPUTS, f"{why}, and no input set was given")
    return reasons


def _predictions(predicted: Predictions, labels: Tensor | None) -> Fields:
    fields: Fields = {
        "kl_12": float(predicted.kl[0, 1]),
        "kl_21": float(predicted.kl[1, 0]),
        "js": float(predicted.js[0, 1]),
        "total_variation": float(predicted.total_variation[0, 1]),
        "agreement": float(predicted.agreement[0, 1]),
    }
    if labels is None:
        return fields
    accuracies = (predicted.likeliest == labels.to(predicted.likeliest.device)).double().mean(1)
    return fields | {"accuracy_1": float(accuracies[0]), "accuracy_2": float(accuracies[1])}


def _likelihood_distances(models: SoftmaxModels, options: ComparisonOptions, undefined: dict[str, str]) -> Fields:
    """d_LLV, d_{f,g}, and the bounds of the one on the other."""
    pairs = one_pair(0, 1, models.embeddings[0].device)
    choice, terms = label_side(models, pairs, options)
    fields: Fields = {
        "term_1": float(terms.term_1),
        "term_3": float(terms.term_3),
        "pivot": int(choice.pivot),
        "left_out": int(choice.left_out),
        "ties": tuple((pivot, left_out) for _, pivot, left_out in choice.ties.tolist()),
    }
    of_f = None if "max_d_svd_f" in undefined else label_svd(models, pairs, choice, options)
    if of_f is not None:
        fields |= _of_f(of_f)
    if "d_llv" in undefined:
        return fields
    inputs = input_side(models, pairs, options)
    of_g = input_svd(models, pairs, inputs.inputs)
    fields |= _of_g(inputs, of_g)
    d_llv = combine(terms, inputs, options)
    fields |= {"d_llv": float(d_llv), "squared_bound": _certificate(bounds.squared_bound(d_llv))}
    if "paper_bound" not in undefined:
        fields["paper_bound"] = _certificate(bounds.paper_bound(d_llv, models.dims[0]))
    if of_f is not None:
        whole = d_fg(of_f.largest, of_g)
        fields |= {"d_fg": float(whole.lower), "d_fg_upper": float(whole.upper)}
    return fields


def _of_f(of_f: LabelSvd) -> Fields:
    return {
        "m_svd_f": 1 - float(of_f.largest.lower),
        "max_d_svd_f": float(of_f.largest.lower),
        "max_d_svd_f_upper": float(of_f.largest.upper),
        "max_d_svd_f_of_ties": float(of_f.supremum.lower),
        "certificate": _certificate(of_f.certificate),
    }


def _of_g(inputs: InputChoice, of_g: Tensor) -> Fields:
    return {
        "term_2": float(inputs.term_2),
        "term_4": float(inputs.term_4),
        "input_set": tuple(inputs.inputs[0].tolist()),
        "m_svd_g": 1 - float(of_g),
        "d_svd_g": float(of_g),
    }


def _logit_distances(
    models: SoftmaxModels, predicted: Predictions, options: ComparisonOptions, undefined: dict[str, str]
) -> Fields:
    vectors, factors = models.labels, models.heads
    squared = logit_distance.pairwise_d_logit_squared(vectors)[0, 1]
    lowest = lowest_log_probability(models.embeddings, models.unembeddings, predicted.log_partitions)
    of_kl = logit_bounds.d_logit_bound(predicted.kl[0, 1], float(lowest.min()), models.num_labels)
    power = models.bare_embeddings[0].square().sum(1).mean()
    fields: Fields = {
        "d_logit": float(squared.sqrt()),
        "d_logit_normalised": float(squared / logit_distance.logit_power(vectors)[0]),
        "d_logit_bound": _certificate(of_kl.sqrt()),
        "d_rep": float(logit_distance.pairwise_d_rep_squared(vectors, factors)[0, 1].sqrt()),
        "d_rep_bound": _certificate(logit_bounds.d_rep_bound(squared, factors[0], power).sqrt()),
        "correlation_deficit": float(logit_bounds.correlation_deficit(vectors, factors[0])),
        "m_cca_bound": _certificate(logit_bounds.m_cca_bound(squared, vectors, factors[0])),
    }
    if "d_rep_mean" in undefined:
        return fields
    found = logit_distance.d_rep_of_subsets(
        vectors, max_choices=options.max_choices, seed=options.seed, min_conditioning=options.min_conditioning
    )
    values = (found.mean.sqrt(), found.median.sqrt(), found.kept, found.bound.sqrt())
    return fields | dict(zip(OF_SUBSETS, map(float, values), strict=True))


def _certificate(bound: bounds.Bound) -> Certificate:
    return Certificate(float(bound.value), bool(bound.informative))


def _check_ids(ids1: Tensor | None, ids2: Tensor | None, n1: int, n2: int) -> None:
    if ids1 is None and ids2 is None:
        return
    if ids1 is None or ids2 is None:
        raise ValueError("sample ids were given of one model only")
    for name, ids, count in (("ids1", ids1, n1), ("ids2", ids2, n2)):
        if ids.shape != (count,):
            raise ValueError(f"{name} must be [N] = [{count}], but is {list(ids.shape)}")
    if n1 == n2 and len(rows := (ids1 != ids2.to(ids1.device)).nonzero()):
        row = int(rows[0])
        raise ValueError(
            f"the models were given different samples: row {row} has id {ids1[row].item()} of model 1 and "
            f"{ids2[row].item()} of model 2"
        )


def _check_labels(labels: Tensor | None, samples: int, num_labels: int) -> None:
    if labels is None:
        return
    if labels.shape != (samples,):
        raise ValueError(f"labels must be [N] = [{samples}], but are {list(labels.shape)}")
    outside = ((labels < 0) | (labels >= num_labels)).nonzero()
    if len(outside):
        row = int(outside[0])
        raise ValueError(f"label {labels[row].item()} of sample {row} is not one of 0..{num_labels - 1}")
