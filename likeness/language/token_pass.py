"""What two language models predict at the same positions, in one visit that never holds [N, V] numbers.

A block of positions has its logits in float32 (in float64 where an embedding is float64), its log-probabilities from
them, and sums over labels of everything between the two distributions; sums over positions are float64. Never from a
model's own bfloat16 logits: these change the likeliest token at a few positions in a hundred.

Labels may be restricted to a kept set T: every number is then of p(y | x, y in T), and ``log_mass`` is that of T.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.checks import require_positive
from likeness.neighbours.exact import smallest
from likeness.numerics import at_least_float32, full_precision
from likeness.similarity.cloud import blocks
from likeness.similarity.predictions import SERIES, exponential_remainder, kl

MEMORY = 2**27  # bytes beside the inputs that a visit takes
_COPIES = 2.5  # of the logits of a block that memory holds: the products and what their maxima need
QUANTITIES = (
    "nll_1",
    "nll_2",
    "accuracy_1",
    "accuracy_2",
    "mass_1",
    "mass_2",
    "log_mass_1",
    "log_mass_2",
    "agreement",
    "entropy_1",
    "entropy_2",
    "collision_1",
    "collision_2",
    "kl_12",
    "kl_21",
    "js",
    "total_variation",
    "variance_12",
    "variance_21",
)
"""What is known of a position, by name.

nll [nats], accuracy: of the next token, NaN where there is none in T. mass: p(y in T), and its logarithm. agreement:
of the likeliest labels. entropy [nats]; collision: sum p^2. kl_12, kl_21, js [nats], total_variation. variance_12: of
l_1 - l_2 under p_1, the Fisher form of 2 KL.
"""
_OF_LABELS = QUANTITIES[QUANTITIES.index("entropy_1") :]


class Head(NamedTuple):
    """The output embedding of a language model."""

    g: Tensor  # [V, M]
    bias: Tensor | None = None  # [V]
    soft_cap: float | None = None  # c of logits c tanh((f . g + b) / c), which are no inner products

    def logits(self, f: Tensor, labels: slice) -> Tensor:
        """[n, labels] of embeddings f [n, M]."""
        products = f @ self.g[labels].T
        products = products if self.bias is None else products.add_(self.bias[labels])
        return products if self.soft_cap is None else products.div_(self.soft_cap).tanh_().mul_(self.soft_cap)

    def take(self, labels: Tensor) -> "Head":
        """The rows of these labels."""
        return self._replace(g=self.g[labels], bias=None if self.bias is None else self.bias[labels])

    def to(self, dtype: torch.dtype) -> "Head":
        """In another type."""
        return self._replace(g=self.g.to(dtype), bias=None if self.bias is None else self.bias.to(dtype))


class Positions(NamedTuple):
    """Of n positions."""

    values: Tensor  # [len(QUANTITIES), n] float64
    log_partitions: Tensor  # [2, n] float64: Z of each model, over the kept labels
    top: Tensor  # [2, n, k] the likeliest labels, equally likely ones by their numbers

    def __getitem__(self, name: str) -> Tensor:  # type: ignore[override]
        """One of ``QUANTITIES``, [n]."""
        return self.values[QUANTITIES.index(name)]


@dataclass(frozen=True)
class Visit:
    """Two heads ready to be visited with blocks of positions.

    Args:
        first, second: the heads, over the same V labels; with ``kept`` labels they may have others beside these, and
            not as many.
        kept: the labels T, ascending; by default all.
        top: how many of the likeliest labels are listed.
        memory: bytes that a block's temporaries may take.
        rows, columns: of a tile of logits, in the place of what the memory allows. With fewer columns than labels all
            logits are computed twice, once for the partitions.
    """

    first: Head
    second: Head
    kept: Tensor | None = None
    top: int = 1
    memory: int = MEMORY
    rows: int | None = None
    columns: int | None = None
    _parts: tuple[tuple[Head, Head], ...] = field(init=False, repr=False)  # kept labels, and the others

    def __post_init__(self) -> None:
        require_positive(top=self.top, memory=self.memory, rows=self.rows, columns=self.columns)
        sizes = len(self.first.g), len(self.second.g)
        parts = (self.first, self.second)
        if self.kept is None:
            if sizes[0] != sizes[1]:
                raise ValueError(f"two language models need the same labels, but have {sizes[0]} and {sizes[1]}")
            object.__setattr__(self, "_parts", (parts,))
            return
        kept, others = tuple(head.take(self.kept) for head in parts), tuple(_others(head, self.kept) for head in parts)
        object.__setattr__(self, "_parts", (kept, others))

    @property
    def num_labels(self) -> int:
        """Of the labels that are kept."""
        return len(self._parts[0][0].g)

    @torch.no_grad()
    def __call__(self, f1: Tensor, f2: Tensor, next_token: Tensor) -> Iterator[Positions]:
        """Blocks of f1 [N, M], f2 [N, M'] and the next tokens [N], -1 where there is none, in their order."""
        dtype = torch.promote_types(at_least_float32(f1).dtype, at_least_float32(f2).dtype)
        parts = [(first.to(dtype), second.to(dtype)) for first, second in self._parts]
        target = self._positions_of(next_token)
        item = torch.finfo(dtype).bits // 8
        fitting = int(self.memory / (2 * _COPIES * item * self.num_labels))
        step = self.rows or max(1, min(fitting, len(f1)))
        with full_precision(f1.device):
            for start in range(0, len(f1), step):
                part = slice(start, start + step)
                yield self._block(parts, (f1[part].to(dtype), f2[part].to(dtype)), target[part])

    def _positions_of(self, next_token: Tensor) -> Tensor:
        """Where the next tokens stand among the kept labels; -1 for others."""
        if len(next_token) and int(next_token.max()) >= len(self.first.g):
            worst = int(next_token.max())
            raise ValueError(f"next token {worst} is not one of the labels 0..{len(self.first.g) - 1}")
        if self.kept is None:
            return next_token.long()
        place = torch.full((len(self.first.g) + 1,), -1, device=next_token.device)
        place[self.kept] = torch.arange(len(self.kept), device=next_token.device)
        return place[next_token.long()]

    def _block(self, parts: list[tuple[Head, Head]], f: tuple[Tensor, Tensor], target: Tensor) -> Positions:
        width = self.columns or self.num_labels
        tiles = [slice(start, min(start + width, self.num_labels)) for start in range(0, self.num_labels, width)]
        held: list[list[Tensor]] = []
        models = [_Model.empty(x, self.top) for x in f]
        for tile in tiles:
            logits = [head.logits(x, tile) for head, x in zip(parts[0], f, strict=True)]
            models = [model.seen(x, tile.start, target) for model, x in zip(models, logits, strict=True)]
            held = [logits] if len(tiles) == 1 else []
        sums = torch.zeros(len(_OF_LABELS), len(target), dtype=torch.float64, device=target.device)
        for tile in tiles:
            logits = held[0] if held else [head.logits(x, tile) for head, x in zip(parts[0], f, strict=True)]
            sums += _over_labels(*(model.log_probabilities(x) for model, x in zip(models, logits, strict=True)))
        partitions = torch.stack([model.log_partition for model in models])
        every = torch.stack(
            [
                _with_others(model.log_partition, x, others, width)
                for model, x, others in zip(models, f, parts[1] if len(parts) > 1 else (None, None), strict=True)
            ]
        )
        return self._answer(models, sums, partitions, partitions - every, target)

    def _answer(
        self, models: "list[_Model]", sums: Tensor, partitions: Tensor, mass: Tensor, target: Tensor
    ) -> Positions:
        likeliest = torch.stack([model.top[:, 0] for model in models])
        there = target >= 0
        nll = [(model.log_partition - model.next_logit).where(there, torch.nan) for model in models]
        right = [(own == target).double().where(there, torch.nan) for own in likeliest]
        agree = (likeliest[0] == likeliest[1]).double()
        names = dict(zip(_OF_LABELS, sums, strict=True))
        for own, divergence in (("variance_12", "kl_12"), ("variance_21", "kl_21")):
            names[own] = (names[own] - names[divergence].square()).clamp(min=0)  # whose mean is the divergence
        top = torch.stack([model.top for model in models])
        return Positions(
            torch.stack([*nll, *right, *mass.exp(), *mass, agree, *names.values()]),
            partitions,
            top if self.kept is None else self.kept[top],
        )


class _Model(NamedTuple):
    """Of one model's logits of a block of n positions, as far as they were seen."""

    largest: Tensor  # [n]
    total: Tensor  # [n] float64: sum of exp(logit - largest)
    next_logit: Tensor  # [n] float64
    values: Tensor  # [n, <= k] the likeliest labels' logits
    top: Tensor  # [n, <= k] these labels
    size: int  # k

    @classmethod
    def empty(cls, f: Tensor, size: int) -> "_Model":
        n = len(f)
        nothing = f.new_empty(n, 0)
        zeros = f.new_zeros(n, dtype=torch.float64)
        return cls(f.new_full((n,), -torch.inf), zeros, zeros, nothing, nothing.long(), size)

    def seen(self, logits: Tensor, start: int, target: Tensor) -> "_Model":
        """With a tile of logits [n, c], the first of which is of label ``start``."""
        size = min(self.size, logits.shape[1])
        values, top = logits.new_empty(len(logits), size), self.top.new_empty(len(logits), size)
        total = torch.zeros_like(self.total)
        for rows in blocks(logits.shape[0], logits.shape[1], logits.device):
            best, top[rows] = smallest(-logits[rows], size)
            values[rows] = -best
            total[rows] = (logits[rows] + best[:, :1]).exp_().sum(1, dtype=torch.float64)
        largest = torch.maximum(self.largest, values[:, 0])
        before, now = ((x - largest).double().exp() for x in (self.largest, values[:, 0]))
        total = self.total * before + total * now
        values, top = torch.cat([self.values, values], dim=1), torch.cat([self.top, top + start], dim=1)
        order = values.sort(dim=1, descending=True, stable=True).indices[:, : self.size]
        inside = (target >= start) & (target < start + logits.shape[1])
        own = logits.gather(1, (target - start).clamp(0, logits.shape[1] - 1)[:, None]).squeeze(1).double()
        return _Model(
            largest,
            total,
            torch.where(inside, own, self.next_logit),
            values.gather(1, order),
            top.gather(1, order),
            self.size,
        )

    @property
    def log_partition(self) -> Tensor:
        """Z [n], float64."""
        return self.largest.double() + self.total.log()

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """In the logits' type, in their place: [n, c]."""
        return logits.sub_(self.largest[:, None]).sub_(self.total.log().to(logits)[:, None])


def _over_labels(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Sums over the labels of a tile, [len(_OF_LABELS), n] in float64, from log-probabilities [n, c]."""
    parts = []
    for rows in blocks(log_p.shape[0], log_p.shape[1], log_p.device):
        parts.append(torch.stack(_sums(log_p[rows], log_q[rows])).double())
    return torch.cat(parts, dim=1)


def _sums(log_p: Tensor, log_q: Tensor) -> list[Tensor]:
    """As :func:`likeness.similarity.predictions.kl` and its like answer, with four transcendental functions a label.

    Of the two probabilities let m be the larger one and m (1 + e) the smaller, x = -log(1 + e). Then KL from the larger
    one has the term m (e + x), KL from the smaller one m (-e x - (e + x)), and JS half of
    m ((2 + e) phi - (1 + e) (e + x) + e^2 / 2) with phi = e / 2 - log(1 + e / 2): terms of second order each, none of
    which is left of a difference. Where x is small, e + x and phi are their series.
    """
    p, q, difference = log_p.exp(), log_q.exp(), log_p - log_q
    m, x = torch.maximum(p, q), difference.abs()
    e = torch.expm1(-x)
    half, small = -0.5 * e, x < SERIES
    from_larger = torch.where(small, exponential_remainder(-x), e + x)
    phi = torch.where(small, _logarithm_remainder(half), -torch.log1p(-half) - half)
    from_smaller = (e * x).add_(from_larger).neg_()
    js = phi.mul_(2 + e).addcmul_(half, half, value=2).addcmul_(from_larger, 1 + e, value=-1)
    excess = (from_larger - from_smaller).mul_((difference >= 0).to(m))  # where p is the larger one
    squares = x.square_()
    return [
        -(p * log_p).sum(1),
        -(q * log_q).sum(1),
        p.square().sum(1),
        q.square().sum(1),
        from_smaller.add_(excess).mul_(m).sum(1),
        from_larger.sub_(excess).mul_(m).sum(1),
        0.5 * js.mul_(m).sum(1),
        half.mul_(m).sum(1),
        p.mul_(squares).sum(1),
        q.mul_(squares).sum(1),
    ]


def _logarithm_remainder(y: Tensor) -> Tensor:
    """-log(1 - y) - y for 0 <= y < 5e-3, by its series."""
    series = y / 7 + 1 / 6
    for coefficient in (1 / 5, 1 / 4, 1 / 3, 1 / 2):
        series = series.mul_(y).add_(coefficient)
    return series.mul_(y).mul_(y)


def _others(head: Head, kept: Tensor) -> Head:
    """The head of the labels that are not kept."""
    rest = torch.ones(len(head.g), dtype=torch.bool, device=kept.device)
    rest[kept] = False
    return head.take(rest.nonzero().flatten())


def _with_others(log_partition: Tensor, f: Tensor, others: Head | None, width: int) -> Tensor:
    """Z over all labels, [n], from Z over those kept and the head of the others."""
    total = log_partition
    for start in range(0, 0 if others is None else len(others.g), width):
        assert others is not None
        logits = others.logits(f, slice(start, start + width))
        largest = logits.amax(1, keepdim=True)
        sums = logits.sub_(largest).exp_().sum(1, dtype=torch.float64)
        total = torch.logaddexp(total, largest.squeeze(1).double() + sums.log())
    return total


def kl_with_rest(divergence: Tensor, log_mass: Tensor, other_log_mass: Tensor) -> Tensor:
    """KL(p || q) of labels of T and one event for all others, [n], from KL given T and log p(T), log q(T).

    The chain rule without what the other labels add among themselves, so that KL(p || q) is at least this.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.4, 0.4, 0.2]).double()
        >>> mass, other = p[:2].sum().log(), q[:2].sum().log()
        >>> given = kl(p[:2].log() - mass, q[:2].log() - other)
        >>> bool((kl_with_rest(given, mass, other) - kl(p.log(), q.log())).abs() < 1e-12)
        True
    """
    masses = [
        torch.stack([mass, torch.log(-torch.expm1(mass.clamp(max=0)))], dim=-1) for mass in (log_mass, other_log_mass)
    ]
    return kl(*masses) + log_mass.exp() * divergence


def kl_of_top(log_p: Tensor, log_q: Tensor, k: int) -> Tensor:
    """KL(p || q) of the k likeliest labels of p and one event for the rest, [...], from [..., V]: a lower bound of KL.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.4, 0.4, 0.2]).log()
        >>> bool(kl_of_top(p, q, 1) <= kl_of_top(p, q, 2)), bool((kl_of_top(p, q, 2) - kl(p, q)).abs() < 1e-6)
        (True, True)
    """
    order = log_p.sort(dim=-1, descending=True, stable=True).indices
    tops = []
    for x in (log_p, log_q):
        ordered = x.gather(-1, order)
        tops.append(torch.cat([ordered[..., :k], ordered[..., k:].logsumexp(-1, keepdim=True)], dim=-1))
    return kl(*tops)
