"""Hubness of Gaussian data by dimension and metric, against published numbers."""

import numpy as np
import pytest

from likeness.hubness.analysis import analyse_hubness
from likeness.neighbours.exact import DistanceName

# k-skewness, Robin Hood, antihub rate and largest count at n = 10,000, k = 10, to the printed digits.
GROWTH = {
    (0, "euclidean"): {3: (-0.11, 0.099, 0.001, 19), 20: (2.21, 0.387, 0.073, 116), 100: (7.58, 0.581, 0.254, 516)},
    (0, "cosine"): {3: (0.08, 0.089, 0, 18), 20: (0.24, 0.119, 0, 22), 100: (0.32, 0.125, 0, 23)},
    (0, "dot"): {3: (10.56, 0.975, 0.973, 1644), 20: (4.12, 0.601, 0.367, 339), 100: (1.68, 0.310, 0.029, 80)},
    (1, "cosine"): {3: (0.08, 0.092, 0, 18), 20: (1.33, 0.307, 0.034, 61), 100: (5.05, 0.509, 0.164, 306)},
    (1, "dot"): {3: (22.65, 0.978, 0.975, 5555), 20: (20.2, 0.874, 0.772, 2827), 100: (23.8, 0.835, 0.690, 3116)},
}


@pytest.mark.parametrize(
    ("mean", "metric"),
    [pytest.param(*row, marks=pytest.mark.long if row[0] else ()) for row in GROWTH],
    ids=lambda value: str(value),
)
def test_growth_with_the_dimension(mean: int, metric: DistanceName) -> None:
    for dim, (skewness, robin_hood, antihubs, largest) in GROWTH[mean, metric].items():
        x = mean + np.random.default_rng(dim).standard_normal((10_000, dim))
        report = analyse_hubness(x, metric=metric)
        assert report.k_skewness == pytest.approx(skewness, abs=0.0501 if skewness > 20 else 0.00501), dim
        assert report.robin_hood == pytest.approx(robin_hood, abs=0.000501), dim
        assert report.antihub_rate == pytest.approx(antihubs, abs=0.000501), dim
        assert report.max_occurrence == largest, dim
        if (mean, metric) == (0, "cosine") and dim >= 50:  # isotropic directions are at the null
            assert report.k_skewness == pytest.approx(report.null.k_skewness, abs=0.05)
            assert report.robin_hood == pytest.approx(report.null.robin_hood, abs=0.003)
