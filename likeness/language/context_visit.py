"""One visit of all contexts and labels in blocks: what is said of p(. | x) without [N, V] numbers in memory.

Nielsen, Macocco & Baroni 2025 (arXiv 2502.10201) write all of them into files. Here a block of logits is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.numerics import at_least_float32, full_precision

BLOCK = 2**21  # logits in memory at a time


class ContextVisit(NamedTuple):
    """Of N contexts, in float64."""

    log_partition: Tensor  # [N]
    square_sum: Tensor  # [N], sum_y p(y | x)^2
    next_log_probability: Tensor | None  # [N]
    concentration: dict[float, float]  # Var(d^q) / E(d^q)^2 over all pairs, d = 1 - p

    def l2_to_uniform(self, labels: int) -> Tensor:
        """|p(. | x) - 1 / V| [N]: its square is sum p^2 - 1 / V."""
        return (self.square_sum - 1 / labels).clamp(min=0).sqrt()


def with_bias(f: Tensor, g: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """f [N, M] and g [V, M], or with a bias [V] f and a constant 1, and g and the bias."""
    if bias is None:
        return f, g
    return torch.cat([f, torch.ones_like(f[:, :1])], dim=1), torch.cat([g, bias[:, None].to(g)], dim=1)


def logit_blocks(f: Tensor, g: Tensor, soft_cap: float | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Contexts and their logits [n, V], a few rows at a time, in the type of f and g but at least float32."""
    f, g = at_least_float32(f), at_least_float32(g)
    size = max(1, BLOCK // len(g))
    for start in range(0, len(f), size):
        rows = slice(start, min(start + size, len(f)))
        with full_precision(f.device):
            logits = f[rows] @ g.T
        yield rows, logits if soft_cap is None else soft_cap * (logits / soft_cap).tanh()


@torch.no_grad()
def visit_contexts(
    f: Tensor,
    g: Tensor,
    next_tokens: Tensor | None = None,
    *,
    soft_cap: float | None = None,
    powers: Sequence[float] = (),
) -> ContextVisit:
    """Partition, square sum and concentration of p = softmax of f [N, M] . g [V, M], summed in float64.

    q = 1 in closed form is E (sum p^2 - 1 / V) / V / (1 - 1 / V)^2, whatever else is asked for. Raises ValueError for
    logits that are not finite.
    """
    partition, squares, next_logits = (torch.empty(len(f), dtype=torch.float64) for _ in range(3))
    sums = {q: torch.zeros(2, dtype=torch.float64) for q in powers if q != 1}
    for rows, logits in logit_blocks(f, g, soft_cap):
        p = logits.double()
        z = p.logsumexp(1)
        if next_tokens is not None:
            next_logits[rows] = p.gather(1, next_tokens[rows].long().to(p.device)[:, None])[:, 0].cpu()
        p.sub_(z[:, None]).exp_()
        partition[rows], squares[rows] = z.cpu(), p.square().sum(1).cpu()
        for q, total in sums.items():
            lacking = torch.log1p(-p.clamp(max=1)).mul_(q).expm1_()  # d^q - 1, small where p is
            total += torch.stack([lacking.sum(), lacking.square_().sum()]).cpu()
    if not bool(partition.isfinite().all()):
        row = int((~partition.isfinite()).nonzero()[0])
        raise ValueError(f"the logits of context {row} are not finite")
    found = {q: _concentration(total / (len(f) * len(g))) for q, total in sums.items()}
    if 1 in powers:
        found[1] = float((squares - 1 / len(g)).mean()) / len(g) / (1 - 1 / len(g)) ** 2
    log_p = None if next_tokens is None else next_logits - partition
    return ContextVisit(partition, squares, log_p, {q: found[q] for q in powers})


def _concentration(moments: Tensor) -> float:
    """Var / mean^2 of d^q, from the mean and mean square of d^q - 1."""
    mean, square = moments.tolist()
    return float((square - mean**2) / (1 + mean) ** 2)
