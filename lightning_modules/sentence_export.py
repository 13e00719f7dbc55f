"""A trained encoder as a folder of sentence-transformers, made of that library's own modules alone."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from likeness.measures.feature_moments import FeatureMoments
from likeness.networks.embedding_heads import FeatureCentre, FeatureZScore, L2Normalize, RowCentre, RowZScore
from likeness.networks.hugging_face import quiet, text_library
from likeness.networks.pooling import Pooling
from likeness.networks.text_transformer import TextTransformer


def export_sentence_transformer(encoder: TextTransformer, pooling: Pooling, head: nn.Sequential, folder: Path) -> None:
    """Write ``folder`` so that ``SentenceTransformer(folder)`` gives the embeddings of encoder, pooling and head.

    Centring and standardising are ``Dense`` layers. A row z-score is the row's direction times sqrt(D), which leaves
    out the 1e-6 that ours adds to the standard deviation. Raises FileExistsError for a folder that is not empty, and
    ValueError for an encoder without tokens.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already and is not empty")
    if encoder.tokenizer is None:
        raise ValueError("the encoder has no tokens yet, so there is nothing to export: train it first")
    modules = text_library("sentence_transformers.sentence_transformer.modules")
    library = text_library("sentence_transformers")
    with quiet(), tempfile.TemporaryDirectory() as source:
        encoder.model.save_pretrained(source)
        encoder.tokenizer.save_pretrained(source)
        parts = [
            modules.Transformer(source, max_seq_length=encoder.max_length),
            modules.Pooling(encoder.dim, pooling.name),
            *(part for layer in head for part in _parts(layer, encoder.dim)),
        ]
        library.SentenceTransformer(modules=parts, device="cpu").save(str(folder), create_model_card=False)


def _parts(layer: nn.Module, dim: int) -> list[Any]:
    """One of our heads in the modules of sentence-transformers."""
    modules = text_library("sentence_transformers.sentence_transformer.modules")
    identity = torch.eye(dim)
    match layer:
        case L2Normalize():
            return [modules.Normalize()]
        case RowCentre():
            return [_dense(identity - 1 / dim)]
        case RowZScore():
            return [_dense(identity - 1 / dim), modules.Normalize(), _dense(identity * dim**0.5)]
        case FeatureCentre():
            return [_dense(identity, -layer.mean)]
        case FeatureZScore():
            # Two layers, because a product with large means that is added up only then would cancel.
            scale = FeatureMoments(layer.mean, layer.variance).inverse_std()
            return [_dense(identity, -layer.mean), _dense(scale.diag())]
    raise TypeError(f"a {type(layer).__name__} has no counterpart in sentence-transformers")


def _dense(weight: Tensor, bias: Tensor | None = None) -> Any:
    """x -> weight x + bias."""
    modules = text_library("sentence_transformers.sentence_transformer.modules")
    dense = modules.Dense(*weight.shape, bias=bias is not None, activation_function=nn.Identity())
    with torch.no_grad():
        dense.linear.weight.copy_(weight)
        if bias is not None:
            dense.linear.bias.copy_(bias)
    return dense
