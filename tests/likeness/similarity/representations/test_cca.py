"""SVCCA and PWCCA against scikit-learn's PCA and CCA, a formula written from the paper, and m_CCA."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA

from likeness.similarity.representations.cca import m_cca, pwcca, svcca
from likeness.similarity.undefined import RankDeficientError
from tests.likeness.similarity.paired_samples import invertible, orthogonal, related, unrelated


def test_svcca_is_the_canonical_correlation_of_principal_components() -> None:
    x, y = related(300, (4, 6))
    stretch = torch.tensor([5.0, 2.0, 1.0, 0.05], dtype=torch.float64)
    x = x * stretch
    scores = [PCA(n_components=0.99, svd_solver="full").fit_transform(z.numpy()) for z in (x, y)]
    kept = min(z.shape[1] for z in scores)
    assert kept == 3  # the fourth coordinate of x is left out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its iteration may stop at its limit
        pairs = CCA(n_components=kept, max_iter=5000, tol=1e-12).fit(*scores).transform(*scores)
    expected = np.mean([np.corrcoef(pairs[0][:, k], pairs[1][:, k])[0, 1] for k in range(kept)])
    assert float(svcca(x, y)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dims", [(2, 2), (3, 5), (5, 2)])
def test_svcca_of_all_the_variance_is_m_cca(dims: tuple[int, int]) -> None:
    x, y = related(100, dims)
    assert float(svcca(x, y, variance=1.0)) == pytest.approx(float(m_cca(x, y)), abs=1e-12)


def test_svcca_keeps_the_fewest_components_that_hold_the_variance() -> None:
    """Variances 80, 15 and 5: 0.8 needs one of them, 0.81 two, 0.95 two and 0.96 three."""
    x = torch.linalg.qr(unrelated(50, (3, 1))[0] - unrelated(50, (3, 1))[0].mean(0))[0]
    x = x * torch.tensor([80.0, 15.0, 5.0]).sqrt()
    for variance, kept in [(0.799, 1), (0.801, 2), (0.949, 2), (0.951, 3)]:
        assert float(svcca(x, x[:, :kept], variance=variance)) == pytest.approx(1)
        assert float(svcca(x, unrelated(50, (3, 1))[1], variance)) == pytest.approx(
            float(m_cca(x[:, :kept], unrelated(50, (3, 1))[1])), abs=1e-12
        )


def test_svcca_refuses_to_keep_as_many_components_as_samples_span() -> None:
    x, y = unrelated(10, (40, 3))
    with pytest.raises(ValueError, match=r"9 components hold 99% of the variance of 'x' \[10, 40\]"):
        svcca(x, y)


@pytest.mark.parametrize("variance", [0.0, 1.1, float("nan")])
def test_svcca_refuses_a_share_outside_its_range(variance: float) -> None:
    with pytest.raises(ValueError, match=rf"\(0, 1\], but it is {variance}"):
        svcca(*related(), variance=variance)


@pytest.mark.parametrize("dims", [(3, 3), (2, 5), (5, 2)])
def test_pwcca_weighs_correlations_by_what_their_variables_account_for(dims: tuple[int, int]) -> None:
    """Morcos et al. 2018, section 3, with canonical variables from covariances and eigenvectors."""
    x, y = (z.numpy() - z.numpy().mean(0) for z in related(60, dims))
    within = np.linalg.inv(scipy.linalg.sqrtm(x.T @ x).real)
    other = np.linalg.inv(scipy.linalg.sqrtm(y.T @ y).real)
    directions, correlations, _ = np.linalg.svd(within @ (x.T @ y) @ other)
    kept = min(dims)
    variables = (x @ within @ directions)[:, :kept]
    weights = np.abs(variables.T @ x).sum(1)
    expected = (weights * correlations).sum() / weights.sum()
    assert float(pwcca(torch.from_numpy(x), torch.from_numpy(y))) == pytest.approx(expected, abs=1e-10)


@given(st.integers(0, 2**31))
def test_pwcca_is_blind_to_invertible_maps_of_the_side_that_does_not_weigh(seed: int) -> None:
    x, y = related(30, (3, 4), seed)
    value = float(pwcca(x, y))
    assert float(pwcca(x, y @ invertible(4, seed) + 3)) == pytest.approx(value, abs=1e-10)
    assert float(pwcca(-2 * x[:, [2, 0, 1]] + 1, y)) == pytest.approx(value, abs=1e-10)


def test_pwcca_depends_on_the_basis_and_on_which_side_weighs() -> None:
    x, y = related(30, (3, 3))
    x = x * torch.tensor([5.0, 1.0, 0.2])
    value = float(pwcca(x, y))
    assert abs(float(pwcca(y, x)) - value) > 1e-3
    assert abs(float(pwcca(x @ orthogonal(3, 1), y)) - value) > 1e-4


def test_pwcca_refuses_a_representation_that_does_not_span_its_dimensions() -> None:
    x, y = related(30, (3, 3))
    with pytest.raises(RankDeficientError, match="span 3 of 4"):
        pwcca(torch.cat([x, x[:, :1]], dim=1), y)
