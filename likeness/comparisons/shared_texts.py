"""The positions at which two language models with other tokenizers have read the same text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.adapters.causal_scorers import CHUNK, TokenScorer, text_order, window_length
from likeness.adapters.texts import Texts
from likeness.language.shared_tokens import SharedTokens, boundaries, common_boundaries, only_at
from likeness.language.token_batches import (
    PADDING,
    TEXT,
    Choice,
    TokenBatch,
    TokenPositions,
    encoded,
    joined_positions,
    require_texts,
)

Aligned = tuple[tuple[Tensor, Tensor], Tensor, Tensor, Tensor]
"""f of both models [n, M], [n, M'], the next token among those shared, -1 for none, document, id."""


class _Document(NamedTuple):
    """One text, by both tokenizers."""

    ends: tuple[list[int], list[int]]  # bytes behind each token
    places: tuple[list[int], list[int]]  # t, in the windows, of the common boundaries


class SharedStream:
    """Goes through the texts once; afterwards it knows the bits per byte of both models, and what was left out.

    Only the first window of a text counts, in which both models have seen all of it before a position.
    """

    def __init__(self, first: TokenScorer, second: TokenScorer, tokens: SharedTokens, texts: Texts) -> None:
        self.models, self.tokens, self.texts = (first, second), tokens, texts
        self.vocabularies = [model.vocabulary for model in self.models if model.vocabulary is not None]
        self.length = texts.length or window_length([first, second])
        self.behind = [int(model.prefix(texts.prefix) is not None) for model in self.models]  # tokens before a text
        self.bits, self.bytes = [0.0, 0.0], [0, 0]
        self.unspelt = 0
        self.read = self.texts.read()
        require_texts(self.read)

    def __len__(self) -> int:
        """Parts in which the texts are read, where none are left over behind the last position asked for."""
        return -(-len(self.read) // CHUNK)

    def __iter__(self) -> Iterator[Aligned]:
        texts = self.read
        order, choice = text_order(texts, self.texts.seed), Choice(self.texts.positions)
        rank = order.argsort()
        for some in torch.split(order, CHUNK):
            documents = self._documents(some.tolist(), texts)
            windows = [self._windows(model, some, texts) for model in (0, 1)]
            wanted = {number: set(document.places[0]) for number, document in documents.items()}
            chosen = list(choice.of([only_at(batch, wanted) for batch in windows[0]], rank))
            if chosen:
                yield self._aligned(documents, windows, chosen)
            if choice.is_full:
                return
        if not choice.chosen:
            names = " and ".join(model.name for model in self.models)
            raise ValueError(f"the tokenizers of {names} have no boundary in common in {self.texts.source}")

    def bits_per_byte(self) -> tuple[float, float]:
        """Of each model, over the first windows of the texts that were read."""
        one, other = (bits / max(1, count) for bits, count in zip(self.bits, self.bytes, strict=True))
        return one, other

    def notes(self) -> tuple[str, ...]:
        """What was left out."""
        if not self.unspelt:
            return ()
        return (f"{self.unspelt} texts are left out, whose tokens do not spell their bytes",)

    def _documents(self, numbers: list[int], texts: list[str]) -> dict[int, _Document]:
        chosen = [texts[number] for number in numbers]
        ids = [list(encoded(model.tokenizer, chosen, None)) for model in self.models]
        found = {}
        for number, text, *tokens in zip(numbers, chosen, *ids, strict=True):
            ends = [boundaries(own, known, text) for own, known in zip(tokens, self.vocabularies, strict=True)]
            if ends[0] is None or ends[1] is None:
                self.unspelt += 1
                continue
            places = zip(*common_boundaries(ends[0], ends[1]), strict=True)
            moved = [[token + behind for token, behind in zip(place, self.behind, strict=True)] for place in places]
            inside = [place for place in moved if max(place) < self.length]
            found[number] = _Document((ends[0], ends[1]), ([a for a, _ in inside], [b for _, b in inside]))
        return found

    def _windows(self, model: int, some: Tensor, texts: list[str]) -> list[TokenBatch]:
        """The first windows of some of the texts."""
        batches = self.models[model].batches(
            [texts[number] for number in some.tolist()],
            prefix=self.texts.prefix,
            length=self.length,
            batch_size=self.texts.batch_size,
        )
        first = (TokenBatch(*(field[batch.start == 0] for field in batch)) for batch in batches)
        return [batch._replace(id=some[batch.id]) for batch in first if len(batch.x)]

    def _aligned(
        self, documents: dict[int, _Document], windows: list[list[TokenBatch]], chosen: list[TokenBatch]
    ) -> Aligned:
        of_first: dict[int, set[int]] = {}
        for batch in chosen:
            rows, columns = (batch.y != PADDING).nonzero().T
            for number, t in zip(batch.id[rows].tolist(), columns.tolist(), strict=True):
                of_first.setdefault(number, set()).add(t)
        of_second = {
            number: {b for a, b in zip(*documents[number].places, strict=True) if a in own}
            for number, own in of_first.items()
        }
        positions = [
            self._positions(model, documents, windows[model], own) for model, own in enumerate((of_first, of_second))
        ]
        f = [model.bare(own.f) for model, own in zip(self.models, positions, strict=True)]
        first, second = positions
        places = self.tokens.places((first.next, second.next)).to(f[0].device)
        return (f[0], f[1].to(f[0].device)), places, first.document, first.document * TEXT + first.t

    def _positions(
        self, model: int, documents: dict[int, _Document], windows: list[TokenBatch], wanted: dict[int, set[int]]
    ) -> TokenPositions:
        """The wanted positions in the order of documents; all of the texts' are scored on the way."""
        found, own = [], self.models[model]
        for batch in windows:
            known = torch.tensor([number in documents for number in batch.id.tolist()])
            if not bool(known.any()):
                continue
            batch = TokenBatch(*(field[known] for field in batch))
            every = own.predictions(batch)
            self.bits[model] -= float(own.next_log_probabilities(every).double().sum()) / math.log(2)
            for number, predicted in zip(batch.id.tolist(), (batch.y != PADDING).sum(1).tolist(), strict=True):
                ends = documents[number].ends[model]
                before = self.behind[model]
                self.bytes[model] += ends[predicted - before] - (0 if before else ends[0])
            places = zip(every.document.tolist(), every.t.tolist(), strict=True)
            found.append(
                every.take(torch.tensor([t in wanted.get(number, ()) for number, t in places]).nonzero().flatten())
            )
        joined = joined_positions(found)
        return joined.take((joined.document * TEXT + joined.t).argsort())
