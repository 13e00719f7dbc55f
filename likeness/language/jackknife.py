"""Standard errors of functions of moments, such as m_CCA, by the jackknife over groups of documents.

theta_g is the function without the documents of group g, and se^2 = (G - 1) / G sum_g (theta_g - mean)^2: Kott 2001,
"The delete-a-group jackknife". Choices stay as they were found, without loss to first order: of labels those of
term 1, of the span its basis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from likeness.language.pair_moments import PairMoments
from likeness.numerics import as_float64
from likeness.similarity.cca import m_cca_f
from likeness.similarity.cka import linear_cka_f
from likeness.similarity.cloud import one_pair
from likeness.similarity.logit_distance import weighted_d_logit
from likeness.similarity.softmax_models import JointMoments, SoftmaxModels

LEAST = 2  # groups


@dataclass(frozen=True)
class Fixed:
    """What is not chosen again without a group."""

    models: SoftmaxModels  # as they were given
    bases: Sequence[Tensor | None]  # of what f spans
    weights: Tensor  # [K] of the weighted d_logit
    labels: tuple[int, int] | None  # the pivot, and the label at which term 1 is taken there; None without a term 1

    def values(self, joint: JointMoments) -> dict[str, float]:
        """The functions of some moments; those that are defined."""
        spanned, found = joint.in_bases(self.bases), {}
        for name, function in (("m_cca_f", m_cca_f), ("linear_cka_f", linear_cka_f)):
            matrix, reasons, *_ = function(spanned)
            if not reasons:
                found[name] = float(matrix[0, 1])
        if bool(self.weights.any()):
            weights, pair = self.weights.to(joint.moments.mean), one_pair(0, 1, joint.moments.mean.device)
            distance, lengths = weighted_d_logit(joint, self.models.unembeddings, weights, pair)
            found["d_logit_weighted"] = float(distance)
            if float(lengths[0]) > 0:
                found["d_logit_weighted_normalised"] = float((distance / lengths[0]).square())
        if self.labels is not None:
            found["term_1"] = term_1_at(joint, self.models.unembeddings, *self.labels)
        return found


def jackknife_errors(seen: PairMoments, fixed: Fixed) -> tuple[dict[str, float], int]:
    """Standard errors by name, and over how many groups; none where fewer than two groups have documents."""
    parts = [part for part in seen.parts if float(part.n) > 0]
    if len(parts) < LEAST:
        return {}, 0
    without = []
    for group in range(len(parts)):
        without.append(fixed.values(seen.joint([part for number, part in enumerate(parts) if number != group])))
    names = set.intersection(*(set(values) for values in without))
    columns = {name: torch.tensor([values[name] for values in without], dtype=torch.float64) for name in names}
    scale = (len(parts) - 1) ** 0.5
    return {name: scale * float(column.std(correction=0)) for name, column in columns.items()}, len(parts)


def term_1_at(joint: JointMoments, unembeddings: Sequence[Tensor], pivot: int, label: int) -> float:
    """The entry of term 1 for a pivot and a label: the larger deviation of lp(y) / s - lp'(y) / s' over the two labels.

    s and s' are the deviations of the two models' log-ratio of the labels.
    """
    scaled = []
    root = joint.moments.root
    for model, g in enumerate(unembeddings):
        block, rows = joint.embedding(model), as_float64(g[[pivot, label], : joint.bare_dim(model)])
        centred = rows - g[:, : joint.bare_dim(model)].mean(0, dtype=torch.float64)
        log_p = root[:, block] @ centred.T - root[:, joint.log_partition(model), None]
        scaled.append(log_p / torch.linalg.vector_norm(log_p[:, 1] - log_p[:, 0]))
    return float(torch.linalg.vector_norm(scaled[0] - scaled[1], dim=0).max())
