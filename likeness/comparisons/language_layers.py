"""The layers of causal language models at the positions of texts, each of which is a sample, and the logit lens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.adapters.activations import LayerError
from likeness.adapters.batches import Inputs
from likeness.adapters.causal_heads import LastLayer, decoder_of
from likeness.adapters.causal_scorers import TokenScorer
from likeness.adapters.decoders import decoder_in
from likeness.adapters.modules import Measurable, ModelError, device_of
from likeness.adapters.texts import Texts
from likeness.adapters.unnoticed import unnoticed
from likeness.comparisons.language import language_models, require_same_tokens, token_batches
from likeness.language.logit_lens import LensLayer, LogitLens
from likeness.language.token_batches import PADDING, TEXT, TokenBatch
from likeness.language.token_pass import Head
from likeness.progress import tracked
from likeness.similarity.layers.kernel_sums import Gram, gram
from likeness.similarity.layers.outputs import LayerOutputs, Side

POOLING = "per position"


class TokenLayers(Measurable):
    """A causal language model whose layers are read."""

    def __init__(self, scorer: TokenScorer) -> None:
        self.scorer, self.name = scorer, scorer.name

    @override
    @property
    def modules(self) -> tuple[nn.Module, ...]:
        decoder = decoder_of(self.scorer.model, self.name)
        return (decoder_in(decoder) or decoder,)

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of the residual stream, in their order. Raises ModelError for a model without a list of them."""
        children = self.modules[0].children()
        lists: list[nn.ModuleList] = [child for child in children if isinstance(child, nn.ModuleList) and len(child)]
        if not lists:
            raise ModelError(f"{self.name}, a {type(self.modules[0]).__name__}, has no list of blocks")
        longest: nn.ModuleList = max(lists, key=len)
        return list(longest)

    def places(self) -> list[str]:
        """The names of the residual stream's layers: what lies beside the blocks, and each of them."""
        own, blocks = self.modules[0], {*self.blocks}
        beside = [name for name, child in own.named_children() if not isinstance(child, nn.ModuleList)]
        return beside + [name for name, layer in own.named_modules() if layer in blocks]

    @override
    def prepare(self, batch: Inputs) -> None:
        """Nothing has to be found out."""

    @override
    def embed(self, batch: Inputs) -> Tensor:
        return self.scorer.predictions(batch.x).f

    @override
    def unembeddings(self) -> Tensor | None:
        return None


class TokenSide(Side):
    """A language model whose layers are compared; of windows [B, T] the rows are the positions with a y."""

    @override
    def _first(self, batch: Inputs, size: int) -> Inputs:
        windows: TokenBatch = batch.x
        y = torch.full_like(windows.y, PADDING)
        rows, columns = (places[:size] for places in (windows.y != PADDING).nonzero().T)
        y[rows, columns] = windows.y[rows, columns]
        return as_inputs(windows._replace(y=y), batch.start)

    @override
    def _run(self, batch: Inputs, outputs: LayerOutputs) -> None:
        outputs.mask = (batch.x.y != PADDING).to(device_of(self.model.modules))
        self.model.embed(batch)


def token_sides(
    first: Any,
    second: Any,
    texts: Texts,
    names: Sequence[str] | None,
    patterns: Sequence[str | Iterable[str] | None],
    estimator: str,
) -> tuple[list[Side], Iterator[Inputs]]:
    """One or two language models, and the positions of the texts; see :func:`likeness.compare_layers`."""
    scorers = language_models([first] if second is None or second is first else [first, second], texts, names)
    if len(scorers) > 2:
        raise ModelError(f"the layers of two models are compared, got {', '.join(one.name for one in scorers)}")
    if len(scorers) == 2:
        require_same_tokens(scorers[0], scorers[1])
    models = [TokenLayers(scorer) for scorer in scorers]
    own = [patterns[0], patterns[0] if patterns[1] is None else patterns[1]]
    read = gram_of_positions if estimator == "minibatch" else rows_of_positions
    sides = [
        TokenSide(
            model,
            model.places() if pattern is None else pattern,
            "positions",
            read,
            rows_of_positions,
            may_lack=pattern is None,
        )
        for model, pattern in zip(models, own, strict=False)
    ]
    return list(sides), _inputs(scorers, texts)


def _inputs(scorers: Sequence[TokenScorer], texts: Texts) -> Iterator[Inputs]:
    start = 0
    for batch in token_batches(scorers, texts, texts.read()):
        yield (found := as_inputs(batch, start))
        start += found.size


def as_inputs(batch: TokenBatch, start: int) -> Inputs:
    """Windows as a batch of the positions that have a y."""
    rows, columns = (batch.y != PADDING).nonzero().T
    ids = batch.id[rows] * TEXT + batch.start[rows] + columns
    return Inputs(batch, None, ids, start, len(ids))


def rows_of_positions(value: Tensor, name: str, mask: Tensor | None, size: int | None = None) -> Tensor:
    """A layer's output [B, T, d] at the chosen positions [B, T], as rows [n, d]; raises LayerError for another one."""
    assert mask is not None
    if value.ndim != 3 or value.shape[:2] != mask.shape:
        raise LayerError(f"it answers {list(value.shape)} for windows {list(mask.shape)}, and no vector a position")
    return value[mask.to(value.device)]


def gram_of_positions(value: Tensor, name: str, mask: Tensor | None) -> Gram:
    """The Gram matrix of a layer's rows."""
    return gram(rows_of_positions(value, name, mask))


def logit_lens(model: Any, texts: Any, progress: bool | None = None) -> list[LensLayer]:
    """What a causal language model would predict at the positions of texts without its last blocks, for l = 0 to L.

    The model and the texts are of the kinds that :func:`likeness.compare` takes. The last answer is the model itself.
    Raises ModelError for a model whose last hidden state no norm answers.
    """
    asked = Texts.of(texts)
    if asked is None:
        raise ValueError(f"texts are a list of texts, a file of them, or Texts, got {texts!r:.60}")
    (own,) = language_models([model], asked)
    layers = TokenLayers(own)
    blocks, norm = layers.blocks, _final_norm(layers)
    lens = LogitLens(Head(*own.output_embedding(), own.facts.soft_cap), len(blocks))
    with unnoticed(layers.modules):
        for batch in tracked(token_batches([own], asked, asked.read()), "looking through the lens", shown=progress):
            states = _Stream(blocks)
            with states:
                positions = own.predictions(batch)
            chosen = (batch.y != PADDING).to(positions.f.device)
            normed = [own.facts.scale * norm(state)[chosen] for state in states.taken]
            f = own.bare(positions.f)
            lens.update([state.to(f) for state in normed], f, positions.next.to(f.device), positions.document)
    return lens.layers()


def _final_norm(layers: TokenLayers) -> nn.Module:
    """The layer that answers the last hidden state, found on a few tokens."""
    with LastLayer(layers.modules[0]) as last:
        hidden, _ = layers.scorer.hidden(torch.arange(min(4, layers.scorer.kept))[None])
    norm = last.norm(hidden)
    if norm is None:
        raise ModelError(f"{layers.name} has no final norm, whose output is its last hidden state")
    return norm


class _Stream:
    """A context in which the residual stream before each block is taken down, [B, T, M] for l = 0 to L - 1."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self.blocks = blocks
        self.taken: list[Tensor] = []

    def __enter__(self) -> None:
        def keep(_: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
            self.taken.append(inputs[0] if inputs else options["hidden_states"])

        self._hooks = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in self.blocks]

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()
