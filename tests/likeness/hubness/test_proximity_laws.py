"""What the search under laws rests on: z-scores near the truth, and bounds that hold."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.hubness.mutual_proximity import MutualProximity
from likeness.hubness.proximity_laws import GammaProximity, LawProximity, NormalProximity
from likeness.neighbours.distances import PointDistances
from likeness.neighbours.exact import _proposed
from likeness.neighbours.moments import DistanceMoments
from tests.likeness.hubness.reduction_checks import points

laws = pytest.mark.parametrize("law", [NormalProximity, GammaProximity])


def law_of(law: type[LawProximity], shapes: torch.Tensor) -> LawProximity:
    """Index points whose distances have mean 1 and these shapes, mean^2 / variance."""
    moments = DistanceMoments(torch.ones_like(shapes), 1 / shapes)
    return law(PointDistances(points(len(shapes), 3), None, "euclidean"), moments, moments)


@laws
@settings(max_examples=40)
@given(st.floats(-4, 9), st.floats(0, 14), st.floats(0.2, 1e4))
def test_no_pair_beyond_the_last_z_score_has_a_smaller_key(
    law: type[LawProximity], z: float, further: float, shape: float
) -> None:
    """Of pairs whose smaller z-score is z or less: the other term only adds to the key."""
    shapes = torch.logspace(-1, 6, 40, dtype=torch.float64)
    fitted = law_of(law, shapes)
    own = DistanceMoments(torch.ones(1, dtype=torch.float64), torch.tensor([1 / shape], dtype=torch.float64))
    bound = float(fitted.at_least(torch.tensor([z], dtype=torch.float64), own))
    for moments in (fitted.of_index, own):
        location, spread = fitted.z_score(moments)
        bent = location - (z - further) * spread
        distances = bent.clamp(min=0).pow(3) if law is GammaProximity else bent
        assert bool((fitted.minus_log_survival(distances, moments) >= bound * (1 - 1e-9)).all())


@pytest.mark.parametrize("shape", [10.0, 100.0, 1000.0])
def test_z_scores_of_the_gamma_law_are_nearly_normal(shape: float) -> None:
    fitted = law_of(GammaProximity, torch.tensor([shape, shape], dtype=torch.float64))
    own = DistanceMoments(torch.ones(50, dtype=torch.float64), torch.full((50,), 1 / shape, dtype=torch.float64))
    z = torch.linspace(-3, 3, 50, dtype=torch.float64)
    normal = -torch.special.log_ndtr(z)
    torch.testing.assert_close(fitted.at_least(z, own), normal, rtol=0.1 if shape < 50 else 0.03, atol=2e-4)


@laws
def test_survival_functions_are_exact_in_both_tails(law: type[LawProximity]) -> None:
    """Against SciPy, where its logarithms keep their digits; torch's Q has nine of them near the mean."""
    from scipy import stats

    d = torch.tensor([0.2, 0.5, 0.9, 1.0, 1.3, 2.0], dtype=torch.float64)
    moments = DistanceMoments(torch.ones_like(d), torch.full_like(d, 1 / 30))
    found = law.minus_log_survival(d, moments).numpy()
    if law is NormalProximity:
        expected = -stats.norm(1, (1 / 30) ** 0.5).logsf(d.numpy())
    else:
        expected = [-stats.gamma(30, scale=1 / 30).logsf(float(v)) for v in d]
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-18 if law is NormalProximity else 2e-16)


@laws
def test_nearly_all_rows_are_settled_at_once(law: type[LawProximity]) -> None:
    """A search that asks again for many rows is right and slow."""
    method = MutualProximity("normal" if law is NormalProximity else "gamma").fit(points(1000, 60))
    ranking = method._ranking(None)
    _, doubtful = _proposed(ranking, torch.arange(1000), 11, 22 + ranking.spare, None)
    assert len(doubtful) < 50
