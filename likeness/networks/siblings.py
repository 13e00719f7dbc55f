"""Several networks evaluated together: output [P, ...] with a leading member dimension.

Each sibling is what it would be if it were trained alone: it has a random stream and a clipping of gradients of its
own. Siblings may be divided among the ranks, where each computes its own members and all hold the weights of all.
"""

import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from likeness.networks.classifier_networks import MLP, LabelNetwork, LabelTable, LinearHead
from likeness.networks.decoder import GPT2, Decoder, Llama
from likeness.networks.decoder_blocks import WeightedValues
from likeness.networks.softmax_network import SoftmaxNetwork
from likeness.networks.stacked_layers import (
    MemberDropout,
    MemberStreams,
    MemberWeightedValues,
    StackedEmbedding,
    StackedLinear,
    StackedNorm,
    stack_parameter,
)

# Made of the layers below, free vectors and functions that ignore leading dimensions.
# Subclasses may do anything in forward, so the type must match exactly.
DECODERS = (Decoder, GPT2, Llama)
STACKABLE = (MLP, LabelNetwork, LabelTable, LinearHead, *DECODERS)
_STACKED = {
    nn.Linear: StackedLinear,
    nn.Embedding: StackedEmbedding,
    nn.LayerNorm: StackedNorm,
    nn.RMSNorm: StackedNorm,
}


def stack(members: Sequence[nn.Module], input_dims: int, streams: MemberStreams) -> nn.Module:
    """One module for P ``members``.

    Members of one type in ``STACKABLE`` and of equal sizes become one module with stacked parameters [P, ...] under
    their own names, so that a step costs one batched product a layer; any others become a ``MemberList``.
    ``input_dims`` counts the dimensions of one input without the batch. The result maps a shared batch [B, ...] or one
    batch a member [P, B, ...] to [P, B, M], of tokens to [P, B, T, M]. Raises ValueError where there is no member.
    """
    if len(members) == 0:
        raise ValueError("members must hold at least one network, got none")
    if type(members[0]) not in STACKABLE or len({_architecture(member) for member in members}) > 1:
        return MemberList(members, input_dims, streams)
    stacked = copy.deepcopy(members[0])
    for name, module in members[0].named_modules():
        same = [member.get_submodule(name) for member in members]
        for kind, of_all in _STACKED.items():
            if isinstance(module, kind):
                stacked.set_submodule(name, of_all(same))
        if isinstance(module, nn.Dropout) and module.p > 0:
            stacked.set_submodule(name, MemberDropout(module.p, len(members), streams))
        elif isinstance(module, WeightedValues) and module.dropout > 0:
            stacked.set_submodule(name, MemberWeightedValues(module.dropout, streams))
    for name, _ in members[0].named_parameters(recurse=False):
        setattr(stacked, name, stack_parameter(members, name))
    return stacked


def _architecture(member: nn.Module) -> str:
    """What tells networks of a type in ``STACKABLE`` apart that cannot be stacked: layers and their sizes."""
    shapes = [(name, tuple(value.shape)) for name, value in member.state_dict().items()]
    return f"{type(member)} {member} {shapes}"


def member_state(stacked: nn.Module, index: int) -> dict[str, Tensor]:
    """The state dict of member ``index`` of what ``stack`` made."""
    if isinstance(stacked, MemberList):
        return dict(stacked.members[index].state_dict())
    return {name: value[index] for name, value in stacked.state_dict().items()}


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


def clip_member_gradients(stacks: Sequence[nn.Module], num_members: int, max_norm: float) -> Tensor:
    """Scale each member's gradients to a norm of at most ``max_norm``, as ``clip_grad_norm_`` does for one model.

    ``stacks`` are what ``likeness.networks.siblings.stack`` made. Returns the norms before clipping, [P].
    """
    # Each row's norm must round as that of the model alone: a difference in the last bit can grow to 1e-7 within a
    # hundred steps of float64.
    if any(isinstance(stack, MemberList) for stack in stacks):
        return _clip_one_by_one(stacks, num_members, max_norm)
    gradients = [p.grad for stack in stacks for p in stack.parameters() if p.grad is not None]
    of_each = [torch.linalg.vector_norm(gradient.reshape(num_members, -1), dim=1) for gradient in gradients]
    norms: Tensor = torch.linalg.vector_norm(torch.stack(of_each, dim=1), dim=1)
    factors = _factors(norms, max_norm)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *(1,) * (gradient.ndim - 1)))
    return norms


def _clip_one_by_one(stacks: Sequence[nn.Module], num_members: int, max_norm: float) -> Tensor:
    """The same where members may have parameters of their own."""
    of_stacks = zip(*(_gradients(stack, num_members) for stack in stacks), strict=True)
    members = [list(chain.from_iterable(of_member)) for of_member in of_stacks]
    norms = torch.stack([torch.nn.utils.get_total_norm(gradients) for gradients in members])
    for gradients, factor in zip(members, _factors(norms, max_norm), strict=True):
        if gradients:
            torch._foreach_mul_(gradients, factor)
    return norms


def _factors(norms: Tensor, max_norm: float) -> Tensor:
    return (max_norm / (norms + 1e-6)).clamp(max=1.0)


def _gradients(stack: nn.Module, num_members: int) -> list[list[Tensor]]:
    """Views of each member's gradients, as far as there are any."""
    if isinstance(stack, MemberList):
        return [[p.grad for p in member.parameters() if p.grad is not None] for member in stack.members]
    of_all = [p.grad.unbind() for p in stack.parameters() if p.grad is not None]
    return [[of_members[i] for of_members in of_all] for i in range(num_members)]


class OwnMembers:
    """Losses of members ``first .. first + count`` of a network of P siblings, for gradients of the whole.

    The gradients of the other members are zero. DDP averages gradients over the R ranks, so losses times R give every
    member the gradient that one process would have computed, and every rank makes the same step.
    """

    def __init__(self, network: SoftmaxNetwork, first: int, count: int, streams: MemberStreams) -> None:
        """``streams`` are those of these members alone. Raises ValueError for networks with running statistics."""
        for name, module in network.named_modules():
            if isinstance(module, _NormBase) and module.track_running_stats:
                raise ValueError(
                    f"siblings cannot be spread over ranks: {name} keeps running statistics of its own rank's members"
                )
        self.network, self.first, self.count = network, first, count
        self._losses = _Losses(_cut(network, first, count, streams))

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Negative log-likelihoods [count, B] in nats; x is [count, B, ...] or shared, [B, ...]."""
        own = {f"network.{name}": self._of(name) for name, _ in self._losses.network.named_parameters()}
        answer: Tensor = torch.func.functional_call(self._losses.train(self.network.training), own, (x, y))
        return answer

    def _of(self, name: str) -> Tensor:
        """The own members' part of a stacked parameter, or the parameter of the own member that ``name`` counts."""
        part, _, rest = name.partition(".")
        if not isinstance(getattr(self.network, part), MemberList):
            return self.network.get_parameter(name)[self.first : self.first + self.count]
        members, index, tail = rest.split(".", 2)
        return self.network.get_parameter(f"{part}.{members}.{self.first + int(index)}.{tail}")


class _Losses(nn.Module):
    def __init__(self, network: SoftmaxNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.network.nll(x, y)


def _cut(network: SoftmaxNetwork, first: int, count: int, streams: MemberStreams) -> SoftmaxNetwork:
    """The same network for some of its members; its weights are only of the right number."""
    memo: dict[int, Any] = {id(module.streams): streams for module in network.modules() if hasattr(module, "streams")}
    cut = copy.deepcopy(network, memo)
    for module in cut.modules():
        if isinstance(module, MemberList):
            module.members = module.members[first : first + count]
        elif isinstance(module, MemberDropout):
            module.num_members = count
    cut.num_members = count
    return cut
