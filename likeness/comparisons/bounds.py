"""Bounds on representation measures of all pairs of models, from d_LLV and from correlations of log-ratios."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from likeness.similarity.catalogue import MEASURES, Measure, SoftmaxMeasure
from likeness.similarity.d_svd import Bound, on_d_svd, paper_bound, squared_bound


@dataclass(frozen=True)
class PairwiseBound:
    """A bound on a symmetric measure, for all pairs of P models; nan where the measure is undefined."""

    column: str  # in files
    label: str  # on the terminal
    derived: bool  # and not in the paper
    bound: Bound  # [P, P]


@dataclass(frozen=True)
class _Rule:
    """How a bound follows from a measure [P, P] and the dimensions M of the pairs' first models [P, 1]."""

    column: str
    label: str
    derived: bool
    of: str
    function: Callable[[Tensor, Tensor], Bound]


_SOURCES: dict[str, Measure] = {
    "d_llv": MEASURES["d_llv"],
    "certificate": SoftmaxMeasure(label="correlation certificate of max d_SVD(f)", key="certificate"),
}
_RULES: dict[str, tuple[_Rule, ...]] = {
    "max_d_svd_f": (_Rule("certificate", "certificate", True, "certificate", lambda value, _: on_d_svd(value)),),
    "d_fg": (
        _Rule("paper_bound", "2 M d_LLV", False, "d_llv", paper_bound),
        _Rule("squared_bound", "2 d_LLV^2", True, "d_llv", lambda d_llv, _: squared_bound(d_llv)),
    ),
}


def sources(names: Iterable[str]) -> dict[str, Measure]:
    """What the bounds on the measures of these names are computed from, by name."""
    return {rule.of: _SOURCES[rule.of] for name in names for rule in _RULES.get(name, ())}


def bounds_on(
    names: Iterable[str], values: Mapping[str, Tensor], dims: Iterable[int]
) -> dict[str, tuple[PairwiseBound, ...]]:
    """The bounds on those of the measures that have any, from [P, P] by name and the models' M, without biases."""
    dim = torch.tensor(list(dims))[:, None]
    return {
        name: tuple(_of_rule(rule, values[rule.of], values[name].isnan(), dim) for rule in _RULES[name])
        for name in names
        if name in _RULES
    }


def _of_rule(rule: _Rule, values: Tensor, undefined: Tensor, dim: Tensor) -> PairwiseBound:
    value, informative = rule.function(values, dim)
    bound = Bound(value.masked_fill(undefined, torch.nan), informative & ~undefined)
    return PairwiseBound(rule.column, rule.label, rule.derived, bound)
