"""Flax parameters to state dicts: layouts, names and what is said where they do not fit."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.published.flax_weights import states_from_flax
from likeness.diffusion.schedules import AffineSchedule
from likeness.networks import EncoderUNet, PyramidScoreUNet, ScoreUNet
from tests.diffenc_reference import NAMES, TRAINABLE, needs_diffenc, parameters

SMALL: dict[str, Any] = {"width": 8, "groups": 4}


def score_network(name: str) -> ScoreUNet:
    channels = parameters(name)["score_model/conv_out/bias"].shape[0]
    with torch.device("meta"):
        return ScoreUNet((channels, 8, 8), width=32, depth=2)


def modules(name: str) -> dict[str, nn.Module]:
    with torch.device("meta"):
        encoder = {"encdec/inner_encoder": EncoderUNet((3, 16, 16), width=32)} if name == TRAINABLE else {}
    return {"score_model": score_network(name)} | encoder


@needs_diffenc
@pytest.mark.parametrize("name", NAMES)
def test_every_array_finds_its_place(name: str) -> None:
    params, parts = parameters(name), modules(name)
    states = states_from_flax(params, parts)
    assert sum(value.numel() for state in states.values() for value in state.values()) == sum(
        map(np.size, params.values())
    )
    for scope, part in parts.items():
        assert states[scope].keys() == part.state_dict().keys()


@needs_diffenc
def test_layouts() -> None:
    params = parameters(TRAINABLE)
    states = states_from_flax(params, modules(TRAINABLE))
    up, encoder = "encdec/inner_encoder/enc_model/up_blocks_1/conv_trans/kernel", states["encdec/inner_encoder"]
    # kernel[h, w, in, out]; torch's transposed convolution counts the rows and columns of its kernel the other way.
    assert encoder["body.up.1.upsample.weight"][5, 7, 0, 1] == params[up][1, 0, 5, 7]
    convolution = "score_model/VDMUNet_0/up.block_2/conv1/kernel"
    assert states["score_model"]["body.up.2.blocks.0.conv1.weight"][3, 60, 0, 2] == params[convolution][0, 2, 60, 3]
    dense = "score_model/VDMUNet_0/mid.attn_1/q/kernel"
    assert states["score_model"]["body.middle.attention.q.weight"][3, 9] == params[dense][9, 3]


def flax_shapes(module: nn.Module, scope: str) -> dict[str, np.ndarray]:
    """What a module takes, by path, made from its own complaint about an empty dict."""
    with pytest.raises(ValueError, match="missing") as caught:
        states_from_flax({}, {scope: module})
    missing = re.search(r"missing: (.*)", str(caught.value))
    assert missing is not None
    return dict.fromkeys(missing[1].split(", "), np.zeros(1))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (
            ScoreUNet((1, 4, 4), depth=1, attention=True, **SMALL),
            {
                "VDMUNet_0/down.attn_0/q/kernel",
                "VDMUNet_0/up.attn_1/GroupNorm_0/scale",
                "VDMUNet_0/mid.block_2/conv2/bias",
            },
        ),
        (
            PyramidScoreUNet((1, 4, 4), levels=2, blocks=1, downsampling="convolution", **SMALL),
            {
                "TimeEmbedding_0/dense1/bias",
                "UNet_0/down_blocks_1/down_conv/kernel",
                "UNet_0/down_blocks_1/down_1_resnet_block/nin_shortcut/kernel",
                "UNet_0/up_blocks_0/up_1_resnet_block/conv1/kernel",
            },
        ),
        (
            EncoderUNet((1, 32, 32), kind="unet_mult_res", depth=4, **SMALL, output_groups=2),
            {
                "time_embedding/dense0/kernel",
                "enc_model/down_blocks_1/down_1_resnet_block1/cond_proj/kernel",
                "enc_model/up_blocks_1/up_0_resnet_block0/nin_shortcut/bias",
                "enc_model/mid_resnet_1/GroupNorm_1/scale",
                "enc_model/mid_attn_1/proj_out/kernel",
            },
        ),
        (
            EncoderUNet((1, 4, 4), kind="constant", depth=1, **SMALL, output_groups=2),
            {"enc_model/up.block_1/conv1/bias"},
        ),
    ],
    ids=["constant", "pyramid", "several blocks", "constant encoder"],
)
def test_names_of_the_other_networks(network: nn.Module, expected: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_modules.published.flax_weights.LISTED", 1000)
    paths = flax_shapes(network, "scope")
    assert len(paths) == len(list(network.parameters()))
    assert {f"scope/{path}" for path in expected} <= paths.keys()


def test_schedules_are_read_by_their_own_names() -> None:
    params = {"gamma/w": np.array([18.3]), "gamma/b": np.array([-13.3])}
    state = states_from_flax(params, {"gamma": AffineSchedule()})["gamma"]
    assert {name: round(value.item(), 4) for name, value in state.items()} == {"w": 18.3, "b": -13.3}


@needs_diffenc
def test_all_that_does_not_fit_is_listed() -> None:
    params = dict(parameters(NAMES[0]))
    del params["score_model/conv_in/bias"], params["score_model/GroupNorm_0/scale"]
    params["score_model/Dense_7/kernel"] = np.zeros((2, 2))
    params["score_model/conv_out/kernel"] = np.zeros((3, 3, 32, 2))
    params["score_model/conv_out/bias"] = np.zeros((1, 1))
    message = (
        "missing: score_model/GroupNorm_0/scale, score_model/conv_in/bias; unexpected: score_model/Dense_7/kernel; "
        "of another shape: score_model/conv_out/bias is [1, 1] but conv_out.bias is [1], "
        "score_model/conv_out/kernel is [3, 3, 32, 2] but conv_out.weight is [1, 32, 3, 3]"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        states_from_flax(params, {"score_model": score_network(NAMES[0])})


def test_long_lists_are_cut() -> None:
    network = ScoreUNet((1, 4, 4), depth=1, **SMALL)
    with pytest.raises(ValueError, match=rf"and {len(list(network.parameters())) - 20} more"):
        states_from_flax({}, {"score_model": network})


def test_what_the_published_models_cannot_have() -> None:
    network = ScoreUNet((1, 4, 4), depth=1, num_labels=2, **SMALL)
    with pytest.raises(ValueError, match=r"no counterpart of time_embedding\.labels"):
        states_from_flax({}, {"score_model": network})
    levels = PyramidScoreUNet((1, 4, 4), levels=1, attention_levels=[0], **SMALL)
    with pytest.raises(ValueError, match=r"no counterpart of body\.down\.0\.stage\.attention\.0\.norm"):
        states_from_flax({}, {"score_model": levels})
