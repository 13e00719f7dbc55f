"""Causal language models as softmax models over contexts: f of their tokens, and logits of all labels from f."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.adapters.causal_heads import HeadFacts, decoded
from likeness.adapters.modules import ModelError, device_of
from likeness.adapters.unnoticed import unnoticed
from likeness.checks import require_one_of
from likeness.language.token_batches import (
    PADDING,
    TEXT,
    Choice,
    TokenBatch,
    TokenPositions,
    batched,
    encoded,
    joined_positions,
    lengths_of,
    positions_of,
    require_texts,
    windows,
)
from likeness.language.vocabularies import Vocabulary
from likeness.networks.pretrained_text import quiet
from likeness.numerics import at_least_float32, full_precision
from likeness.seeding import generator

Rows = Literal["tokens", "all"]
PREFIXES = ("none", "bos", "separator")
SEPARATORS = ("<|endoftext|>", "<|end_of_text|>")  # before the end token, which may be one of chats
CHUNK = 64  # texts whose positions are looked at before more are read
LOGITS = 2**22  # in memory at a time
LONGEST = 1024  # tokens of a window, where more are not asked for


class TokenScorer(nn.Module):
    """A causal language model: f of contexts, and logits of all labels from f.

    One whose logits are no inner product, as a soft cap makes them, is this and no more: its log-probabilities are
    right, and measures that read label vectors or moments have none to read.

    Args:
        model: a causal language model of transformers, of any floating type; its weights stay as they are.
        name: in messages and tables.
        facts: of its head, as :func:`likeness.adapters.causal_heads.probe` finds them.
        tokenizer: of its texts; None where tokens are given.
        rows: "tokens" leaves out the rows of the head beyond the tokenizer's ids, and conditions on the others.
    """

    model: Any  # a class of transformers, whose types say little

    def __init__(self, model: nn.Module, name: str, facts: HeadFacts, tokenizer: Any, rows: Rows) -> None:
        super().__init__()
        require_one_of(rows, get_args(Rows), "rows")
        if rows == "tokens" and tokenizer is None:
            raise ModelError(f"{name} has no tokenizer to tell which rows are tokens: rows='all' keeps all of them")
        self.model, self.name, self.tokenizer, self.rows = model, name, tokenizer, rows
        self.facts = facts
        self.vocabulary = None if tokenizer is None else Vocabulary.of(tokenizer)
        self.kept = facts.rows if rows == "all" or facts.tokens is None else facts.tokens

    @property
    def why_no_head(self) -> str:
        """Why it has no label vectors."""
        return f"its logits are capped at {self.facts.soft_cap:.6g}, and are no inner products"

    @property
    def has_bias(self) -> bool:
        """Whether the last coordinate of f is the constant of the bias."""
        return self.facts.bias

    def embed(self, x: Tensor | Mapping[str, Tensor]) -> Tensor:
        """f [n, M] of all tokens of windows x [B, T] in order, with a constant last coordinate for a bias.

        Windows are padded by -1 on the right, or come as ``input_ids`` with an ``attention_mask``. Raises ModelError
        for ids that the head has no row for, windows longer than the model takes, and f that is not finite.
        """
        if isinstance(x, Mapping):
            mask = x.get("attention_mask", torch.ones_like(x["input_ids"]))
            x = x["input_ids"].masked_fill(mask == 0, PADDING)
        hidden, real = self.hidden(x)
        f = at_least_float32(hidden[real])
        if not bool(f.isfinite().all()):
            window, t = real.nonzero()[(~f.isfinite()).any(1)][0].tolist()
            raise ModelError(f"{self.name}: f is not finite at token {t} of window {window}, in {hidden.dtype}")
        f = f if self.facts.scale == 1 else self.facts.scale * f
        return torch.cat([f, torch.ones_like(f[:, :1])], dim=1) if self.has_bias else f

    def hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last hidden states [B, T, M], as the model has them, and which tokens are real [B, T]."""
        self._require_ids(x)
        lengths = lengths_of(x)
        x = x.to(device_of([self.model]))
        real = torch.arange(x.shape[1], device=x.device) < lengths.to(x.device)[:, None]
        with unnoticed([self.model]):
            return decoded(self.model, self.name, x, real), real

    def predictions(self, batch: TokenBatch) -> TokenPositions:
        """f, next token and place of each position of a batch that has a next token."""
        return positions_of(batch, self.embed(batch.x))

    @torch.no_grad()
    def logits(self, f: Tensor) -> Tensor:
        """Logits [n, V] of the kept labels, of f [n, M] as ``embed`` answers it, in its type."""
        return self._products(f, self.kept)

    def next_log_probabilities(self, positions: TokenPositions) -> Tensor:
        """log p(next | x) [n] among the kept labels. Raises ModelError for a next token that is none of them."""
        if len(positions.next) and int(positions.next.max()) >= self.kept:
            raise ModelError(f"the next token {int(positions.next.max())} is none of the {self.kept} of {self.name}")
        size, y = max(1, LOGITS // self.kept), positions.next.to(positions.f.device)
        blocks = zip(torch.split(positions.f, size), torch.split(y, size), strict=True)
        return torch.cat([self.log_probabilities(f).gather(1, y[:, None])[:, 0] for f, y in blocks])

    def log_probabilities(self, f: Tensor) -> Tensor:
        """log p(y | x) [n, V] of the kept labels, which sum to 1 over these."""
        return self.logits(f).log_softmax(-1)

    @torch.no_grad()
    def log_mass(self, f: Tensor) -> Tensor:
        """log of what all kept labels together have of the model's own probability, [n]; 0 where all are kept."""
        if self.kept == self.facts.rows:
            return f.new_zeros(len(f))
        size = max(1, LOGITS // self.facts.rows)
        blocks = (self._products(part, self.facts.rows) for part in torch.split(f, size))
        return torch.cat([logits[:, : self.kept].logsumexp(-1) - logits.logsumexp(-1) for logits in blocks])

    def positions(
        self,
        texts: Sequence[str],
        count: int,
        *,
        prefix: str | int = "separator",
        length: int | None = None,
        stride: int | None = None,
        batch_size: int = 16,
        seed: int = 0,
    ) -> TokenPositions:
        """The first ``count`` positions of the texts, in an order drawn by ``seed``, or all where there are fewer.

        Position 0 of texts and positions whose prefix came before are left out. Raises ModelError for no texts and
        ValueError for an empty one.
        """
        chosen = [
            self.predictions(batch)
            for batch in self.position_batches(
                texts, count, prefix=prefix, length=length, stride=stride, batch_size=batch_size, seed=seed
            )
        ]
        found, rank = joined_positions(chosen), text_order(texts, seed).argsort()
        return found.take((rank[found.document] * TEXT + found.t).argsort())

    def position_batches(
        self,
        texts: Sequence[str],
        count: int,
        *,
        prefix: str | int = "separator",
        length: int | None = None,
        stride: int | None = None,
        batch_size: int = 16,
        seed: int = 0,
    ) -> Iterator[TokenBatch]:
        """The windows in which the positions of :meth:`positions` lie, with a y at these alone; ids are texts' numbers.

        Another model over the same tokens can be asked for its predictions of the same batches.
        """
        require_texts(texts)
        order, choice = text_order(texts, seed), Choice(count)
        rank = order.argsort()
        for some in torch.split(order, CHUNK):
            batches = self.batches(
                [texts[number] for number in some.tolist()],
                prefix=prefix,
                length=length,
                stride=stride,
                batch_size=batch_size,
            )
            yield from choice.of([batch._replace(id=some[batch.id]) for batch in batches], rank)
            if choice.is_full:
                return
        if not len(texts):
            raise ModelError(f"there are no texts for {self.name}")
        if not choice.chosen:
            raise ModelError(f"the texts have no position for {self.name} that counts: each has one token, or none")

    def prefix(self, which: str | int) -> int | None:
        """The token that stands before each text: "none", "bos", "separator", or an id. Raises ModelError without it.

        The separator is the token that ends documents in training, where the tokenizer knows it by its usual name, and
        else the end token.
        """
        if isinstance(which, int):
            if not 0 <= which < self.facts.rows:
                raise ModelError(f"the prefix {which} is no token of {self.name}, which has {self.facts.rows}")
            return which
        require_one_of(which, PREFIXES, "prefix")
        if which == "none":
            return None
        known = {} if self.tokenizer is None else self.tokenizer.get_vocab()
        usual = [known[token] for token in SEPARATORS if token in known] if which == "separator" else []
        role = "bos_token_id" if which == "bos" else "eos_token_id"
        token = usual[0] if usual else getattr(self.tokenizer, role, None)
        if token is None:
            raise ModelError(f"{self.name} has no {which} token: give its id as the prefix, or 'none'")
        return int(token)

    def batches(
        self,
        texts: Iterable[str],
        *,
        prefix: str | int = "separator",
        length: int | None = None,
        stride: int | None = None,
        batch_size: int = 16,
    ) -> Iterator[TokenBatch]:
        """Texts as windows of at most ``length`` tokens, by default as many as it takes and at most 1,024."""
        if self.tokenizer is None:
            raise ModelError(f"{self.name} has no tokenizer, so that it takes no texts")
        with quiet():
            documents = list(encoded(self.tokenizer, texts, self.prefix(prefix)))
        if not documents:
            raise ModelError(f"there are no texts for {self.name}")
        length = window_length([self]) if length is None else length
        return batched(windows(documents, length, stride), batch_size)

    def bare(self, f: Tensor) -> Tensor:
        """f [n, M] without the constant coordinate of a bias."""
        return f[:, :-1] if self.has_bias else f

    def shown(self, token: int) -> str:
        """The token's text as Python writes it, so that spaces are seen."""
        known = None if self.vocabulary is None else self.vocabulary.tokens.get(token)
        if known is None:
            return f"<{token}>"
        try:
            return repr(known.decode())
        except UnicodeDecodeError:  # a part of a character
            return repr(known)

    @property
    def longest(self) -> int | None:
        """How many tokens the model takes at once; None where it does not say."""
        longest = getattr(self.model.config, "max_position_embeddings", None)
        return longest if isinstance(longest, int) and longest > 0 else None

    def output_embedding(self, *, every: bool = False) -> tuple[Tensor, Tensor | None]:
        """Rows [V, M] and biases [V] of the kept labels, or of ``every`` row of the head.

        Under a soft cap, too, labels rank by their products with f. f has the scale, and so the biases have it.
        """
        embedding = self.model.get_output_embeddings()
        rows = self.facts.rows if every else self.kept
        weight = at_least_float32(embedding.weight.detach()[:rows])
        bias = at_least_float32(embedding.bias.detach()[:rows]) if self.has_bias else None
        return weight, None if bias is None else self.facts.scale * bias

    def _products(self, f: Tensor, rows: int) -> Tensor:
        """Logits [n, rows] of the first rows, in the type of f."""
        embedding, cap = self.model.get_output_embeddings(), self.facts.soft_cap
        weight = embedding.weight.detach()[:rows].to(f)
        with full_precision(f.device):
            if self.has_bias:
                bias = self.facts.scale * embedding.bias.detach()[:rows].to(f)
                logits = torch.addmm(bias, f[:, :-1], weight.T)
            else:
                logits = f @ weight.T
        return logits if cap is None else cap * (logits / cap).tanh()

    def _require_ids(self, x: Tensor) -> None:
        if x.ndim != 2 or x.is_floating_point() or not x.numel():
            raise ModelError(f"{self.name} takes tokens [windows, length], got {x.dtype} of shape {list(x.shape)}")
        first, last = int(x.min()), int(x.max())
        if last >= self.facts.rows:
            raise ModelError(f"the token {last} lies beyond the {self.facts.rows} rows of the head of {self.name}")
        if first < PADDING:
            raise ModelError(f"{first} is no token of {self.name}")
        if self.longest is not None and x.shape[1] > self.longest:
            raise ModelError(f"{self.name} takes {self.longest} tokens at once, got windows of {x.shape[1]}")


def text_order(texts: Sequence[str], seed: int) -> Tensor:
    """In which the texts are read."""
    return torch.randperm(len(texts), generator=generator(seed, len(texts)))


def window_length(models: Iterable[TokenScorer]) -> int:
    """As many tokens as all of the models take, and at most 1,024."""
    return min([LONGEST, *(model.longest for model in models if model.longest is not None)])


class CausalModel(TokenScorer):
    """A causal language model whose logits are f(x) . g(y): a :class:`likeness.protocols.SoftmaxModel` of contexts."""

    def unembeddings(self) -> Tensor:
        """g [V, M] of the kept labels, with the bias as a last column where there is one."""
        weight, bias = self.output_embedding()
        return weight if bias is None else torch.cat([weight, bias[:, None]], dim=1)

    @override
    @property
    def why_no_head(self) -> str:
        return "it was taken without a head"
