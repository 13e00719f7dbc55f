"""Several networks of one architecture, evaluated together: output [P, ...] with a leading member dimension."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.networks.heads import LabelTable, LinearHead
from likeness.networks.member_streams import MemberStreams
from likeness.networks.mlp import MLP, LabelNetwork

# Made of linear layers, dropout, free vectors and elementwise functions that ignore leading dimensions.
# Subclasses may do anything in forward, so the type must match exactly.
STACKABLE = (MLP, LabelNetwork, LabelTable, LinearHead)


def stack(members: Sequence[nn.Module], input_dims: int, streams: MemberStreams) -> nn.Module:
    """One module for P ``members`` of equal architecture.

    Members of a type in ``STACKABLE`` become one module with stacked parameters [P, ...] under their own names, so
    that a step costs one batched product a layer; any others become a ``MemberList``. ``input_dims`` counts the
    dimensions of one input without the batch. The result maps a shared batch [B, ...] or one batch a member
    [P, B, ...] to [P, B, M]. Raises ValueError where there is no member.
    """
    if len(members) == 0:
        raise ValueError("members must hold at least one network, got none")
    if type(members[0]) not in STACKABLE:
        return MemberList(members, input_dims, streams)
    stacked = copy.deepcopy(members[0])
    for name, module in members[0].named_modules():
        same = [member.get_submodule(name) for member in members]
        if isinstance(module, nn.Linear):
            stacked.set_submodule(name, StackedLinear(same))
        elif isinstance(module, nn.Dropout) and module.p > 0:
            stacked.set_submodule(name, MemberDropout(module.p, len(members), streams))
    for name, _ in members[0].named_parameters(recurse=False):
        setattr(stacked, name, _stack_parameter(members, name))
    return stacked


def member_state(stacked: nn.Module, index: int) -> dict[str, Tensor]:
    """The state dict of member ``index`` of what ``stack`` made."""
    if isinstance(stacked, MemberList):
        return dict(stacked.members[index].state_dict())
    return {name: value[index] for name, value in stacked.state_dict().items()}


class StackedLinear(nn.Module):
    """P linear layers as one batched product: [B, in] or [P, B, in] -> [P, B, out]."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.weight = _stack_parameter(layers, "weight")
        self.bias = None if layers[0].bias is None else _stack_parameter(layers, "bias")

    def forward(self, x: Tensor) -> Tensor:
        """Apply layer p to x[p], or to x where it has no member dimension."""
        if x.dim() == 2:
            x = x.expand(len(self.weight), -1, -1)
        return _BatchedLinear.apply(x, self.weight, self.bias)  # type: ignore[no-any-return]


class _BatchedLinear(torch.autograd.Function):
    """x W^T + b for each p, with the products that ``nn.Linear`` makes for one.

    Autograd's own gradient of ``bmm`` is the transpose of the product below. It rounds otherwise, and Adam turns that
    into a drift along the directions that leave p(y | x) as it is, where a gradient is nothing but rounding.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        if bias is None:
            return _products(x, weight.mT)
        if _is_tiny(x, weight.mT):
            return torch.stack([torch.addmm(*parts) for parts in zip(bias, x, weight.mT, strict=True)])
        return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        dy, x = dy.to(weight.dtype), x.to(weight.dtype)  # autocast may have made them smaller
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            _products(dy, weight) if wants_x else None,
            _products(dy.mT, x) if wants_weight else None,
            dy.sum(1) if wants_bias else None,
        )


def _products(a: Tensor, b: Tensor) -> Tensor:
    """a[p] @ b[p] for each p."""
    if _is_tiny(a, b):
        return torch.stack([left @ right for left, right in zip(a, b, strict=True)])
    return torch.bmm(a, b)


def _is_tiny(a: Tensor, b: Tensor) -> bool:
    # For fewer multiplications than this torch.bmm has a kernel of its own on the CPU, which rounds otherwise than mm.
    return a.device.type == "cpu" and a.shape[1] * a.shape[2] * b.shape[2] < 400


class MemberDropout(nn.Module):
    """Dropout on [P, ...] whose mask p is the one that member p alone would draw."""

    def __init__(self, p: float, num_members: int, streams: MemberStreams) -> None:
        super().__init__()
        self.p = p
        self.num_members = num_members
        self.streams = streams

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the members' masks while training."""
        if not self.training:
            return x
        ones = torch.ones_like(x[0])
        masks = []
        for i in range(self.num_members):
            with self.streams.member(i, x.device):
                masks.append(F.dropout(ones, self.p))
        return x * torch.stack(masks)


class MemberList(nn.Module):
    """P networks one after another, for architectures that have no batched product."""

    def __init__(self, members: Sequence[nn.Module], input_dims: int, streams: MemberStreams) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.input_dims = input_dims
        self.streams = streams

    @property
    def bias(self) -> Tensor | None:
        """The members' biases [P, K], where they are heads that have one."""
        biases = [bias for member in self.members if isinstance(bias := getattr(member, "bias", None), Tensor)]
        return torch.stack(biases) if biases else None

    def forward(self, *inputs: Tensor) -> Tensor:
        """Stack what the members answer, each on its own slice where ``inputs`` have a member dimension."""
        outputs = []
        for i, member in enumerate(self.members):
            own = [x if x.dim() == self.input_dims + 1 else x[i] for x in inputs]
            known = own[0] if own else next(member.parameters(), torch.empty(0))
            with self.streams.member(i, known.device):
                outputs.append(member(*own))
        return torch.stack(outputs)


def _stack_parameter(members: Sequence[nn.Module], name: str) -> nn.Parameter:
    return nn.Parameter(torch.stack([member.get_parameter(name).detach() for member in members]))
