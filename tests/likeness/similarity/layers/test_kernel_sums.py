"""Linear CKA from sums over batches: the formulas in float64, and another library's numbers."""

import pytest
import torch
from torch import Tensor, nn

from likeness.similarity.layers.compare import compare_layers
from likeness.similarity.layers.kernel_sums import KernelSums, gram
from likeness.similarity.representations.cka import linear_cka, unbiased_linear_cka

DIMS = ((3, 40, 5000), (200, 6))


def layers(n: int = 300, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    """Of two models that share a part, far from the origin."""
    g = torch.Generator().manual_seed(0)
    shared = torch.randn(n, 3, generator=g, dtype=torch.float64)

    def layer(dim: int) -> Tensor:
        mix = torch.randn(3, dim, generator=g, dtype=torch.float64)
        return (5 + shared @ mix + torch.randn(n, dim, generator=g, dtype=torch.float64)).to(dtype)

    first, second = ([layer(dim) for dim in dims] for dims in DIMS)
    return first, second


def hsic_0(x: Tensor, y: Tensor) -> Tensor:
    """The biased estimate, from its definition tr(K H L H) / (n - 1)^2."""
    n = len(x)
    centre = torch.eye(n, dtype=x.dtype) - 1 / n
    return torch.trace(x @ x.T @ centre @ (y @ y.T) @ centre) / (n - 1) ** 2


def hsic_1(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate, Song et al. 2012, eq. 5, as it stands there."""
    n, (k, m) = len(x), ((z @ z.T).fill_diagonal_(0) for z in (x, y))
    one = x.new_ones(n)
    middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (torch.trace(k @ m) + middle - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def summed(a: list[Tensor], b: list[Tensor] | None, sizes: list[int], unbiased: bool) -> Tensor:
    sums = KernelSums(unbiased)
    parts = [layer.split(sizes) for layer in a], None if b is None else [layer.split(sizes) for layer in b]
    for number, size in enumerate(sizes):
        first = [gram(layer[number]) for layer in parts[0]]
        sums.add(first, None if parts[1] is None else [gram(layer[number]) for layer in parts[1]], size)
    return sums.values()


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("sizes", [[300], [130, 7, 163]])
def test_sums_over_batches_are_those_of_the_formula(unbiased: bool, sizes: list[int]) -> None:
    a, b = layers()
    hsic = hsic_1 if unbiased else hsic_0

    def total(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([hsic(*part) for part in zip(x.split(sizes), y.split(sizes), strict=True)]).sum()

    expected = torch.tensor([[total(x, y) / (total(x, x) * total(y, y)).sqrt() for y in b] for x in a])
    torch.testing.assert_close(summed(a, b, sizes, unbiased), expected.double(), atol=1e-6, rtol=0)
    first, second = layers(dtype=torch.float32)
    torch.testing.assert_close(summed(first, second, sizes, unbiased), expected.double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("unbiased", "function"), [(True, unbiased_linear_cka), (False, linear_cka)])
def test_one_batch_is_the_measure(unbiased: bool, function: object) -> None:
    a, b = layers(n=150)
    expected = torch.tensor([[function(x, y) for y in b] for x in a], dtype=torch.float64)  # type: ignore[operator]
    torch.testing.assert_close(summed(a, b, [150], unbiased), expected, atol=1e-12, rtol=0)
    own = summed(a, None, [150], unbiased)
    torch.testing.assert_close(own.diagonal(), torch.ones(3, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("common", [1e3, 1e5])
def test_a_huge_common_mean_costs_no_digits(common: float) -> None:
    """Rows in float32, against float64 of the very same rows."""
    a, b = ([layer + common * layer[0].sign() for layer in own] for own in layers(dtype=torch.float32))
    exact = torch.tensor([[unbiased_linear_cka(x.double(), y.double()) for y in b] for x in a], dtype=torch.float64)
    torch.testing.assert_close(summed(a, b, [300], True), exact, atol=1e-6, rtol=0)


def test_batches_of_fewer_than_four_are_passed_over() -> None:
    a, b = layers(n=103)
    sums = summed([x[:100] for x in a], [y[:100] for y in b], [100], True)
    torch.testing.assert_close(summed(a, b, [100, 3], True), sums)


@pytest.mark.parametrize("batch_size", [64, 16])
def test_it_is_what_pytorch_cka_gives(batch_size: int) -> None:
    """Its numbers are unbiased ones, clamped to [0, 1]; uncentred in float32 they are off by 6e-5 here, in float64 not.

    Ours are the same from models in either precision.
    """
    cka = pytest.importorskip("cka")
    torch.manual_seed(0)

    def model() -> nn.Sequential:
        block = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), block, nn.Flatten(), nn.Linear(128, 5))

    a, b, batches = model(), model(), torch.randn(64, 3, 10, 10).split(batch_size)
    ours = compare_layers(a, b, batches, pooling="flatten", estimator="minibatch")["unbiased_linear_cka"]
    exact = [batch.double() for batch in batches]
    (theirs,) = cka.compute_cka(a.double(), b.double(), [exact], progress=False, device="cpu")
    torch.testing.assert_close(ours.clamp(min=0), theirs.double(), atol=1e-6, rtol=0)
    again = compare_layers(a, b, exact, pooling="flatten", estimator="minibatch")["unbiased_linear_cka"]
    torch.testing.assert_close(again.clamp(min=0), theirs.double(), atol=1e-6, rtol=0)
