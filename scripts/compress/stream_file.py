"""The file of a stream: a line of JSON that says what it takes to read it, and the words.

The header names the model by the digest of its weights, and the arithmetic that wrote the stream. Fitted variances are
in it, for they are no part of the model.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from likeness.diffusion import FittedRatio, FittedVolatility
from likeness.diffusion.coding import Coded, Coder
from likeness.diffusion.model import DiffusionModel
from likeness.files.text_files import existing_file
from likeness.files.writing import replacing

FORMAT = "likeness stream 1"
FITTED = {"ratio": FittedRatio, "volatility": FittedVolatility}


def write_stream(path: Path, coder: Coder, coded: Coded) -> int:
    """Write the stream; answers how many bytes the file has."""
    words = coded.words.astype("<u4").tobytes()
    model = coder.model
    header = {
        "format": FORMAT,
        "weights": weights_digest(model),
        "words": hashlib.sha256(words).hexdigest(),
        "images": coded.images,
        "kept": coded.kept,
        "initial": coded.initial,
        "steps": model.num_steps,
        "resolution": coder.resolution,
        "seed": coder.seed,
        "batch_size": coder.batch_size,
        "arithmetic": arithmetic(model),
        **{name: _described(getattr(model, name), kind) for name, kind in FITTED.items()},
    }
    content = json.dumps(header).encode() + b"\n" + words
    with replacing(path) as file:
        file.write_bytes(content)
    return len(content)


def read_stream(path: Path, model: DiffusionModel) -> tuple[Coder, Coded, dict[str, Any]]:
    """The coder that reads the stream, the stream, and the arithmetic that wrote it.

    The model gets the depth and the variances that the file names.

    Raises ValueError naming the file for one that is none, is cut short or altered, or is of other weights.
    """
    line, _, words = existing_file(path).read_bytes().partition(b"\n")
    try:
        header = json.loads(line)
        known = header["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError(f"{path} is no stream of images: its first line does not say {FORMAT!r}")
    if hashlib.sha256(words).hexdigest() != header["words"]:
        raise ValueError(f"{path} is cut short or altered: its words are not those whose digest its header has")
    if (digest := weights_digest(model)) != header["weights"]:
        raise ValueError(f"{path} was written with weights {header['weights'][:12]}, but the model's are {digest[:12]}")
    model.ratio = model.ratio if isinstance(header["ratio"], str) else None
    model.num_steps = header["steps"]
    for name, kind in FITTED.items():
        if not isinstance(header[name], str):
            setattr(model, name, _fitted(kind, header[name]))
        elif _described(getattr(model, name), kind) != header[name]:
            raise ValueError(f"{path} was written with another learned {name} than the model's")
    coder = Coder(model, header["resolution"], header["seed"], header["batch_size"])
    counts = (header[name] for name in ("kept", "initial", "images"))
    return coder, Coded(np.frombuffer(words, "<u4").astype(np.uint32), *counts), header["arithmetic"]


def weights_digest(model: DiffusionModel) -> str:
    """Of the networks and the schedule, without ratio and volatility, which may be fitted."""
    return _digest({name: value for name, value in model.state_dict().items() if name.partition(".")[0] not in FITTED})


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bits."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def arithmetic(model: DiffusionModel) -> dict[str, Any]:
    """What decides the last digits of the networks' answers."""
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    kind, threads = str(model.dtype).removeprefix("torch."), torch.get_num_threads()
    return {"torch": torch.__version__, "device": device.type, "dtype": kind, "threads": threads}


def _described(module: Module | None, kind: type[Module]) -> Any:
    """The numbers of a fitted module, exactly; the digest of one that the weights have; None of none."""
    if module is None:
        return None
    if not isinstance(module, kind):
        return _digest(module.state_dict())
    state = module.state_dict().items()
    return {name: [list(x.shape), [value.hex() for value in x.flatten().tolist()]] for name, x in state}


def _fitted(kind: Callable[..., Module], numbers: Mapping[str, Any] | None) -> Module | None:
    if numbers is None:
        return None
    state = {
        name: torch.tensor([float.fromhex(text) for text in texts], dtype=torch.float64).reshape(shape)
        for name, (shape, texts) in numbers.items()
    }
    bins = len(state["edges"]) - 1
    (dims,) = {tuple(value.shape[1:]) for name, value in state.items() if name in ("kappa", "total")}
    module = kind(bins, dims or None)
    module.load_state_dict(state)
    return module
