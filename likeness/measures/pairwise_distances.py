"""The distances between all pairs of P softmax models, each computed when it is asked for."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from operator import attrgetter

import torch
from torch import Tensor

from likeness.measures.cloud import Pairs
from likeness.measures.comparison_options import ComparisonOptions
from likeness.measures.d_fg import LabelSvd, d_fg, input_svd, label_svd
from likeness.measures.input_side import InputChoice
from likeness.measures.label_side import LabelChoice, LabelTerms
from likeness.measures.log_likelihood_variance import combine, input_side, label_side
from likeness.measures.logit_distance import logit_power, pairwise_d_logit_squared, pairwise_d_rep_squared
from likeness.measures.softmax_models import SoftmaxModels
from likeness.measures.svd_distance import Interval

OF_INPUTS = frozenset(("d_llv", "term_2", "term_4", "d_svd_g", "d_fg", "d_fg_upper"))
OF_SUBSETS = frozenset(("max_d_svd_f", "max_d_svd_f_upper", "max_d_svd_f_of_ties", "certificate", "d_fg", "d_fg_upper"))


class PairwiseDistances(Mapping[str, Tensor]):
    """The distances by name, [P, P] in float64; entry (i, j) has model i as the first of the pair.

    Names are fields of :class:`likeness.measures.comparison_result.SoftmaxComparison`. ``OF_INPUTS`` need embeddings
    of single inputs; all others are functions of the joint moments and the unembeddings. What is undefined, between
    models whose M differ or where K < M + 2, is nan. Looking a name up raises ValueError as
    :func:`likeness.measures.log_likelihood_variance.d_llv` does.
    """

    def __init__(self, models: SoftmaxModels, options: ComparisonOptions) -> None:
        self._models, self._options = models, options

    def __getitem__(self, name: str) -> Tensor:
        if name in _OF_MODELS:
            return _OF_MODELS[name](self._models)
        of_pairs, count = _OF_PAIRS[name], len(self._models.names)
        matrix = self._models.joint.moments.mean.new_full((count, count), torch.nan).fill_diagonal_(0)
        for group in self._groups:
            if group.defines(name):
                matrix[group.pairs] = matrix.T[group.pairs] = of_pairs(group)
        return matrix

    def __iter__(self) -> Iterator[str]:
        return iter((*_OF_MODELS, *_OF_PAIRS))

    def __len__(self) -> int:
        return len(_OF_MODELS) + len(_OF_PAIRS)

    @cached_property
    def _groups(self) -> "list[_Group]":
        return [_Group(self._models, self._options, pairs, dim) for pairs, dim in self._models.all_pairs()]


class _Group:
    """What distances share between the pairs of models of one M, or between those whose M differ (``dim`` None)."""

    def __init__(self, models: SoftmaxModels, options: ComparisonOptions, pairs: Pairs, dim: int | None) -> None:
        self.models, self.options, self.pairs, self.dim = models, options, pairs, dim

    def defines(self, name: str) -> bool:
        if name in OF_INPUTS and self.dim is None and self.options.input_set is None:
            return False
        return name not in OF_SUBSETS or (self.dim is not None and self.models.num_labels >= self.dim + 2)

    @cached_property
    def choice(self) -> tuple[LabelChoice, LabelTerms]:
        return label_side(self.models, self.pairs, self.options)

    @property
    def of_labels(self) -> LabelTerms:
        return self.choice[1]

    @cached_property
    def of_inputs(self) -> InputChoice:
        return input_side(self.models, self.pairs, self.options)

    @property
    def d_llv(self) -> Tensor:
        return combine(self.of_labels, self.of_inputs, self.options)

    @cached_property
    def svd_f(self) -> LabelSvd:
        return label_svd(self.models, self.pairs, self.choice[0], self.options)

    @cached_property
    def svd_g(self) -> Tensor:
        return input_svd(self.models, self.pairs, self.of_inputs.inputs)

    @property
    def d_fg(self) -> Interval:
        return d_fg(self.svd_f.largest, self.svd_g)


def _d_logit(models: SoftmaxModels) -> Tensor:
    return pairwise_d_logit_squared(models.labels).sqrt()


def _d_logit_normalised(models: SoftmaxModels) -> Tensor:
    return pairwise_d_logit_squared(models.labels) / logit_power(models.labels)[:, None]


def _d_rep(models: SoftmaxModels) -> Tensor:
    return pairwise_d_rep_squared(models.labels, models.heads).sqrt()


_OF_MODELS: dict[str, Callable[[SoftmaxModels], Tensor]] = {
    "m_cca_f": attrgetter("m_cca_f"),
    "m_cca_g": attrgetter("m_cca_g"),
    "d_logit": _d_logit,
    "d_logit_normalised": _d_logit_normalised,
    "d_rep": _d_rep,
}
_OF_PAIRS: dict[str, Callable[[_Group], Tensor]] = {
    "d_llv": attrgetter("d_llv"),
    "term_1": attrgetter("of_labels.term_1"),
    "term_2": attrgetter("of_inputs.term_2"),
    "term_3": attrgetter("of_labels.term_3"),
    "term_4": attrgetter("of_inputs.term_4"),
    "d_svd_g": attrgetter("svd_g"),
    "max_d_svd_f": attrgetter("svd_f.largest.lower"),
    "max_d_svd_f_upper": attrgetter("svd_f.largest.upper"),
    "max_d_svd_f_of_ties": attrgetter("svd_f.supremum.lower"),
    "certificate": attrgetter("svd_f.certificate.value"),
    "d_fg": attrgetter("d_fg.lower"),
    "d_fg_upper": attrgetter("d_fg.upper"),
}
