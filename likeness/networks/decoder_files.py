"""Decoders from and to the folders of Hugging Face's GPT2LMHeadModel and LlamaForCausalLM.

A folder is ``config.json`` and safetensors, in one file or in shards. It is read and written without that library, and
nothing in it is run.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from likeness.files.tensors import open_safetensors
from likeness.files.writing import replacing
from likeness.networks.decoder import GPT2, Decoder, Llama
from likeness.networks.decoder_blocks import Architecture

Preset = type[GPT2] | type[Llama]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GELUS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
# What files hold beside weights: masks and frequencies, which every reader makes anew.
BUFFERS = re.compile(r"\.(attn\.bias|attn\.masked_bias|rotary_emb\.inv_freq)$")
HEAD = "lm_head.weight"
# Our layers, and those of the files.
GPT2_OUTER = {"tokens": "transformer.wte", "positions": "transformer.wpe", "norm": "transformer.ln_f"}
GPT2_BLOCK = {
    "norm1": ("ln_1",),
    "attention.qkv": ("attn.c_attn",),
    "attention.out": ("attn.c_proj",),
    "norm2": ("ln_2",),
    "mlp.up": ("mlp.c_fc",),
    "mlp.out": ("mlp.c_proj",),
}
LLAMA_OUTER = {"tokens": "model.embed_tokens", "norm": "model.norm"}
LLAMA_BLOCK = {
    "norm1": ("input_layernorm",),
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.o_proj",),
    "norm2": ("post_attention_layernorm",),
    "mlp.gate": ("mlp.gate_proj",),
    "mlp.up": ("mlp.up_proj",),
    "mlp.out": ("mlp.down_proj",),
}


def read_decoder(folder: str | Path) -> Decoder:
    """The network of a folder with its weights, on the CPU, in float32 whatever the files hold.

    Raises FileNotFoundError for a missing file, and ValueError, one line that names file and key, for another kind of
    model, settings that are not those of GPT-2 and Llama, and weights that are missing, extra or of another shape.
    """
    preset, arguments = read_settings(folder)
    decoder = preset(**arguments)
    load_weights(decoder, folder)
    return decoder


def read_settings(folder: str | Path) -> tuple[Preset, dict[str, Any]]:
    """The preset of a folder and the arguments by which it makes the network; raises as :func:`read_decoder`."""
    path = Path(folder, CONFIG)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    readers = {"gpt2": _gpt2_settings, "llama": _llama_settings}
    kind = config.get("model_type") if isinstance(config, Mapping) else None
    if kind not in readers:
        raise ValueError(f"{path} is of model_type {kind!r}; {' and '.join(readers)} are read")
    try:
        return readers[kind](config, path)
    except KeyError as error:
        raise ValueError(f"{path} has no {error}") from error


def load_weights(decoder: Decoder, folder: str | Path) -> None:
    """Give a network the weights of a folder; raises as :func:`read_decoder`."""
    a, own = decoder.architecture, decoder.state_dict()
    given = dict(_tensors(Path(folder), a))
    if a.tied:
        given.pop(HEAD, None)  # some files repeat what is tied
    wanted = {name: _file_names(a, name) for name in own}
    for name in sorted({part for parts in wanted.values() for part in parts} ^ given.keys()):
        problem = "holds a weight that the network has not" if name in given else "lacks the weight"
        raise ValueError(f"{folder} {problem}: {name}")
    for name, parts in wanted.items():
        value = torch.cat([_oriented(a, part, given[part]) for part in parts])
        if value.shape != own[name].shape:
            raise ValueError(f"{folder} holds {parts[0]} with shape {list(value.shape)}, not {list(own[name].shape)}")
        own[name].copy_(value)


def write_decoder(decoder: Decoder, folder: str | Path) -> None:
    """Write ``config.json`` and ``model.safetensors``, which transformers reads as the same model.

    Where documents of a context are kept apart by a ``separator``, theirs sees across it, and is the same on contexts
    of one document. Raises ValueError for a network that is neither a GPT-2 nor a Llama, naming what they do not have.
    """
    from safetensors.torch import save_file

    a = decoder.architecture
    config, state = _config(a), decoder.state_dict()
    if a.positions == "learned" and not a.bias:  # theirs always has biases
        layers = [name for name in state if name.startswith(("blocks.", "norm."))]
        state |= {name.replace(".weight", ".bias"): state[name].new_zeros(len(state[name])) for name in layers}
    weights: dict[str, Tensor] = {}
    for name, value in state.items():
        parts = _file_names(a, name)
        sizes = [len(value)] if len(parts) == 1 else [a.width, *[a.kv_heads * a.head_dim] * 2]
        for part, rows in zip(parts, value.split(sizes), strict=True):
            weights[part] = _oriented(a, part, rows).contiguous().cpu()
    with replacing(Path(folder, WEIGHTS)) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    with replacing(Path(folder, CONFIG)) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _gpt2_settings(config: Mapping[str, Any], path: Path) -> tuple[Preset, dict[str, Any]]:
    expected = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
    _require(config, path, expected)
    if (gelu := config.get("activation_function", "gelu_new")) not in GELUS:
        raise ValueError(f"{path} says activation_function = {gelu!r}; {', '.join(GELUS)} are read")
    dropouts = {config.get(name, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    if len(dropouts) > 1:
        raise ValueError(f"{path} has dropouts {sorted(dropouts)}; a network here has one")
    return GPT2, {
        "vocab_size": config["vocab_size"],
        "max_length": config["n_positions"],
        "width": config["n_embd"],
        "depth": config["n_layer"],
        "heads": config["n_head"],
        "hidden": config.get("n_inner"),
        "dropout": dropouts.pop(),
        "tied": config.get("tie_word_embeddings", True),
        "gelu": GELUS[gelu],
        "eps": config.get("layer_norm_epsilon", 1e-5),
    }


def _llama_settings(config: Mapping[str, Any], path: Path) -> tuple[Preset, dict[str, Any]]:
    width, heads = config["hidden_size"], config["num_attention_heads"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kinds = {"rope_type": rope.get("rope_type", rope.get("type", "default"))}
    _require(config, path, {"hidden_act": "silu", "mlp_bias": False})
    _require(kinds, path, {"rope_type": "default"})
    if (size := config.get("head_dim") or width // heads) * heads != width:
        raise ValueError(f"{path} has {heads} heads of {size}; they must make up the width {width}")
    return Llama, {
        "vocab_size": config["vocab_size"],
        "max_length": config["max_position_embeddings"],
        "width": width,
        "depth": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "hidden": config["intermediate_size"],
        "dropout": config.get("attention_dropout", 0.0),
        "bias": config.get("attention_bias", False),
        "tied": config.get("tie_word_embeddings", False),
        "eps": config.get("rms_norm_eps", 1e-6),
        "rotary_base": rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
    }


def _require(config: Mapping[str, Any], path: Path, expected: Mapping[str, Any]) -> None:
    """Raise ValueError naming a setting that is another than the one that is read."""
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise ValueError(f"{path} says {name} = {config[name]!r}; {value!r} is read")
    if config.get("quantization_config"):
        raise ValueError(f"{path} describes a quantised model (quantization_config); plain weights are read")


def _config(a: Architecture) -> dict[str, Any]:
    kind = (a.norm, a.positions, a.mlp.partition("_")[0])
    if a.head_bias or kind not in (("layer", "learned", "gelu"), ("rms", "rotary", "swiglu")):
        has = "a bias of each label" if a.head_bias else f"{', '.join(kind)} together"
        raise ValueError(f"neither GPT-2 nor Llama has {has}: there is no folder for this network")
    shared = {
        "vocab_size": a.vocab_size,
        "tie_word_embeddings": a.tied,
        "bos_token_id": a.separator,
        "eos_token_id": a.separator,
    }
    return shared | (_gpt2_config(a) if a.norm == "layer" else _llama_config(a))


def _gpt2_config(a: Architecture) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_positions": a.max_length,
        "n_embd": a.width,
        "n_layer": a.depth,
        "n_head": a.heads,
        "n_inner": a.hidden,
        "activation_function": {"gelu": "gelu", "gelu_tanh": "gelu_new"}[a.mlp],
        "layer_norm_epsilon": a.eps,
    } | dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), a.dropout)


def _llama_config(a: Architecture) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": a.max_length,
        "hidden_size": a.width,
        "intermediate_size": a.hidden,
        "num_hidden_layers": a.depth,
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.kv_heads,
        "head_dim": a.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": a.eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": a.rotary_base},
        "rope_theta": a.rotary_base,  # where versions before 5 look for it
        "attention_bias": a.bias,
        "attention_dropout": a.dropout,
        "mlp_bias": False,
    }


def _file_names(a: Architecture, name: str) -> list[str]:
    """The weights of a file that make up one of ours, in order."""
    if name == "unembedding":
        return [HEAD]
    learned = a.positions == "learned"
    module, _, kind = name.rpartition(".")
    if (block := re.fullmatch(r"blocks\.(\d+)\.(.+)", module)) is None:
        return [f"{(GPT2_OUTER if learned else LLAMA_OUTER)[module]}.{kind}"]
    parts = (GPT2_BLOCK if learned else LLAMA_BLOCK)[block[2]]
    stack = "transformer.h" if learned else "model.layers"
    return [f"{stack}.{block[1]}.{part}.{kind}" for part in parts]


def _oriented(a: Architecture, name: str, value: Tensor) -> Tensor:
    """GPT-2's files have the matrices of its blocks as [in, out]."""
    return value.mT if a.positions == "learned" and ".h." in name and value.ndim == 2 else value


def _tensors(folder: Path, a: Architecture) -> Iterator[tuple[str, Tensor]]:
    """The weights of a folder by name, as a model with its head calls them; raises as :func:`read_decoder`."""
    for path, names in _shards(folder).items():
        file = open_safetensors(path)
        held = set(file.keys())
        if lacking := sorted(names - held):
            raise ValueError(f"{path} lacks the weight {lacking[0]}, which {folder / INDEX} says it holds")
        for name in sorted(held):
            if not BUFFERS.search(name):
                base = a.positions == "learned" and not name.startswith(("transformer.", "lm_head."))
                yield f"transformer.{name}" if base else name, file.get_tensor(name)


def _shards(folder: Path) -> dict[Path, set[str]]:
    """The files of weights, with the names that the index says they hold."""
    if not (folder / INDEX).is_file():
        if not (folder / WEIGHTS).is_file():
            raise FileNotFoundError(f"{folder} holds neither {WEIGHTS} nor {INDEX}")
        return {folder / WEIGHTS: set()}
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    shards: dict[Path, set[str]] = {}
    for name, file in index["weight_map"].items():
        shards.setdefault(folder / Path(file).name, set()).add(name)
    for path in shards:
        if not path.is_file():
            raise FileNotFoundError(f"{folder / INDEX} names the shard {path.name}, which is not there")
    return shards
