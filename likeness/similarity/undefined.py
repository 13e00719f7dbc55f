"""Which measures of softmax models are undefined, and why: one table, and the errors of what only a search finds out.

A measure that is undefined between two models is None or NaN for these two, with the reason beside it. What a pair
needs is read from the sizes and ranks of its two models; ``NEEDS`` says what each measure needs.
"""

from collections.abc import Callable
from typing import NamedTuple


class UndefinedError(ValueError):
    """A measure is undefined for these models; the message says why, and of which model."""


class RankDeficientError(UndefinedError):
    """A representation, or a head, does not span its own dimensions."""


class ConstantLogRatioError(UndefinedError):
    """lp(y|x) - lp(y0|x) is the same for every input, so that nothing can be measured in units of it."""


class SingularInputsError(UndefinedError):
    """No set of inputs has differences that span the representations of both models."""


class Facts(NamedTuple):
    """What of a model decides which measures are defined."""

    name: str
    inputs: int  # N
    kept: int  # of these, inputs whose embeddings are there
    labels: int  # K
    dim: int  # M, a head's bias not counted: of what f spans
    rank_f: int  # of the embeddings around their mean
    rank_g: int  # of the unembeddings around their mean
    given_dim: int  # M before the model was reduced to what f spans


Need = Callable[[Facts, Facts], str | None]
"""Why two models do not have what is needed, or None if they have."""


def _two_inputs(a: Facts, b: Facts) -> str | None:
    return None if a.inputs > 1 else f"a variance over inputs needs two of them, but N = {a.inputs}"


def _two_labels(a: Facts, b: Facts) -> str | None:
    return None if a.labels > 1 else f"a variance over labels needs two of them, but K = {a.labels}"


def _three_labels(a: Facts, b: Facts) -> str | None:
    if a.labels > 2:
        return None
    return f"d_LLV needs a pivot, a left-out and a compared label, but there are {a.labels} labels"


def _one_dim(a: Facts, b: Facts) -> str | None:
    return None if a.given_dim == b.given_dim else f"the models have different M: {a.given_dim} and {b.given_dim}"


def _one_rank(a: Facts, b: Facts) -> str | None:
    return None if a.dim == b.dim else _one_dim(a, b) or f"the embeddings span {a.dim} and {b.dim} dimensions"


def _an_input_set(a: Facts, b: Facts) -> str | None:
    if (reason := _one_dim(a, b)) is not None:
        return f"{reason}, and no input set was given"
    dim = min(a.dim, b.dim)
    if a.kept <= dim:
        return f"an input set has M + 1 inputs, but there are {a.kept} and M = {dim}"
    return _spanning_f(a, b)


def _label_subsets(a: Facts, b: Facts) -> str | None:
    dim = min(a.dim, b.dim)
    if a.labels >= dim + 2:
        return None
    return f"L needs K = M + 2 labels, but K = {a.labels} and M = {dim}"


def why_undefined_f(name: str, inputs: int, dim: int, rank: int) -> str | None:
    """Why canonical correlations of a model's embeddings are undefined; None where they are not."""
    if inputs <= dim:
        return (
            f"the embeddings of model {name!r} are [N, M] = {[inputs, dim]}: around their mean M dimensions need M + 1 "
            "inputs"
        )
    if rank < dim:
        return f"the embeddings of model {name!r}, {[inputs, dim]}, span {rank} of {dim} dimensions"
    return None


def _spanning_f(*models: Facts) -> str | None:
    reasons = (why_undefined_f(own.name, own.inputs, own.dim, own.rank_f) for own in models)
    return next((reason for reason in reasons if reason), None)


def _spanning_g(*models: Facts) -> str | None:
    for own in models:
        if own.rank_g < own.dim:
            shape = [own.labels, own.dim]
            return (
                f"the unembeddings of model {own.name!r} less their mean, {shape}, span {own.rank_g} of {own.dim} "
                "dimensions"
            )
    return None


def _spanning_g_of_first(a: Facts, b: Facts) -> str | None:
    return _spanning_g(a)


_LABEL_SIDE = (_two_inputs, _three_labels)
_INPUT_SIDE = (_two_labels, _an_input_set)
_OF_SUBSETS = (*_LABEL_SIDE, _one_dim, _label_subsets)
_OF_CHOICES = (_one_rank, _spanning_g_of_first)

NEEDS: dict[str, tuple[Need, ...]] = {
    **dict.fromkeys(("kl", "js", "total_variation", "agreement", "d_logit", "d_logit_normalised"), ()),
    **dict.fromkeys(("term_1", "term_3", "pivot", "left_out", "ties"), _LABEL_SIDE),
    **dict.fromkeys(("term_2", "term_4", "input_set", "input_search", "d_svd_g", "m_svd_g"), _INPUT_SIDE),
    **dict.fromkeys(("d_llv", "squared_bound"), (*_LABEL_SIDE, *_INPUT_SIDE)),
    "paper_bound": (*_LABEL_SIDE, _one_dim, *_INPUT_SIDE),
    **dict.fromkeys(("m_svd_f", "max_d_svd_f", "max_d_svd_f_upper", "max_d_svd_f_of_ties"), _OF_SUBSETS),
    **dict.fromkeys(("certificate", "label_subset_search"), _OF_SUBSETS),
    **dict.fromkeys(("d_fg", "d_fg_upper"), (*_OF_SUBSETS, *_INPUT_SIDE)),
    "m_cca_f": (_spanning_f,),
    "m_cca_g": (_spanning_g,),
    **dict.fromkeys(("d_rep", "d_rep_bound"), (_spanning_g_of_first,)),
    **dict.fromkeys(("d_rep_mean", "d_rep_median", "d_rep_kept", "d_rep_mean_bound", "d_rep_search"), _OF_CHOICES),
    "correlation_deficit": (_spanning_f,),
    "m_cca_bound": (_spanning_f, _spanning_g_of_first),
    "d_logit_bound": (),
}
"""By the names of :class:`likeness.similarity.comparison.SoftmaxComparison`. An input set that is given needs no
search, so that M may differ; the searches raise the errors above where what they look for does not exist."""


def why_undefined(name: str, first: Facts, second: Facts, *, inputs_given: bool = False) -> str | None:
    """Why a measure of two models is undefined, as far as sizes and ranks tell; None where they do not forbid it."""
    needs = (need for need in NEEDS[name] if not (inputs_given and need is _an_input_set))
    return next((reason for need in needs if (reason := need(first, second))), None)
