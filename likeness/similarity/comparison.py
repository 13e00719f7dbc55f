"""Everything that can be said about how alike two softmax models are, in one call and field by field."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from likeness.numerics import length, threads_for
from likeness.similarity import d_svd, logit_distance
from likeness.similarity.logit_distance import SubsetDistances
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.pairwise import PairGroup, PairwiseDistances
from likeness.similarity.predictions import Predictions, lowest_log_probability
from likeness.similarity.softmax_models import FactorisedHead, SoftmaxModels
from likeness.similarity.undefined import UndefinedError, why_undefined


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

    Example:
        >>> import torch
        >>> f, g = torch.randn(50, 2, generator=torch.manual_seed(0)).double(), torch.eye(3, 2).double()
        >>> found = compare_softmax_models(f, g, f, g)
        >>> found.kl_12, found.max_d_svd_f, found.undefined["max_d_svd_f"]
        (0.0, None, 'L needs K = M + 2 labels, but K = 3 and M = 2')
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
    term_1: float | None = None
    """Label side: largest standard deviation over inputs of a difference of standardised log-probabilities."""
    term_2: float | None = None
    """Input side: the same over labels."""
    term_3: float | None = None
    """Label side: largest difference of the standard deviations of log-ratios."""
    term_4: float | None = None
    """Input side: the same over labels."""
    pivot: int | None = None
    """Label y0 of the label side."""
    left_out: int | None = None
    """Label that the label side leaves out."""
    ties: tuple[tuple[int, int], ...] | None = None
    """(pivot, left out) whose term 1 is the same within 1e-6, the chosen one first; at most 64."""
    input_set: tuple[int, ...] | None = None
    """Positions of the inputs x0 (pivot), x1 .. xM of the input side."""
    input_search: str | None = None
    """How they were found: exact, the best of all; sampled, of random ones; given; bounded, of those tried in time."""

    # Representations
    ranks: tuple[int, int]
    """How many dimensions f1 and f2 span: the M of every measure, which a final LayerNorm makes one less."""
    equal_labels: tuple[tuple[int, ...], ...] = ()
    """Groups of labels whose g are equal in both models: the first of each is in the searches, the others are not."""
    m_cca_f: float | None = None
    """Mean canonical correlation of f over the inputs; 1 also for independent linear maps, hence weaker than d_SVD."""
    m_cca_g: float | None = None
    """The same of g over the K labels; with K <= M1 + M2 some correlations are 1 whatever g."""
    m_svd_f: float | None = None
    """1 - max_d_svd_f."""
    m_svd_g: float | None = None
    """1 - d_svd_g."""
    max_d_svd_f: float | None = None
    """Largest 1 - m_SVD of L^T f over label subsets at (pivot, left_out); of those tried where they are too many."""
    label_subset_search: str | None = None
    """exact where all label subsets were tried, else sampled: then max_d_svd_f and d_fg are lower bounds."""
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
    d_logit_normalised: float | None = None
    """d_logit^2 over the mean square of model 1's centred logits."""
    d_rep: float | None = None
    """Root mean square of f1 - A f2 with A = pinv(W1) W2, W the centred unembeddings."""
    d_rep_mean: float | None = None
    """The same with A = L1^-T L2^T, averaged in squares over pivots and label subsets; heavy-tailed."""
    d_rep_median: float | None = None
    """The root of the median of the squares over pivots and label subsets."""
    d_rep_search: str | None = None
    """exact where these are all pivots and label subsets, sampled where random ones."""
    d_rep_kept: float | None = None
    """Fraction of the pivots and label subsets whose L1 is well conditioned, which the two before are over."""
    d_rep_bound: Certificate | None = None
    """On d_rep: d_logit over the smallest singular value of W1."""
    d_rep_mean_bound: float | None = None
    """On d_rep_mean: from the log-ratios of each subset and the smallest singular value of its L1."""
    correlation_deficit: float | None = None
    """sum (1 - rho_i^2) lambda_i, at most d_logit^2: canonical correlations of f, variances of model 1's logits."""
    m_cca_bound: Certificate | None = None
    """m_cca_f is at least this: 1 - d_logit^2 / (M lambda_M)."""
    d_logit_bound: Certificate
    """On d_logit, from kl_12 and the smallest probability of either model. Constant derived; useless in practice."""

    undefined: Mapping[str, str] = field(default_factory=dict)
    """Why a field is None."""


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
    differ, and be more than N or K: what then is undefined is None. ``labels`` [N] are the true ones, for the
    accuracies; ``ids1`` and ``ids2`` [N] say which samples the rows of f1 and f2 are, and must match.

    Raises:
        ValueError: with the shapes, or the model, sample or label named, where N, K, ids or a model's two M do not
            match, a value or a logit is not finite, or labels are out of range.

    Example:
        >>> import torch
        >>> f, g = torch.randn(50, 2, generator=torch.manual_seed(0)).double(), torch.eye(5, 2).double()
        >>> a = torch.tensor([[2.0, 1.0], [0.0, 1.0]]).double()
        >>> same = compare_softmax_models(f, g, f @ a.T, g @ a.inverse() + 3)  # the same distribution
        >>> same.kl_12 < 1e-12, same.d_llv < 1e-12, same.d_fg < 1e-12
        (True, True, True)
        >>> other = compare_softmax_models(f, g, f @ a.T, g)
        >>> other.m_cca_f > 1 - 1e-12, other.d_llv > 0.1
        (True, True)
    """
    _check_ids(ids1, ids2, len(f1), len(f2))
    options = options or ComparisonOptions()
    with threads_for(options.largest_tensor([f1, f2], [g1, g2])):
        models, predicted = SoftmaxModels.evaluated([f1, f2], [g1, g2], tau=options.span_tolerance)
        _check_labels(labels, len(f1), models.num_labels)
        return SoftmaxComparison(**_Pair(models, predicted, labels, options).fields())


class _Pair:
    """The fields of a comparison, as they are found; those that are undefined with the reason."""

    def __init__(
        self, models: SoftmaxModels, predicted: Predictions, labels: Tensor | None, options: ComparisonOptions
    ) -> None:
        self.models, self.predicted, self.labels, self.options = models, predicted, labels, options
        self.distances = PairwiseDistances(models, options)
        self.group = self.distances.pair(0, 1)
        first, second = models.dims
        self.found: dict[str, Any] = {"ranks": (first, second), "equal_labels": models.groups_of_equal_labels(0, 1)}
        self.undefined: dict[str, str] = {}

    def fields(self) -> dict[str, Any]:
        """All of them, by name."""
        self._predictions()
        for name in self.distances:
            values, reasons, _ = self.distances.explained(name)
            if (0, 1) in reasons:
                self.undefined[name] = reasons[0, 1]
            elif name != "certificate":
                self._put(name, float(values[0, 1]))
        for name, function in _OF_GROUP.items():
            self._try(name, lambda function=function: function(self.group))  # type: ignore[misc]
        self._bounds()
        self._try("d_rep_mean", self._averaged)
        return {**dict.fromkeys(self.undefined), **self.found, "undefined": self.undefined}

    def _predictions(self) -> None:
        predicted = self.predicted
        self._put("kl_12", float(predicted.kl[0, 1]))
        self._put("kl_21", float(predicted.kl[1, 0]))
        for name in ("js", "total_variation", "agreement"):
            self._put(name, float(getattr(predicted, name)[0, 1]))
        if self.labels is None:
            self.undefined |= dict.fromkeys(("accuracy_1", "accuracy_2"), "no labels were given")
            return
        right = (predicted.likeliest == self.labels.to(predicted.likeliest.device)).double().mean(1)
        self.found |= {f"accuracy_{number}": float(value) for number, value in enumerate(right, 1)}

    def _bounds(self) -> None:
        vectors, d_logit, d_llv = self.models.labels, self.group.d_logit[0], self.found.get("d_llv")
        lowest = lowest_log_probability(self.models.embeddings, self.models.unembeddings, self.predicted.log_partitions)
        of_kl = logit_distance.d_logit_bound(self.predicted.kl[0, 1], float(lowest.min()), self.models.num_labels)
        self.found["d_logit_bound"] = _certificate(of_kl)
        self._try("d_rep_bound", lambda: _certificate(self._d_rep_bound()))
        self._try("correlation_deficit", lambda: float(logit_distance.correlation_deficit(vectors)))
        self._try("m_cca_bound", lambda: _certificate(logit_distance.m_cca_bound(d_logit, vectors)))
        for name in ("squared_bound", "paper_bound"):
            if d_llv is None:
                self.undefined[name] = self.undefined["d_llv"]
        if d_llv is not None:
            value = d_logit.new_tensor(d_llv)
            self._try("squared_bound", lambda: _certificate(d_svd.squared_bound(value)))
            self._try("paper_bound", lambda: _certificate(d_svd.paper_bound(value, min(self.models.dims))))

    def _d_rep_bound(self) -> d_svd.Bound:
        f = self.models.bare_embeddings[0]
        root_mean_square = length(f, (0, 1)) / len(f) ** 0.5
        head = FactorisedHead.of(self.models.labels.heads[0])
        return logit_distance.d_rep_bound(self.group.d_logit[0], head, root_mean_square)

    def _averaged(self) -> float:
        """d_rep over pivots and label subsets, with all that is said of it."""
        options = self.options
        found: SubsetDistances = logit_distance.d_rep_of_subsets(
            self.models.labels,
            max_choices=options.max_choices,
            seed=options.seed,
            min_conditioning=options.min_conditioning,
        )
        self._put("d_rep_median", float(found.median))
        self._put("d_rep_kept", float(found.kept))
        self._put("d_rep_mean_bound", float(found.bound))
        self.found["d_rep_search"] = "exact" if found.complete else "sampled"
        return float(found.mean)

    def _try(self, name: str, function: Callable[[], Any]) -> None:
        """A field by its function, unless that is undefined."""
        reason = why_undefined(name, *self.models.facts, inputs_given=self.options.input_set is not None)
        try:
            if reason is None:
                self._put(name, function())
        except UndefinedError as error:
            reason = str(error)
        if reason is not None:
            self.undefined |= dict.fromkeys(_TOGETHER.get(name, (name,)), reason)

    def _put(self, name: str, value: Any) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            self.undefined[name] = f"the result, {value}, is outside the range of float64"
        else:
            self.found[name] = value


_TOGETHER = {"d_rep_mean": ("d_rep_mean", "d_rep_median", "d_rep_kept", "d_rep_mean_bound", "d_rep_search")}
_OF_GROUP: dict[str, Callable[[PairGroup], Any]] = {
    "pivot": lambda pair: int(pair.named_choice.pivot),
    "left_out": lambda pair: int(pair.named_choice.left_out),
    "ties": lambda pair: tuple((pivot, left_out) for _, pivot, left_out in pair.named_choice.ties.tolist()),
    "input_set": lambda pair: tuple(pair.of_inputs.inputs[0].tolist()),
    "input_search": lambda pair: pair.of_inputs.search[0],
    "m_svd_f": lambda pair: 1 - float(pair.svd_f.largest.lower),
    "m_svd_g": lambda pair: 1 - float(pair.svd_g),
    "label_subset_search": lambda pair: "exact" if pair.svd_f.complete else "sampled",
    "certificate": lambda pair: _certificate(pair.svd_f.certificate),
}


def _certificate(bound: d_svd.Bound) -> Certificate:
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
