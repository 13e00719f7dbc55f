"""Linear probes against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from likeness.probes import fit_probe

N, M, K = 150, 6, 4
F = torch.randn(N, M, generator=torch.manual_seed(0)) * torch.tensor([1, 10, 0.1, 1, 1, 1e-3]) + 5
NOISY = F / F.std(0) + torch.randn(N, M, generator=torch.manual_seed(1)) / 2
Y = (NOISY[:, 0] > NOISY[:, 0].median()).long() + 2 * (NOISY[:, 1] > NOISY[:, 1].median()).long()


def standardised() -> np.ndarray:
    return np.asarray(StandardScaler().fit_transform(F.double().numpy()))


@pytest.mark.parametrize("penalty", [1e-3, 0.1])
def test_ridge_is_scikit_learns(penalty: float) -> None:
    probe = fit_probe(F, Y, K, "ridge", penalty)
    expected = Ridge(alpha=penalty * N).fit(standardised(), np.eye(K)[Y.numpy()])
    np.testing.assert_allclose(probe.weight.numpy(), expected.coef_, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(probe.bias.numpy(), expected.intercept_, rtol=1e-8)
    np.testing.assert_allclose(probe.scores(F).numpy(), expected.predict(standardised()), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("penalty", [1e-3, 0.1])
def test_logistic_is_scikit_learns(penalty: float) -> None:
    probe = fit_probe(F, Y, K, "logistic", penalty)
    expected = LogisticRegression(C=1 / (penalty * N), tol=1e-10, max_iter=10_000).fit(standardised(), Y.numpy())
    np.testing.assert_allclose(probe.weight.numpy(), expected.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        probe.scores(F).softmax(1).numpy(), expected.predict_proba(standardised()), rtol=1e-3, atol=1e-5
    )


def test_the_scale_and_the_place_of_the_data_change_nothing() -> None:
    probe, moved = fit_probe(F, Y, K), fit_probe(F.double() * 1e6 - 7, Y, K)
    torch.testing.assert_close(probe.scores(F), moved.scores(F.double() * 1e6 - 7), rtol=1e-6, atol=1e-8)


def test_constant_dimensions_say_nothing() -> None:
    with_constant = torch.cat([F, torch.full((N, 1), 3.0)], dim=1)
    for name in ("ridge", "logistic"):
        probe = fit_probe(with_constant, Y, K, name)  # type: ignore[arg-type]
        assert probe.weight[:, -1].abs().max() < 1e-12
        assert torch.equal(probe.predict(with_constant), fit_probe(F, Y, K, name).predict(F))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": Y[:3]}, r"f \[N, M\] and labels \[N\], got \[150, 6\] and \[3\]"),
        ({"num_classes": 2}, "labels must be of 0..1, got 0.."),
        ({"probe": "svm"}, "probe must be one of ridge, logistic"),
        ({"penalty": 0.0}, "penalty must be positive, got 0.0"),
        ({"f": F / 0}, "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_probe(**{"f": F, "labels": Y, "num_classes": K, **change})  # type: ignore[arg-type]
