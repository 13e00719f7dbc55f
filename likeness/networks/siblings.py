"""Several networks evaluated together: output [P, ...] with a leading member dimension.

Each sibling is what it would be if it were trained alone: it has a random stream and a clipping of gradients of its
own. Siblings may be divided among the ranks, where each computes its own members and all hold the weights of all.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from likeness.networks.classifier_networks import MLP, LabelNetwork, LabelTable, LinearHead
from likeness.networks.softmax_network import SoftmaxNetwork


class MemberStreams:
    """Stands in for torch's global generator, once for each member.

    A model trained alone seeds the global generator at the start of a step and its dropout draws from there.
    Siblings share one process: inside ``with streams.member(i, device)`` the global generator of ``device`` is
    member i's, and what is drawn there is what member i alone would draw. Until ``reseed`` is called the global
    generator is left alone.
    """

    def __init__(self) -> None:
        self._seeds: list[int] | None = None
        self._states: dict[tuple[int, torch.device], Tensor] = {}

    def reseed(self, seeds: Sequence[int]) -> None:
        """Start stream i from ``seeds[i]``, as ``torch.manual_seed`` does."""
        self._seeds = list(seeds)
        self._states.clear()

    @contextmanager
    def member(self, index: int, device: torch.device) -> Iterator[None]:
        """Draw from member ``index``'s stream on ``device`` inside the block."""
        if self._seeds is None:
            yield
            return
        generator = _global_generator(device)
        outer = generator.get_state()
        if (index, device) in self._states:
            generator.set_state(self._states[index, device])
        else:
            generator.manual_seed(self._seeds[index])
        try:
            yield
        finally:
            self._states[index, device] = generator.get_state()
            generator.set_state(outer)


def _global_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator


# Made of linear layers, dropout, free vectors and elementwise functions that ignore leading dimensions.
# Subclasses may do anything in forward, so the type must match exactly.
STACKABLE = (MLP, LabelNetwork, LabelTable, LinearHead)


def stack(members: Sequence[nn.Module], input_dims: int, streams: MemberStreams) -> nn.Module:
    """One module for P ``members``.

    Members of one type in ``STACKABLE`` and of equal sizes become one module with stacked parameters [P, ...] under
    their own names, so that a step costs one batched product a layer; any others become a ``MemberList``.
    ``input_dims`` counts the dimensions of one input without the batch. The result maps a shared batch [B, ...] or one
    batch a member [P, B, ...] to [P, B, M]. Raises ValueError where there is no member.
    """
    if len(members) == 0:
        raise ValueError("members must hold at least one network, got none")
    if type(members[0]) not in STACKABLE or len({_architecture(member) for member in members}) > 1:
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


def _architecture(member: nn.Module) -> str:
    """What tells networks of a type in ``STACKABLE`` apart that cannot be stacked: layers and their sizes."""
    shapes = [(name, tuple(value.shape)) for name, value in member.state_dict().items()]
    return f"{type(member)} {member} {shapes}"


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


def clip_member_gradients(stacks: Sequence[nn.Module], num_members: int, max_norm: float) -> Tensor:
    """Scale each member's gradients to a norm of at most ``max_norm``, as ``clip_grad_norm_`` does for one model.

    ``stacks`` are what ``likeness.networks.siblings.stack`` made. Returns the norms before clipping, [P].
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
