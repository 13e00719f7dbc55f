"""Streamed moments against one pass over all samples."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from likeness.numerics import Moments, cosines, require_finite, unit_length


def far_from_origin(size: int = 400, dim: int = 6, seed: int = 0) -> Tensor:
    """Correlated samples with mean 50 and standard deviation about 1."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(50 + rng.normal(size=(size, dim)) @ rng.normal(size=(dim, dim)) / dim**0.5)


def merged(parts: list[Moments]) -> Moments:
    return Moments.merge(Moments(*map(torch.stack, zip(*parts, strict=True))))


def assert_equal_to_single_pass(moments: Moments, samples: Tensor) -> None:
    exact = samples.numpy().astype(np.longdouble)
    centred = exact - exact.mean(0)
    scatter = (centred.T @ centred).astype(np.float64)
    assert moments.n == len(samples)
    np.testing.assert_allclose(moments.mean, exact.mean(0).astype(np.float64), rtol=1e-14)
    np.testing.assert_allclose(moments.scatter, scatter, rtol=0, atol=1e-12 * scatter.max())


@given(cuts=st.lists(st.integers(0, 400), max_size=12), one_at_a_time=st.booleans())
def test_any_split_gives_the_single_pass_answer(cuts: list[int], one_at_a_time: bool) -> None:
    samples = far_from_origin()
    edges = [0, *sorted(cuts), len(samples)]
    parts = [Moments.of(samples[a:b]) for a, b in pairwise(edges)]
    if one_at_a_time:
        total = parts[0]
        for part in parts[1:]:
            total = merged([total, part])
    else:
        total = merged(parts)
    assert_equal_to_single_pass(total, samples)


def test_a_thousand_single_samples() -> None:
    samples = far_from_origin(1000)
    total = Moments.of(samples[:0])
    for sample in samples.split(1):
        total = merged([total, Moments.of(sample)])
    assert_equal_to_single_pass(total, samples)


def test_scatter_is_that_of_numpy() -> None:
    samples = far_from_origin()
    expected = np.cov(samples.numpy(), rowvar=False) * (len(samples) - 1)
    np.testing.assert_allclose(Moments.of(samples.float()).scatter, expected, rtol=1e-4)
    np.testing.assert_allclose(Moments.of(samples).scatter, expected, rtol=1e-11)


def test_packing_is_lossless() -> None:
    moments = Moments.of(far_from_origin())
    for field, unpacked in zip(moments, Moments.unpack(moments.pack()), strict=True):
        assert torch.equal(field, unpacked)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_named(value: float) -> None:
    good, bad = torch.zeros(4, 2), torch.zeros(4, 2)
    bad[2, 1] = value
    require_finite([good, good], ["a", "b"])
    with pytest.raises(ValueError, match=f"embedding of model 'b' is not finite at sample 17: {value}"):
        require_finite([good, bad], ["a", "b"], ids=torch.tensor([15, 16, 17, 18]))
    with pytest.raises(ValueError, match="at sample 2"):
        require_finite([good, bad], ["a", "b"])


def test_large_finite_values_pass() -> None:
    require_finite([torch.full((4, 2), torch.finfo(torch.float32).max)], ["a"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-36, 1e-13, 1.0, 1e13, 1e36])
def test_lengths_and_angles_of_short_and_long_vectors(size: float, dtype: torch.dtype) -> None:
    u, v = torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    short = [(x * size).to(dtype).requires_grad_() for x in (u, v)]
    exact = [x / x.norm(dim=-1, keepdim=True) for x in (u, v)]
    rtol = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(unit_length(short[0]), exact[0].to(dtype), rtol=0, atol=rtol)
    found = cosines(*short)
    torch.testing.assert_close(found, (exact[0] * exact[1]).sum(1).to(dtype), rtol=0, atol=rtol)
    (gradient,) = torch.autograd.grad(found.sum(), short[0])  # turning u towards v, over |u|
    wanted = (exact[1] - (exact[0] * exact[1]).sum(1, keepdim=True) * exact[0]) / u.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(gradient.double() * size, wanted, rtol=0, atol=10 * rtol * float(wanted.abs().max()))


def test_ordinary_vectors_are_normalised_as_torch_does() -> None:
    x, y = torch.randn(2, 500, 9, generator=torch.Generator().manual_seed(1))
    assert torch.equal(unit_length(x), torch.nn.functional.normalize(x, dim=-1))
    assert torch.equal(cosines(x, y), torch.cosine_similarity(x, y, dim=-1))


def test_zero_has_no_direction() -> None:
    zero, one = torch.zeros(1, 3), torch.ones(1, 3)
    assert not unit_length(zero).any()
    assert not cosines(zero, one).any()
