"""Reading a checkpoint file without trusting it."""

import pickle
from pathlib import Path
from typing import Any

import torch

MODULE_KEYS = ("state_dict", "pytorch-lightning_version")


class CheckpointError(ValueError):
    """A file is not a whole, safe checkpoint of this project; the message names it."""


def read_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """The content of a Lightning checkpoint, on the CPU; nothing in it is executed.

    With ``mmap`` the tensors stay on disk until they are read. Raises FileNotFoundError, and CheckpointError for
    a file that is truncated, is no Lightning checkpoint, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        if "GLOBAL" in str(error):  # how torch names a class or function that its safe unpickler will not touch
            reason = "it holds more than tensors and plain values and could execute code"
            raise CheckpointError(f"checkpoint {path} is refused: {reason}") from error
        raise CheckpointError(f"checkpoint {path} is truncated or not a checkpoint") from error
    if not isinstance(content, dict) or any(key not in content for key in MODULE_KEYS):
        raise CheckpointError(f"{path} is not a Lightning checkpoint: it lacks {' or '.join(MODULE_KEYS)}")
    return content
