"""Dropout of a value and its tangent by one mask."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.networks.dual import Dual, multiply


class DualDropout(nn.Dropout):
    """While training, zero each entry with probability p and divide the others by the probability to stay."""

    def forward(self, h: Dual) -> Dual:  # type: ignore[override]
        """Both parts times one mask."""
        if not self.training or self.p == 0:
            return h
        return multiply(h, Dual(scaled_mask(h.value, self.p)))


def scaled_mask(like: Tensor, p: float) -> Tensor:
    """0 where an entry is dropped, 1 over the probability to stay elsewhere; p counts in steps of 2^-16 on the CPU."""
    if like.device.type != "cpu":
        return F.dropout(torch.ones_like(like), p)
    # torch draws one number an entry here, which costs more than the group norm beside it. 16 bits an entry are enough.
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    dropped = round(p * 2**16)
    kept = words.view(torch.int16)[: like.numel()] >= dropped - 2**15
    mask = kept.to(like.dtype).mul_(2**16 / (2**16 - dropped))
    return mask.as_strided(like.shape, torch.empty_like(like, device="meta").stride())
