"""Texts as windows of tokens: what is predicted from what, each token once, and the positions that count.

Windows are padded on the right, by -1 and not by a token: a padding token may occur in texts as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from likeness.checks import require_positive

PADDING = -1  # beyond the end of a window's tokens, and as y where nothing is predicted
TEXT = 2**32  # more than the tokens of one
_SPREAD = -7046029254386353131  # an odd number, by which hashes of prefixes are spread over 64 bits


class TokenBatch(NamedTuple):
    """Windows of documents."""

    x: Tensor  # [B, T] int64 tokens, PADDING beyond a window's end
    y: Tensor  # [B, T] int64 next tokens, PADDING where nothing is predicted or another window predicts it
    id: Tensor  # [B] int64 numbers of the documents
    start: Tensor  # [B] int64 position of the window's first token in its document


class TokenPositions(NamedTuple):
    """The positions of a batch that have a next token, in its order."""

    f: Tensor  # [n, M]
    next: Tensor  # [n] int64
    document: Tensor  # [n] int64
    t: Tensor  # [n] int64, in the document, with its prefix
    prefix: Tensor  # [n] int64, a hash of the window's tokens up to here: equal prefixes have equal f

    def take(self, rows: Tensor) -> TokenPositions:
        """Some of the positions."""
        return TokenPositions(*(field[rows] for field in self))


def lengths_of(x: Tensor) -> Tensor:
    """Numbers of tokens [B] of windows x [B, T]. Raises ValueError where padding stands before a token."""
    lengths = (x != PADDING).sum(1)
    before_end = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
    if bool(((x == PADDING) & before_end).any()):
        raise ValueError("windows are padded on the right, but one has padding before a token")
    return lengths


def prefix_hashes(x: Tensor) -> Tensor:
    """Hashes [B, T] of the tokens of each window up to each position."""
    hashes, state = torch.empty_like(x), torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        state = (state + x[:, t] + 2) * _SPREAD  # wraps around in 64 bits
        state = state ^ (state >> 29)
        hashes[:, t] = state
    return hashes


def windows(documents: Iterable[Sequence[int]], length: int, stride: int | None = None) -> Iterator[TokenBatch]:
    """The windows of each document, as batches of one.

    Each has at most ``length`` tokens; the next begins ``stride`` tokens later, by default ``length``, and of it only
    the predictions count that the ones before did not make, so that every token after a document's first is predicted
    once. Raises ValueError for a stride that is not 1 to ``length``, and for a document that predicts nothing.
    """
    stride = length if stride is None else stride
    require_positive(length=length, stride=stride)
    if stride > length:
        raise ValueError(f"a stride of {stride} leaves tokens out between windows of {length}")
    for number, document in enumerate(documents):
        tokens = torch.as_tensor(document, dtype=torch.long)
        if len(tokens) < 2:
            raise ValueError(f"text {number} has {len(tokens)} tokens with its prefix, so that nothing is predicted")
        yield from _windows_of(tokens, number, length, stride)


def _windows_of(tokens: Tensor, number: int, length: int, stride: int) -> Iterator[TokenBatch]:
    predictions, done = len(tokens) - 1, 0  # position t predicts token t + 1
    for start in range(0, len(tokens), stride):
        stop = min(start + length, predictions)
        y = tokens[start + 1 : stop + 1].clone()
        y[: done - start] = PADDING
        yield TokenBatch(tokens[None, start:stop], y[None], torch.tensor([number]), torch.tensor([start]))
        done = stop
        if done == predictions:
            return


def batched(parts: Iterable[TokenBatch], batch_size: int, *, by_length: bool = True) -> Iterator[TokenBatch]:
    """Windows put together, those of like lengths where ``by_length``, which reads all of them first."""
    require_positive(batch_size=batch_size)
    waiting: Iterable[TokenBatch] = parts
    if by_length:
        waiting = sorted(parts, key=lambda part: part.x.shape[1], reverse=True)
    group: list[TokenBatch] = []
    for part in waiting:
        group.append(part)
        if len(group) == batch_size:
            yield _joined(group)
            group = []
    if group:
        yield _joined(group)


def _joined(parts: Sequence[TokenBatch]) -> TokenBatch:
    width = max(part.x.shape[1] for part in parts)

    def wide(rows: Tensor) -> Tensor:
        return torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=PADDING)

    x, y = (torch.cat([wide(field) for field in fields]) for fields in zip(*(part[:2] for part in parts), strict=True))
    return TokenBatch(x, y, torch.cat([part.id for part in parts]), torch.cat([part.start for part in parts]))


def encoded(tokenizer: Any, texts: Iterable[str], prefix: int | None) -> Iterator[list[int]]:
    """Tokens of each text behind the prefix, without what the tokenizer itself would add.

    Raises ValueError naming the first text that is empty.
    """
    for number, text in enumerate(texts):
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        if not ids:
            raise ValueError(f"text {number} is empty: {text!r:.40}")
        yield ids if prefix is None else [prefix, *ids]


def require_texts(texts: Sequence[str]) -> None:
    """Raise ValueError naming the first text that is empty."""
    for number, text in enumerate(texts):
        if not text:
            raise ValueError(f"text {number} of {len(texts)} is empty")


def joined_positions(parts: Sequence[TokenPositions]) -> TokenPositions:
    """The positions of several batches, one after the other."""
    return TokenPositions(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def positions_of(batch: TokenBatch, f: Tensor) -> TokenPositions:
    """The positions of a batch with a next token, from f [n, M] of all of its tokens in order."""
    real, counted = batch.x != PADDING, batch.y != PADDING
    window, column = counted.nonzero().T
    t = batch.start[window] + column
    rows = counted[real].to(f.device)
    return TokenPositions(f[rows], batch.y[counted], batch.id[window], t, prefix_hashes(batch.x)[counted])


def distinct(positions: TokenPositions, *, first: bool = False) -> Tensor:
    """Rows, ascending, of the first position of each prefix; position 0 of documents is left out unless ``first``."""
    _, group = torch.unique(positions.prefix, return_inverse=True)
    rows = torch.arange(len(group))
    earliest = rows.new_full((int(group.max()) + 1,), len(group)).scatter_reduce(0, group, rows, "amin").sort().values
    return earliest if first else earliest[positions.t[earliest] > 0]


class Choice:
    """The first positions that count, told from the tokens: without position 0 of documents and repeated prefixes.

    Batches go through with PADDING as y at all others. What is held is a hash for each position that was passed.

    Example:
        >>> (batch,) = batched(windows([[0, 5, 6, 7], [0, 5, 9]], 10), 2)
        >>> [chosen.y.tolist() for chosen in Choice(3).of([batch], torch.arange(2))]
        [[[-1, 6, 7], [-1, -1, -1]]]
    """

    def __init__(self, count: int) -> None:
        require_positive(count=count)
        self.count, self.chosen = count, 0
        self._passed = torch.empty(0, dtype=torch.long)

    @property
    def is_full(self) -> bool:
        """Whether all of them are chosen."""
        return self.chosen == self.count

    def of(self, batches: Sequence[TokenBatch], rank: Tensor) -> Iterator[TokenBatch]:
        """Those of further documents, whole ones, which come in the order of ``rank`` [documents]; empty ones not."""
        places = [positions_of(batch, torch.empty(int((batch.x != PADDING).sum()), 0)) for batch in batches]
        every = joined_positions(places)
        if not len(every.t):
            return
        order = (rank[every.document] * TEXT + every.t).argsort()
        first = order[distinct(every.take(order), first=True)]
        new = first[~torch.isin(every.prefix[first], self._passed)]
        self._passed = torch.cat([self._passed, every.prefix[new]])
        rows = new[every.t[new] > 0][: self.count - self.chosen]
        self.chosen += len(rows)
        chosen = torch.zeros(len(every.t), dtype=torch.bool).index_fill(0, rows, True)
        for batch, own in zip(batches, torch.split(chosen, [len(place.t) for place in places]), strict=True):
            if bool(own.any()):
                y = torch.full_like(batch.y, PADDING)
                counted = batch.y != PADDING
                y[counted] = batch.y[counted].where(own, PADDING)
                yield batch._replace(y=y)
