"""Pooling against sentence-transformers' own, and heads against their formulas."""

from typing import Any, get_args

import pytest
import torch

from likeness.networks.text_pooling import HeadName, Pooling, PoolingName, embedding_head


def tokens(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    vectors = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]])  # padded left and right
    return vectors, mask


@pytest.mark.parametrize("name", get_args(PoolingName))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pooling_is_sentence_transformers(name: Any, dtype: torch.dtype) -> None:
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    vectors, mask = tokens(dtype)
    theirs = modules.Pooling(3, name)({"token_embeddings": vectors, "attention_mask": mask})["sentence_embedding"]
    torch.testing.assert_close(Pooling(name)(vectors, mask), theirs)


@pytest.mark.parametrize("name", get_args(PoolingName))
def test_what_stands_in_the_padding_does_not_matter(name: Any) -> None:
    vectors, mask = tokens()
    noisy = torch.where(mask[..., None].bool(), vectors, torch.nan)
    assert torch.equal(Pooling(name)(noisy, mask), Pooling(name)(vectors, mask))


def test_half_precision_is_summed_in_float32() -> None:
    vectors = torch.full((1, 300, 2), 1.01, dtype=torch.bfloat16)
    pooled = Pooling("mean")(vectors, torch.ones(1, 300))
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, vectors[:, 0].float())


@pytest.mark.parametrize("name", get_args(HeadName))
def test_heads(name: HeadName) -> None:
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 2
    expected = x
    if name.startswith("c"):
        expected = x - x.mean(1, keepdim=True)
    if name == "z":
        expected = (x - x.mean(1, keepdim=True)) / (x.std(1, correction=0, keepdim=True) + 1e-6)
    if name.startswith("feature"):
        expected = x - x.mean(0)
    if name.startswith("feature_z"):
        expected = expected / x.std(0, correction=0)
    if name == "n" or name.endswith("_n"):
        expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(embedding_head(name, 4).double()(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["z_c", "c_z", "z_n", "l2"])
def test_a_z_score_of_what_is_centred_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match=rf"head must be one of none, z, n, c, c_n, .* got '{name}'"):
        embedding_head(name, 4)
    with pytest.raises(ValueError, match="pooling must be one of mean, cls, max, got 'sum'"):
        Pooling("sum")  # type: ignore[arg-type]
