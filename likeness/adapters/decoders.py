"""Decoders of this project with the face that transformers gives its causal models, so that one reader reads both."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from likeness.networks.decoder import Decoder


def decoder_in(module: nn.Module) -> Decoder | None:
    """The decoder that a module is, or trains as its ``network``; None for a module of another kind."""
    network = getattr(module, "network", module)
    return network if isinstance(network, Decoder) else None


class CausalDecoder(nn.Module):
    """A decoder as :func:`likeness.adapters.causal_models.read_causal` asks a causal language model."""

    def __init__(self, network: Decoder) -> None:
        super().__init__()
        self.body = _Body(network)
        self.config = SimpleNamespace(max_position_embeddings=network.architecture.max_length)

    def forward(self, input_ids: Tensor, *, use_cache: bool = False) -> Any:
        """``logits`` [B, T, V]."""
        f, head = self.body.network(input_ids), self.get_output_embeddings()
        logits = f @ head.weight.T
        return SimpleNamespace(logits=logits if head.bias is None else logits + head.bias)

    def get_decoder(self) -> nn.Module:
        """What answers hidden states."""
        return self.body

    def get_output_embeddings(self) -> Any:
        """g as ``weight`` [V, M] and the labels' biases."""
        network = self.body.network
        return SimpleNamespace(weight=network.label_vectors(), bias=network.head_bias)

    def get_input_embeddings(self) -> nn.Module:
        """The table of tokens."""
        return self.body.network.tokens


class _Body(nn.Module):
    """The decoder; padding stands behind all tokens, where none of them sees it."""

    def __init__(self, network: Decoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, *, use_cache: bool = False) -> Any:
        return SimpleNamespace(last_hidden_state=self.network(input_ids))
