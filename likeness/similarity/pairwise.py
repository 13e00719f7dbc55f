"""The distances between all pairs of P softmax models, each computed when it is asked for.

Every measure between all pairs of P softmax models at once.

Between two models alone, :func:`likeness.similarity.comparison.compare_softmax_models` tells more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from operator import attrgetter

import torch
from torch import Tensor

from likeness.numerics import threads_for
from likeness.similarity.cloud import Pairs
from likeness.similarity.d_llv import InputChoice, LabelChoice, LabelTerms, combine, input_side, label_side
from likeness.similarity.d_svd import Interval, LabelSvd, d_fg, input_svd, label_svd
from likeness.similarity.logit_distance import logit_power, pairwise_d_logit_squared, pairwise_d_rep_squared
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.softmax_models import SoftmaxModels

OF_INPUTS = frozenset(("d_llv", "term_2", "term_4", "d_svd_g", "d_fg", "d_fg_upper"))
OF_SUBSETS = frozenset(("max_d_svd_f", "max_d_svd_f_upper", "max_d_svd_f_of_ties", "certificate", "d_fg", "d_fg_upper"))


class PairwiseDistances(Mapping[str, Tensor]):
    """The distances by name, [P, P] in float64; entry (i, j) has model i as the first of the pair.

    Names are fields of :class:`likeness.similarity.comparison.SoftmaxComparison`. ``OF_INPUTS`` need embeddings
    of single inputs; all others are functions of the joint moments and the unembeddings. What is undefined, between
    models whose M differ or where K < M + 2, is nan. Looking a name up raises ValueError as
    :func:`likeness.similarity.d_llv.d_llv` does.
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


def compare_all_pairs(
    embeddings: Sequence[Tensor] | Tensor,
    unembeddings: Sequence[Tensor] | Tensor,
    *,
    names: Sequence[str] | None = None,
    options: ComparisonOptions | None = None,
) -> dict[str, Tensor]:
    """The measures by name, each [P, P] in float64, of models with f_i [N, M_i] and g_i [K, M_i] (or [P, ...] tensors).

    Names are the fields of :class:`likeness.similarity.comparison.SoftmaxComparison`. Row i is the first model of
    a pair: KL(p_i || p_j), d_logit^2 over E |u_i|^2, E |f_i - A f_j|^2. What is undefined, between models whose M
    differ or where K < M + 2, is nan. By default the input set is the best of 200 disjoint random ones, since the
    exact search takes of the order of N^2 operations a pair.

    Raises ValueError as :meth:`SoftmaxModels.of` and :func:`likeness.similarity.d_llv.choose_labels` do.
    """
    options = options or ComparisonOptions(search="sampled")
    embeddings, unembeddings = list(embeddings), list(unembeddings)
    with threads_for(options.largest_tensor(embeddings, unembeddings)):
        models, predicted = SoftmaxModels.evaluated(embeddings, unembeddings, names)
        divergences = {
            "kl": predicted.kl,
            "js": predicted.js,
            "total_variation": predicted.total_variation,
            "agreement": predicted.agreement,
        }
        return divergences | dict(PairwiseDistances(models, options))
