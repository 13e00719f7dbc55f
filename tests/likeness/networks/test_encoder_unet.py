"""The inner encoder: its derivative in gamma against other ways to it, and y against what the authors' code answers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.published.flax_weights import states_from_flax
from likeness.networks import EncoderMLP, EncoderOutput, EncoderUNet
from likeness.networks.dual import Dual
from likeness.networks.encoder_networks import levels_and_blocks
from likeness.networks.unet_blocks import Stage
from tests.diffenc_reference import TRAINABLE, arrays, needs_diffenc, parameters
from tests.likeness.networks.random_weights import randomised

# torch scripts some of its forward-mode derivatives at their first use, and warns of that itself.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

SMALL: dict[str, Any] = {"width": 8, "groups": 4, "output_groups": 2}
KINDS: dict[str, dict[str, Any]] = {
    "unet": {"depth": 2},
    "unet_mult_res": {"kind": "unet_mult_res", "depth": 4},
    "constant": {"kind": "constant", "depth": 1, "attention": True},
    "convolution": {"downsampling": "convolution"},
    "no halving": {"downsampling": "none", "doubling": False},
    "classes": {"num_labels": 3, "depth": 1},
    "unbounded": {"output": EncoderOutput(tanh=False), "depth": 1},
}


def encoder(**options: Any) -> EncoderUNet:
    return randomised(EncoderUNet((3, 8, 8), **(SMALL | options)))


def batch(size: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(size, 3, 8, 8, generator=generator, dtype=torch.float64) - 1
    return x, torch.linspace(-13.0, 4.9, size, dtype=torch.float64)


def labels_for(network: EncoderUNet) -> tuple[Tensor, ...]:
    return () if network.time_embedding.labels.weight is None else (torch.tensor([2, 0, 1]),)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
def test_one_pass_answers_value_and_derivative(options: dict[str, Any]) -> None:
    """Oracle O7: against torch's forward mode, and against differences of step 1e-5 in float64."""
    network, (x, gamma) = encoder(**options), batch()
    rest, step = labels_for(network), 1e-5
    y, derivative = network.with_derivative(x, gamma, *rest)
    plain = lambda gamma: network(x, gamma, *rest)  # noqa: E731
    value, tangent = torch.func.jvp(plain, (gamma,), (torch.ones_like(gamma),))
    torch.testing.assert_close(y, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(derivative, tangent, rtol=1e-9, atol=1e-9)
    difference = (plain(gamma + step) - plain(gamma - step)) / (2 * step)
    assert torch.linalg.vector_norm(derivative - difference) < 1e-6 * torch.linalg.vector_norm(difference)


def test_float32_derivative_is_that_of_float64() -> None:
    network, (x, gamma) = encoder(), batch()
    expected = network.with_derivative(x, gamma)[1]
    out = network.float().with_derivative(x.float(), gamma.float())[1].double()
    assert torch.linalg.vector_norm(out - expected) < 1e-4 * torch.linalg.vector_norm(expected)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
def test_gradients_of_both_answers(options: dict[str, Any]) -> None:
    network, (x, gamma) = encoder(**options), batch()
    rest = labels_for(network)
    x.requires_grad_()
    gamma.requires_grad_()
    inputs = [x, gamma, *network.parameters()]
    weights = torch.randn(2, *x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def gradients(outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        loss = sum((w * out).sum() for w, out in zip(weights, outputs, strict=True))
        return torch.autograd.grad(loss, inputs)  # type: ignore[arg-type]

    forward_mode = torch.func.jvp(lambda gamma: network(x, gamma, *rest), (gamma,), (torch.ones_like(gamma),))
    expected = gradients(forward_mode)
    scale = max(float(gradient.abs().max()) for gradient in expected)
    for ours, other in zip(gradients(network.with_derivative(x, gamma, *rest)), expected, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-8, atol=1e-10 * scale)


def test_one_dropout_mask_for_value_and_derivative() -> None:
    network, (x, gamma), step = encoder(dropout=0.5).train(), batch(), 1e-5

    def seeded(gamma: Tensor) -> Tensor:
        torch.manual_seed(0)
        return network(x, gamma)

    torch.manual_seed(0)
    y, derivative = network.with_derivative(x, gamma)
    torch.testing.assert_close(y, seeded(gamma), rtol=1e-12, atol=1e-12)
    difference = (seeded(gamma + step) - seeded(gamma - step)) / (2 * step)
    assert torch.linalg.vector_norm(derivative - difference) < 1e-6 * torch.linalg.vector_norm(difference)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
def test_treats_each_image_by_itself(options: dict[str, Any]) -> None:
    """Oracle O25: the derivative in a batch is that of each sample."""
    network, (x, gamma) = encoder(**options), batch()
    rest = labels_for(network)
    parts = [network.with_derivative(*(a[i : i + 1] for a in (x, gamma, *rest))) for i in range(len(x))]
    for whole, pieces in zip(network.with_derivative(x, gamma, *rest), zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(pieces))


def test_layout_and_autocast_change_nothing() -> None:
    network, (x, gamma) = encoder().float(), [part.float() for part in batch()]
    expected = network.with_derivative(x, gamma)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network.with_derivative(x, gamma), expected)
    network.to(memory_format=torch.channels_last)
    last = network.with_derivative(x.to(memory_format=torch.channels_last), gamma)
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)


def test_compiling_keeps_the_derivative() -> None:
    """Oracle O25. Inductor drops tangents that arrive in torch's forward mode; here they are ordinary tensors."""
    stage = randomised(Stage([4, 6], cond_dim=3, groups=2, dropout=0.0, attention=True))
    generator = torch.Generator().manual_seed(0)
    h, cond, rate = (torch.randn(shape, generator=generator).double() for shape in ((2, 4, 4, 4), (2, 3), (2, 3)))
    eager, compiled = stage(Dual(h), Dual(cond, rate)), torch.compile(stage, backend="aot_eager", fullgraph=True)
    for ours, other in zip(compiled(Dual(h), Dual(cond, rate)), eager, strict=True):
        torch.testing.assert_close(ours, other)
        parts = [
            torch.autograd.grad(out.square().sum(), list(stage.parameters()), retain_graph=True, materialize_grads=True)
            for out in (ours, other)
        ]
        torch.testing.assert_close(*parts)


@pytest.mark.parametrize("kind", ["unet", "unet_mult_res", "constant"])
def test_is_zero_at_the_start(kind: Any) -> None:
    network, (x, gamma) = EncoderUNet((3, 8, 8), kind=kind, **SMALL).double(), batch()
    for part in network.with_derivative(x, gamma):
        torch.testing.assert_close(part, torch.zeros_like(x))


@needs_diffenc
def test_answers_what_the_authors_network_does() -> None:
    data = arrays(TRAINABLE)
    network = EncoderUNet(data["images"].shape[1:], width=32).eval()
    scope = "encdec/inner_encoder"
    params = {path: value for path, value in parameters(TRAINABLE).items() if path.startswith(scope)}
    network.load_state_dict(states_from_flax(params, {scope: network})[scope])
    with torch.no_grad():
        y, derivative = network.with_derivative(data["x_scaled"], data["gamma_t"])
    torch.testing.assert_close(y, data["y_t"], rtol=1e-4, atol=1e-5)
    variance = torch.sigmoid(data["gamma_t"]).view(-1, 1, 1, 1)
    slope = variance * (y - data["x_t"] + derivative)
    torch.testing.assert_close(slope, data["dx_t_dgamma"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"input_shape": (3, 32, 32)}, 1_906_243),
        ({"input_shape": (1, 28, 28)}, 1_903_937),
        ({"input_shape": (3, 32, 32), "kind": "unet_mult_res", "depth": 4}, 2_744_131),
        ({"input_shape": (3, 32, 32), "kind": "unet_mult_res", "depth": 8}, 4_419_907),
    ],
)
def test_published_sizes(options: dict[str, Any], count: int) -> None:
    """Oracle O24."""
    with torch.device("meta"):
        assert sum(p.numel() for p in EncoderUNet(**options).parameters()) == count


@pytest.mark.parametrize(
    ("depth", "height", "expected"),
    [
        (4, 32, (2, 2)),
        (8, 32, (2, 4)),
        (2, 32, (2, 1)),
        (4, 16, (1, 4)),
        (5, 64, (3, 1)),
        (3, 20, (2, 1)),
        (1, 32, (1, 1)),
    ],
)
def test_blocks_are_shared_out_among_the_levels(depth: int, height: int, expected: tuple[int, int]) -> None:
    """By hand: 32 -> 16 -> 8 ends after two levels, 20 -> 10 -> 5 after two, 64 -> 32 -> 16 -> 8 after three."""
    assert levels_and_blocks(depth, height) == expected


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="kind must be unet, unet_mult_res or constant, got 'resnet'"):
        EncoderUNet((3, 8, 8), kind="resnet")
    with pytest.raises(ValueError, match="images of 9x8 cannot be halved 2 times"):
        EncoderUNet((3, 9, 8))
    with pytest.raises(ValueError, match="got 16 groups for 24 channels"):
        EncoderUNet((3, 8, 8), width=24, groups=8)
    with pytest.raises(ValueError, match=r"input_shape must hold 3 positive sizes, got \[2\]"):
        EncoderUNet((2,))
    network, (x, gamma) = encoder(), batch()
    with pytest.raises(ValueError, match=r"x has shape \[3, 3, 8\], the network takes \[B, 3, H, W\]"):
        network(x[..., 0], gamma)
    with pytest.raises(ValueError, match=r"gamma has shape \[\], not \[3\]"):
        network.with_derivative(x, gamma[0])


def test_points_have_an_encoder_of_the_same_interface() -> None:
    assert EncoderMLP((2,)).with_derivative(torch.zeros(4, 2), torch.zeros(4))[1].shape == (4, 2)
