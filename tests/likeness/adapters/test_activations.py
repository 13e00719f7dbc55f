"""Outputs of layers are those of the moment, pooled by the stated rule, and no hook stays."""

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from likeness.adapters.activations import Activations, LayerError, matching_layers, pooled, unwrapped

torch.manual_seed(0)
IMAGES = torch.randn(4, 3, 8, 8)


def convolutions() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(180, 7))


def hooks(model: nn.Module) -> int:
    return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in model.modules())


def test_a_later_change_in_place_does_not_reach_what_was_taken() -> None:
    model = convolutions().eval()
    with torch.no_grad(), Activations(model, ["0", "1", "2"], "flatten") as activations:
        model(IMAGES)
    rows = activations.take()
    torch.testing.assert_close(rows["1"], model[1](model[0](IMAGES)).flatten(1))
    assert rows["1"].min() < 0 <= rows["2"].min()


def test_hooks_are_gone_after_an_error() -> None:
    model = convolutions()
    with pytest.raises(RuntimeError), Activations(model, ["0", "4"]):
        model(IMAGES[:, :2])
    assert hooks(model) == 0


def test_a_layer_that_did_not_run_is_named() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "idle": nn.Linear(2, 2)})
    with Activations(model, ["used", "idle"]) as activations:
        model["used"](torch.ones(1, 2))
    with pytest.raises(LayerError, match="layer 'idle' of ModuleDict did not run"):
        activations.take()


def test_of_a_layer_that_runs_twice_the_last_output_counts() -> None:
    layer = nn.Linear(2, 2)
    with Activations(nn.ModuleList([layer]), ["0"]) as activations:
        layer(torch.zeros(1, 2))
        second = layer(torch.ones(1, 2))
    assert torch.equal(activations.take()["0"], second)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["4", "0"], ["0", "4"]),
        (["*"], ["0", "1", "2", "3", "4"]),
        (["[0-2]", "1"], ["0", "1", "2"]),
    ],
)
def test_layers_are_found_by_pattern_in_the_order_of_the_model(patterns: list[str], expected: list[str]) -> None:
    assert matching_layers(convolutions(), patterns) == expected


def test_a_pattern_without_a_match_names_what_is_near() -> None:
    model = nn.Sequential(OrderedDict(layer1=nn.Linear(2, 2), layer2=nn.Linear(2, 2)))
    with pytest.raises(LayerError, match=r"Sequential has no layer 'layr1': did you mean layer1, layer2\?"):
        matching_layers(model, ["layr1"])


SEQUENCE = torch.arange(24.0).reshape(2, 4, 3)
MASK = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]])


@pytest.mark.parametrize(
    ("pooling", "mask", "expected"),
    [
        ("mean", None, SEQUENCE.mean(1)),
        ("mean", MASK, torch.stack([SEQUENCE[0, :3].mean(0), SEQUENCE[1, 1:].mean(0)])),
        ("cls", None, SEQUENCE[:, 0]),
        ("last", None, SEQUENCE[:, -1]),
        ("last", MASK, torch.stack([SEQUENCE[0, 2], SEQUENCE[1, 3]])),
        ("flatten", None, SEQUENCE.reshape(2, 12)),
        ("positions", None, SEQUENCE.reshape(8, 3)),
        ("positions", MASK, torch.cat([SEQUENCE[0, :3], SEQUENCE[1, 1:]])),
        (lambda x: x.amax(1), None, SEQUENCE.amax(1)),
    ],
)
def test_sequences_are_pooled_by_the_stated_rule(pooling: Any, mask: Tensor | None, expected: Tensor) -> None:
    rows = pooled(SEQUENCE, pooling, "layer", mask)
    assert torch.equal(rows, expected)
    assert rows.untyped_storage().data_ptr() != SEQUENCE.untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_mask_of_all_tokens_takes_no_digits_in_half_precision(dtype: torch.dtype) -> None:
    """Sums of 1,000 tokens leave float16, and their number leaves bfloat16."""
    generator = torch.Generator().manual_seed(0)
    tokens = (100 + 10 * torch.randn(2, 1001, 3, generator=generator)).to(dtype)
    rows = pooled(tokens, "mean", "layer", torch.ones(2, 1001))
    assert rows.dtype == dtype
    torch.testing.assert_close(rows, tokens.double().mean(1).to(dtype))


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", IMAGES.mean((2, 3))),
        ("flatten", IMAGES.flatten(1)),
        ("positions", IMAGES.permute(0, 2, 3, 1).reshape(-1, 3)),
    ],
)
def test_feature_maps_are_pooled_by_the_stated_rule(pooling: Any, expected: Tensor) -> None:
    torch.testing.assert_close(pooled(IMAGES, pooling), expected)


@pytest.mark.parametrize(
    "output",
    [SimpleNamespace(last_hidden_state=SEQUENCE), (SEQUENCE, None), [(SEQUENCE, 1)], OrderedDict(x=SEQUENCE)],
)
def test_the_tensor_is_found_in_what_libraries_answer(output: Any) -> None:
    assert torch.equal(pooled(output, "cls"), SEQUENCE[:, 0])


@pytest.mark.parametrize("output", [None, torch.zeros(3), torch.zeros(2, 3, dtype=torch.int64), "text"])
def test_what_is_no_representation_is_refused(output: Any) -> None:
    with pytest.raises(LayerError, match="layer 'x' answers"):
        pooled(output, "mean", "x")


def test_feature_maps_have_no_token() -> None:
    with pytest.raises(
        LayerError, match=r"layer 'conv' answers feature maps \[4, 3, 8, 8\], which have no token 'cls'"
    ):
        pooled(IMAGES, "cls", "conv")


def test_wrappers_are_looked_through() -> None:
    model = convolutions()
    assert unwrapped(nn.DataParallel(model)) is model
    assert unwrapped(torch.compile(model, backend="eager")) is model
