"""Self-attention over the positions of an image."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.networks.dual import Dual, add_, affine
from likeness.networks.group_norm import DualGroupNorm
from likeness.networks.initialisation import dense

FEW_POSITIONS = 64  # 8x8; up to here the weights are no larger than the image


class AttentionBlock(nn.Module):
    """h + proj_out(attention(norm(h))) with one head, the identity at the start. Kingma et al. 2021."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = DualGroupNorm(groups, channels)
        self.q = dense(channels, channels)
        self.k = dense(channels, channels)
        self.v = dense(channels, channels)
        self.proj_out = dense(channels, channels, zero=True)

    def forward(self, h: Dual) -> Dual:
        """[B, C, H, W] -> [B, C, H, W]."""
        tokens = _tokens(self.norm(h))
        out = attention(affine(self.q, tokens), affine(self.k, tokens), affine(self.v, tokens))
        return _image(add_(affine(self.proj_out, out), _tokens(h)), h.value.shape)


def attention(q: Dual, k: Dual, v: Dual) -> Dual:
    """softmax(q k^T / sqrt(C)) v for [B, N, C].

    A plain pass over many positions takes torch's fused kernel, which saves the N x N weights but has no derivative in
    forward mode. Otherwise the weights are built: encoders attend at their coarsest resolution only.
    """
    plain = q.tangent is None or k.tangent is None or v.tangent is None
    if plain and q.value.shape[1] > FEW_POSITIONS:
        return Dual(F.scaled_dot_product_attention(q.value, k.value, v.value))
    scale = 1 / math.sqrt(q.value.shape[-1])
    weights = torch.softmax(scale * (q.value @ k.value.mT), dim=-1)
    if q.tangent is None or k.tangent is None or v.tangent is None:
        return Dual(weights @ v.value)
    rates = scale * (q.tangent @ k.value.mT + q.value @ k.tangent.mT)
    d_weights = weights * (rates - (weights * rates).sum(-1, keepdim=True))
    return Dual(weights @ v.value, d_weights @ v.value + weights @ v.tangent)


def _tokens(h: Dual) -> Dual:
    return Dual(h.value.flatten(2).mT, None if h.tangent is None else h.tangent.flatten(2).mT)


def _image(tokens: Dual, shape: torch.Size) -> Dual:
    def unfold(tensor: Tensor) -> Tensor:
        return tensor.mT.view(shape)

    return Dual(unfold(tokens.value), None if tokens.tangent is None else unfold(tokens.tangent))
