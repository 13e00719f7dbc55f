"""Gradient clipping that treats each sibling as if it were alone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from likeness.networks.stacked import MemberList


def clip_member_gradients(stacks: Sequence[nn.Module], num_members: int, max_norm: float) -> Tensor:
    """Scale each member's gradients to a norm of at most ``max_norm``, as ``clip_grad_norm_`` does for one model.

    ``stacks`` are what ``likeness.networks.stacked.stack`` made. Returns the norms before clipping, [P].
    """
    # Norms are taken member by member, in the order of the model alone: a batched reduction rounds otherwise, and
    # training can amplify a difference in the last bit to 1e-7 within a hundred steps of float64.
    members = [[g for stack in stacks for g in _gradients(stack, i)] for i in range(num_members)]
    norms = torch.stack([torch.nn.utils.get_total_norm(gradients) for gradients in members])
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for gradients, factor in zip(members, factors, strict=True):
        for g in gradients:
            g.mul_(factor)
    return norms


def _gradients(stack: nn.Module, index: int) -> list[Tensor]:
    if isinstance(stack, MemberList):
        return [p.grad for p in stack.members[index].parameters() if p.grad is not None]
    return [p.grad[index] for p in stack.parameters() if p.grad is not None]
