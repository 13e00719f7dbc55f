"""A small network of gamma that answers zero before it is trained."""

import torch
from torch import Tensor, nn

from likeness.diffusion.schedules import GAMMA_MAX, GAMMA_MIN


class FromZero(nn.Module):
    """theta(gamma), for all dimensions of a sample or for each.

    Args:
        dims: shape of one sample, for an answer for each dimension; none is one for all.
        width: of the hidden layer.
        gamma_min: theta sees gamma on the scale on which these limits are -1 and 1.
        gamma_max: see ``gamma_min``.
    """

    def __init__(
        self,
        dims: tuple[int, ...] | None = None,
        width: int = 64,
        gamma_min: float = GAMMA_MIN,
        gamma_max: float = GAMMA_MAX,
    ) -> None:
        super().__init__()
        self.dims = None if dims is None else tuple(dims)
        self.gamma_min, self.gamma_max = gamma_min, gamma_max
        outputs = 1 if dims is None else int(torch.Size(dims).numel())
        self.theta = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.head = nn.Linear(width, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def network(self, gamma: Tensor) -> Tensor:
        """theta of gamma [B], in the weights' precision whatever the autocast: [B], or [B, ...] for each dimension.

        Of a gamma for each dimension, [B, ...], it is theta of each, by the dimension's own answer where there is one.
        """
        time = 2 * (gamma - self.gamma_min) / (self.gamma_max - self.gamma_min) - 1
        with torch.autocast(time.device.type, enabled=False):
            hidden = self.theta(time[..., None].to(self.head.weight.dtype))
            if self.dims is None:
                return self.head(hidden)[..., 0]  # type: ignore[no-any-return]
            if gamma.dim() == 1:
                return self.head(hidden).reshape(-1, *self.dims)  # type: ignore[no-any-return]
            theta: Tensor = (hidden * self.head.weight.reshape(*self.dims, -1)).sum(-1)
            return theta + self.head.bias.reshape(self.dims)
