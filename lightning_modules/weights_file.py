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
_IN = "/"  # between a group's name and a tensor's


def save_weights(path: Path, content: Mapping[str, Mapping[str, Tensor]], hparams: Mapping[str, Any]) -> None:
    """Write named groups of tensors, ``state_dict`` and what else a module keeps, with its hyper-parameters.

    ``load_module`` builds the module from it again. Tensors that share memory are written once each. The file appears
    whole or not at all.
    """
    from safetensors.torch import save_file

    tensors = {
        f"{group}{_IN}{name}": tensor.detach().cpu().clone().contiguous()
        for group, entries in content.items()
        for name, tensor in entries.items()
    }
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, metadata={_HPARAMS: json.dumps(_plain(hparams))})
    os.replace(temporary, path)


def read_weights(path: Path) -> dict[str, Any]:
    """The groups of tensors and ``hyper_parameters`` of a file of ``save_weights``.

    Raises FileNotFoundError, and CheckpointError for a file of another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    content: dict[str, Any] = {"state_dict": {}}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118
                group, _, name = key.partition(_IN)
                content.setdefault(group, {})[name] = file.get_tensor(key)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or no safetensors file: {error}") from error
    if _HPARAMS not in metadata:
        raise CheckpointError(f"{path} holds weights without the {_HPARAMS} of the module they belong to")
    return {**content, _HPARAMS: json.loads(metadata[_HPARAMS])}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
