"""Heads of encoders, against torch's own normalisations, NumPy, and two processes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.networks.text_pooling import EmbeddingZScore, FeatureCentre, FeatureZScore, L2Normalize, RowCentre
from tests.callbacks.two_ranks import on_two_ranks

HEADS = [RowCentre(), EmbeddingZScore(), L2Normalize(), FeatureCentre(6), FeatureZScore(6)]
RUNNING = [FeatureCentre, FeatureZScore]


def embeddings(n: int, dim: int = 6, seed: int = 0, shift: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.arange(1, dim + 1)
    return torch.randn(n, dim, generator=generator) * scales + shift * scales.flip(0)


def test_rows_are_normalised_as_layer_norm_does() -> None:
    x = embeddings(20)
    expected = F.layer_norm(x.double(), [6], eps=0).float()
    torch.testing.assert_close(EmbeddingZScore()(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(EmbeddingZScore()(x).norm(dim=1), torch.full((20,), 6**0.5), rtol=1e-5, atol=0)
    torch.testing.assert_close(RowCentre()(x), x - x.mean(1, keepdim=True))
    torch.testing.assert_close(L2Normalize()(x), x / x.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_constant_and_zero_rows_have_finite_values_and_gradients(head: nn.Module) -> None:
    x = torch.stack([torch.zeros(6), torch.ones(6), torch.arange(6.0)]).requires_grad_()
    y = head.train()(x)
    y.square().sum().backward()
    assert x.grad is not None
    assert bool(y.isfinite().all())
    assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_half_precision_is_computed_in_float32(head: nn.Module) -> None:
    x = embeddings(8).bfloat16()
    y = head.eval()(x)
    assert y.dtype == torch.float32
    assert head(x.double()).dtype == torch.float64
    torch.testing.assert_close(y, head(x.float()))


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), shift=st.sampled_from([0.0, 1.0, 1000.0]))
def test_without_momentum_statistics_are_those_of_all_samples(sizes: list[int], shift: float) -> None:
    x = embeddings(sum(sizes), shift=shift)
    head = FeatureZScore(6, momentum=0)
    for batch in x.split(sizes):
        head(batch)
    exact = x.double().numpy()
    assert int(head.num_seen) == len(x)
    np.testing.assert_allclose(head.mean, exact.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(head.variance, exact.var(0), rtol=1e-4 * (1 + shift / 1000), atol=1e-6 * (1 + shift))


def test_with_momentum_old_batches_are_forgotten_exponentially() -> None:
    head, batches = FeatureZScore(6, momentum=0.25), [embeddings(4, seed=seed).double() for seed in range(9)]
    mean, square = torch.zeros(6).double(), torch.zeros(6).double()
    for number, batch in enumerate(batches):
        head(batch)
        share = max(1 / (number + 1), 0.25)
        mean = (1 - share) * mean + share * batch.mean(0)
        square = (1 - share) * square + share * batch.square().mean(0)
    torch.testing.assert_close(head.mean.double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head.variance.double(), square - mean.square(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", RUNNING)
def test_evaluation_uses_the_buffers_and_leaves_them(kind: type[FeatureCentre]) -> None:
    head, x = kind(6, momentum=0), embeddings(50)
    in_training = head(x)
    before = {name: buffer.clone() for name, buffer in head.state_dict().items()}
    head.eval()
    one_by_one = torch.cat([head(row[None]) for row in x])
    torch.testing.assert_close(one_by_one, in_training)  # a batch of one does not collapse to its own mean
    torch.testing.assert_close(head.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", RUNNING)
def test_before_any_batch_it_is_the_identity(kind: type[FeatureCentre]) -> None:
    x = embeddings(5)
    torch.testing.assert_close(kind(6).eval()(x), x, rtol=0, atol=0)


def test_dead_dimensions_become_zero_whatever_they_hold() -> None:
    head, x = FeatureZScore(6, momentum=0), embeddings(40)
    x[:, 2], x[:, 4] = 7.0, 1e-9 * x[:, 4]
    head(x)
    y = head.eval()(100 * embeddings(9, seed=1))
    assert bool((y[:, [2, 4]] == 0).all())
    torch.testing.assert_close(head(x).std(0, correction=0)[[0, 1, 3, 5]], torch.ones(4), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", RUNNING)
def test_statistics_are_constants_to_the_gradient(kind: type[FeatureCentre]) -> None:
    head, x = kind(6), embeddings(7).requires_grad_()
    head(x)
    head.eval()
    (jacobian,) = torch.autograd.grad(head(x).sum(), x)
    in_training = kind(6)
    (same,) = torch.autograd.grad(in_training(x).sum(), x)
    torch.testing.assert_close(jacobian, same)


@pytest.mark.parametrize("kind", RUNNING)
def test_state_dict_round_trip(kind: type[FeatureCentre], tmp_path: Path) -> None:
    head, x = kind(6), embeddings(30)
    head(x)
    torch.save(head.state_dict(), tmp_path / "head.pt")
    again = kind(6)
    again.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
    torch.testing.assert_close(again.eval()(x), head.eval()(x), rtol=0, atol=0)
    again.train()(x)
    assert int(again.num_seen) == 60


def test_two_ranks_have_the_statistics_of_one_process(tmp_path: Path) -> None:
    x, sizes = embeddings(31), [(4, 7), (5, 0), (1, 1), (8, 5)]  # a rank may be without samples

    def on_rank(rank: int) -> dict[str, Tensor]:
        head = FeatureZScore(6, momentum=0.2)
        start = 0
        for pair in sizes:
            begin = start + sum(pair[:rank])
            head(x[begin : begin + pair[rank]])
            start += sum(pair)
        return head.state_dict()

    first, second = on_two_ranks(on_rank, tmp_path)
    alone = FeatureZScore(6, momentum=0.2)
    for batch in x.split([sum(pair) for pair in sizes]):
        alone(batch)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, dict(alone.state_dict()), rtol=1e-6, atol=1e-6)
    assert int(first["num_seen"]) == 31


def test_refusals() -> None:
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        FeatureCentre(0)
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\), got 1"):
        FeatureZScore(3, momentum=1)
    with pytest.raises(ValueError, match=r"embeddings have shape \[2, 5\], FeatureCentre takes \[N, 6\]"):
        FeatureCentre(6)(torch.zeros(2, 5))
