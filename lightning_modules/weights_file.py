"""Weights without anything else, as safetensors: a file that no reader can be made to execute."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_modules.checkpoint_file import CheckpointError

WEIGHTS = "weights.safetensors"
_HPARAMS = "hyper_parameters"


def save_weights(path: Path, state: Mapping[str, Tensor], hparams: Mapping[str, Any]) -> None:
    """Write a module's state with its hyper-parameters, from which ``load_module`` builds it again.

    Tensors that share memory are written once each. The file appears whole or not at all.
    """
    from safetensors.torch import save_file

    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(copies, temporary, metadata={_HPARAMS: json.dumps(_plain(hparams))})
    os.replace(temporary, path)


def read_weights(path: Path) -> dict[str, Any]:
    """``state_dict`` and ``hyper_parameters`` of a file of ``save_weights``; raises CheckpointError for another."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or no safetensors file: {error}") from error
    if _HPARAMS not in metadata:
        raise CheckpointError(f"{path} holds weights without the {_HPARAMS} of the module they belong to")
    return {"state_dict": state, _HPARAMS: json.loads(metadata[_HPARAMS])}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
