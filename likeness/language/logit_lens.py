"""The logit lens: what a language model would predict if its last layers were left out.

p_l = softmax(norm(h_l) . g) with h_l the residual stream behind l blocks, normed by its own statistics, and p_L the
model's own prediction, from f as it is: norming that again, or leaving the norm out, gives other numbers.
nostalgebraist 2020, "interpreting GPT: the logit lens".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from likeness.language.document_sums import DocumentSums
from likeness.language.token_pass import Head, Visit

OF_VISIT = {"nll": "nll_2", "kl": "kl_12", "agreement": "agreement", "entropy": "entropy_2"}


@dataclass(frozen=True)
class LensLayer:
    """What the stream behind some blocks predicts; means over positions."""

    blocks: int
    """l, how many blocks lie before it; L is the model itself."""
    nll: float
    """Cross-entropy of the next token, nats."""
    kl: float
    """KL(p_L || p_l), nats: 0 at L."""
    agreement: float
    """Share of the positions where the likeliest token is the model's."""
    entropy: float
    """Nats."""
    errors: dict[str, float]
    """Standard errors, with documents as the units."""

    def row(self) -> dict[str, Any]:
        """Plain values, each beside its error."""
        values: dict[str, Any] = {"blocks": self.blocks}
        for name in OF_VISIT:
            values |= {name: getattr(self, name), f"{name}_error": self.errors.get(name)}
        return values


class LogitLens:
    """Sums over positions for L + 1 places of the residual stream.

    Args:
        head: of the model, over the labels that everything is said of.
        blocks: L.

    Example:
        >>> import torch
        >>> f, g = torch.randn(20, 3, generator=torch.manual_seed(0)), torch.eye(5, 3)
        >>> lens = LogitLens(Head(g), 1)
        >>> lens.update([torch.zeros(20, 3)], f, torch.arange(20) % 5)
        >>> first, last = lens.layers()
        >>> last.kl, round(first.entropy, 4)  # a stream of zeros knows nothing: log 5
        (0.0, 1.6094)
    """

    def __init__(self, head: Head, blocks: int) -> None:
        self.visit = Visit(head, head)
        self.sums = [DocumentSums(tuple(OF_VISIT)) for _ in range(blocks + 1)]

    def update(self, normed: Sequence[Tensor], f: Tensor, next_token: Tensor, documents: Tensor | None = None) -> None:
        """Add positions: norm(h_l) for l = 0 to L - 1 and f, all [n, M], and the next tokens [n], -1 for none.

        Raises ValueError where there is another number of states than L.
        """
        if len(normed) + 1 != len(self.sums):
            raise ValueError(f"there are {len(normed)} states before f, but {len(self.sums) - 1} blocks")
        for sums, state in zip(self.sums, [*normed, f], strict=True):
            done = 0
            for block in self.visit(f, state, next_token):
                rows = slice(done, done + block.values.shape[1])
                values = torch.stack([block[name] for name in OF_VISIT.values()])
                sums.add(values, None if documents is None else documents[rows])
                done = rows.stop

    def layers(self) -> list[LensLayer]:
        """From the embedding, l = 0, to the model itself."""
        found = []
        for number, sums in enumerate(self.sums):
            errors = {name: sums.standard_error(name) for name in OF_VISIT}
            known = {name: error for name, error in errors.items() if not math.isnan(error)}
            found.append(LensLayer(number, **{name: sums.mean(name) for name in OF_VISIT}, errors=known))
        return found
