"""Language models in training and in comparison, against the plain way of doing the same."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.optimization import LanguageAdamW, without_decay_of_vectors
from likeness.language.loss import next_token_loss
from likeness.language.pair_moments import PairMoments
from likeness.language.token_pass import Head
from likeness.networks.decoder import GPT2, Decoder, Llama
from likeness.networks.siblings import clip_member_gradients, stack
from likeness.networks.stacked_layers import MemberStreams
from scripts.bench.timing import Contestant, Ratios, WithRatios, interleaved, peak_of

POSITIONS, WIDTH, LABELS = 2048, 576, 49_152  # of the loss and of the comparison, as in a model of 135M parameters
SMALL, USUAL = (4, 32), (16, 128)  # contexts and their tokens, of a step
MEMORY, LOSS_TIME, STEP_TIME, SIBLINGS, COMPARISON = 0.15, 1.15, 1.1, 2.0, 2.0
LOSS = f"loss, forward and backward, N = {POSITIONS:,}, M = {WIDTH}, V = {LABELS:,}"
STEP = "training step, GPT-2 of width 128, 16 x 128 tokens, V = 2,048"
LOCK_STEP = "step of 4 siblings, GPT-2 of width 32, {} tokens each, V = 2,048"
VISIT = f"two Llamas of depth 4, M = {WIDTH}, V = {LABELS:,}, 4 x 128 positions"
Part = Literal["all", "loss", "step", "siblings", "comparison"]


@dataclass
class LanguageReport(WithRatios):
    """Times, and what memory the loss takes beside its inputs and their gradients, in bytes, where it was measured."""

    memory: Mapping[str, int]

    def verdicts(self) -> list[str]:
        """A line for each ratio that is asked for."""
        if not self.memory:
            return self.ratios.verdicts()
        all_held, ours = self.memory.values()
        reached = "yes" if ours <= MEMORY * all_held else "NO"
        measured = f"{ours / all_held:.2f}: {ours / 1e6:.0f} MB of {all_held / 1e6:.0f} MB"
        line = f"memory of the loss: at most {MEMORY:g} times that of all logits is asked for: {reached} ({measured})"
        return [*self.ratios.verdicts(), line]

    def as_dict(self) -> dict[str, Any]:
        """Seconds, ratios, and bytes where they were measured."""
        return self.ratios.as_dict() | {"memory": dict(self.memory)}


def language(
    part: Part = "all", repeats: int = 5, memory: bool = True, device: Literal["cpu", "cuda"] = "cpu"
) -> LanguageReport:
    """Seconds for the loss, a training step, siblings in lock-step and a comparison, and the memory of the loss.

    Args:
        part: What is measured.
        repeats: Rounds that are timed.
        memory: Also measure the memory of the loss, in processes of their own.
        device: Where the models run; memory is that of the CPU.
    """
    parts: dict[str, Callable[[], dict[str, tuple[Contestant, Contestant]]]] = {
        "loss": lambda: {LOSS: _loss_times(POSITIONS, WIDTH, LABELS, repeats, device)},
        "step": lambda: {STEP: _step_times(128, USUAL, 2048, repeats, device)},
        "siblings": lambda: _sibling_times(repeats, device),
        "comparison": lambda: {VISIT: _comparison_times(WIDTH, (4, 128), LABELS, repeats, device)},
    }
    chosen = list(parts) if part == "all" else [part]
    comparisons = {name: pair for each in chosen for name, pair in parts[each]().items()}
    limits = {LOSS: LOSS_TIME, STEP: STEP_TIME, VISIT: COMPARISON}
    required = {LOCK_STEP.format("4 x 32"): SIBLINGS}  # at 16 x 128 a CPU computes, and has no overhead to save
    ratios = Ratios(
        f"language models, float32, {device}",
        comparisons,
        required={name: wanted for name, wanted in required.items() if name in comparisons},
        at_most={name: limit for name, limit in limits.items() if name in comparisons},
    )
    return LanguageReport(ratios, loss_memory(POSITIONS, WIDTH, LABELS) if memory and "loss" in chosen else {})


def plain_loss(f: Tensor, g: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of logits that are all held."""
    return F.cross_entropy(f @ g.mT, targets, ignore_index=-1)


def loss_memory(positions: int, width: int, labels: int) -> dict[str, int]:
    """Bytes at most beside the inputs and their gradients, with all logits and by blocks, in fresh processes."""
    loss = {"all logits": plain_loss, "by blocks": next_token_loss}
    peaks = {
        name: peak_of(functools.partial(_loss_once, of, positions, width, labels)).resident
        for name, of in {"none": _product_of_sums, **loss}.items()
    }
    return {name: peaks[name] - peaks["none"] for name in loss}


def _product_of_sums(f: Tensor, g: Tensor, targets: Tensor) -> Tensor:
    """Something with gradients by f and g that takes no memory besides."""
    return f.sum() * g.sum()


def _loss_once(loss: Callable[[Tensor, Tensor, Tensor], Tensor], positions: int, width: int, labels: int) -> None:
    loss(*_inputs(positions, width, labels, "cpu")).backward()


def _inputs(positions: int, width: int, labels: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    f, g = (torch.randn(rows, width, generator=random).div(width**0.5) for rows in (positions, labels))
    targets = torch.randint(labels, (positions,), generator=random)
    return f.to(device).requires_grad_(), g.to(device).requires_grad_(), targets.to(device)


def _loss_times(positions: int, width: int, labels: int, repeats: int, device: str) -> tuple[Contestant, Contestant]:
    inputs = _inputs(positions, width, labels, device)
    work = {"all logits": plain_loss, "by blocks": next_token_loss}
    first, second = interleaved({name: _backward(of, inputs) for name, of in work.items()}, repeats, device)
    return first, second


def _backward(loss: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: tuple[Tensor, Tensor, Tensor]) -> Any:
    def once() -> None:
        for given in inputs[:2]:
            given.grad = None
        loss(*inputs).backward()

    return once


class PlainBlock(nn.Module):
    """A pre-norm block: causal attention, then an MLP with GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        )

    def forward(self, h: Tensor) -> Tensor:
        """[B, T, M] -> [B, T, M]."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(h)).chunk(3, dim=-1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.mix(seen.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm2(h))


class PlainGPT(nn.Module):
    """A GPT-2 as one writes it down, without a choice of anything, whose logits are all held."""

    def __init__(self, vocab_size: int, length: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(PlainBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, bias=False)

    @classmethod
    def of(cls, decoder: Decoder) -> "PlainGPT":
        """With the weights of a GPT-2 of this project that has no biases and is tied."""
        a = decoder.architecture
        plain = cls(a.vocab_size, a.max_length, a.width, a.depth, a.heads)
        with torch.no_grad():
            for own, given in zip(plain.parameters(), decoder.parameters(), strict=True):
                own.copy_(given)
        return plain

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log-likelihood of the targets [B, T], in nats."""
        places = torch.arange(ids.shape[1], device=ids.device)
        h = self.norm(self.blocks(self.tokens(ids) + self.positions(places)))
        return F.cross_entropy((h @ self.tokens.weight.mT).flatten(0, 1), targets.flatten(), ignore_index=-1)


def _step_times(
    width: int, shape: tuple[int, int], vocab_size: int, repeats: int, device: str
) -> tuple[Contestant, Contestant]:
    decoder, x, y = _gpt2(0, width, shape, vocab_size), *_tokens(1, shape, vocab_size)
    work = {
        "plain GPT": _training([PlainGPT.of(decoder)], x, y, device),
        "LanguageModel's network": _training([decoder], x, y, device),
    }
    first, second = interleaved(work, repeats, device)
    return first, second


def _sibling_times(repeats: int, device: str) -> dict[str, tuple[Contestant, Contestant]]:
    found = {}
    for shape in (SMALL, USUAL):
        alone: list[Any] = [_gpt2(seed, 32, shape, 2048) for seed in range(4)]
        x, y = _tokens(4, shape, 2048)
        together = stack(copy.deepcopy(alone), 1, MemberStreams())
        work = {
            "one after another": _training(alone, x, y, device),
            "in lock-step": _training([together], x[None], y[None], device),
        }
        slow, fast = interleaved(work, repeats, device, at_least=0.3)
        found[LOCK_STEP.format(f"{shape[0]} x {shape[1]}")] = (slow, fast)
    return found


def _gpt2(seed: int, width: int, shape: tuple[int, int], vocab_size: int) -> GPT2:
    torch.manual_seed(seed)
    return GPT2(vocab_size, shape[1], width=width, depth=4, heads=4, bias=False)


def _tokens(count: int, shape: tuple[int, int], vocab_size: int) -> tuple[Tensor, Tensor]:
    """Contexts and targets [count, B, T]."""
    random = torch.Generator().manual_seed(0)
    x, y = torch.randint(vocab_size, (2, count, *shape), generator=random)
    return x, y


def _training(models: Sequence[Any], x: Tensor, y: Tensor, device: str) -> Callable[[], None]:
    """A step of each model on its own batch: forward, backward, clipping, AdamW."""
    optimizers = []
    for model in models:
        stacked = model.tokens.weight.ndim > 2 if isinstance(model, Decoder) else False
        optimizers.append(LanguageAdamW(without_decay_of_vectors(model.to(device), stacked)))
    x, y = x.to(device), y.to(device)

    def step() -> None:
        for model, optimizer, ids, targets in zip(models, optimizers, x, y, strict=True):
            optimizer.zero_grad()
            model.loss(ids, targets).sum().backward()
            if ids.ndim > 2:
                clip_member_gradients([model], len(ids), 1.0)
            else:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return step


@torch.no_grad()
def _comparison_times(
    width: int, shape: tuple[int, int], vocab_size: int, repeats: int, device: str
) -> tuple[Contestant, Contestant]:
    """Both models with their logits, and without them but with everything that a comparison gathers."""
    torch.manual_seed(0)
    models = [Llama(vocab_size, shape[1], width=width, depth=4, heads=9, kv_heads=3).to(device) for _ in range(2)]
    x, y = (tokens[0].to(device) for tokens in _tokens(1, shape, vocab_size))
    first, second = (Head(model.label_vectors()) for model in models)
    ids = torch.arange(x.numel(), device=device)

    def forward() -> None:
        for model in models:
            _ = model(x).flatten(0, 1) @ model.label_vectors().mT

    def compare() -> None:
        f1, f2 = (model(x).flatten(0, 1) for model in models)
        PairMoments(first, second).update((f1, f2), y.flatten(), ids=ids)

    found, ours = interleaved({"two forward passes": forward, "a comparison": compare}, repeats, device)
    return found, ours
