"""Siblings divided among the ranks: each rank computes its own members, and all ranks hold the weights of all."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from likeness.networks import SoftmaxNetwork
from likeness.networks.member_streams import MemberStreams
from likeness.networks.stacked import MemberDropout, MemberList


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
