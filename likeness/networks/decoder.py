"""Decoder-only transformers over token ids: f is the last hidden state behind the final norm, g the output embedding.

:class:`GPT2` and :class:`Llama` are two presets of one network; ``decoder_blocks`` has its parts.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from likeness.checks import require_labels
from likeness.language.loss import next_token_loss
from likeness.networks.decoder_blocks import Architecture, Block, Places, norm, places_of

INIT_STD = 0.02


class Decoder(nn.Module):
    """p(y | x) = softmax_y f(x) . g(y) of the token y that follows a context x.

    h_0 = tokens[x] (+ positions), h_l = block_l(h_{l-1}), f = norm(h_L), at all T positions of a context at once.
    Weights are drawn from torch's global generator: N(0, 0.02^2), those of layers that write into the residual stream
    N(0, 0.02^2 / 2L); biases are 0, scales of norms 1. Where g is tied to the input embeddings both are one parameter.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.tokens = nn.Embedding(a.vocab_size, a.width)
        self.positions = nn.Embedding(a.max_length, a.width) if a.positions == "learned" else None
        self.dropout = nn.Dropout(a.dropout)
        self.blocks = nn.ModuleList(Block(a) for _ in range(a.depth))
        self.norm = norm(a)
        self.unembedding = None if a.tied else nn.Parameter(torch.empty(a.vocab_size, a.width))
        self.head_bias = nn.Parameter(torch.zeros(a.vocab_size)) if a.head_bias else None
        self._draw_weights()

    def forward(self, ids: Tensor) -> Tensor:
        """f [B, T, M] of token ids [B, T].

        Of P siblings, as ``likeness.networks.siblings.stack`` makes them, f is [P, B, T, M] of ids [B, T] or [P, B, T].
        Raises ValueError for a context that is too long, and on the CPU for an id that is no token.
        """
        h, places = self._embedded(ids)
        for block in self.blocks:
            h = block(h, places)
        return self.norm(h)  # type: ignore[no-any-return]

    def layers(self, ids: Tensor) -> list[Tensor]:
        """h_0, ..., h_L and f, L + 2 times [B, T, M] or as ``forward`` answers; raises as it does."""
        h, places = self._embedded(ids)
        states = [h]
        for block in self.blocks:
            states.append(block(states[-1], places))
        return [*states, self.norm(states[-1])]

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log-likelihood of the targets [B, T] that are not -1, in nats; logits are never all held.

        Of P siblings the targets are [P, B, T] and the means [P].
        """
        f = self.forward(ids)
        return next_token_loss(f.flatten(-3, -2), self.label_vectors(), targets.flatten(-2), self.head_bias)

    def label_vectors(self) -> Tensor:
        """g [V, M], without the head's bias; of P siblings [P, V, M]."""
        return self.tokens.weight if self.unembedding is None else self.unembedding

    def document_positions(self, ids: Tensor) -> Tensor:
        """How many tokens of its document stand before each one, [B, T]; of the context where documents are not told
        apart.
        """
        return places_of(self.architecture, ids, self.tokens.weight.dtype)[0].expand(ids.shape)

    def _embedded(self, ids: Tensor) -> tuple[Tensor, Places]:
        a = self.architecture
        if ids.ndim not in (2, self.tokens.weight.ndim) or not 1 <= ids.shape[-1] <= a.max_length:
            raise ValueError(f"ids have shape {list(ids.shape)}, the network takes [B, T] with T in 1..{a.max_length}")
        require_labels(ids, a.vocab_size, wait=False)
        positions, places = places_of(a, ids, self.tokens.weight.dtype)
        h = self.tokens(ids)
        if self.positions is not None:
            at = self.positions(positions)
            h = h + (at.unsqueeze(-3) if positions.ndim == 1 else at)
        return self.dropout(h), places

    @torch.no_grad()
    def _draw_weights(self) -> None:
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=INIT_STD)
        for layer in self.modules():
            if isinstance(layer, nn.Linear) and layer.bias is not None:
                nn.init.zeros_(layer.bias)
        for name, layer in self.named_modules():
            if name.endswith(".out") and isinstance(layer, nn.Linear):  # it writes into the residual stream
                layer.weight.div_(math.sqrt(2 * self.architecture.depth))


class GPT2(Decoder):
    """Learned positions, LayerNorm and GELU, the head tied to the input embeddings. Radford et al. 2019."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        bias: bool = True,
        tied: bool = True,
        gelu: Literal["gelu", "gelu_tanh"] = "gelu",
        hidden: int | None = None,
        eps: float = 1e-5,
        head_bias: bool = False,
        separator: int | None = None,
    ) -> None:
        """
        Args:
            vocab_size: V, the tokens.
            max_length: Tokens of the longest context.
            width: M, the size of hidden states and of f and g.
            depth: Blocks.
            heads: Attention heads.
            dropout: Probability, of embeddings, attention weights, and what a block adds.
            bias: Of linear layers and norms.
            tied: Whether g is the table of input embeddings.
            gelu: Exact, or with the tanh of GPT-2's own weights.
            hidden: Width inside the MLP; 4 M by default.
            eps: Of norms.
            head_bias: Whether each label has a bias.
            separator: The token with which a document begins, where documents of a context must not see each other.
        """
        super().__init__(
            Architecture(
                vocab_size=vocab_size,
                max_length=max_length,
                width=width,
                depth=depth,
                heads=heads,
                kv_heads=heads,
                hidden=hidden or 4 * width,
                norm="layer",
                positions="learned",
                mlp=gelu,
                bias=bias,
                tied=tied,
                head_bias=head_bias,
                dropout=dropout,
                eps=eps,
                separator=separator,
            )
        )


class Llama(Decoder):
    """Rotary positions, RMSNorm and SwiGLU, without biases, the head untied. Touvron et al. 2023."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        kv_heads: int | None = None,
        dropout: float = 0.0,
        bias: bool = False,
        tied: bool = False,
        hidden: int | None = None,
        eps: float = 1e-5,
        rotary_base: float = 10_000.0,
        head_bias: bool = False,
        separator: int | None = None,
    ) -> None:
        """
        Args:
            vocab_size: V, the tokens.
            max_length: Tokens of the longest context.
            width: M, the size of hidden states and of f and g.
            depth: Blocks.
            heads: Attention heads.
            kv_heads: Heads of keys and values, which divide those of queries among them; as many by default.
            dropout: Probability, of embeddings, attention weights, and what a block adds.
            bias: Of attention's linear layers.
            tied: Whether g is the table of input embeddings.
            hidden: Width inside the MLP; 8/3 M, rounded up to a multiple of 8, by default.
            eps: Of norms.
            rotary_base: Of the angles by which positions turn queries and keys.
            head_bias: Whether each label has a bias.
            separator: The token with which a document begins, where documents of a context must not see each other.
        """
        super().__init__(
            Architecture(
                vocab_size=vocab_size,
                max_length=max_length,
                width=width,
                depth=depth,
                heads=heads,
                kv_heads=kv_heads or heads,
                hidden=hidden or 8 * -(-width // 3),
                norm="rms",
                positions="rotary",
                mlp="swiglu",
                bias=bias,
                tied=tied,
                head_bias=head_bias,
                dropout=dropout,
                eps=eps,
                rotary_base=rotary_base,
                separator=separator,
            )
        )
