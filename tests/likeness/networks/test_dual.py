"""Each layer that carries a value and its tangent, against torch's forward mode."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from likeness.networks.dual import Dual, DualGroupNorm, NormSwish, add_, affine, concat, max_pool, pointwise, swish
from likeness.networks.unet_blocks import FEW_POSITIONS, AttentionBlock, ResidualBlock, attention
from tests.likeness.networks.random_weights import randomised

# torch scripts some of its forward-mode derivatives at their first use, and warns of that itself.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

IMAGE = (2, 4, 6, 6)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layers() -> dict[str, Callable[[Dual], Dual]]:
    convolution, transposed = nn.Conv2d(4, 3, 3, padding=1), nn.ConvTranspose2d(4, 3, 2, stride=2)
    strided, linear = nn.Conv2d(4, 3, 2, stride=2), nn.Linear(4, 5)
    for layer in (convolution, transposed, strided, linear):
        layer.double()
    block = randomised(ResidualBlock(4, 6, 3, 2, 0.0))
    return {
        "convolution": lambda h: affine(convolution, h),
        "strided convolution": lambda h: affine(strided, h),
        "transposed convolution": lambda h: affine(transposed, h),
        "pointwise": lambda h: pointwise(linear, h),
        "swish": swish,
        "max pool": max_pool,
        "add": lambda h: add_(swish(h), h),
        "concat": lambda h: concat([h, Dual(normal(*IMAGE)), h]),
        "group norm": randomised(DualGroupNorm(2, 4)),
        "norm and swish": randomised(NormSwish(2, 4)),
        "attention": randomised(AttentionBlock(4, 2)),
        "residual block": lambda h: block(h, Dual(normal(2, 3))),
    }


@pytest.mark.parametrize("layer", layers().values(), ids=layers().keys())
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_tangent_is_the_derivative(layer: Callable[[Dual], Dual], memory_format: torch.memory_format) -> None:
    h, dh = (normal(*IMAGE, seed=seed).to(memory_format=memory_format) for seed in (1, 2))
    value, tangent = layer(Dual(h.clone(), dh.clone()))
    expected, derivative = torch.func.jvp(lambda h: layer(Dual(h)).value, (h,), (dh,))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(tangent, derivative, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layer", layers().values(), ids=layers().keys())
def test_no_tangent_stays_none(layer: Callable[[Dual], Dual]) -> None:
    assert layer(Dual(normal(*IMAGE))).tangent is None


def test_a_residual_block_takes_a_tangent_from_its_conditioning_alone() -> None:
    block, h = randomised(ResidualBlock(4, 6, 3, 2, 0.0)), normal(*IMAGE)
    cond, rate = normal(2, 3), normal(2, 3, seed=1)
    value, tangent = block(Dual(h), Dual(cond, rate))
    expected, derivative = torch.func.jvp(lambda cond: block(Dual(h), Dual(cond)).value, (cond,), (rate,))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(tangent, derivative, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("positions", [FEW_POSITIONS, FEW_POSITIONS + 1])
def test_attention_is_softmax_weighted(positions: int) -> None:
    """With few positions the weights are built, with many torch's fused kernel is taken."""
    q, k, v = (normal(2, positions, 3, seed=seed) for seed in range(3))
    logits = torch.einsum("bic,bjc->bij", q, k) / 3**0.5
    weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
    expected = torch.einsum("bij,bjc->bic", weights, v)
    torch.testing.assert_close(attention(Dual(q), Dual(k), Dual(v)).value, expected)
    rates = Dual(q, normal(*q.shape, seed=3)), Dual(k, normal(*q.shape, seed=4)), Dual(v, normal(*q.shape, seed=5))
    torch.testing.assert_close(attention(*rates).value, expected)
