"""The streamed, factored joint moments against one pass over all samples."""

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from likeness.numerics import FactoredMoments
from likeness.similarity.joint_moments import JointMoments


def far_from_origin(size: int = 400, dim: int = 6, seed: int = 0) -> Tensor:
    """Correlated samples with mean 50, standard deviation about 1 and a coordinate that is always 1."""
    rng = np.random.default_rng(seed)
    samples = torch.from_numpy(50 + rng.normal(size=(size, dim)) @ rng.normal(size=(dim, dim)) / dim**0.5)
    return torch.cat([samples[:, :2], torch.ones(size, 1), samples[:, 2:]], dim=1)


def assert_equal_to_single_pass(moments: FactoredMoments, samples: Tensor) -> None:
    exact = samples.numpy().astype(np.longdouble)
    centred = exact - exact.mean(0)
    scatter = (centred.T @ centred).astype(np.float64)
    assert moments.n == len(samples)
    np.testing.assert_allclose(moments.mean, exact.mean(0).astype(np.float64), rtol=1e-14)
    np.testing.assert_allclose(moments.scatter, scatter, rtol=0, atol=1e-12 * scatter.max())
    np.testing.assert_allclose(moments.root.T @ moments.root * (len(samples) - 1), moments.scatter, rtol=1e-12)
    assert moments.mean[2] == 1
    assert not moments.factor[:, 2].any()


def stream(parts: list[FactoredMoments]) -> FactoredMoments:
    """As the metric does: packed between any two."""
    return reduce(
        lambda total, part: FactoredMoments.unpack(FactoredMoments.merge([total, part]).pack()),
        parts,
        FactoredMoments.of(torch.empty(0, len(parts[0].mean))),
    )


@given(cuts=st.lists(st.integers(0, 400), max_size=12), at_once=st.booleans())
def test_any_split_gives_the_single_pass_answer(cuts: list[int], at_once: bool) -> None:
    samples = far_from_origin()
    edges = [0, *sorted(cuts), len(samples)]
    parts = [FactoredMoments.of(samples[a:b]) for a, b in pairwise(edges)]
    assert_equal_to_single_pass(FactoredMoments.merge(parts) if at_once else stream(parts), samples)


def test_a_thousand_single_samples() -> None:
    samples = far_from_origin(1000)
    assert_equal_to_single_pass(stream([FactoredMoments.of(sample) for sample in samples.split(1)]), samples)


@pytest.mark.parametrize("size", [1, 5, 13, 400])
def test_packing_loses_nothing_and_has_one_size(size: int) -> None:
    moments = FactoredMoments.of(far_from_origin(size))
    packed = moments.pack()
    unpacked = FactoredMoments.unpack(packed)
    assert packed.shape == (15, 8)
    assert torch.equal(unpacked.n, moments.n)
    assert torch.equal(unpacked.mean, moments.mean)
    torch.testing.assert_close(unpacked.scatter, moments.scatter, rtol=1e-15, atol=0)


def test_dependent_coordinates_stay_dependent_to_rounding() -> None:
    """What the scatter, of squares, would know to half as many digits."""
    samples, weights = far_from_origin(1000, dim=4)[:, [0, 1, 3, 4]], torch.linspace(-1, 1, 4, dtype=torch.float64)
    samples = torch.cat([samples, (samples @ weights)[:, None]], dim=1)
    root = stream([FactoredMoments.of(part) for part in samples.split(7)]).root
    assert float((root[:, :4] @ weights - root[:, 4]).norm()) < 1e-13


def test_a_single_sample_does_not_vary() -> None:
    assert not FactoredMoments.of(torch.ones(1, 3)).root.any()


def joint(embeddings: list[Tensor]) -> JointMoments:
    log_partitions = torch.ones(len(embeddings), len(embeddings[0]))
    return JointMoments.of(embeddings, log_partitions, [str(model) for model in range(len(embeddings))])


def test_layout_of_models_with_different_dimensions() -> None:
    x, y = torch.randn(20, 3), torch.randn(20, 2)
    moments = joint([x, y])
    torch.testing.assert_close(moments.moments.mean[moments.embedding(1)], y.double().mean(0))
    assert [moments.log_partition(model) for model in (0, 1)] == [3, 6]
    assert moments.embedding(0) == slice(0, 3)


def test_the_constant_coordinate_of_a_biased_head_is_no_part_of_the_embedding() -> None:
    f = torch.cat([torch.randn(20, 2), torch.ones(20, 1)], dim=1)
    moments = joint([f, f[:, :2], 2 * f, f[:, 2:]])
    assert [moments.has_bias(model) for model in range(4)] == [True, False, False, False]
    assert moments.embedding(0) == slice(0, 2)
    assert [moments.bare_dim(model) for model in range(4)] == [2, 2, 3, 1]
