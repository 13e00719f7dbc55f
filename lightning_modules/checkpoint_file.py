"""Reading a checkpoint file without trusting it."""

import pickle
from pathlib import Path
from typing import Any

import torch

from lightning_modules.checkpoint_seal import damage

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"  # the newest checkpoint of a run, and the one before it
MODULE_KEYS = ("state_dict", "pytorch-lightning_version")
# What torch's unpickler raises where the bytes make no sense to it.
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError)


class CheckpointError(ValueError):
    """A file is not a whole, safe checkpoint of this project; the message names it."""


def read_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """The content of a Lightning checkpoint, on the CPU; nothing in it is executed.

    With ``mmap`` the tensors stay on disk until they are read. Raises FileNotFoundError, and CheckpointError for
    a file that is truncated, was altered since it was written (by the checksum it carries), is no Lightning
    checkpoint, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if reason := damage(path):
        raise CheckpointError(f"checkpoint {path} is refused: {reason}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except _UNREADABLE as error:
        if "GLOBAL" in str(error):  # how torch names a class or function that its safe unpickler will not touch
            reason = "it holds more than tensors and plain values and could execute code"
            raise CheckpointError(f"checkpoint {path} is refused: {reason}") from error
        raise CheckpointError(f"checkpoint {path} is truncated or not a checkpoint") from error
    if not isinstance(content, dict) or any(key not in content for key in MODULE_KEYS):
        raise CheckpointError(f"{path} is not a Lightning checkpoint: it lacks {' or '.join(MODULE_KEYS)}")
    return content
