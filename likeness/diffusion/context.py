"""A context w that a model draws before anything else, and that its networks and its schedule are told.

Sahoo et al. 2024 (MuLAN, arXiv 2312.13236). As gamma must be known where samples are made, a schedule may depend on the
data only through w: -log p(x) <= KL(q(w | x) || p(w)) + E_q(w | x) [-log p(x | w)], where the last is the bound of the
model given w. The KL is a term of the bound that is counted once, whatever the depth.

A context that is a choice of k among m is drawn as Plackett-Luce does it: the k largest of logits + Gumbel noise, in
descending order, are drawn one after another without replacement, each by the softmax of what is left (Kool, van Hoof
and Welling 2019, arXiv 1903.06059). Networks see the choice without the order; charged is the order, against one of
which all are equally likely. That is never less than the divergence of the choice, so that the bound holds. MuLAN
charges the divergence of one softmax over m from the uniform one: with logits that are nearly 0 and a choice without
noise, nothing for log2 C(m, k) bits.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from likeness.checks import require_positive
from likeness.diffusion.hierarchy import Drawn
from likeness.diffusion.model import Context
from likeness.networks.context_networks import ContextCNN, ContextMLP

ContextNetworkFactory = Callable[[Sequence[int], int], nn.Module]


def inference_network(network: ContextNetworkFactory | None, input_shape: Sequence[int], outputs: int) -> nn.Module:
    """What the factory makes of data of this shape; None is ``ContextCNN`` for images, ``ContextMLP`` for all else."""
    usual = ContextCNN if len(input_shape) == 3 else ContextMLP
    return (network or usual)(input_shape, outputs)


class GaussianContext(Context):
    """q(w | x) = N(mean, diagonal variance) and p(w) = N(0, I).

    At the start q is p, and the KL is 0.

    Args:
        input_shape: of one sample.
        size: how many numbers w has.
        network: of x; a class or factory called with (input_shape, outputs), here 2 ``size``: mean and log variance.
            None is ``ContextCNN`` for images and ``ContextMLP`` for all else.

    Example:
        >>> import torch
        >>> from likeness.diffusion import GaussianContext
        >>> context = GaussianContext((3,), size=2)
        >>> drawn = context.draw(torch.zeros(5, 3), torch.ones(5, 2))
        >>> drawn.value.shape, drawn.kl.sum().item()
        (torch.Size([5, 2]), 0.0)
    """

    def __init__(
        self, input_shape: Sequence[int], size: int = 16, network: ContextNetworkFactory | None = None
    ) -> None:
        super().__init__()
        require_positive(size=size)
        self.size = size
        self.network = inference_network(network, input_shape, 2 * size)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(w | x), [B, size] each."""
        mean, log_variance = self._moments(x)
        return mean, torch.exp(0.5 * log_variance)

    @override
    def draw(self, x: Tensor, noise: Tensor | None = None) -> Drawn:
        mean, log_variance = self._moments(x)
        kl = 0.5 * (mean.square() + torch.expm1(log_variance) - log_variance).sum(1)
        noise = torch.zeros_like(mean) if noise is None else noise
        value = mean + torch.exp(0.5 * log_variance) * noise
        log_ratio = 0.5 * (noise.square() + log_variance - value.square()).sum(1)
        return Drawn(value, kl, log_ratio)

    @override
    def prior(self, noise: Tensor) -> Tensor:
        return noise

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.network(x).to(x.dtype).chunk(2, 1)
        return mean, log_variance


class TopKContext(Context):
    """k of ``size`` numbers are 1, the others 0: which ones, a network says of x, and at random.

    Args:
        input_shape: of one sample.
        size: m, how many numbers w has.
        k: how many of them are 1.
        network: of x; a class or factory called with (input_shape, outputs), here the logits, ``size`` of them. None
            is ``ContextCNN`` for images and ``ContextMLP`` for all else.
        divergence: what the context is charged; there is the one of the order.

    Raises ValueError for k outside 1 .. size - 1 and for another divergence.

    Example:
        >>> import torch
        >>> from likeness.diffusion import TopKContext
        >>> context = TopKContext((3,), size=4, k=2)
        >>> drawn = context.draw(torch.zeros(1, 3), torch.tensor([[0.5, -1.0, 2.0, 0.0]]))
        >>> drawn.value.tolist(), round(drawn.kl.item(), 5)
        ([[1.0, 0.0, 1.0, 0.0]], 0.0)
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        size: int = 50,
        k: int = 15,
        network: ContextNetworkFactory | None = None,
        divergence: str = "ordered",
    ) -> None:
        super().__init__()
        require_positive(size=size)
        if not 0 < k < size:
            raise ValueError(f"k must lie in 1..{size - 1} (size={size}), got {k}")
        if divergence != "ordered":
            reason = "with that of the softmax of the logits, which is of one choice, a context of k is no bound"
            raise ValueError(f"divergence must be 'ordered', got {divergence!r}: {reason}")
        self.size, self.k = size, k
        self.network = inference_network(network, input_shape, size)

    @override
    def draw(self, x: Tensor, noise: Tensor | None = None) -> Drawn:
        """As :meth:`Context.draw`; no noise: the likeliest choice, which as a function of x costs log C(m, k).

        The gradient of w is that of the perturbed logits, centred and of length 1 (MuLAN's straight-through estimate),
        that of the divergence leaves out how earlier turns decide between later ones: both are estimates with a bias.
        """
        logits = self.network(x).to(x.dtype)
        perturbed = logits if noise is None else logits + gumbel(noise)
        order = perturbed.topk(self.k, dim=1).indices
        centred = perturbed - perturbed.mean(1, keepdim=True)
        direction = F.normalize(centred, dim=1)
        w = self._k_hot(order, logits) + (direction - direction.detach())
        if noise is None:
            cost = torch.full_like(logits[:, 0], log_orders(self.size, self.k) - math.lgamma(self.k + 1))
            return Drawn(w, cost, -cost)
        log_ratio = -log_orders(self.size, self.k) - order_log_probability(logits, order)
        return Drawn(w, ordered_divergence(logits, order), log_ratio)

    @override
    def prior(self, noise: Tensor) -> Tensor:
        return self._k_hot(noise.topk(self.k, dim=1).indices, noise)

    def _k_hot(self, order: Tensor, like: Tensor) -> Tensor:
        return torch.zeros_like(like).scatter(1, order, 1.0)


def gumbel(noise: Tensor) -> Tensor:
    """Standard Gumbel numbers of standard normal ones, in the same order."""
    return -torch.log(-torch.special.log_ndtr(noise))


def order_log_probability(logits: Tensor, order: Tensor) -> Tensor:
    """log q(order), [B], of the Plackett-Luce distribution with logits [B, m]; order [B, k] holds its first k."""
    chosen = logits.gather(1, order)
    return (chosen - _left(logits, order).logsumexp(2)).sum(1)


def ordered_divergence(logits: Tensor, order: Tensor) -> Tensor:
    """An estimate of KL(q(order) || uniform) in nats, [B], of logits [B, m] and an order [B, k] drawn from q.

    It is the sum over the k turns of the divergence of that turn's softmax from the uniform one, given the turns before
    it: unbiased, and never negative.
    """
    log_q = _left(logits, order).log_softmax(2)
    information = (log_q.exp() * log_q.masked_fill(log_q.isinf(), 0.0)).flatten(1).sum(1)
    return log_orders(logits.shape[1], order.shape[1]) + information


def log_orders(m: int, k: int) -> float:
    """log(m! / (m - k)!), what an order of k among m costs at most."""
    return math.lgamma(m + 1) - math.lgamma(m - k + 1)


def _left(logits: Tensor, order: Tensor) -> Tensor:
    """[B, k, m]: the logits in each turn, -inf of what was taken before it."""
    taken = F.one_hot(order, logits.shape[1]).cumsum(1).roll(1, dims=1)
    taken[:, 0] = 0
    return logits.unsqueeze(1).masked_fill(taken.bool(), -torch.inf)
