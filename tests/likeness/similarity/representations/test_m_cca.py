"""m_CCA against scikit-learn, a generalised eigenvalue problem, invariances, and its refusals."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cross_decomposition import CCA
from torch import Tensor

from likeness.similarity.joint_moments import JointMoments
from likeness.similarity.pairwise import PairwiseDistances
from likeness.similarity.representations.cca import m_cca, m_cca_f, m_cca_of_samples
from likeness.similarity.softmax_models import SoftmaxModels
from likeness.similarity.undefined import RankDeficientError


def related(samples: int = 200, dims: tuple[int, ...] = (3, 3), seed: int = 0) -> list[Tensor]:
    """Noisy linear images of common causes."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(samples, max(dims)))
    images = [causes @ rng.normal(size=(max(dims), dim)) + rng.normal(size=(samples, dim)) for dim in dims]
    return [torch.from_numpy(image) for image in images]


def joint(embeddings: list[Tensor]) -> JointMoments:
    names = [f"m{i}" for i in range(len(embeddings))]
    return JointMoments.of(embeddings, torch.zeros(len(embeddings), len(embeddings[0])), names)


def correlations_by_eigenvalues(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Hotelling 1936: the generalised eigenvalues of the cross-covariance blocks are plus and minus them."""
    dim = x.shape[1]
    c = np.cov(np.hstack([x, y]), rowvar=False)
    blocks = np.zeros_like(c)
    blocks[:dim, :dim], blocks[dim:, dim:] = c[:dim, :dim], c[dim:, dim:]
    values = scipy.linalg.eigh(c - blocks, blocks, eigvals_only=True)
    return values[::-1][: min(dim, y.shape[1])]


def test_against_scikit_learn() -> None:
    x, y = related()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its iteration may stop at its limit
        scores = CCA(n_components=3, max_iter=5000, tol=1e-12).fit(x.numpy(), y.numpy()).transform(x.numpy(), y.numpy())
    expected = np.mean([np.corrcoef(scores[0][:, k], scores[1][:, k])[0, 1] for k in range(3)])
    assert float(m_cca(x, y)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("dims", [(2, 2), (3, 5), (5, 2), (1, 4)])
def test_against_the_eigenvalue_problem(dims: tuple[int, int]) -> None:
    x, y = related(dims=dims)
    expected = correlations_by_eigenvalues(x.numpy(), y.numpy()).mean()
    assert float(m_cca(x, y)) == pytest.approx(expected, abs=1e-12)
    assert float(m_cca_f(joint([x, y])).values[0, 1]) == pytest.approx(expected, abs=1e-12)


def test_all_pairs_of_models_with_different_dimensions() -> None:
    models = related(dims=(2, 4, 3, 2))
    expected = torch.stack([torch.stack([m_cca(x, y) for y in models]) for x in models])
    torch.testing.assert_close(m_cca_f(joint(models)).values, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(m_cca_of_samples(models, "abcd"), expected, rtol=0, atol=1e-12)


@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50), scale=st.floats(1e-3, 1e3))
def test_invertible_maps_change_nothing(seed: int, shift: float, scale: float) -> None:
    x, y = related(seed=seed)
    rng = np.random.default_rng(seed)
    a, b = (torch.from_numpy(np.eye(3) + 0.2 * rng.uniform(-1, 1, (3, 3))) for _ in range(2))
    mapped = scale * x @ a + shift
    assert 0 <= float(m_cca(x, y)) <= 1
    torch.testing.assert_close(m_cca(mapped, y @ b), m_cca(x, y), rtol=0, atol=1e-10)
    torch.testing.assert_close(m_cca_f(joint([mapped, y @ b])).values[0, 1], m_cca(x, y), rtol=0, atol=1e-9)
    assert float(m_cca(x, mapped)) == pytest.approx(1, abs=1e-12)


def test_biased_heads_are_compared_without_their_constant() -> None:
    x, y = related(dims=(2, 2))
    with_constant = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    models = joint([with_constant, y])
    torch.testing.assert_close(m_cca_f(models).values[0, 1], m_cca(x, y), rtol=0, atol=1e-12)
    g = related(samples=7, dims=(3, 2))
    of_heads = PairwiseDistances(SoftmaxModels(models, tuple(g), (with_constant, y)))["m_cca_g"]
    torch.testing.assert_close(of_heads[0, 1], m_cca(g[0][:, :2], g[1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("last", [lambda x: x[:, 0], lambda x: 0.3 + 0 * x[:, 0], lambda x: x[:, 0] - 2 * x[:, 1]])
def test_a_representation_that_does_not_span_its_dimensions_is_named(last) -> None:
    x, y = related()
    x[:, 2] = last(x)
    with pytest.raises(RankDeficientError, match=r"'x', \[200, 3\], span 2 of 3 dimensions"):
        m_cca(x, y)
    found = m_cca_f(joint([y, x, 2 * y]))
    assert found.undefined[0, 1] == "the embeddings of model 'm1', [200, 3], span 2 of 3 dimensions"
    assert found.values.isnan().tolist() == [[False, True, False], [True, True, True], [False, True, False]]
    assert float(found.values[0, 2]) == pytest.approx(1)


def test_too_few_samples_are_named_with_their_shape() -> None:
    x, y = related(samples=3)
    with pytest.raises(ValueError, match=r"more samples than dimensions, but its representation is \[3, 3\]"):
        m_cca(x, y)
    assert "model 'm0' are [N, M] = [3, 3]" in m_cca_f(joint([x, y])).undefined[0, 1]
    with pytest.raises(ValueError, match=r"x is \(3, 3\) and y is \(2, 3\)"):
        m_cca(x, y[:2])
