"""Distances of a student's logits from its teacher's, on which the student is trained in place of labels.

"Logit Distance Bounds Representational Similarity" (arXiv 2602.15438) compares students of KL, L1 and L2. L1 and L2
read the logits as they are, so they also see a shift of all logits of an input, which softmax ignores; the logit
distance does not, d_logit^2 <= L2, and what it bounds are the representations.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from likeness.measures.logit_distance import d_logit_squared

LossName = Literal["kl", "l1", "l2", "d_logit"]


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over inputs of KL(teacher || student) in nats, at temperature 1, from logits [N, K]."""
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True)


def l1(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean absolute difference of logits [N, K] over inputs and labels."""
    return F.l1_loss(student, teacher)


def l2(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over inputs of the squared distance of logits [N, K], summed over labels."""
    return F.mse_loss(student, teacher, reduction="none").sum(-1).mean()


# d_logit^2 rather than d_logit, whose gradient grows without bound where the two are nearly equal; as a mean over
# inputs it is also what batches estimate without bias.
LOSSES: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {"kl": kl, "l1": l1, "l2": l2, "d_logit": d_logit_squared}


def distillation_loss(name: LossName) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of this name: from logits [N, K] of teacher and student to a scalar, zero where they predict the same.

    Raises ValueError for an unknown name, listing the known ones.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown distillation loss {name!r}: the known ones are {', '.join(LOSSES)}")
    return LOSSES[name]
