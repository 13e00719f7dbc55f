"""The distances between all pairs of P softmax models, each computed when it is asked for.

This is the one place where distances are computed: for two models by
:func:`likeness.similarity.comparison.compare_softmax_models`, for many by :func:`compare_all_pairs`, for a stream of
inputs by the metric. The numbers of a pair depend on that pair alone. What is undefined for a pair is nan, with a
reason, and leaves the other pairs as they are.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations, product
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from likeness.numerics import threads_for
from likeness.similarity.cloud import Pairs
from likeness.similarity.d_llv import (
    InputChoice,
    LabelChoice,
    LabelTerms,
    choose_input_terms,
    choose_label_terms,
    combine,
)
from likeness.similarity.d_svd import Interval, LabelSvd, d_fg, d_svd_g, label_svd
from likeness.similarity.logit_distance import d_logit_of_pairs, d_rep_of_pairs, logit_lengths
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.predictions import Predictions
from likeness.similarity.softmax_models import LabelVectors, SoftmaxModels, mean_canonical_correlations
from likeness.similarity.undefined import Facts, UndefinedError, why_undefined
from likeness.spans import Span

OF_INPUTS = frozenset(("d_llv", "term_2", "term_4", "d_svd_g", "d_fg", "d_fg_upper"))
DIVERGENCES = ("kl", "js", "total_variation", "agreement")
SIMILARITIES = ("m_cca_f", "m_cca_g")  # which are 1 between a model and itself


class PairValues(NamedTuple):
    """A measure of all ordered pairs of P models."""

    values: Tensor  # [P, P] in float64, nan where undefined
    undefined: dict[tuple[int, int], str]  # why, by pair
    search: dict[tuple[int, int], str]  # how its choice was found, by pair: exact, sampled, given or bounded


class PairwiseDistances(Mapping[str, Tensor]):
    """The distances by name, [P, P] in float64; entry (i, j) has model i as the first of the pair.

    Names are fields of :class:`likeness.similarity.comparison.SoftmaxComparison`. ``OF_INPUTS`` need embeddings
    of single inputs; all others are functions of the joint moments and the unembeddings. What is undefined is nan.
    """

    def __init__(self, models: SoftmaxModels, options: ComparisonOptions | None = None) -> None:
        self.models, self.options = models, options or ComparisonOptions()
        self._found: dict[str, PairValues] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self.explained(name).values

    def __iter__(self) -> Iterator[str]:
        return iter((*SIMILARITIES, *_OF_PAIRS))

    def __len__(self) -> int:
        return len(SIMILARITIES) + len(_OF_PAIRS)

    def explained(self, name: str) -> PairValues:
        """A distance with the reasons of what is undefined, and how its choices were found."""
        if name not in self._found:
            self._found[name] = self._correlations(name) if name in SIMILARITIES else self._distances(name)
        return self._found[name]

    def pair(self, first: int, second: int) -> "PairGroup":
        """Everything between two of the models."""
        device = self.models.labels.mean.device
        (own,) = (group for group in self._groups if group.holds(first, second))
        if len(own) == 1:
            return own
        pair = torch.tensor([first], device=device), torch.tensor([second], device=device)
        return PairGroup(self.models, self.options, pair)

    @cached_property
    def _groups(self) -> "list[PairGroup]":
        """All pairs (i, j), i < j: a group for each M, set of equal labels, and set of measures that are defined."""
        members: dict[tuple[object, ...], list[tuple[int, int]]] = defaultdict(list)
        sizes = [facts._replace(name="") for facts in self.models.facts]  # of siblings the same ones
        defined = {pair: self._defined(*pair) for pair in set(product(sizes, sizes))}
        for i, j in combinations(range(len(sizes)), 2):
            alike = defined[sizes[i], sizes[j]], defined[sizes[j], sizes[i]]
            equal = self.models.labels_of_pair(i, j)
            labels = None if equal is None else tuple(equal.tolist())
            members[sizes[i].dim, sizes[j].dim, labels, *alike].append((i, j))
        device = self.models.labels.mean.device
        indices = (torch.tensor(pairs, device=device).unbind(1) for pairs in members.values())
        return [PairGroup(self.models, self.options, (i, j)) for i, j in indices]

    def _why(self, name: str, first: int, second: int) -> str | None:
        facts = self.models.facts
        return why_undefined(name, facts[first], facts[second], inputs_given=self.options.input_set is not None)

    def _defined(self, first: Facts, second: Facts) -> tuple[bool, ...]:
        """Of each distance, whether it is defined between models of these sizes."""
        inputs_given = self.options.input_set is not None
        return tuple(why_undefined(name, first, second, inputs_given=inputs_given) is None for name in _OF_PAIRS)

    def _distances(self, name: str) -> PairValues:
        count = len(self.models.names)
        matrix = self.models.labels.mean.new_full((count, count), torch.nan).fill_diagonal_(0)
        found = PairValues(matrix, {}, {})
        for group in self._groups:
            for turned in (False, True) if name in DIRECTED else (False,):
                self._fill(found, name, group, turned)
        return found

    def _fill(self, found: PairValues, name: str, group: "PairGroup", turned: bool) -> None:
        """Put in the group's values; where the whole cannot be computed, those of its pairs one by one."""
        pairs = [pair[::-1] if turned else pair for pair in group.members]
        # A group's pairs are alike in what is defined, and each has a reason of its own.
        defined = self._why(name, *pairs[0]) is None
        reasons = {} if defined else {pair: str(self._why(name, *pair)) for pair in pairs}
        if defined:
            try:
                values = _OF_PAIRS[name](group.turned if turned else group)
            except UndefinedError as error:
                if len(group) > 1:
                    for single in group.singles:
                        self._fill(found, name, single, turned)
                    return
                reasons = dict.fromkeys(pairs, str(error))
            else:
                found.values[tuple(zip(*pairs, strict=True))] = values
                found.search.update(zip(pairs, group.search(name), strict=True))
        found.undefined.update(reasons)
        if name not in DIRECTED:
            found.values.T[tuple(zip(*pairs, strict=True))] = found.values[tuple(zip(*pairs, strict=True))]
            for known in (found.undefined, found.search):
                known.update({(j, i): known[i, j] for i, j in pairs if (i, j) in known})

    def _correlations(self, name: str) -> PairValues:
        spans = self.models.spans if name == "m_cca_f" else self.models.head_spans
        facts = self.models.facts
        reasons = {i: reason for i in range(len(facts)) if (reason := self._why(name, i, i)) is not None}
        return correlations_of_spans(spans, reasons)


def correlations_of_spans(spans: Sequence[Span], reasons: Mapping[int, str]) -> PairValues:
    """m_CCA of all pairs of P representations; of those with a reason why not it is undefined."""
    count = len(spans)
    defined = [model for model in range(count) if model not in reasons]
    matrix = spans[0].basis.new_full((count, count), torch.nan)
    if defined:
        index = torch.tensor(defined, device=matrix.device)
        matrix[index[:, None], index] = mean_canonical_correlations([spans[model].basis for model in defined])
    pairs = [(i, j) for i in range(count) for j in range(count) if i in reasons or j in reasons]
    return PairValues(matrix, {(i, j): reasons.get(i) or reasons[j] for i, j in pairs}, {})


T = TypeVar("T")


class Once(Generic[T]):
    """A property that is computed once, also where that raises UndefinedError: the error is raised again."""

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function = function

    def __get__(self, owner: "PairGroup", kind: type) -> T:
        known = owner.outcomes
        if self not in known:
            try:
                known[self] = self.function(owner)
            except UndefinedError as error:
                known[self] = error
        if isinstance(known[self], UndefinedError):
            raise known[self]
        answer: T = known[self]
        return answer


class PairGroup:
    """What distances share between pairs of models for which the same measures are defined."""

    def __init__(self, models: SoftmaxModels, options: ComparisonOptions, pairs: Pairs) -> None:
        self.models, self.options, self.pairs = models, options, pairs
        self.outcomes: dict[object, Any] = {}

    def __len__(self) -> int:
        return len(self.pairs[0])

    @cached_property
    def members(self) -> list[tuple[int, int]]:
        """The pairs as numbers."""
        return list(zip(*(index.tolist() for index in self.pairs), strict=True))

    def holds(self, first: int, second: int) -> bool:
        """Whether this pair is one of them, in this direction."""
        return (first, second) in self.members

    @cached_property
    def singles(self) -> "list[PairGroup]":
        """Each pair as a group of its own."""
        pairs = zip(*(torch.split(index, 1) for index in self.pairs), strict=True)
        return [PairGroup(self.models, self.options, pair) for pair in pairs]

    @cached_property
    def turned(self) -> "PairGroup":
        """The same pairs with the other model first."""
        return PairGroup(self.models, self.options, (self.pairs[1], self.pairs[0]))

    def search(self, name: str) -> list[str]:
        """How the choice that a distance is taken at was found, of each pair."""
        of_inputs = self.of_inputs.search if name in OF_INPUTS else ("exact",) * len(self)
        complete = ("max_d_svd_f" not in name and "d_fg" not in name) or self.svd_f.complete
        return [how if complete or how != "exact" else "sampled" for how in of_inputs]

    @cached_property
    def vectors(self) -> LabelVectors:
        """The labels among which pivots, left-out ones and subsets are sought."""
        return self.models.searched_labels(*self.members[0])

    @Once
    def choice(self) -> tuple[LabelChoice, LabelTerms]:
        """Of labels, by their positions among the ``vectors``."""
        return choose_label_terms(self.vectors, self.pairs, self.options)

    @property
    def named_choice(self) -> LabelChoice:
        """By the labels' own numbers."""
        return self.choice[0].named(self.vectors)

    @property
    def of_labels(self) -> LabelTerms:
        """Terms 1 and 3."""
        return self.choice[1]

    @Once
    def of_inputs(self) -> InputChoice:
        """Terms 2 and 4, and the input set."""
        return choose_input_terms(self.models, self.pairs, self.options)

    @property
    def d_llv(self) -> Tensor:
        """[B]."""
        return combine(self.of_labels, self.of_inputs, self.options)

    @Once
    def svd_f(self) -> LabelSvd:
        """d_SVD of the embeddings."""
        return label_svd(self.vectors, self.pairs, self.choice[0], self.options)

    @Once
    def svd_g(self) -> Tensor:
        """d_SVD of the unembeddings, [B]."""
        return d_svd_g(self.models.inputs, self.pairs, self.of_inputs.inputs)

    @property
    def d_fg(self) -> Interval:
        """[B]."""
        return d_fg(self.svd_f.largest, self.svd_g)

    @Once
    def d_logit(self) -> Tensor:
        """[B]."""
        return d_logit_of_pairs(self.models.labels, self.pairs)

    @property
    def d_logit_normalised(self) -> Tensor:
        """[B]. Raises UndefinedError where all centred logits of a first model are 0."""
        lengths = logit_lengths(self.models.labels)[self.pairs[0]]
        if bool((lengths == 0).any()):
            model = self.models.names[int(self.pairs[0][int((lengths == 0).nonzero()[0])])]
            raise UndefinedError(f"all centred logits of model {model!r} are 0, so that nothing can be divided by them")
        return (self.d_logit / lengths).square()

    @Once
    def d_rep(self) -> Tensor:
        """[B]."""
        return d_rep_of_pairs(self.models.labels, self.pairs)


DIRECTED = ("d_logit_normalised", "d_rep")
_OF_PAIRS: dict[str, Callable[[PairGroup], Tensor]] = {
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
    "d_logit": attrgetter("d_logit"),
    "d_logit_normalised": attrgetter("d_logit_normalised"),
    "d_rep": attrgetter("d_rep"),
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
    a pair: KL(p_i || p_j), d_logit^2 over E |u_i|^2, E |f_i - A f_j|^2. What is undefined for a pair is nan. By
    default the input set is searched as ``search="auto"`` of the options says: of the order of N^2 operations a pair.

    Raises ValueError as :meth:`SoftmaxModels.of` does.
    """
    options = options or ComparisonOptions(search="auto")
    embeddings, unembeddings = list(embeddings), list(unembeddings)
    with threads_for(options.largest_tensor(embeddings, unembeddings)):
        models, predicted = SoftmaxModels.evaluated(embeddings, unembeddings, names, options.span_tolerance)
        return divergences(predicted) | dict(PairwiseDistances(models, options))


def divergences(predicted: Predictions) -> dict[str, Tensor]:
    """The measures of predictions by name, [P, P]."""
    return {name: getattr(predicted, name) for name in DIVERGENCES}
