"""Standard errors of functions of moments, such as m_CCA, by the jackknife over groups of documents.

theta_g is the function without the documents of group g, and se^2 = (G - 1) / G sum_g (theta_g - mean)^2: Kott 2001,
"The delete-a-group jackknife". Choices stay as they were found, without loss to first order: of labels those of
term 1, of the span its basis.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from likeness.language.pair_moments import PairMoments
from likeness.numerics import FactoredMoments
from likeness.similarity.cloud import one_pair
from likeness.similarity.joint_moments import JointMoments
from likeness.similarity.logit_distance import weighted_d_logit
from likeness.similarity.representations.cca import m_cca_f
from likeness.similarity.representations.cka import linear_cka_f

LEAST = 2  # groups


@dataclass(frozen=True)
class Fixed:
    """What is not chosen again without a group."""

    bases: Sequence[Tensor | None]  # of what f spans
    heads: Sequence[Tensor] | None  # of the weighted d_logit; None without weights
    labels: Sequence[Tensor] | None  # [2, M_i] W at the pivot and the label at which term 1 is taken; None without it

    def values(self, joint: JointMoments) -> dict[str, float]:
        """The functions of some moments; those that are defined."""
        spanned, found = joint.in_bases(self.bases), {}
        for name, function in (("m_cca_f", m_cca_f), ("linear_cka_f", linear_cka_f)):
            matrix, reasons, *_ = function(spanned)
            if not reasons:
                found[name] = float(matrix[0, 1])
        if self.heads is not None:
            distance, lengths = weighted_d_logit(joint, self.heads, one_pair(0, 1, joint.root.device))
            found["d_logit_weighted"] = float(distance)
            if float(lengths[0]) > 0:
                found["d_logit_weighted_normalised"] = float((distance / lengths[0]).square())
        if self.labels is not None:
            found["term_1"] = term_1_at(joint, self.labels)
        return found


def jackknife_errors(seen: PairMoments, fixed: Fixed) -> tuple[dict[str, float], int]:
    """Standard errors by name, and over how many groups; none where fewer than two groups have documents."""
    parts = [part for part in seen.parts if float(part.n) > 0]
    if len(parts) < LEAST:
        return {}, 0
    without = [fixed.values(seen.joint(rest)) for rest in all_but_one(parts)]
    names = set.intersection(*(set(values) for values in without))
    columns = {name: torch.tensor([values[name] for values in without], dtype=torch.float64) for name in names}
    scale = (len(parts) - 1) ** 0.5
    return {name: scale * float(column.std(correction=0)) for name, column in columns.items()}, len(parts)


def all_but_one(parts: Sequence[FactoredMoments]) -> Iterator[list[FactoredMoments]]:
    """For each part what merges to the moments of all others: those before it and those behind it, merged already."""
    behind = [*accumulate(reversed(parts), lambda a, b: FactoredMoments.merge([a, b]))][-2::-1]
    before: list[FactoredMoments] = []
    for number, part in enumerate(parts):
        yield before + behind[number : number + 1]
        before = [FactoredMoments.merge([*before, part])]


def term_1_at(joint: JointMoments, labels: Sequence[Tensor]) -> float:
    """The entry of term 1 for a pivot and a label: the larger deviation of lp(y) / s - lp'(y) / s' over the two labels.

    s and s' are the deviations of the two models' log-ratio of the labels, whose W [2, M_i] are given.
    """
    scaled = []
    for model, ((root, _), rows) in enumerate(zip(joint.functions(), labels, strict=True)):
        log_p = root @ rows[:, : root.shape[1]].T - joint.root[:, joint.log_partition(model), None]
        scaled.append(log_p / torch.linalg.vector_norm(log_p[:, 1] - log_p[:, 0]))
    return float(torch.linalg.vector_norm(scaled[0] - scaled[1], dim=0).max())
