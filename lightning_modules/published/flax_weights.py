"""The weights of the published JAX models, read by Flax path into the networks of ``likeness.networks``."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.diffusion.context import GaussianContext, TopKContext
from likeness.diffusion.encoders import TrainableEncoder
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.multivariate import ContextPolynomial
from likeness.networks.context_networks import ContextUNet
from likeness.networks.encoder_networks import EncoderUNet
from likeness.networks.score_networks import PositionScoreUNet
from likeness.networks.unet import ConditionedUNet, ConstantTrunk, PyramidUNet

# Our modules' names, as patterns, and where theirs stand; the last name follows by LAST_NAMES.
CONSTANT_BODY = {
    r"down\.(\d+)\.blocks\.0": "down.block_{0}",
    r"down\.(\d+)\.attention\.0": "down.attn_{0}",
    r"middle\.block_(\d)": "mid.block_{0}",
    r"middle\.attention": "mid.attn_1",
    r"up\.(\d+)\.blocks\.0": "up.block_{0}",
    r"up\.(\d+)\.attention\.0": "up.attn_{0}",
}
PYRAMID_BODY = {
    r"down\.(\d+)\.stage\.blocks\.(\d+)": "down_blocks_{0}/down_{0}_resnet_block{block}",
    r"down\.(\d+)": "down_blocks_{0}",
    r"middle\.block_(\d)": "mid_resnet_{0}",
    r"middle\.attention": "mid_attn_1",
    r"up\.(\d+)": "up_blocks_{0}",
    r"up\.(\d+)\.stage\.blocks\.(\d+)": "up_blocks_{0}/up_{level}_resnet_block{block}",
}
LAST_NAMES = {
    "norm": "GroupNorm_0",
    "norm1": "GroupNorm_0",
    "norm2": "GroupNorm_1",
    "norm_out": "GroupNorm_0",
    "shortcut": "nin_shortcut",
    "downsample": "down_conv",
    "upsample": "conv_trans",
}
# MuLAN: its schedule, and the last layers of what infers its context, one or two.
POLYNOMIAL = {
    "hidden.0": "dense_1",
    "hidden.1": "dense_2",
    "head_a": "dense_out_a",
    "head_b": "dense_out_b",
    "head_raw": "dense_out_c",
}
HEADS = {1: ("dense_layer_final",), 2: ("dense_layer_final_mu", "dense_layer_final_sigma")}
# The axes of their kernels in the order of ours; everything else is a vector.
KERNEL_AXES: dict[type[nn.Module], tuple[int, ...]] = {
    nn.Conv2d: (3, 2, 0, 1),
    nn.ConvTranspose2d: (2, 3, 0, 1),
    nn.Linear: (1, 0),
}
LISTED = 20


def load_flax_weights(model: DiffusionModel, params: Mapping[str, ArrayLike]) -> None:
    """Copy the arrays of ``params``, by Flax path ("score_model/conv_in/kernel"), into the model's parameters.

    Raises ValueError, and leaves the model as it is, where paths are missing or unexpected or shapes do not fit: it
    lists them.
    """
    parts = {"score_model": model.network}
    if isinstance(model.encoder, TrainableEncoder):
        parts["encdec/inner_encoder"] = model.encoder.network
    if list(model.schedule.parameters()):
        parts["gamma"] = model.schedule
    if isinstance(model.context, GaussianContext | TopKContext):
        parts["encoder_model"] = model.context.network
    for scope, state in states_from_flax(params, parts).items():
        parts[scope].load_state_dict(state)


def states_from_flax(params: Mapping[str, ArrayLike], modules: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
    """State dicts, float32, of ``modules`` by the scope under which ``params`` has them; the modules may be on meta.

    Raises ValueError listing the paths that are missing, those that nothing takes and the shapes that do not fit.
    """
    arrays = {path: np.asarray(value) for path, value in params.items()}
    states: dict[str, dict[str, Tensor]] = {scope: {} for scope in modules}
    known, misfits = set(), []
    for scope, module in modules.items():
        for name, path in _paths(module, scope):
            known.add(path)
            if path not in arrays:
                continue
            value, parameter = _converted(arrays[path], module, name), module.get_parameter(name)
            if value is None or value.shape != parameter.shape:
                misfits.append(f"{path} is {list(arrays[path].shape)} but {name} is {list(parameter.shape)}")
            else:
                states[scope][name] = value
    problems = {"missing": known - arrays.keys(), "unexpected": arrays.keys() - known, "of another shape": misfits}
    if any(problems.values()):
        listed = "; ".join(f"{what}: {_listed(names)}" for what, names in problems.items() if names)
        raise ValueError(f"the Flax parameters do not fit the model; {listed}")
    return states


def _paths(module: nn.Module, scope: str) -> Iterator[tuple[str, str]]:
    """The names of a module's parameters, and their paths in Flax."""
    for name, _ in module.named_parameters():
        if not isinstance(module, ConditionedUNet | ContextPolynomial):
            yield name, f"{scope}/{name}"
            continue
        layer, _, kind = name.rpartition(".")
        path = POLYNOMIAL[layer] if isinstance(module, ContextPolynomial) else _module_path(module, layer)
        is_norm = isinstance(module.get_submodule(layer), nn.GroupNorm)
        last = {"weight": "scale" if is_norm else "kernel"}.get(kind, kind)
        yield name, f"{scope}/{path}/{last}"


def _module_path(network: ConditionedUNet, name: str) -> str:
    parent, _, last = name.rpartition(".")
    last = LAST_NAMES.get(last, last)
    if parent == "":
        return last
    if isinstance(network, ContextUNet) and parent == "heads":
        return HEADS[len(network.heads)][int(last)]
    time, body = _folders(network)
    if parent == "time_embedding" and last != "labels":
        return time + last
    if parent == "time_embedding.context":  # theirs reads times and context in one layer
        return f"{time}dense0"
    for pattern, template in (CONSTANT_BODY if isinstance(network.body, ConstantTrunk) else PYRAMID_BODY).items():
        match = re.fullmatch(r"body\." + pattern, parent)
        if match is not None:
            return f"{body}{template.format(*match.groups(), **_numbers(network, match))}/{last}"
    raise ValueError(f"the published models have no counterpart of {name}")


def _folders(network: ConditionedUNet) -> tuple[str, str]:
    """Where the time embedding stands, and the body; MuLAN has both beside the first convolution."""
    if isinstance(network, ContextUNet) or getattr(network, "context_size", None) is not None:
        return "", ""
    if isinstance(network, EncoderUNet):
        return "time_embedding/", "enc_model/"
    return "TimeEmbedding_0/", "VDMUNet_0/" if isinstance(network.body, ConstantTrunk) else "UNet_0/"


def _numbers(network: ConditionedUNet, match: re.Match[str]) -> dict[str, object]:
    """What else a path holds: the level, counted from the full size, and the block where a level may have several."""
    if not isinstance(network.body, PyramidUNet):
        return {}
    level, block = (*match.groups(), "0", "0")[:2]
    several = isinstance(network, EncoderUNet) and network.kind == "unet_mult_res"
    return {"level": len(network.body.up) - 1 - int(level), "block": block if several else ""}


def _converted(array: np.ndarray, module: nn.Module, name: str) -> Tensor | None:
    """The array in our layout; None where it has another number of axes."""
    layer_name, _, kind = name.rpartition(".")
    layer = module.get_submodule(layer_name)
    if isinstance(module, ContextPolynomial) and layer_name.startswith("head_"):
        array = _channels_first(array, module.dims)
    axes = KERNEL_AXES.get(type(layer), (0,)) if kind == "weight" else (0,)
    if array.ndim != len(axes):
        return None
    if isinstance(layer, nn.ConvTranspose2d) and kind == "weight":
        array = np.flip(array, (0, 1))  # Flax correlates the dilated input with the kernel, torch adds up its copies
    return _own_columns(torch.from_numpy(np.array(array.transpose(axes), dtype=np.float32)), module, name)


def _channels_first(array: np.ndarray, dims: Sequence[int] | None) -> np.ndarray:
    """With the last axis, of all dimensions of an image as [H, W, C], in the order of [C, H, W] = ``dims``."""
    if dims is None or len(dims) != 3 or array.shape[-1:] != (np.prod(dims),):
        return array
    channels, height, width = dims
    images = array.reshape(*array.shape[:-1], height, width, channels)
    return np.moveaxis(images, -1, -3).reshape(array.shape)


def _own_columns(weight: Tensor, network: nn.Module, name: str) -> Tensor:
    """Of the layer that reads times and context in theirs, the columns of the one of these two that is named."""
    size = getattr(network, "context_size", None)
    if size is not None and name == "time_embedding.context.map.weight":
        return weight[:, -size:]
    if size is None or name != "time_embedding.dense0.weight":
        return weight
    times = weight[:, :-size]
    return times if isinstance(network, PositionScoreUNet) else F.pad(times, (0, 1))  # a conditioning number, always 0


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)[:LISTED]
    return ", ".join(shown) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
