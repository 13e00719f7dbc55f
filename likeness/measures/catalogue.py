"""Every pairwise measure by name, with what a callback, a table and a figure need to know of it.

A new measure is one pure function and one line here. Its keys are ``similarity/<name>/{mean,min,max}``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from likeness.measures.distribution import jensen_shannon, kl_sum, pairwise_sum, total_variation
from likeness.measures.moments import JointMoments
from likeness.measures.representation import m_cca_f, m_cca_g


@dataclass(frozen=True)
class Measure:
    """A number for each ordered pair of P models."""

    label: str  # in figures; "row" is the first model of a pair and "column" the second
    larger_is_more_alike: bool
    limit: float | None  # of its values, from 0; None where they have no upper limit
    symmetric: bool


@dataclass(frozen=True)
class SampleMean(Measure):
    """The mean over samples of a divergence between predictive distributions."""

    pair_sums: Callable[[Tensor], Tensor]  # from log-probabilities [P, N, K] to sums over samples [P, P]


@dataclass(frozen=True)
class OfMoments(Measure):
    """A function of the joint moments and of the unembeddings [K, M_i]; it answers [P, P]."""

    function: Callable[[JointMoments, Sequence[Tensor]], Tensor]
    spans: str | None = None  # "samples" or "labels": of these it needs more than a model has dimensions


LOG_2 = 0.6931471805599453

MEASURES: dict[str, Measure] = {
    "kl": SampleMean("KL(row || column), nats", False, None, False, kl_sum),
    "js": SampleMean("Jensen-Shannon divergence, nats", False, LOG_2, True, partial(pairwise_sum, jensen_shannon)),
    "tv": SampleMean("total variation distance", False, 1.0, True, partial(pairwise_sum, total_variation)),
    "m_cca_f": OfMoments("m_CCA of the embeddings f", True, 1.0, True, m_cca_f, spans="samples"),
    "m_cca_g": OfMoments("m_CCA of the unembeddings g", True, 1.0, True, m_cca_g, spans="labels"),
}

FAMILIES = {"m_cca": ("m_cca_f", "m_cca_g")}


def select(names: Iterable[str]) -> dict[str, Measure]:
    """The measures of these names, in their order; the name of a family stands for all its members.

    Raises ValueError for an unknown name, listing the known ones.
    """
    members = [member for name in names for member in FAMILIES.get(name, (name,))]
    for name in members:
        if name not in MEASURES:
            raise ValueError(f"unknown measure {name!r}: the known ones are {', '.join([*MEASURES, *FAMILIES])}")
    return {name: MEASURES[name] for name in members}
