"""Two causal language models compared on texts, in one pass of both over the same positions.

What is kept of a position is its part of sums and moments, so that memory does not grow with their number, but for
8 bytes a position: a hash of its prefix, by which repeated ones are told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from likeness.adapters.causal_models import read_causal
from likeness.adapters.causal_scorers import CausalModel, TokenScorer, window_length
from likeness.adapters.decoders import decoder_in
from likeness.adapters.modules import EmbedderModel, ModelError
from likeness.adapters.sources import distinct_names, runs_of
from likeness.adapters.texts import Texts
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
) -> LanguageComparison:
    """Compare two causal language models of any kind that :func:`language_models` reads; see :func:`likeness.compare`.

    They stay where they are, unless a ``device`` is named.

    Raises ModelError, one line that names the model, for what is no causal language model, has no tokenizer, or has a
    soft cap; ValueError for tokenizers that differ, and texts of which nothing is left.
    """
    models = language_models(given, texts, names)
    if len(models) != 2:
        raise ModelError(
            f"two language models are compared on texts, got {len(models)}: {', '.join(model.name for model in models)}"
        )
    first, second = (with_label_vectors(model if device is None else model.to(device)) for model in models)
    pair = _sharing(first, second, texts) if texts.shared_tokens else _alike(first, second, texts)
    seen = PairMoments(*pair.heads, kept=pair.kept, names=(first.name, second.name), groups=GROUPS)
    for part in tracked(pair.stream, "comparing", shown=progress):
        seen.update(part.embeddings, part.next, part.document, part.id)
    found = compared(seen, budget=budget, seed=texts.seed)
    return pair.named(replace(found, names=(first.name, second.name), data=texts.source), texts, first)


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


def with_label_vectors(model: TokenScorer) -> CausalModel:
    """The model. Raises ModelError for one with a soft cap."""
    if not isinstance(model, CausalModel):
        raise ModelError(f"{model.name} cannot be compared by its label vectors: {model.why_no_head}")
    return model


class Part(NamedTuple):
    """Some of the positions of two models."""

    embeddings: tuple[Tensor, Tensor]  # f1 [n, M], f2 [n, M'], without the constant coordinate of a bias
    next: Tensor  # [n], -1 where it is none of the labels
    document: Tensor  # [n]
    id: Tensor  # [n]


class Pair(NamedTuple):
    """Two models over the same labels, and their positions."""

    heads: tuple[Head, Head]
    kept: Tensor | None
    stream: Iterator[Part]
    notes: tuple[str, ...]
    shared: SharedStream | None = None

    def named(self, found: LanguageComparison, texts: Texts, first: CausalModel) -> LanguageComparison:
        """The answer with the tokens' own numbers and texts, and with what was read."""
        label: tuple[int | None, ...] = found.pivot, found.left_out
        if self.shared is not None:
            ids = self.shared.tokens.pairs[:, 0].tolist()
            label = tuple(None if one is None else ids[one] for one in label)
            groups = tuple(tuple(ids[one] for one in group) for group in found.equal_labels)
            bits = self.shared.bits_per_byte()
            found = replace(found, equal_labels=groups, bits_per_byte_1=bits[0], bits_per_byte_2=bits[1])
        mentioned = {*label, *chain.from_iterable(found.equal_labels)}
        shown = {one: first.shown(one) for one in sorted(one for one in mentioned if one is not None)}
        prefix = first.prefix(texts.prefix)
        before = "nothing" if prefix is None else f"{first.shown(prefix)} ({texts.prefix})"
        notes = self.notes if self.shared is None else (*self.notes, *self.shared.notes())
        few = found.positions < texts.positions
        notes += (f"{texts.source}: {found.positions:,} positions count, not {texts.positions:,}",) * few
        return replace(
            found,
            pivot=label[0],
            left_out=label[1],
            tokens=shown,
            prefix=before,
            notes=notes,
        )


def _alike(first: CausalModel, second: CausalModel, texts: Texts) -> Pair:
    """Two models whose ids stand for the same tokens."""
    names = first.name, second.name
    try:
        require_same_tokens(first, second)
    except ValueError as error:
        raise ValueError(f"{error}; shared_tokens compares them by the tokens that both have") from None
    if first.kept != second.kept:
        raise ModelError(
            f"{names[0]} has {first.kept} labels and {names[1]} {second.kept}: rows='tokens' leaves out those that are "
            "no tokens"
        )
    heads, read = _heads(first, second), texts.read()
    whole = first.kept == first.facts.rows == second.facts.rows
    kept = None if whole else torch.arange(first.kept, device=heads[0].g.device)
    return Pair(heads, kept, _stream(first, second, texts, read), _notes(first, second, texts, read))


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


def _stream(first: CausalModel, second: CausalModel, texts: Texts, read: list[str]) -> Iterator[Part]:
    for batch in token_batches([first, second], texts, read):
        one, other = first.predictions(batch), second.predictions(batch)
        f = first.bare(one.f), second.bare(other.f).to(one.f.device)
        yield Part(f, one.next.to(one.f.device), one.document, one.document * TEXT + one.t)


def _notes(first: CausalModel, second: CausalModel, texts: Texts, read: list[str]) -> tuple[str, ...]:
    """What two tokenizers of the same tokens do differently: both models see what the first one's makes."""
    some = [text for text in read if text][:SAMPLE]
    ids = [list(encoded(model.tokenizer, some, None)) for model in (first, second)]
    other = sum(a != b for a, b in zip(*ids, strict=True))
    notes = []
    if other:
        notes.append(
            f"the tokenizers split {other} of {len(some)} texts in other ways: both models see those of {first.name}"
        )
    try:
        same = first.prefix(texts.prefix) == second.prefix(texts.prefix)
    except ModelError:
        same = False
    if not same:
        notes.append(f"the {texts.prefix} token is that of {first.name}, and {second.name} has another one")
    return tuple(notes)


def _sharing(first: CausalModel, second: CausalModel, texts: Texts) -> Pair:
    """Two models with other tokens, by those that both have."""
    assert first.vocabulary is not None
    assert second.vocabulary is not None
    shared = SharedTokens.of(first.vocabulary, second.vocabulary, (first.name, second.name))
    stream = SharedStream(first, second, shared, texts)
    one, other = _heads(first, second)
    heads = shared.head(one, 0), shared.head(other, 1)
    parts = (Part(*part) for part in stream)
    note = f"of {len(shared.pairs):,} tokens that both have, of {first.kept:,} and {second.kept:,}; {EVENTS}"
    return Pair(heads, torch.arange(len(shared.pairs), device=one.g.device), parts, (note,), stream)


def _heads(first: CausalModel, second: CausalModel) -> tuple[Head, Head]:
    """Of all their rows, where those of the first one are."""
    own, (g, bias) = Head(*first.output_embedding(every=True)), second.output_embedding(every=True)
    device = own.g.device
    return own, Head(g.to(device), None if bias is None else bias.to(device))
