"""A folder that sentence-transformers loads gives the embeddings of the module that wrote it."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from likeness.networks.text_pooling import HeadName, PoolingName, RunningMoments
from tests.lightning_modules.tiny_sentences import TEXTS, encoder

LONG = " and ".join(TEXTS)  # is cut


def exported(folder: Path, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What sentence-transformers and the module say of the same texts."""
    module = encoder(**options).eval()
    for part in module.head:
        if isinstance(part, RunningMoments):
            source = torch.Generator().manual_seed(3)
            part.mean.copy_(torch.randn(part.dim, generator=source))
            part.variance.copy_(torch.rand(part.dim, generator=source))
            part.variance[5] = 0  # a dimension that does not vary
    module.export(folder)
    sentence_transformers = pytest.importorskip("sentence_transformers")
    loaded = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    texts = [*TEXTS, LONG, ""]
    with torch.no_grad():
        return loaded.encode(texts, convert_to_tensor=True), module.embed(texts)


@pytest.mark.parametrize("head", get_args(HeadName))
def test_heads(head: Any, tmp_path: Path) -> None:
    found, expected = exported(tmp_path, head=head)
    # A row z-score adds 1e-6 to the standard deviation, which no module of sentence-transformers does.
    tolerance = {"rtol": 5e-6, "atol": 1e-6} if head == "z" else {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(found, expected, **tolerance)
    assert expected.std() > 0.01


@pytest.mark.parametrize("pooling", get_args(PoolingName))
def test_poolings(pooling: Any, tmp_path: Path) -> None:
    found, expected = exported(tmp_path, pooling=pooling)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_without_tokens_there_is_nothing_to_export(tmp_path: Path) -> None:
    module = encoder()
    module.encoder.tokenizer = None
    with pytest.raises(ValueError, match="has no tokens yet"):
        module.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()
