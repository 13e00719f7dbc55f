"""The blocks of decoder-only transformers: norms, positions, causal attention, and the two kinds of MLP.

As in GPT-2 (Radford et al. 2019), with LayerNorm (Ba et al. 2016) and GELU (Hendrycks & Gimpel 2016), or as in Llama
(Touvron et al. 2023), with RMSNorm (Zhang & Sennrich 2019), rotary positions (Su et al. 2021), SwiGLU (Shazeer 2020)
and fewer key-value heads than heads (Ainslie et al. 2023).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.checks import require_one_of, require_positive, require_probability

NORMS = ("layer", "rms")
POSITIONS = ("learned", "rotary")
MLPS = ("gelu", "gelu_tanh", "swiglu")


@dataclass(frozen=True)
class Architecture:
    """What a decoder is made of. Raises ValueError, naming the value, for what cannot be."""

    vocab_size: int  # V
    max_length: int  # the longest context
    width: int  # M, the size of hidden states
    depth: int  # L, blocks
    heads: int  # H, of queries
    kv_heads: int  # of keys and values, each shared by H / kv_heads heads of queries
    hidden: int  # width inside the MLP
    norm: Literal["layer", "rms"]
    positions: Literal["learned", "rotary"]
    mlp: Literal["gelu", "gelu_tanh", "swiglu"]
    bias: bool  # of linear layers and LayerNorm; a SwiGLU never has one
    tied: bool  # whether g is the table of input embeddings
    head_bias: bool = False  # whether each label has a bias
    dropout: float = 0.0  # of embeddings, attention weights, and what a block adds
    eps: float = 1e-5  # of norms
    rotary_base: float = 10_000.0
    separator: int | None = None  # the token with which documents begin that must not see each other

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "max_length", "width", "depth", "heads", "kv_heads", "hidden")
        require_positive(**{name: getattr(self, name) for name in sizes})
        for name, choices in (("norm", NORMS), ("positions", POSITIONS), ("mlp", MLPS)):
            require_one_of(getattr(self, name), choices, name)
        require_probability("dropout", self.dropout)
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of the {self.heads} heads, got {self.width}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads must be a multiple of the {self.kv_heads} kv_heads, got {self.heads}")
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(f"rotary positions need heads of an even size, got {self.head_dim}")
        if self.separator is not None and not 0 <= self.separator < self.vocab_size:
            raise ValueError(f"separator must lie in 0..{self.vocab_size - 1}, got {self.separator}")

    @property
    def head_dim(self) -> int:
        """The size of a head."""
        return self.width // self.heads


class Places(NamedTuple):
    """Where the tokens of a batch stand, the same for all blocks."""

    rotary: tuple[Tensor, Tensor] | None  # cosines and sines, [T, head_dim] or [..., B, 1, T, head_dim]
    mask: Tensor | None  # [..., B, 1, T, T], which positions are seen from which; None for all earlier ones


def rotary_table(positions: Tensor, head_dim: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., head_dim] of the angles by which position t turns pair i of a head: t base^(-2i/d).

    Pair i are coordinates i and i + d / 2, as in the files of Hugging Face, not 2 i and 2 i + 1.
    """
    steps = torch.arange(0, head_dim, 2, dtype=dtype, device=positions.device)
    angles = positions.to(dtype).unsqueeze(-1) / base ** (steps / head_dim)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Heads x [..., H, T, d] with each pair of coordinates turned by its position's angle; lengths stay."""
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


class WeightedValues(nn.Module):
    """softmax(q k^T / sqrt(d)) v over the positions that the mask shows, by default those up to each one's own."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q [..., B, H, T, d], k and v of H heads or fewer, mask [B, 1, T, T] or one for each q -> as q."""
        many = q.shape[:-3]
        if mask is not None:
            mask = mask.expand(*many, *mask.shape[-3:]).flatten(0, -4)
        dropout = self.dropout if self.training else 0.0
        # Kernels that hold no T x T weights take four dimensions.
        seen = F.scaled_dot_product_attention(
            *(q.flatten(0, -4), k.flatten(0, -4), v.flatten(0, -4), mask, dropout),
            is_causal=mask is None,
            enable_gqa=q.shape[-3] != k.shape[-3],
        )
        return seen.view(*many, *seen.shape[1:])


class CausalAttention(nn.Module):
    """Each token's values of the tokens up to its own, weighted in H heads, and all heads read together."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.head_dim = a.head_dim
        self.sizes = [a.width, a.kv_heads * a.head_dim, a.kv_heads * a.head_dim]
        self.qkv = nn.Linear(a.width, sum(self.sizes), a.bias)
        self.weigh = WeightedValues(a.dropout)
        self.out = nn.Linear(a.width, a.width, a.bias)

    def forward(self, h: Tensor, places: Places) -> Tensor:
        """[..., B, T, M] -> [..., B, T, M]."""
        parts = self.qkv(h).split(self.sizes, dim=-1)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(-3, -2) for part in parts)
        if places.rotary is not None:
            q, k = rotate(q, places.rotary), rotate(k, places.rotary)
        answer: Tensor = self.out(self.weigh(q, k, v, places.mask).transpose(-3, -2).flatten(-2))
        return answer


class GeluMLP(nn.Module):
    """out(GELU(up(h))), the GELU exact or as GPT-2's approximation by a tanh."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.up = nn.Linear(a.width, a.hidden, a.bias)
        self.gelu = nn.GELU("tanh" if a.mlp == "gelu_tanh" else "none")
        self.out = nn.Linear(a.hidden, a.width, a.bias)

    def forward(self, h: Tensor) -> Tensor:
        """[..., M] -> [..., M]."""
        answer: Tensor = self.out(self.gelu(self.up(h)))
        return answer


class SwiGLU(nn.Module):
    """out(silu(gate(h)) * up(h)), without biases."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.gate = nn.Linear(a.width, a.hidden, bias=False)
        self.up = nn.Linear(a.width, a.hidden, bias=False)
        self.out = nn.Linear(a.hidden, a.width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """[..., M] -> [..., M]."""
        answer: Tensor = self.out(F.silu(self.gate(h)) * self.up(h))
        return answer


class Block(nn.Module):
    """h <- h + attention(norm1(h)), then h <- h + mlp(norm2(h))."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.norm1 = norm(a)
        self.attention = CausalAttention(a)
        self.norm2 = norm(a)
        self.mlp = SwiGLU(a) if a.mlp == "swiglu" else GeluMLP(a)
        self.dropout = nn.Dropout(a.dropout)

    def forward(self, h: Tensor, places: Places) -> Tensor:
        """[..., B, T, M] -> [..., B, T, M]."""
        h = h + self.dropout(self.attention(self.norm1(h), places))
        return h + self.dropout(self.mlp(self.norm2(h)))  # type: ignore[no-any-return]


def norm(a: Architecture) -> nn.Module:
    """LayerNorm, or RMSNorm, which torch computes in float32 also for inputs of fewer digits."""
    if a.norm == "rms":
        return nn.RMSNorm(a.width, a.eps)
    return nn.LayerNorm(a.width, a.eps, bias=a.bias)


def places_of(a: Architecture, ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Places]:
    """The positions of tokens [..., B, T], [T], or [..., B, T] where documents are kept apart, and what blocks need.

    A separator begins a document: positions count from it, and nothing before it is seen from there on.
    """
    positions, mask = torch.arange(ids.shape[-1], device=ids.device), None
    if a.separator is not None:
        begins = ids == a.separator
        start = torch.where(begins, positions, 0).cummax(-1).values
        mask = (start.unsqueeze(-2) == start.unsqueeze(-1)).tril().unsqueeze(-3)
        positions = positions - start
    if a.positions == "learned":
        return positions, Places(None, mask)
    of_heads = positions if positions.ndim == 1 else positions.unsqueeze(-2)
    wide = torch.promote_types(dtype, torch.float32)
    return positions, Places(rotary_table(of_heads, a.head_dim, a.rotary_base, wide), mask)
