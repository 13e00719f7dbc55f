"""Orthonormal bases of images, and the schedule that makes the low band before the rest."""

import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.diffusion.basis import CascadeSchedule, Composed, Haar, OpponentColours
from likeness.diffusion.model import Basis
from likeness.diffusion.schedules import LinearSchedule, gamma_grid

BASES = {
    "haar": Haar(),
    "two levels": Haar(2),
    "colours": OpponentColours(),
    "colours and two levels": Composed([OpponentColours(), Haar(2)]),
}
SHAPE = (3, 8, 4)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix_of(basis: Basis) -> Tensor:
    """Row i is the coefficient i of each pixel."""
    size = torch.Size(SHAPE).numel()
    return basis(torch.eye(size, dtype=torch.float64).reshape(size, *SHAPE)).reshape(size, size).T


@pytest.mark.parametrize("name", BASES)
def test_it_is_orthonormal_and_the_inverse_is_the_transpose(name: str) -> None:
    """To 1e-12: by its matrix."""
    basis = BASES[name]
    matrix, x = matrix_of(basis), images(5, *SHAPE)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix), dtype=torch.float64), rtol=0, atol=1e-12)
    assert (matrix - torch.eye(len(matrix))).abs().max() > 0.1
    torch.testing.assert_close(basis.inverse(x).flatten(1), x.flatten(1) @ matrix, rtol=0, atol=1e-12)


@settings(max_examples=20)
@given(st.sampled_from(sorted(BASES)), st.integers(1, 3), st.integers(1, 3), st.integers(0, 9))
def test_inverse_and_norm(name: str, high: int, wide: int, seed: int) -> None:
    """Of images of any size that fits, with any axes in front; to 1e-12."""
    x, basis = images(2, 2, 3, 4 * high, 4 * wide, seed=seed), BASES[name]
    z = basis(x)
    torch.testing.assert_close(basis.inverse(z), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(basis(basis.inverse(x)), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(z.square().sum((-3, -2, -1)), x.square().sum((-3, -2, -1)), rtol=1e-12, atol=0)


def test_haar_against_products_of_one_dimension() -> None:
    """Rows (1, 1) / sqrt 2 and (1, -1) / sqrt 2 over both axes, at their places; the second level over the sums."""
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    down, across = (torch.block_diag(*[pair] * count) for count in (4, 2))
    x = images(*SHAPE)
    once = down @ x @ across.T
    torch.testing.assert_close(Haar()(x), once, rtol=0, atol=1e-12)
    twice = once.clone()
    twice[:, ::2, ::2] = torch.block_diag(pair, pair) @ once[:, ::2, ::2] @ pair.T
    torch.testing.assert_close(Haar(2)(x), twice, rtol=0, atol=1e-12)


def test_colours_are_the_cosine_transform() -> None:
    x = images(2, *SHAPE)
    expected = torch.from_numpy(scipy.fft.dct(x.numpy(), norm="ortho", axis=1))
    torch.testing.assert_close(OpponentColours()(x), expected, rtol=0, atol=1e-12)
    grey = torch.ones(1, 3, 1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert OpponentColours()(grey)[0, 0].item() == pytest.approx(3**0.5, rel=1e-7)


@pytest.mark.parametrize(
    ("name", "size"), [("haar", 24), ("two levels", 6), ("colours", 32), ("colours and two levels", 2)]
)
def test_the_low_band_is_all_there_is_of_what_does_not_vary(name: str, size: int) -> None:
    """Of images that are constant in each block, or grey, or both, every other coefficient is zero."""
    basis, block = BASES[name], 2 if name == "haar" else 1 if name == "colours" else 4
    x = images(1, 3, 8 // block, 4 // block).repeat_interleave(block, -1).repeat_interleave(block, -2)
    x = x.mean(1, keepdim=True).expand(1, *SHAPE) if "colours" in name else x
    low = basis.low(SHAPE)
    assert low.sum() == size
    z = basis(x)[0]
    assert z[~low].abs().max() < 1e-12
    assert z[low].abs().min() > 1e-3


def test_gradients_pass() -> None:
    x = images(1, 3, 4, 4).requires_grad_()
    basis = BASES["colours and two levels"]
    assert torch.autograd.gradcheck(basis, x)
    assert torch.autograd.gradcheck(basis.inverse, x)


@pytest.mark.parametrize(
    ("basis", "shape", "message"),
    [
        (Haar(2), (3, 6, 8), r"2 levels of Haar need sides that 4 divides, got \[3, 6, 8\]"),
        (Haar(), (2,), r"need sides that 2 divides, got \[2\]"),
        (OpponentColours(), (1, 4, 4), r"opponent colours need three channels, got \[1, 4, 4\]"),
    ],
)
def test_images_that_do_not_fit(basis: Basis, shape: tuple[int, ...], message: str) -> None:
    for refuse in (
        lambda: basis(torch.zeros(shape)),
        lambda: basis.inverse(torch.zeros(shape)),
        lambda: basis.low(shape),
    ):
        with pytest.raises(ValueError, match=message):
            refuse()
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        Haar(0)
    with pytest.raises(ValueError, match="needs at least one, got none"):
        Composed([])


def cascade(**options: float) -> CascadeSchedule:
    schedule = CascadeSchedule(**options)
    schedule.for_band(Haar().low((1, 2, 4)))
    return schedule.double()


def path(t: Tensor, floor: float) -> Tensor:
    """gamma by interpolation between the corners, [N, 1, 2, 4]."""
    low = torch.zeros(1, 2, 4, dtype=torch.bool)
    low[0, 0, 0] = low[0, 0, 2] = True
    s = torch.where(low, torch.relu(2 * t[:, None, None, None] - 1), 1 - torch.relu(1 - 2 * t[:, None, None, None]))
    return -13.3 + 18.3 * ((1 - floor) * s + floor * t[:, None, None, None])


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_the_low_band_goes_first(floor: float) -> None:
    """L3: gamma, ends, slopes by finite differences off the corner, and increments, whose sum is the range."""
    schedule, t = cascade(floor=floor), torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(schedule(t), path(t, floor), rtol=0, atol=1e-12)
    assert [end.item() for end in schedule.ends(t)] == [-13.3, 5.0]
    off = t[(t != 0.5) & (t > 0) & (t < 1)]
    slope = schedule.with_derivative(off)[1]
    torch.testing.assert_close(slope, (schedule(off + 1e-5) - schedule(off - 1e-5)) / 2e-5, rtol=1e-6, atol=1e-6)
    ends = (slope - floor * 18.3).abs().minimum((slope - (2 - floor) * 18.3).abs())
    assert ends.max() < 1e-12
    assert schedule.may_stop == (floor == 0)


@pytest.mark.parametrize("num_steps", [1, 3, 10, 1000])
def test_increments_keep_their_digits(num_steps: int) -> None:
    """L3: to 1e-12, in float32 to 2e-6 relative, but for steps that end at the corner: there t itself is rounded.

    Three steps have the corner inside of one.
    """
    t = torch.arange(1, num_steps + 1, dtype=torch.float64) / num_steps
    expected = path(t, 0.1) - path(t - 1 / num_steps, 0.1)
    found = cascade().increment(t, 1 / num_steps)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    single = cascade().float().increment(t.float(), 1 / num_steps)
    off = ((t - 0.5).abs() > 1e-9) & ((t - 1 / num_steps - 0.5).abs() > 1e-9)
    torch.testing.assert_close(single[off].double(), expected[off], rtol=2e-6, atol=0)
    torch.testing.assert_close(single.double(), expected, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(found.sum(0), torch.full((1, 2, 4), 18.3, dtype=torch.float64), rtol=1e-12, atol=0)


def test_a_grid_and_times_of_any_shape() -> None:
    t = torch.linspace(1, 0, 5, dtype=torch.float64)
    torch.testing.assert_close(gamma_grid(cascade(), 4), path(t, 0.1), rtol=0, atol=1e-12)
    for found in (*cascade().with_derivative(torch.zeros(2, 3)), cascade().increment(torch.ones(2, 3), 0.1)):
        assert found.shape == (2, 3, 1, 2, 4)
    line = LinearSchedule()
    assert cascade().clock(t, cascade()(t)).tolist() == pytest.approx(line(t).tolist())


def test_bad_schedules() -> None:
    for floor in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"floor must lie in \[0, 1\), got {floor}"):
            CascadeSchedule(floor=floor)
    with pytest.raises(ValueError, match="must be told the low band: give the model a basis"):
        CascadeSchedule()(torch.zeros(1))
