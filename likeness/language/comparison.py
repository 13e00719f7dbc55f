"""Two language models over the same tokens compared: predictions, d_LLV, d_SVD, d_logit, m_CCA, and how exact each is.

A language model is p(y | x) = softmax_y f(x) . g(y) + b(y), with x a prefix and y the next token. What is said of
labels is exact from joint moments at any number of positions: see :mod:`likeness.similarity.softmax_models`. What
cannot be searched at V = 50,000 is an interval: term 1 where its search was cut short, the largest d_SVD always.
Under a soft cap logits are no inner products: what is said of predictions and of f stays, all else is undefined.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from likeness.language.answer import LanguageComparison
from likeness.language.jackknife import Fixed, jackknife_errors
from likeness.language.pair_moments import PairMoments
from likeness.language.token_pass import Head
from likeness.numerics import as_float64, threads_for
from likeness.seeding import generator
from likeness.similarity.cloud import gaps_from, one_pair
from likeness.similarity.d_llv import best_input_sets, choose_labels, label_terms
from likeness.similarity.d_svd import d_svd_of_subsets, label_correlation_losses
from likeness.similarity.logit_distance import weighted_d_logit, weighted_heads
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.pairwise import PairwiseDistances
from likeness.similarity.predictions import mean_row
from likeness.similarity.representations.cca import m_cca_f, m_cca_of_noise
from likeness.similarity.representations.cka import linear_cka_f
from likeness.similarity.softmax_models import LabelVectors, SoftmaxModels
from likeness.similarity.undefined import UndefinedError

_SUBSETS = 16  # of each kind: the typical d_SVD varies by under 1 % among them
_WORK = 2**32  # multiplications that factorising the label subsets of one kind may cost


Arrays = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None]


def compare_language_models(
    first: Arrays,
    second: Arrays,
    next_token: Tensor,
    *,
    documents: Tensor | None = None,
    ids: Tensor | None = None,
    kept: Tensor | None = None,
    weights: Tensor | None = None,
    budget: int | None = None,
    span_tolerance: float | None = None,
    seed: int = 0,
    names: Sequence[str] = ("1", "2"),
    **settings: Any,
) -> LanguageComparison:
    """Compare (f1, g1, b1) with (f2, g2, b2) at the same N positions: f [N, M], g [V, M], b [V] or None; M may differ.

    ``next_token`` [N] is -1 where none is known; ``documents`` [N] are numbers, for standard errors; ``ids`` [N] are
    hashes of prefixes, of which equal ones are kept once; ``kept`` are the labels T that everything is said of;
    ``weights`` [V] those of the weighted d_logit, by default how often each is the next token. ``budget`` is how many
    of the V rows of term 1 may be computed: beyond it term 1 is an interval. ``span_tolerance`` is tau of
    :func:`likeness.spans.reduce_to_span`. Further settings are those of
    :class:`likeness.language.pair_moments.PairMoments`, and for streams :func:`compared` answers for one of these.

    Raises ValueError for shapes that do not fit and values that are not finite.

    Example:
        >>> import torch
        >>> generator = torch.manual_seed(0)
        >>> f, g = torch.randn(60, 3, generator=generator).double(), torch.randn(8, 3, generator=generator).double()
        >>> same = compare_language_models((f, g), (2 * f, g / 2 + 1), torch.arange(60) % 8)
        >>> same.kl_12 < 1e-12, same.term_1 < 1e-7, round(same.m_cca_f, 6)
        (True, True, 1.0)
    """
    (f1, *head1), (f2, *head2) = first, second
    seen = PairMoments(Head(*head1), Head(*head2), kept=kept, names=names, **settings)
    seen.update((f1, f2), next_token, documents, ids)
    return compared(seen, weights=weights, budget=budget, span_tolerance=span_tolerance, seed=seed)


def compared(
    seen: PairMoments,
    *,
    weights: Tensor | None = None,
    budget: int | None = None,
    span_tolerance: float | None = None,
    seed: int = 0,
) -> LanguageComparison:
    """The comparison of two models from what a stream of positions left; see :func:`compare_language_models`."""
    with threads_for(len(seen.next_counts) * sum(seen.dims)):
        found = _Comparison(seen, seen.models(span_tolerance), weights, budget, seed)
        fields = found.fields()
        errors, groups = found.jackknife()
        return LanguageComparison(**{**fields, "errors": fields["errors"] | errors, "groups": groups})


class _Comparison:
    """The fields of a comparison, as they are found; those that are undefined with the reason."""

    def __init__(
        self, seen: PairMoments, models: SoftmaxModels, weights: Tensor | None, budget: int | None, seed: int
    ) -> None:
        self.seen, self.models, self.budget, self.seed = seen, models, budget, seed
        self.pair = one_pair(0, 1, models.joint.root.device)
        self.weights = (seen.next_counts if weights is None else weights.cpu()).double()
        if self.weights.shape != seen.next_counts.shape:
            wanted = list(seen.next_counts.shape)
            raise ValueError(f"weights must be [V] = {wanted}, but are {list(self.weights.shape)}")
        if seen.kept is not None:
            self.weights = self.weights[seen.kept.cpu()]
        self.found: dict[str, Any] = {}
        self.undefined: dict[str, str] = {}

    def fields(self) -> dict[str, Any]:
        """All of them, by name."""
        self._sizes()
        self._means()
        self._correlations()
        if (why := self.seen.why_no_label_vectors) is not None:
            self.undefined |= dict.fromkeys(OF_LABEL_VECTORS, why)
        else:
            self._of_label_vectors()
        return {**dict.fromkeys(self.undefined), **self.found, "undefined": self.undefined}

    def _of_label_vectors(self) -> None:
        self._try(self._term_1, "term_1", "term_1_lower", "term_1_rows", "pivot", "left_out", "term_3")
        if "pivot" in self.found:
            self._try(self._d_svd, *_OF_SUBSETS)
        else:
            self.undefined |= dict.fromkeys(_OF_SUBSETS, self.undefined["term_1"])
        self._try(self._input_side, "term_2", "term_4")
        self._try(self._weighted, "d_logit_weighted", "d_logit_weighted_normalised")
        self._distances()

    @cached_property
    def vectors(self) -> LabelVectors:
        """The labels among which those of term 1 and of d_SVD are sought."""
        return self.models.searched_labels(0, 1)

    def jackknife(self) -> tuple[dict[str, float], int]:
        """Errors of functions of the moments, and over how many groups of documents."""
        given, labels, heads = self.models.given or self.models, None, None
        if len(self.seen.parts) == 1:
            return {}, 0
        if "pivot" in self.found:
            pivot, left_out = self.choice.pivot, self.choice.left_out
            gap = gaps_from(self.vectors.cloud, self.pair, pivot).gap[0]
            largest = gap.index_fill(0, torch.cat([pivot, left_out]), -torch.inf).argmax()
            ids = self.vectors.ids
            both = ids[torch.cat([pivot, largest[None]])]
            labels = [as_float64(g[both]) - mean_row(g) for g in given.unembeddings]
        if "d_logit_weighted" in self.found:
            heads = weighted_heads(given.unembeddings, self.weights.to(self.models.labels.mean))
        errors, groups = jackknife_errors(self.seen, Fixed(self.models.bases, heads, labels))
        return {name: error for name, error in errors.items() if self.found.get(name) is not None}, groups

    def _sizes(self) -> None:
        seen, models = self.seen, self.models
        groups = models.groups_of_equal_labels(0, 1)
        self.found |= {
            "positions": seen.count,
            "documents": len(seen.sums.documents),
            "labels": models.num_labels,
            "ranks": tuple(models.joint.bare_dim(model) for model in (0, 1)),
            "equal_labels": tuple(tuple(map(self._token, group)) for group in groups),
            "inputs": len(models.embeddings[0]),
        }

    def _token(self, label: int) -> int:
        """The number of a label among all V."""
        return label if self.seen.kept is None else int(self.seen.kept[label])

    def _means(self) -> None:
        sums, errors = self.seen.sums, {}
        for name in sums.names:
            mean = sums.mean(name)
            if sums.count(name) == 0:
                self.undefined[name] = "no next token is known among the labels"
                continue
            self.found[name], errors[name] = mean, sums.standard_error(name)
        for model in ("1", "2"):
            nll = self.found.get(f"nll_{model}")
            self.found[f"perplexity_{model}"] = None if nll is None else math.exp(min(nll, 700))
        self.found["errors"] = {name: error for name, error in errors.items() if not math.isnan(error)}

    def _term_1(self) -> dict[str, Any]:
        self.choice = choose_labels(self.vectors, self.pair, self.budget)
        terms = label_terms(self.vectors, self.pair, self.choice.pivot, self.choice.left_out)
        named = self.choice.named(self.vectors)
        return {
            "term_1": float(self.choice.term_1),
            "term_1_lower": float(self.choice.lower),
            "term_1_rows": self.choice.rows,
            "pivot": self._token(int(named.pivot)),
            "left_out": self._token(int(named.left_out)),
            "term_3": float(terms.term_3),
        }

    def _d_svd(self) -> dict[str, Any]:
        size, pivot, left_out = min(self.vectors.dims), self.choice.pivot, self.choice.left_out
        if self.vectors.num_labels < size + 2:
            raise UndefinedError(f"L needs K = M + 2 labels, but K = {self.vectors.num_labels} and M = {size}")
        cloud, weights = self.vectors.cloud, self.weights[self.vectors.ids.cpu()]
        losses = label_correlation_losses(cloud, self.pair, pivot, left_out)[0]
        excluded = torch.cat([pivot, left_out]).cpu()
        found = {"certificate": float(losses.topk(size).values.mean().clamp(max=2))}
        tried = [losses.topk(size).indices[None].cpu()]
        count = max(1, min(_SUBSETS, _WORK // size**3))
        for name, chances in (("typical", torch.ones_like(weights)), ("frequent", weights)):
            if int(chances.index_fill(0, excluded, 0.0).count_nonzero()) < size:
                reason = f"fewer than M = {size} labels occur beside the pivot and the left-out one"
                self.undefined |= dict.fromkeys((f"d_svd_{name}", f"d_svd_{name}_deviation"), reason)
                continue
            subsets = draw_subsets(chances, size, count, excluded, self.seed)
            values = d_svd_of_subsets(cloud, self.pair, pivot, subsets[None].to(pivot.device))[0]
            found |= {f"d_svd_{name}": float(values.mean()), f"d_svd_{name}_deviation": float(values.std(correction=0))}
            found["max_d_svd"] = max(found.get("max_d_svd", 0.0), float(values.max()))
        tried.append(weights.index_fill(0, excluded, -1.0).topk(size).indices[None])
        values = d_svd_of_subsets(cloud, self.pair, pivot, torch.cat(tried)[None].to(pivot.device))
        return found | {"max_d_svd": max(found["max_d_svd"], float(values.max()))}

    def _input_side(self) -> dict[str, float]:
        f = self.models.bare_embeddings
        if self.models.num_labels < 2:
            raise UndefinedError("a variance over labels needs two of them, but K = 1")
        found = best_input_sets(self.models.inputs, self.pair, f, ComparisonOptions().min_conditioning)
        return {"term_2": float(found.term_2), "term_4": float(found.term_4)}

    def _weighted(self) -> dict[str, float]:
        if not bool(self.weights.any()):
            raise UndefinedError("no next token is known among the labels, and no weights were given")
        weights = self.weights.to(self.models.labels.mean)
        heads = weighted_heads(self.models.unembeddings, weights)
        distance, lengths = weighted_d_logit(self.models.joint, heads, self.pair)
        found = {"d_logit_weighted": float(distance)}
        if float(lengths[0]) > 0:
            return found | {"d_logit_weighted_normalised": float((distance / lengths[0]).square())}
        self.undefined["d_logit_weighted_normalised"] = "the weighted logits of model 1 do not vary among labels"
        return found

    def _distances(self) -> None:
        distances = PairwiseDistances(self.models)
        for name, key, place in _DISTANCES:
            values, reasons, _ = distances.explained(key)
            if place in reasons:
                self.undefined[name] = reasons[place]
            else:
                self.found[name] = float(values[place])

    def _correlations(self) -> None:
        """Of f alone."""
        joint = self.models.joint
        for name, function in (("m_cca_f", m_cca_f), ("linear_cka_f", linear_cka_f)):
            values, reasons, _ = function(joint)
            if reasons:
                self.undefined[name] = reasons[0, 1]
            else:
                self.found[name] = float(values[0, 1])
        if "m_cca_f" in self.found:
            dim, other = self.found["ranks"]
            self.found["m_cca_f_of_noise"] = m_cca_of_noise(self.seen.count, dim, other, self.seed)

    def _try(self, function: Callable[[], Mapping[str, Any]], *names: str) -> None:
        """Fields by their function, unless that is undefined."""
        try:
            self.found |= function()
        except UndefinedError as error:
            self.undefined |= dict.fromkeys(names, str(error))


_OF_SUBSETS = (
    "d_svd_typical",
    "d_svd_typical_deviation",
    "d_svd_frequent",
    "d_svd_frequent_deviation",
    "max_d_svd",
    "certificate",
)
_DISTANCES = (
    ("d_logit", "d_logit", (0, 1)),
    ("d_logit_normalised", "d_logit_normalised", (0, 1)),
    ("d_rep_12", "d_rep", (0, 1)),
    ("d_rep_21", "d_rep", (1, 0)),
    ("m_cca_g", "m_cca_g", (0, 1)),
)
OF_LABEL_VECTORS = (
    "term_1",
    "term_3",
    *_OF_SUBSETS,
    "term_2",
    "term_4",
    "d_logit_weighted",
    "d_logit_weighted_normalised",
    *(name for name, _, _ in _DISTANCES),
)
"""The fields that read label vectors, or moments of logits."""


def draw_subsets(weights: Tensor, size: int, count: int, excluded: Tensor, seed: int = 0) -> Tensor:
    """Label subsets [count, size], drawn without replacement by weights [V]; never the excluded labels.

    The largest of log weight + Gumbel noise: successive draws by the weights of those left (Efraimidis & Spirakis
    2006).
    """
    chances = weights.double().log().index_fill(0, excluded, -torch.inf)
    random = generator(seed, len(weights), size)
    keys = [
        (chances - torch.empty_like(chances).exponential_(generator=random).log()).topk(size).indices
        for _ in range(count)
    ]
    return torch.stack(keys)
