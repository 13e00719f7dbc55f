"""RSA against scipy's distances and correlations, with and without ties, and its refusals."""

import pytest
import scipy.stats
import torch
from scipy.spatial.distance import pdist
from torch import Tensor

from likeness.similarity.representations.rsa import Correlation, Distance, rsa
from tests.likeness.similarity.paired_samples import generator, related

CORRELATIONS = {"spearman": scipy.stats.spearmanr, "pearson": scipy.stats.pearsonr}


def with_ties() -> tuple[Tensor, Tensor]:
    """Codes of few values, whose distances coincide often."""
    x, y = (torch.randint(0, 3, (25, dim), generator=generator(dim)).double() for dim in (4, 5))
    return x, torch.cat([x[:, :2], y], dim=1)


@pytest.mark.parametrize("correlation", ["spearman", "pearson"])
@pytest.mark.parametrize("distance", ["euclidean", "correlation"])
@pytest.mark.parametrize("pair", [related(30, (4, 6)), related(20, (50, 3))], ids=["narrow", "wide"])
def test_against_scipy(pair: tuple[Tensor, Tensor], distance: Distance, correlation: Correlation) -> None:
    expected = CORRELATIONS[correlation](*(pdist(z.numpy(), metric=distance) for z in pair)).statistic
    assert float(rsa(*pair, distance, correlation)) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("correlation", ["spearman", "pearson"])
def test_equal_distances_share_their_rank(correlation: Correlation) -> None:
    expected = CORRELATIONS[correlation](*(pdist(z.numpy()) for z in with_ties())).statistic
    assert float(rsa(*with_ties(), correlation=correlation)) == pytest.approx(expected, abs=1e-11)


def test_spearman_sees_only_the_order_of_the_distances() -> None:
    """Points on a line, one of them bent in a way that keeps the order of all distances."""
    x = torch.tensor([0.0, 1.0, 3.0, 7.0, 15.0])[:, None]
    y = torch.tensor([0.0, 1.0, 3.2, 7.9, 19.0])[:, None]
    assert float(rsa(x, y)) == pytest.approx(1)
    assert float(rsa(x, y, correlation="pearson")) < 0.9999


def test_distances_that_are_all_equal_are_refused() -> None:
    with pytest.raises(ValueError, match="all pairs of the 5 samples of 'x' are equally far apart"):
        rsa(torch.eye(5), torch.eye(5))


def test_correlation_distance_refuses_two_dimensions() -> None:
    with pytest.raises(ValueError, match=r"at least 3 dimensions, but 'x' is \[40, 2\]"):
        rsa(*related(40, (2, 3)), distance="correlation")


def test_correlation_distance_names_a_sample_without_variation() -> None:
    x, y = related(10, (3, 4))
    y[6] = 0.1
    with pytest.raises(ValueError, match="coordinates of sample 6 of 'y' are all equal"):
        rsa(x, y, distance="correlation")


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="distance must be one of euclidean, correlation, but it is 'cityblock'"):
        rsa(*related(), distance="cityblock")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="correlation must be one of spearman, pearson, but it is 'kendall'"):
        rsa(*related(), correlation="kendall")  # type: ignore[arg-type]
