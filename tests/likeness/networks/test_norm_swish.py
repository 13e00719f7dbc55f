"""swish(group norm) with its derivative, against torch's own forward and reverse modes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from likeness.networks.dual import DualGroupNorm, NormSwish, norm_swish_with_derivative

# torch scripts some of its forward-mode derivatives at their first use, and warns of that itself.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

EPS = 1e-6


def plain(h: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return F.silu(F.group_norm(h, groups, weight, bias, EPS))


def example(batch: int, groups: int, per_group: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    channels = groups * per_group
    shape = (batch, channels, height, width)
    h, dh = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    weight, bias = (torch.randn(channels, generator=generator, dtype=torch.float64) for _ in range(2))
    return 3 * h + 1, dh, weight, bias


@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 3),
    height=st.integers(1, 4),
    width=st.integers(2, 4),
    seed=st.integers(0, 100),
)
def test_is_the_forward_mode_derivative(**sizes: int) -> None:
    h, dh, weight, bias = example(**sizes)
    groups = sizes["groups"]
    value, tangent = norm_swish_with_derivative(h, dh, weight, bias, groups, EPS)
    expected, derivative = torch.func.jvp(lambda h: plain(h, weight, bias, groups), (h,), (dh,))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(tangent, derivative, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_value_and_derivative(memory_format: torch.memory_format) -> None:
    h, dh, weight, bias = example(2, groups=2, per_group=2, height=3, width=2)
    inputs = [h.to(memory_format=memory_format), dh.to(memory_format=memory_format), weight, bias]
    inputs = [part.requires_grad_() for part in inputs]
    assert torch.autograd.gradcheck(lambda *parts: norm_swish_with_derivative(*parts, 2, EPS), inputs)


def test_gradients_of_one_output_alone() -> None:
    h, dh, weight, bias = (part.requires_grad_() for part in example(2, groups=2, per_group=2, height=2, width=2))
    for output in (0, 1):
        ours = torch.autograd.grad(norm_swish_with_derivative(h, dh, weight, bias, 2, EPS)[output].sum(), [h, weight])
        outputs = torch.func.jvp(lambda h: plain(h, weight, bias, 2), (h,), (dh,))
        torch.testing.assert_close(ours, torch.autograd.grad(outputs[output].sum(), [h, weight]))


def test_layout_is_kept() -> None:
    h, dh, weight, bias = example(2, groups=2, per_group=2, height=3, width=2)
    last = [part.to(memory_format=torch.channels_last) for part in (h, dh)]
    for ours, other in zip(
        norm_swish_with_derivative(*last, weight, bias, 2, EPS),
        norm_swish_with_derivative(h, dh, weight, bias, 2, EPS),
        strict=True,
    ):
        assert ours.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(ours, other)


@pytest.mark.parametrize("norm", [DualGroupNorm, NormSwish])
def test_groups_that_do_not_divide_the_channels(norm: type[DualGroupNorm]) -> None:
    with pytest.raises(ValueError, match="got 32 groups for 48 channels"):
        norm(32, 48)
