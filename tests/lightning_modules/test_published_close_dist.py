"""The authors' weights as classifiers: against plain torch layers, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.published import close_dist_classifier
from likeness.networks import MLP
from tests.reference import FOLDER, NAME, needs_reference, radial_test_split, representations


def small_mlp(prefix: str, inputs: int, width: int, outputs: int, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the names that the authors' SmallMLP gives them."""
    draw = torch.Generator().manual_seed(seed)
    sizes = [inputs, width, width, width, outputs]
    state = {}
    for layer in range(1, 5):
        state[f"{prefix}.l{layer}.weight"] = torch.randn(sizes[layer], sizes[layer - 1], generator=draw)
        if layer < 4:
            state[f"{prefix}.l{layer}.bias"] = torch.randn(sizes[layer], generator=draw)
    return state


def weights(inputs: int = 2, num_classes: int = 4, dim: int = 2, width: int = 8, g_width: int = 8) -> dict[str, Tensor]:
    f_net = small_mlp("f_net", inputs, width, dim)
    return f_net | small_mlp("g_net", num_classes - 1, g_width, dim, seed=1)


def output(state: dict[str, Tensor], prefix: str, h: Tensor) -> Tensor:
    """What three hidden layers with LeakyReLU(0.01) and a linear one answer."""
    for layer in range(1, 4):
        h = h @ state[f"{prefix}.l{layer}.weight"].T + state[f"{prefix}.l{layer}.bias"]
        h = torch.where(h > 0, h, 0.01 * h)
    return h @ state[f"{prefix}.l4.weight"].T


@pytest.mark.parametrize(("inputs", "num_classes", "dim", "width", "g_width"), [(2, 4, 2, 8, 8), (3, 10, 5, 16, 7)])
def test_f_and_g_are_those_of_the_authors_network(
    inputs: int, num_classes: int, dim: int, width: int, g_width: int
) -> None:
    state = weights(inputs, num_classes, dim, width, g_width)
    model = close_dist_classifier(state)
    x = torch.randn(20, inputs, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model.embed(x), output(state, "f_net", x))
    codes = torch.eye(num_classes)[:, :-1]  # one-hot without the last entry
    torch.testing.assert_close(model.unembeddings(), output(state, "g_net", codes))
    assert (model.hparams["num_classes"], model.hparams["dim"]) == (num_classes, dim)


def test_double_precision_stays() -> None:
    state = {name: value.double() for name, value in weights().items()}
    assert torch.equal(close_dist_classifier(state).network.embedding.l2.weight, state["f_net.l2.weight"])


@needs_reference
@pytest.mark.parametrize(("width", "seed"), [(16, 0), (128, 4)])
def test_published_weights(width: int, seed: int) -> None:
    path = FOLDER / "close_dist" / NAME.format(seed=seed, width=width)
    model = close_dist_classifier(torch.load(path, weights_only=True, map_location="cpu"))
    f, g = representations(width, seed)
    torch.testing.assert_close(model.embed(radial_test_split()[0]), f)
    torch.testing.assert_close(model.unembeddings(), g)
    assert model.hparams["embedding"]["init_args"]["width"] == width


def changed(name: str, value: Any) -> dict[str, Any]:
    return {**weights(), name: value}


def test_missing_and_unexpected_keys_are_listed() -> None:
    state = {**weights(), "g_net.l4.bias": torch.zeros(2), "head.weight": torch.zeros(4, 2)}
    del state["f_net.l1.weight"], state["g_net.l2.bias"]
    message = "missing: f_net.l1.weight, g_net.l2.bias; unexpected: g_net.l4.bias, head.weight"
    with pytest.raises(ValueError, match=message):
        close_dist_classifier(state)


def test_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"missing: f_net\.l1\.weight, .*; unexpected: l1\.weight, l1\.bias"):
        close_dist_classifier(MLP((2,), 2).state_dict())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("f_net.l2.weight", torch.zeros(9, 8), r"f_net.l2.weight has shape \[9, 8\], not \[8, 8\], as the width 8"),
        ("g_net.l3.bias", torch.zeros(4), r"g_net.l3.bias has shape \[4\], not \[8\]"),
        ("g_net.l4.weight", torch.zeros(3, 8), r"f_net has 2 outputs .* but g_net has 3 \(g_net.l4.weight\)"),
        ("f_net.l1.weight", torch.zeros(8), r"f_net.l1.weight must be the matrix .* shape is \[8\]"),
        ("f_net.l1.weight", "text", r"f_net.l1.weight must be a tensor .* but is str"),
        ("f_net.l1.weight", torch.zeros(8, 2, dtype=torch.int64), r"f_net.l1.weight must be .* but is torch.int64"),
    ],
)
def test_what_does_not_fit_is_named(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        close_dist_classifier(changed(name, value))
