"""Two vocabularies over the same texts: the tokens that both have, and the places where both have a boundary.

A position of one model is one of the other where the same bytes of the same text lie behind it. What then is compared
is p(y | x, y in T), with T the tokens of the same bytes; the events are not the same for all that: "the" next leaves
out "there" where a vocabulary has that token, and includes it where it is spelt.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.language.token_batches import PADDING, TokenBatch
from likeness.language.token_pass import Head
from likeness.language.vocabularies import Vocabulary, shared_labels

EVENTS = "token events differ: a token next stands for other continuations where the other model has longer tokens"


class SharedTokens(NamedTuple):
    """The S tokens of T in both vocabularies, ascending in the first one's ids."""

    pairs: Tensor  # [S, 2] ids

    @classmethod
    def of(cls, a: Vocabulary, b: Vocabulary, names: tuple[str, str]) -> SharedTokens:
        """Tokens of the same bytes; special ones are left out. Raises ValueError where there are no two."""
        pairs = shared_labels(a, b)
        if len(pairs) < 2:
            raise ValueError(f"{names[0]} and {names[1]} share {len(pairs)} tokens, and two at least are compared")
        return cls(pairs)

    def head(self, head: Head, model: int) -> Head:
        """The head of a model, 0 or 1, with the shared tokens first and in one order, and then the others."""
        own = self.pairs[:, model].to(head.g.device)
        rest = torch.ones(len(head.g), dtype=torch.bool, device=head.g.device)
        rest[own] = False
        return head.take(torch.cat([own, rest.nonzero().flatten()]))

    def places(self, next_tokens: tuple[Tensor, Tensor]) -> Tensor:
        """Which of T [n] is next in both models, of next tokens [n] of each; -1 where these are not the same bytes."""
        found = [_place_of(own.cpu(), self.pairs[:, model]) for model, own in enumerate(next_tokens)]
        return found[0].where(found[0] == found[1], -1)


def _place_of(tokens: Tensor, ids: Tensor) -> Tensor:
    place = torch.full((int(max(tokens.max(), ids.max())) + 1,), -1)
    place[ids] = torch.arange(len(ids))
    return place[tokens]


def boundaries(tokens: Sequence[int], vocabulary: Vocabulary, text: str) -> list[int] | None:
    """How many bytes of the text lie behind each token; None where the tokens' bytes are not those of the text.

    A space that a tokenizer puts before a text counts for nothing.

    Example:
        >>> boundaries([0, 1, 1], Vocabulary({0: b"ab", 1: b"c"}), "abcc")
        [2, 3, 4]
    """
    parts = [vocabulary.tokens.get(token, b"") for token in tokens]
    written, wanted = b"".join(parts), text.encode()
    lead = 1 if written == b" " + wanted else 0
    if not lead and written != wanted:
        return None
    return [max(0, end - lead) for end in accumulate(map(len, parts))]


def common_boundaries(a: Sequence[int], b: Sequence[int]) -> tuple[list[int], list[int]]:
    """Numbers of the tokens of two sequences behind which equally many bytes lie, ascending, some but not all.

    A character that is several tokens, none of which ends a byte of its own, has its boundary behind the last.

    Example:
        >>> common_boundaries([2, 3, 4, 7], [3, 5, 7])
        ([1], [0])
    """
    places = [{end: number for number, end in enumerate(ends)} for ends in (a, b)]
    both = sorted((places[0].keys() & places[1].keys()) - {0, *a[-1:], *b[-1:]})
    return [places[0][end] for end in both], [places[1][end] for end in both]


def only_at(batch: TokenBatch, wanted: dict[int, set[int]]) -> TokenBatch:
    """The batch with a y at the wanted positions alone, by document; of later windows of a document at none."""
    y = torch.full_like(batch.y, PADDING)
    for row, (document, start) in enumerate(zip(batch.id.tolist(), batch.start.tolist(), strict=True)):
        columns = [t for t in wanted.get(document, ()) if start == 0 and t < batch.y.shape[1]]
        y[row, columns] = batch.y[row, columns]
    return batch._replace(y=y)
