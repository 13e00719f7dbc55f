"""Causal language models compared on texts, in one pass of each over the same positions.

What is kept of a position is its part of sums and moments, so that memory does not grow with their number, but for
the tokens that are read and a hash of each prefix, by which repeated ones are told. Each pair of models has moments of
its own, up to 20 (M + M' + 2)^2 numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from likeness.adapters.causal_models import read_causal
from likeness.adapters.causal_scorers import TokenScorer, window_length
from likeness.adapters.decoders import decoder_in
from likeness.adapters.modules import EmbedderModel, ModelError
from likeness.adapters.sources import distinct_names, runs_of
from likeness.adapters.texts import Texts
from likeness.comparisons.language_pairs import LanguageComparisons
from likeness.comparisons.shared_texts import SharedStream
from likeness.language.answer import LanguageComparison
from likeness.language.comparison import compared
from likeness.language.pair_moments import PairMoments
from likeness.language.shared_tokens import EVENTS, SharedTokens
from likeness.language.token_batches import TEXT, TokenBatch, encoded
from likeness.language.token_pass import Head
from likeness.language.vocabularies import require_same_vocabulary
from likeness.progress import tracked
from likeness.protocols import Siblings

GROUPS = 10  # of texts, for errors of functions of moments
SAMPLE = 64  # texts on which tokenizers are held against each other


def compare_on_texts(
    given: Sequence[Any],
    texts: Texts,
    names: Sequence[str] | None = None,
    budget: int | None = None,
    progress: bool | None = None,
    device: torch.device | None = None,
) -> LanguageComparison | LanguageComparisons:
    """Compare causal language models of any kind that :func:`language_models` reads; see :func:`likeness.compare`.

    Two of them, or all pairs of more, of which each goes over the texts once. They stay where they are, unless a
    ``device`` is named.

    Of a model with a soft cap what reads label vectors is undefined, and named. Raises ModelError, one line that names
    the model, for what is no causal language model or has no tokenizer; ValueError for tokenizers that differ, and
    texts of which nothing is left.
    """
    models = language_models(given, texts, names)
    listed = f"got {len(models)}: {', '.join(model.name for model in models)}"
    if len(models) < 2:
        raise ModelError(f"two language models or more are compared on texts, {listed}")
    if texts.shared_tokens and len(models) > 2:
        raise ModelError(f"shared_tokens is for two language models, {listed}")
    models = [model if device is None else model.to(device) for model in models]
    pass_ = _sharing(models[0], models[1], texts) if texts.shared_tokens else _alike(models, texts)
    for part in tracked(pass_.stream, "comparing", total=pass_.total, shown=progress):
        for (i, j), seen in pass_.seen.items():
            f = part.embeddings[i], part.embeddings[j].to(part.embeddings[i].device)
            seen.update(f, part.next.to(f[0].device), part.document, part.id)
    found = {}
    for (i, j), seen in pass_.seen.items():
        own = replace(compared(seen, budget=budget, seed=texts.seed), names=(models[i].name, models[j].name))
        found[i, j] = pass_.named(own, (i, j), texts, models[0])
    return found[0, 1] if len(models) == 2 else LanguageComparisons([model.name for model in models], found)


def language_models(given: Sequence[Any], texts: Texts, names: Sequence[str] | None = None) -> list[TokenScorer]:
    """Models by what they are given as: read already, modules, runs and checkpoints, folders, files and hub names."""
    found = [model for one in given for model in _scorers(one, texts)]
    if names is not None and len(names) != len(found):
        raise ModelError(f"there are {len(found)} models and {len(names)} names")
    names = names or distinct_names([model.name for model in found])
    for model, name in zip(found, names, strict=True):
        if model.tokenizer is None:
            raise ModelError(
                f"{name} has no tokenizer, so that it takes no texts: read_causal(model, tokenizer=...) gives it one"
            )
    return [_named(model, name) for model, name in zip(found, names, strict=True)]


def _scorers(given: Any, texts: Texts, name: str | None = None) -> list[TokenScorer]:
    if isinstance(given, TokenScorer):
        return [_named(given, _short(given.name))]
    if isinstance(given, EmbedderModel):
        return _scorers(given.model, texts)
    if isinstance(given, str | Path):
        runs = runs_of(str(given))
        if runs is not None:
            return [model for name, one in runs for model in _scorers(one, texts, name)]
        return _scorers(read_causal(str(given), rows=texts.rows), texts)
    if isinstance(given, Siblings):
        return [model for i in range(given.num_members) for model in _scorers(given.member(i), texts)]
    if isinstance(given, nn.Module) and (decoder_in(given) is not None or hasattr(given, "get_output_embeddings")):
        read = read_causal(given)
        return [read if name is None else _named(read, name)]
    what = "a list of several" if isinstance(given, list) else f"a {type(given).__name__}"
    raise ModelError(f"texts are what causal language models are compared on, and {what} is none: {given!r:.60}")


def _named(model: TokenScorer, name: str) -> TokenScorer:
    """The same model, under a name of its own."""
    other = copy(model)
    other.name = name
    return other


def _short(name: str) -> str:
    """The folder or file alone."""
    return Path(name).name if Path(name).exists() else name


class Part(NamedTuple):
    """Some of the positions of P models."""

    embeddings: Sequence[Tensor]  # f_i [n, M_i], without the constant coordinate of a bias
    next: Tensor  # [n], -1 where it is none of the labels
    document: Tensor  # [n]
    id: Tensor  # [n]


class Pass(NamedTuple):
    """Models over the same labels, what is to be seen of each pair, and their positions."""

    seen: dict[tuple[int, int], PairMoments]
    stream: Iterable[Part]
    total: int  # parts of it
    notes: dict[tuple[int, int], tuple[str, ...]]
    shared: SharedStream | None = None

    def named(
        self, found: LanguageComparison, pair: tuple[int, int], texts: Texts, reader: TokenScorer
    ) -> LanguageComparison:
        """The answer with the tokens' own numbers and texts, and with what was read."""
        label: tuple[int | None, ...] = found.pivot, found.left_out
        if self.shared is not None:
            ids = self.shared.tokens.pairs[:, 0].tolist()
            label = tuple(None if one is None else ids[one] for one in label)
            groups = tuple(tuple(ids[one] for one in group) for group in found.equal_labels)
            bits = self.shared.bits_per_byte()
            found = replace(found, equal_labels=groups, bits_per_byte_1=bits[0], bits_per_byte_2=bits[1])
        mentioned = {*label, *chain.from_iterable(found.equal_labels)}
        prefix = reader.prefix(texts.prefix)
        notes = self.notes[pair] if self.shared is None else (*self.notes[pair], *self.shared.notes())
        few = found.positions < texts.positions
        notes += (f"{texts.source}: {found.positions:,} positions count, not {texts.positions:,}",) * few
        return replace(
            found,
            pivot=label[0],
            left_out=label[1],
            tokens={one: reader.shown(one) for one in sorted(one for one in mentioned if one is not None)},
            prefix="nothing" if prefix is None else f"{reader.shown(prefix)} ({texts.prefix})",
            data=texts.source,
            notes=notes,
        )


def _alike(models: Sequence[TokenScorer], texts: Texts) -> Pass:
    """Models whose ids stand for the same tokens."""
    seen = {}
    for i, j in combinations(range(len(models)), 2):
        first, second = models[i], models[j]
        try:
            require_same_tokens(first, second)
        except ValueError as error:
            raise ValueError(f"{error}; shared_tokens compares them by the tokens that both have") from None
        if first.kept != second.kept:
            raise ModelError(
                f"{first.name} has {first.kept} labels and {second.name} {second.kept}: rows='tokens' leaves out those "
                "that are no tokens"
            )
        heads = _heads(first, second)
        whole = first.kept == first.facts.rows == second.facts.rows
        kept = None if whole else torch.arange(first.kept, device=heads[0].g.device)
        seen[i, j] = PairMoments(*heads, kept=kept, names=(first.name, second.name), groups=GROUPS)
    read = texts.read()
    batches = list(token_batches(models, texts, read))
    of_others = [_notes(models[0], model, texts, read) for model in models]
    notes = {(i, j): tuple(dict.fromkeys(of_others[i] + of_others[j])) for i, j in seen}
    return Pass(seen, _parts(models, batches), len(batches), notes)


def require_same_tokens(first: TokenScorer, second: TokenScorer) -> None:
    """Raise ValueError unless ids stand for the same tokens in both."""
    assert first.vocabulary is not None
    assert second.vocabulary is not None
    require_same_vocabulary(first.vocabulary, second.vocabulary, (first.name, second.name))


def token_batches(models: Sequence[TokenScorer], texts: Texts, read: list[str]) -> Iterator[TokenBatch]:
    """The windows that all of the models see, of texts that were ``read``, by the tokenizer of the first."""
    return models[0].position_batches(
        read,
        texts.positions,
        prefix=texts.prefix,
        length=texts.length or window_length(models),
        stride=texts.stride,
        batch_size=texts.batch_size,
        seed=texts.seed,
    )


def _parts(models: Sequence[TokenScorer], batches: Sequence[TokenBatch]) -> Iterator[Part]:
    for batch in batches:
        positions = [model.predictions(batch) for model in models]
        f = [model.bare(own.f) for model, own in zip(models, positions, strict=True)]
        first = positions[0]
        yield Part(f, first.next, first.document, first.document * TEXT + first.t)


def _notes(first: TokenScorer, second: TokenScorer, texts: Texts, read: list[str]) -> tuple[str, ...]:
    """What two tokenizers of the same tokens do differently: models see what the first one's makes."""
    some = [text for text in read if text][:SAMPLE]
    ids = [list(encoded(model.tokenizer, some, None)) for model in (first, second)]
    other = sum(a != b for a, b in zip(*ids, strict=True))
    notes = []
    if other:
        notes.append(
            f"the tokenizers split {other} of {len(some)} texts in other ways: all models see those of {first.name}"
        )
    try:
        same = first.prefix(texts.prefix) == second.prefix(texts.prefix)
    except ModelError:
        same = False
    if not same:
        notes.append(f"the {texts.prefix} token is that of {first.name}, and {second.name} has another one")
    return tuple(notes)


def _sharing(first: TokenScorer, second: TokenScorer, texts: Texts) -> Pass:
    """Two models with other tokens, by those that both have."""
    assert first.vocabulary is not None
    assert second.vocabulary is not None
    names = first.name, second.name
    shared = SharedTokens.of(first.vocabulary, second.vocabulary, names)
    stream = SharedStream(first, second, shared, texts)
    one, other = _heads(first, second)
    kept = torch.arange(len(shared.pairs), device=one.g.device)
    seen = PairMoments(shared.head(one, 0), shared.head(other, 1), kept=kept, names=names, groups=GROUPS)
    note = f"of {len(shared.pairs):,} tokens that both have, of {first.kept:,} and {second.kept:,}; {EVENTS}"
    return Pass({(0, 1): seen}, (Part(*part) for part in stream), len(stream), {(0, 1): (note,)}, stream)


def _heads(first: TokenScorer, second: TokenScorer) -> tuple[Head, Head]:
    """Of all their rows, where those of the first one are."""
    one, other = (Head(*model.output_embedding(every=True), model.facts.soft_cap) for model in (first, second))
    bias = None if other.bias is None else other.bias.to(one.g.device)
    return one, other._replace(g=other.g.to(one.g.device), bias=bias)
