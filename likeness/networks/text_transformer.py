"""Transformers over the tokens of texts: of any name or folder that Hugging Face's library reads, or small and new."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from likeness.checks import require_positive, require_probability
from likeness.networks.pretrained_text import (
    learn_tokenizer,
    read_pretrained,
    read_tokenizer,
    text_library,
    tokenizer_files,
)
from likeness.networks.text_pooling import PoolingName


class TextTransformer(nn.Module):
    """A transformer and the tokenizer that turns texts into what it reads; subclasses make both.

    ``model`` is one of Hugging Face's, ``tokenizer`` as well, or None until it is learned or read from a checkpoint.
    ``pooling`` is what the model was made for.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, max_length: int, pooling: PoolingName = "mean") -> None:
        super().__init__()
        require_positive(max_length=max_length)
        self.model: Any = model.train()  # a model that was read comes in evaluation mode
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pooling: PoolingName = pooling
        # It reads the vectors that we pool ourselves. Kept for whoever loads the weights again.
        if isinstance(unused := getattr(model, "pooler", None), nn.Module):
            unused.requires_grad_(False)

    @property
    def dim(self) -> int:
        """D, the size of a token's vector."""
        return int(self.model.config.hidden_size)

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The vectors of the texts' tokens, [N, T, D], and which tokens are a text's and no padding, [N, T].

        A text is cut after ``max_length`` tokens; an empty one is the special tokens that begin and end a text.
        Raises TypeError for anything but texts and ValueError for a text without tokens or before there is a tokenizer.
        """
        tokens = {name: tensor.to(self.model.device) for name, tensor in self.tokenize(texts).items()}
        return self.model(**tokens).last_hidden_state, tokens["attention_mask"]

    def tokenize(self, texts: Sequence[str]) -> Mapping[str, Tensor]:
        """What the model reads, on the CPU; raises as :meth:`forward`."""
        if isinstance(texts, str | Tensor) or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"a text encoder takes a list of texts, got {type(texts).__name__}")
        if self.tokenizer is None:
            raise ValueError("there are no tokens yet: a training learns them from its texts, a checkpoint has them")
        options = {"padding": True, "truncation": True, "max_length": self.max_length, "return_tensors": "pt"}
        tokens: Mapping[str, Tensor] = self.tokenizer(list(texts), **options)
        counts = tokens["attention_mask"].sum(1)
        if not bool(counts.all()):
            raise ValueError(f"text {int((counts == 0).nonzero()[0])} is empty, and has no tokens")
        return tokens

    def layers(self) -> list[nn.Module]:
        """The transformer's blocks, first to last."""
        stacks = [module for module in self.model.modules() if isinstance(module, nn.ModuleList) and len(module)]
        return list(max(stacks, key=lambda stack: sum(p.numel() for p in stack.parameters()), default=[]))

    def tokenizer_state(self) -> dict[str, Tensor]:
        """The tokenizer for a checkpoint, as uint8 by file; empty where there is none."""
        return {} if self.tokenizer is None else tokenizer_files(self.tokenizer)

    def load_tokenizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the tokenizer of a checkpoint. Raises ValueError for damaged files."""
        self.tokenizer = read_tokenizer(state) if state else None

    def arguments(self) -> dict[str, Any]:
        """Plain arguments by which the class makes this model again, without the files it came from."""
        return {}


class SmallTransformer(TextTransformer):
    """A small DistilBERT that is trained from nothing; its tokens are learned from the training texts.

    Sanh et al. 2019 (arXiv 1910.01108). Weights come from torch's global generator.
    Raises ValueError for sizes that cannot be, or a ``width`` that does not divide into ``heads``.
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        vocab_size: int = 8192,
        max_length: int = 256,
        dropout: float = 0.1,
    ) -> None:
        """
        Args:
            width: D, the size of a token's vector; the layers between are four times as wide.
            depth: Layers of attention.
            heads: Attention heads.
            vocab_size: Tokens that may be learned, among them all bytes.
            max_length: Tokens of a text that are read.
            dropout: Probability, in attention and between layers.
        """
        require_positive(width=width, depth=depth, heads=heads, vocab_size=vocab_size, max_length=max_length)
        require_probability("dropout", dropout)
        if width % heads:
            raise ValueError(f"width must be a multiple of the {heads} heads, got {width}")
        library = text_library("transformers")
        sizes = {"dim": width, "hidden_dim": 4 * width, "n_layers": depth, "n_heads": heads, "vocab_size": vocab_size}
        lengths = {"max_position_embeddings": max_length, "pad_token_id": 0}
        config = library.DistilBertConfig(**sizes, **lengths, dropout=dropout, attention_dropout=dropout)
        super().__init__(library.DistilBertModel(config), None, max_length)

    def learn_tokens(self, texts: Iterable[str]) -> None:
        """Make the tokenizer from texts; a function of them alone."""
        self.tokenizer = learn_tokenizer(texts, self.model.config.vocab_size)


class PretrainedTransformer(TextTransformer):
    """The transformer of a Hugging Face or sentence-transformers model, by its name on the hub or from a folder.

    Weights are read from safetensors, or from a PyTorch file as tensors alone; no code of a model is run. Of a
    sentence-transformers model its pooling is taken over; what normalises is the choice of whoever trains it.
    """

    def __init__(
        self,
        name: str,
        max_length: int = 256,
        architecture: Mapping[str, Any] | None = None,
        pooling: PoolingName = "mean",
    ) -> None:
        """
        Args:
            name: Name on the hub, such as ``microsoft/mpnet-base``, or a folder.
            max_length: Tokens of a text that are read.
            architecture: What config.json says; with it no file is read, and weights and tokens come from a checkpoint.
            pooling: What the model was made for, where ``architecture`` is given.

        Raises FileNotFoundError where there is no such model, saying whether the hub could be reached, and
        ValueError for one that lacks something or is of a kind that has no token vectors to pool.
        """
        if architecture is None:
            model, tokenizer, pooling = read_pretrained(name)
        else:
            model, tokenizer = _untrained(architecture), None
        if max_length > (longest := _num_positions(model)):
            raise ValueError(f"max_length must be at most {longest:.0f}, the positions of {name}, got {max_length}")
        super().__init__(model, tokenizer, max_length, pooling)

    def arguments(self) -> dict[str, Any]:
        """The architecture, so that a checkpoint is complete."""
        config: Any = self.model.config
        return {"architecture": json.loads(config.to_json_string(use_diff=False)), "pooling": self.pooling}


def _untrained(architecture: Mapping[str, Any]) -> nn.Module:
    """The model of an architecture, with weights that are about to be replaced; no code but the library's is run."""
    library = text_library("transformers")
    # What else a file may name: code beside the weights, and attention that is fetched from the hub.
    plain = {key: value for key, value in architecture.items() if key != "auto_map" and "implementation" not in key}
    kind = plain.pop("model_type", None)
    if kind not in library.CONFIG_MAPPING:
        raise ValueError(f"the architecture names no known model_type, got {kind!r}")
    config = library.CONFIG_MAPPING[kind](**plain)
    model: nn.Module = library.AutoModel.from_config(config, trust_remote_code=False)
    return model.float()


def _num_positions(model: nn.Module) -> float:
    """How many tokens of a text a model has positions for; infinite where they are not numbered in a table."""
    parts = [part for name, part in model.named_modules() if name.endswith("position_embeddings")]
    tables = [part for part in parts if isinstance(part, nn.Embedding)]
    # RoBERTa's and MPNet's positions begin behind a row for padding.
    sizes = [len(table.weight) - (0 if table.padding_idx is None else table.padding_idx + 1) for table in tables]
    return min(sizes, default=math.inf)
