"""Linear probes: how much of the labels a linear classifier reads off a representation."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from likeness.checks import require_one_of
from likeness.numerics import as_float64, require_finite

ProbeName = Literal["ridge", "logistic"]
PENALTY = 1e-3
MAX_STEPS = 200  # of L-BFGS
TOLERANCE = 1e-7  # of the gradient's largest entry


class LinearProbe(NamedTuple):
    """Scores W (x - mean) / scale + b of representations x."""

    weight: Tensor  # [K, M] float64
    bias: Tensor  # [K]
    mean: Tensor  # [M]
    scale: Tensor  # [M]; 1 for constant dimensions

    def scores(self, f: Tensor) -> Tensor:
        """[N, K] of f [N, M]."""
        return ((as_float64(f) - self.mean) / self.scale) @ self.weight.T + self.bias

    def predict(self, f: Tensor) -> Tensor:
        """The label with the largest score, [N]."""
        return self.scores(f).argmax(1)


def fit_probe(
    f: Tensor, labels: Tensor, num_classes: int, probe: ProbeName = "ridge", penalty: float = PENALTY
) -> LinearProbe:
    """A linear classifier of f [N, M] with labels [N] of 0 .. K - 1, in float64, a function of its arguments alone.

    Dimensions are standardised over the N samples. ``ridge`` regresses one-hot labels in closed form, with
    ``penalty`` times N on the squared weights; ``logistic`` minimises the mean negative log-likelihood and half of
    ``penalty`` times the squared weights by L-BFGS. Biases are not penalised. Raises ValueError for sizes that do not
    fit, labels out of range and values that are not finite.

    Example:
        >>> import torch
        >>> f = torch.randn(200, 4, generator=torch.manual_seed(0))
        >>> labels = (f[:, 0] > 0).long()
        >>> probe = fit_probe(f, labels, 2, "logistic")
        >>> (probe.predict(f) == labels).double().mean().item() > 0.97
        True
    """
    require_one_of(probe, ("ridge", "logistic"), "probe")
    if f.ndim != 2 or labels.shape != f.shape[:1] or not len(f):
        raise ValueError(f"a probe needs f [N, M] and labels [N], got {list(f.shape)} and {list(labels.shape)}")
    if not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise ValueError(f"labels must be of 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}")
    if not penalty > 0:
        raise ValueError(f"penalty must be positive, got {penalty}")
    require_finite([f], ["f"])
    x = as_float64(f)
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 1e-12 * x.abs().amax(0), scale, 1.0)
    x, targets = (x - mean) / scale, F.one_hot(labels, num_classes).to(x)
    weight, bias = (_ridge if probe == "ridge" else _logistic)(x, targets, penalty)
    return LinearProbe(weight, bias, mean, scale)


def _ridge(x: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Of centred x: (X^T X / N + penalty)^-1 X^T Y / N, and the mean of the targets."""
    gram = x.T @ x / len(x)
    gram.diagonal().add_(penalty)
    weight = torch.linalg.solve(gram, x.T @ targets / len(x))
    return weight.T, targets.mean(0)


def _logistic(x: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    weight = x.new_zeros(targets.shape[1], x.shape[1], requires_grad=True)
    bias = targets.mean(0).clamp(min=1e-6).log().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_STEPS, tolerance_grad=TOLERANCE, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, targets) + penalty / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
