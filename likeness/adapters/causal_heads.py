"""The head of a causal language model, found by its numbers: families name scale, soft cap and bias differently.

What enters the output embedding is probed against the logits that the model itself answers. They are f g^T + b, or a
multiple of it, which goes into f, or c tanh(. / c) of it, which is no softmax of an inner product; all else is refused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from likeness.adapters.modules import TOLERANCE, ModelError
from likeness.adapters.unnoticed import unnoticed
from likeness.networks.pretrained_text import quiet
from likeness.numerics import first_copies

AGREEMENT = 1e-4  # of 1 + the largest logit: what float32 products may differ by in another order
ROUNDINGS = 4  # of a type with fewer digits, in which logits of that size are stored
NEWTON_STEPS = 100
ROWS = 8192  # of the output embedding in float64 at a time
PROBES = (2, 8)  # windows and tokens that a head is found with


class HeadFacts(NamedTuple):
    """What the head of a causal language model is."""

    bias: bool
    scale: float  # logits are scale (f g^T + b)
    soft_cap: float | None  # logits are c tanh((f g^T + b) / c)
    tied: bool  # whether the output embedding is the input embedding
    rows: int  # of the output embedding
    tokens: int | None  # 1 + the largest id of the tokenizer; None without one
    norm: str  # the class of the last layer before the head
    duplicates: tuple[tuple[int, ...], ...]  # groups of tokens with equal rows and biases, ascending


def probe(model: Any, name: str, tokens: int | None) -> HeadFacts:
    """The facts of the head of a causal language model of transformers, found on a few of its tokens.

    Raises ModelError for a model without an output embedding, one that sees later tokens, one with fewer rows than
    ``tokens``, and as :func:`fit_head` does.
    """
    embedding = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    weight, bias = getattr(embedding, "weight", None), getattr(embedding, "bias", None)
    if not isinstance(weight, Tensor):
        raise ModelError(f"{name}, a {type(model).__name__}, has no output embedding")
    if tokens is not None and tokens > len(weight):
        raise ModelError(f"{name} has {tokens} tokens, but {len(weight)} rows in its output embedding")
    ids, other = _probes(tokens or len(weight), weight.device)
    every = torch.ones_like(ids, dtype=torch.bool)
    with quiet(), unnoticed([model]):
        with LastLayer(decoder_of(model, name)) as layers:
            f = decoded(model, name, ids, every)
        moved = decoded(model, name, other, every)
        logits = model(input_ids=ids, use_cache=False).logits
    if bool(f.isfinite().all() and moved.isfinite().all()):
        require_causal(name, f[:, :-1], moved[:, :-1])
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    scale, soft_cap = fit_head(name, f.flatten(0, 1), logits.flatten(0, 1), weight, bias)
    return HeadFacts(
        bias=bias is not None,
        scale=scale,
        soft_cap=soft_cap,
        tied=is_tied(model, weight),
        rows=len(weight),
        tokens=tokens,
        norm=layers.of(f),
        duplicates=equal_rows(weight, bias),
    )


def decoder_of(model: Any, name: str) -> nn.Module:
    """The part of the model that answers hidden states. Raises ModelError where the model has no such part."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    if not isinstance(decoder, nn.Module) or decoder is model:
        raise ModelError(f"{name}, a {type(model).__name__}, is no decoder with a head")
    return decoder


def decoded(model: nn.Module, name: str, x: Tensor, real: Tensor) -> Tensor:
    """Hidden states [B, T, M] behind the final norm, of tokens x [B, T] of which some are ``real``.

    The others come last, so that no real one sees them. Raises ModelError for a model that answers no hidden states.
    """
    mask = None if bool(real.all()) else real.long()
    answer = decoder_of(model, name)(input_ids=x.clamp(min=0), attention_mask=mask, use_cache=False)
    hidden = getattr(answer, "last_hidden_state", None)
    if not isinstance(hidden, Tensor):
        raise ModelError(f"{name} answers no last hidden state, but a {type(answer).__name__}")
    return hidden


def _probes(limit: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens spread over the vocabulary, and the same with another last one in each window."""
    ids = (torch.arange(PROBES[0] * PROBES[1]) * 2654435761 % limit).reshape(PROBES).to(device)
    other = ids.clone()
    other[:, -1] = (other[:, -1] + limit // 2) % limit
    return ids, other


def fit_head(name: str, f: Tensor, logits: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[float, float | None]:
    """The scale and the soft cap that make logits [n, V] of f [n, M], weight [V, M] and bias [V]; mostly 1 and None.

    Raises ModelError, with the residuals, where that is neither their product, a multiple of it nor a soft cap of it,
    and where logits are not finite or have other columns than the embedding has rows.
    """
    if logits.shape[1] != len(weight):
        raise ModelError(f"{name} has {logits.shape[1]} logits, but {len(weight)} rows in its output embedding")
    if f.shape[1] != weight.shape[1]:
        raise ModelError(f"{name} has last hidden states of width {f.shape[1]}, but an embedding of {weight.shape[1]}")
    for what, values in (("last hidden state", f), ("logits", logits)):
        if not bool(values.isfinite().all()):
            raise ModelError(f"{name}: the {what} of a few tokens are not finite in {values.dtype}")
    allowed = _allowed(logits)
    wanted, wide = logits.double(), f.double()
    raw = torch.cat([wide @ rows.double().T for rows in torch.split(weight, ROWS)], dim=1)
    raw = raw if bias is None else raw + bias.double()
    plain = float((raw - wanted).abs().max())
    if plain <= allowed:
        return 1.0, None
    slope = float((raw * wanted).sum() / raw.square().sum())
    scaled = float((slope * raw - wanted).abs().max())
    if scaled <= allowed and slope > 0:
        return slope, None
    cap = _soft_cap(raw, wanted)
    capped = float((cap * (raw / cap).tanh() - wanted).abs().max())
    if capped <= allowed:
        return 1.0, cap
    raise ModelError(
        f"{name} is no softmax of f(x) . g(y): its logits differ from the product with its output embedding by "
        f"{plain:.3g}, from {slope:.4g} times it by {scaled:.3g}, and from its soft cap at {cap:.4g} by {capped:.3g}"
    )


def _allowed(logits: Tensor) -> float:
    return max(AGREEMENT, ROUNDINGS * torch.finfo(logits.dtype).eps) * (1 + float(logits.abs().max()))


def _soft_cap(raw: Tensor, logits: Tensor) -> float:
    """c of c tanh(raw / c) = logits at the largest logit; increasing and concave in c, so Newton's steps settle."""
    place = logits.abs().argmax()
    r, wanted = float(raw.flatten()[place].abs()), float(logits.flatten()[place].abs())
    cap = torch.tensor(1.1 * wanted, dtype=torch.float64)
    for _ in range(NEWTON_STEPS):
        tanh = (r / cap).tanh()
        slope = tanh - r / cap * (1 - tanh.square())
        step = (cap * tanh - wanted) / slope.clamp(min=1e-12)
        cap = (cap - step).clamp(min=1e-3 * wanted, max=1e6 * wanted)
        if float(step.abs()) <= 1e-14 * float(cap):
            break
    return float(cap)


def require_causal(name: str, f: Tensor, changed: Tensor) -> None:
    """Raise ModelError where f [B, T - 1, M] of all tokens but the last moves when the last of them is changed."""
    moved = float((f - changed).abs().max())
    if not moved <= TOLERANCE * torch.finfo(f.dtype).eps * float(f.abs().max()):
        raise ModelError(
            f"{name} sees the future: another last token moves its earlier hidden states by {moved:.2g}, so it is an "
            "encoder or a masked model and no causal one"
        )


def is_tied(model: Any, weight: Tensor) -> bool:
    """Whether the output embedding lies where the input embedding lies."""
    embedding = model.get_input_embeddings()
    return embedding is not None and embedding.weight.data_ptr() == weight.data_ptr()


def equal_rows(weight: Tensor, bias: Tensor | None) -> tuple[tuple[int, ...], ...]:
    """Groups of rows [V, M] that are equal, with their biases, each group and all of them ascending."""
    rows = weight if bias is None else torch.cat([weight, bias[:, None]], dim=1)
    first = first_copies(rows)
    sizes = torch.bincount(first, minlength=len(first))
    members = (sizes[first] > 1).nonzero().flatten()
    groups: dict[int, list[int]] = {}
    for row, group in zip(members.tolist(), first[members].tolist(), strict=True):
        groups.setdefault(group, []).append(row)
    return tuple(tuple(group) for _, group in sorted(groups.items()))


class LastLayer:
    """A context in which the class of the layer that answers a decoder's last hidden state is found out."""

    def __init__(self, decoder: nn.Module) -> None:
        self._answers: list[tuple[nn.Module, Tensor]] = []
        self._layers = [layer for layer in decoder.modules() if layer is not decoder]

    def __enter__(self) -> LastLayer:
        self._hooks = [layer.register_forward_hook(self._keep) for layer in self._layers]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, layer: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self._answers.append((layer, output))

    def of(self, hidden: Tensor) -> str:
        """The class whose output shares the memory of the hidden state, a norm before others; "none" without one."""
        names = [type(layer).__name__ for layer in self._sharing(hidden)]
        return next((name for name in reversed(names) if "Norm" in name), names[-1] if names else "none")

    def norm(self, hidden: Tensor) -> nn.Module | None:
        """The norm that answered it, None without one."""
        norms = [layer for layer in self._sharing(hidden) if "Norm" in type(layer).__name__]
        return norms[-1] if norms else None

    def _sharing(self, hidden: Tensor) -> list[nn.Module]:
        return [layer for layer, output in self._answers if output.data_ptr() == hidden.data_ptr()]
