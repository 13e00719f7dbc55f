"""Tiny causal language models of transformers with tokenizers of byte pairs, and what they answer by brute force."""

import json
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from torch import Tensor

from likeness.adapters.causal_models import read_causal
from likeness.adapters.causal_scorers import TokenScorer
from likeness.language.text_tokenizer import TextTokenizer, learn_byte_pairs
from scripts.study.language_copies import matrices, rotate, rounded

TEXTS = [  # none begins as another does: of equal prefixes the first is taken, in an order that is drawn
    "Return the number of items in the list.",
    "Close the file if it does not exist.",
    "A dictionary of the names in the module.",
    "Values that are not present are an error, or the end of the list is reached before it.",
    "Open a file, read it and return its text as a string; the caller closes it.",
]
OTHER_CORPUS = [
    "shared tokens of another corpus are found where the same bytes are",
    "and the value of an item is kept",
]
ROWS, TOKENS = 320, 290


@cache
def tokenizer(corpus: str = "own") -> TextTokenizer:
    return learn_byte_pairs(TEXTS if corpus == "own" else OTHER_CORPUS, TOKENS)


def network(seed: int = 0, rows: int = ROWS, width: int = 16, **options: Any) -> Any:
    """A Llama at random weights that are large enough for distributions to differ."""
    import transformers

    sizes = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.LlamaConfig(vocab_size=rows, max_position_embeddings=64, **(sizes | options))
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(1 + 0.3 * torch.randn_like(weight) if weight.ndim == 1 else 0.4 * torch.randn_like(weight))
    return model


def capped_network(seed: int = 0, cap: float = 4.0) -> Any:
    """A Gemma 2, whose logits have a soft cap that they feel."""
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    sizes |= {"intermediate_size": 24, "head_dim": 8, "vocab_size": ROWS, "max_position_embeddings": 64}
    torch.manual_seed(seed)
    model = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(final_logit_softcapping=cap, **sizes)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.4 * torch.randn_like(weight))
    return model


def scorer(model: Any, of: TextTokenizer | None = None, rows: Any = "tokens") -> TokenScorer:
    return read_causal(model, tokenizer=of or tokenizer(), rows=rows)


def noisy(model: Any, deviation: float) -> Any:
    """A copy with noise on every weight."""
    other, random = deepcopy(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(deviation * weight.std() * torch.randn(weight.shape, generator=random))
    return other


def int8(model: Any) -> Any:
    """A copy with the matrices of its layers rounded to 255 levels a row."""
    other = deepcopy(model)
    with torch.no_grad():
        for matrix in matrices(other, embedding=False):
            matrix.copy_(rounded(matrix, 8))
    return other


def rotated(model: Any) -> Any:
    """The same function with another residual stream."""
    other = deepcopy(model)
    rotate(other)
    return other


def renumbered(model: Any, order: Tensor) -> tuple[Any, TextTokenizer]:
    """The model and its tokenizer with the first ids in another order: new id i is what ``order[i]`` was."""
    other, place = deepcopy(model), order.argsort().tolist()
    with torch.no_grad():
        for table in (other.model.embed_tokens.weight, other.lm_head.weight):
            table[: len(order)] = table[order].clone()
    content = json.loads(tokenizer().content)
    content["model"]["vocab"] = {token: place[one] for token, one in content["model"]["vocab"].items()}
    for entry in content["added_tokens"]:
        entry["id"] = place[entry["id"]]
    return other, TextTokenizer(json.dumps(content))


def log_probabilities(model: Any, ids: list[int], kept: int | Tensor = TOKENS) -> Tensor:
    """log p(y | x, y kept) [T, kept] in float64, from the library's own logits."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    chosen = logits[:, :kept] if isinstance(kept, int) else logits[:, kept]
    return chosen.log_softmax(-1)


def documents(of: TextTokenizer, texts: list[str]) -> list[list[int]]:
    """Each text behind the separator."""
    return [[of.separator, *ids.tolist()] for ids in of.encode(texts)]
