"""Nulls over all pairs of layers, against plain loops and uniform laws; intervals, against a known value."""

import math

import pytest
import scipy.stats
import torch
from torch import Tensor

from likeness.seeding import generator
from likeness.similarity.layers.matrices import LAYER_MEASURES, LayerMatrices
from likeness.similarity.layers.statistics import LayerNull, calibrated, layer_intervals, layer_null
from likeness.similarity.representations.permutation_null import Draws, null_distribution
from tests.likeness.similarity.paired_samples import related, unrelated

ROOM = 2**30
RUNS = 120


def matrices(measure: str, a: list[Tensor], b: list[Tensor] | None, positions: int = 1) -> LayerMatrices:
    own, others = ([x.unflatten(0, (-1, positions)) for x in side] if side else None for side in (a, b))
    names = [[f"{side}{number}" for number in range(9)] for side in "ab"]
    assert own is not None
    return LayerMatrices(LAYER_MEASURES[measure], own, others, ROOM, (names[0], names[1]))


def both(seed: int, n: int = 20) -> tuple[list[Tensor], list[Tensor]]:
    """Layers of two models that share nothing; those of each model share a part."""
    x, y = unrelated(n, (3, 2), seed)
    return [x, x[:, :2] + 0.5 * x[:, 1:]], [y, y.square()]


@pytest.mark.parametrize("measure", LAYER_MEASURES)
def test_one_pair_has_the_null_of_two_representations(measure: str) -> None:
    x, y = related(25, (3, 4), noise=1.0)
    ours = layer_null(matrices(measure, [x], [y]), 25, n=30, seed=3)
    theirs = null_distribution(LAYER_MEASURES[measure], x, y, n=30, seed=3)
    torch.testing.assert_close(ours.best.values, theirs.values, atol=1e-10, rtol=0)
    assert ours.best.observed == pytest.approx(theirs.observed, abs=1e-12)
    assert ours.best.p_value == theirs.p_value == float(ours.p_values)


@pytest.mark.parametrize("measure", ["unbiased_linear_cka", "procrustes"])
def test_the_best_pair_is_calibrated_as_algorithm_2_says(measure: str) -> None:
    """Gröger et al. 2026, by a loop over permutations and pairs; a distance by its negative."""
    (a, b), of, n, alpha = both(0), LAYER_MEASURES[measure], 39, 0.1
    sign = 1 if of.larger_is_more_alike else -1
    (orders,) = Draws(n, 20, 0).batches(n)
    observed = sign * torch.tensor([[of(x, y) for y in b] for x in a])
    null = torch.tensor([max(sign * float(of(x, y[order])) for x in a for y in b) for order in orders])
    ranked = torch.cat([null, observed.max()[None]]).sort().values
    threshold = float(ranked[math.ceil((1 - alpha) * (n + 1)) - 1])
    found = layer_null(matrices(measure, a, b), 20, n=n, alpha=alpha)
    assert found.threshold == pytest.approx(sign * threshold, abs=1e-6)
    p_values = [[(1 + int((null >= value).sum())) / (n + 1) for value in row] for row in observed]
    assert found.p_values.tolist() == p_values
    limit = 1.0 if sign > 0 else 0.0
    scores = ((observed - threshold) / (limit - threshold)).clamp(min=0)
    torch.testing.assert_close(found.scores, scores.double(), atol=1e-6, rtol=0)
    assert found.score == float(found.scores.max())


def found_in(seed: int, measure: str) -> LayerNull:
    return layer_null(matrices(measure, *both(seed)), 20, n=49, alpha=0.1, seed=seed)


@pytest.mark.parametrize("measure", ["unbiased_linear_cka", "linear_cka", "rsa", "procrustes"])
def test_p_values_are_uniform_where_nothing_is_shared(measure: str) -> None:
    """Of the best pair; and a false alarm anywhere in the matrix is as rare as alpha says."""
    found = [found_in(seed, measure) for seed in range(150)]
    assert scipy.stats.kstest([null.best.p_value for null in found], "uniform").pvalue > 0.01
    alarms = sum(bool(null.significant.any()) for null in found)
    assert scipy.stats.binomtest(alarms, 150, 0.1).pvalue > 0.001
    assert sum(null.score > 0 for null in found) <= alarms + 1e-9


def test_a_pair_that_is_related_stands_out_alone() -> None:
    x, y = related(60, (3, 4), noise=0.5)
    a, b = [x, unrelated(60, seed=7)[0]], [unrelated(60, seed=8)[0], y]
    null = layer_null(matrices("unbiased_linear_cka", a, b), 60, n=199)
    assert null.significant.tolist() == [[False, True], [False, False]]
    assert null.scores[0, 1] > 0.3
    assert float(null.p_values.min()) == 1 / 200


def test_positions_move_with_their_samples() -> None:
    x, y = related(40, (3, 4))
    of, cells = LAYER_MEASURES["linear_cka"], matrices("linear_cka", [x], [y], positions=2)
    order = torch.randperm(20, generator=generator(0))
    rows = torch.stack([2 * order, 2 * order + 1], dim=1).flatten()
    assert float(cells.permuted(order[None])) == pytest.approx(float(of(x, y[rows])), abs=1e-12)


@pytest.mark.parametrize("measure", ["unbiased_linear_cka", "linear_cka", "rsa"])
def test_pairs_of_two_draws_of_one_sample_are_dropped(measure: str) -> None:
    """Against the sum over pairs of draws, written out."""
    x, y = related(12, (3, 4))
    cells = matrices(measure, [x], [y])
    drawn = torch.randint(12, (12,), generator=generator(1))
    (block,) = cells.blocks
    k, m = block.cells.a[0], block.cells.b[0]  # type: ignore[attr-defined]
    sums = torch.zeros(3, dtype=torch.float64)
    for p, i in enumerate(drawn):
        for q, j in enumerate(drawn):
            if i != j or p == q:
                sums += torch.stack([k[i, j] * m[i, j], k[i, j] ** 2, m[i, j] ** 2])
    assert float(cells.resampled(drawn)) == pytest.approx(float(sums[0] / (sums[1] * sums[2]).sqrt()), abs=1e-12)


def test_measures_without_relations_are_computed_again_of_the_draws() -> None:
    x, y = related(30, (3, 4))
    drawn = torch.randint(30, (30,), generator=generator(1))
    for measure in ("procrustes", "svcca", "m_cca"):
        expected = float(LAYER_MEASURES[measure](x[drawn], y[drawn]))
        assert float(matrices(measure, [x], [y]).resampled(drawn)) == pytest.approx(expected, abs=1e-12)


def test_intervals_cover_the_value_of_the_population() -> None:
    """x and e standard normal in the plane, y = (x_1 + e_1, s e_2): CKA is 1 / (sqrt(2) sqrt(4 + s^4)).

    For the cross-covariance is 1 in one place alone, and the squared covariances sum to 2 for x, to 4 + s^4 for y.
    """
    scale, n, covered = 1.2, 80, 0
    truth = 1 / math.sqrt(2 * (4 + scale**4))
    for seed in range(RUNS):
        x, e = unrelated(n, (2, 2), seed)
        y = torch.stack([x[:, 0] + e[:, 0], scale * e[:, 1]], dim=1)
        interval = layer_intervals(matrices("unbiased_linear_cka", [x], [y]), n, n=100, confidence=0.9, seed=seed)
        covered += bool(interval.low <= truth <= interval.high)
    assert scipy.stats.binomtest(covered, RUNS, 0.9).pvalue > 0.001, covered


def test_scores_start_at_the_threshold_and_end_at_the_limit() -> None:
    values = torch.tensor([0.1, 0.2, 0.6, 1.0])
    torch.testing.assert_close(calibrated(values, 0.2, 1.0, 1), torch.tensor([0.0, 0.0, 0.5, 1.0]))
    torch.testing.assert_close(calibrated(values, 0.6, 0.0, -1), torch.tensor([5 / 6, 2 / 3, 0.0, 0.0]))
    torch.testing.assert_close(calibrated(values, 0.2, None, 1), torch.tensor([0.0, 0.0, 0.4, 0.8]))
