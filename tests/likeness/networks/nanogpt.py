"""Networks of nanoGPT's own code at random weights, with what it answers, as decoders."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from likeness.networks import GPT2
from tests.reference import FOLDER

NAMES = ("nanogpt_bias_2x32", "nanogpt_nobias_3x48")
LAYERS = {
    "transformer.wte": "tokens",
    "transformer.wpe": "positions",
    "transformer.ln_f": "norm",
    "transformer.h": "blocks",
    "ln_1": "norm1",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "norm2",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.out",
}

needs_nanogpt = pytest.mark.skipif(
    not (FOLDER / "language_models" / f"{NAMES[0]}.npz").exists(), reason=f"no reference language models in {FOLDER}"
)


@cache
def answers(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The sizes and numbers of a file, and its arrays."""
    with np.load(FOLDER / "language_models" / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
        arrays |= {key: arrays[key].long() for key in ("tokens", "targets", "greedy")}
        return json.loads(str(file["meta"])), arrays


def own_name(name: str) -> str:
    """What we call a parameter of nanoGPT."""
    for theirs, ours in LAYERS.items():
        name = name.replace(theirs, ours)
    return name


def parameters(name: str, what: str) -> dict[str, Tensor]:
    """The arrays ``what:...`` (``param``, ``grad``, ``after``) under our names."""
    arrays = answers(name)[1]
    return {own_name(key.partition(":")[2]): value for key, value in arrays.items() if key.startswith(f"{what}:")}


def network(name: str) -> GPT2:
    """The network of a file, with its weights, in float64."""
    meta, _ = answers(name)
    sizes = {"width": meta["n_embd"], "depth": meta["n_layer"], "heads": meta["n_head"], "bias": meta["bias"]}
    decoder = GPT2(meta["vocab_size"], meta["block_size"], **sizes).double()
    decoder.load_state_dict(parameters(name, "param"))
    return decoder
