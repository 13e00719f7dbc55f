"""The classifiers that the authors of paper A published, as this project's.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784) trained f and g as ``SmallMLP``: linear layers l1 .. l4
of one width with LeakyReLU(0.01) between them, the last without a bias. g reads the one-hot label without its last
entry. A file is the plain state dict of both, ``f_net.l1.weight`` and so on.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_modules.checkpoints import CASTS
from lightning_modules.softmax_classifier import SoftmaxClassifier
from likeness.networks import MLP, LabelNetwork

# Where the layers of the authors' two networks stand in a SoftmaxClassifier.
PLACES = {"f_net": "network.embedding", "g_net": "network.unembedding.mlp"}
HIDDEN_LAYERS = 3
KEYS = tuple(
    f"{network}.l{layer}.{kind}"
    for network in PLACES
    for layer in range(1, HIDDEN_LAYERS + 2)
    for kind in ("weight", "bias")
    if kind == "weight" or layer <= HIDDEN_LAYERS
)


def close_dist_classifier(state: Mapping[str, Any]) -> SoftmaxClassifier:
    """The model of the authors' state dict; K, M, the widths and the input's dimension are read from its shapes.

    Raises ValueError listing the keys that are missing and those that do not belong, or naming the tensor whose
    shape does not fit the others.
    """
    _require_keys(state)
    (inputs, dim, width), (codes, g_dim, g_width) = (_sizes(state, network) for network in PLACES)
    if g_dim != dim:
        raise ValueError(f"f_net has {dim} outputs (f_net.l4.weight), but g_net has {g_dim} (g_net.l4.weight)")
    model = SoftmaxClassifier(
        input_shape=(inputs,),
        num_classes=codes + 1,
        dim=dim,
        embedding=functools.partial(MLP, width=width, hidden_layers=HIDDEN_LAYERS),
        unembedding=functools.partial(LabelNetwork, width=g_width, hidden_layers=HIDDEN_LAYERS),
    )
    CASTS.get(state[KEYS[0]].dtype, torch.nn.Module.float)(model)
    model.load_state_dict(_renamed(state, model.state_dict()), strict=False)  # the rest are the scaling's constants
    return model


def _require_keys(state: Mapping[str, Any]) -> None:
    missing, unexpected = [key for key in KEYS if key not in state], [str(key) for key in state if key not in KEYS]
    if missing or unexpected:
        wrong = {"missing": missing, "unexpected": unexpected}
        lists = "; ".join(f"{what}: {', '.join(keys)}" for what, keys in wrong.items() if keys)
        raise ValueError(f"these are not the weights of a published classifier, {lists}")
    for key in KEYS:
        if not (isinstance(state[key], Tensor) and state[key].is_floating_point()):
            kind = state[key].dtype if isinstance(state[key], Tensor) else type(state[key]).__name__
            raise ValueError(f"{key} must be a tensor of floating-point numbers, but is {kind}")


def _sizes(state: Mapping[str, Tensor], network: str) -> tuple[int, int, int]:
    """Inputs, outputs and width of a network."""
    first, last = f"{network}.l1.weight", f"{network}.l{HIDDEN_LAYERS + 1}.weight"
    for key in (first, last):
        if state[key].dim() != 2 or 0 in state[key].shape:
            raise ValueError(f"{key} must be the matrix of a linear layer, but its shape is {list(state[key].shape)}")
    return state[first].shape[1], state[last].shape[0], state[first].shape[0]


def _renamed(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key in KEYS:
        network, _, layer = key.partition(".")
        name = f"{PLACES[network]}.{layer}"
        if state[key].shape != own[name].shape:
            width = state[f"{network}.l1.weight"].shape[0]
            shapes = f"{list(state[key].shape)}, not {list(own[name].shape)}"
            raise ValueError(f"{key} has shape {shapes}, as the width {width} of {network}.l1.weight asks for")
        renamed[name] = state[key]
    return renamed
