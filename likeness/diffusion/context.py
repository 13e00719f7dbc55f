"""A context w that a model draws before anything else, and that its networks and its schedule are told.

Sahoo et al. 2024 (MuLAN, arXiv 2312.13236). As gamma must be known where samples are made, a schedule may depend on the
data only through w: -log p(x) <= KL(q(w | x) || p(w)) + E_q(w | x) [-log p(x | w)], where the last is the bound of the
model given w. The KL is a term of the bound that is counted once, whatever the depth.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.checks import require_positive
from likeness.diffusion.hierarchy import Drawn
from likeness.diffusion.model import Context
from likeness.networks.context_networks import ContextCNN, ContextMLP

ContextNetworkFactory = Callable[[Sequence[int], int], nn.Module]


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
        usual = ContextCNN if len(input_shape) == 3 else ContextMLP
        self.network = (network or usual)(input_shape, 2 * size)

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
