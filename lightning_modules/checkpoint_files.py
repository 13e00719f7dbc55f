"""The files that a module's weights are kept in, read without trusting them.

A checkpoint is what torch.save writes, with its own SHA-256 behind it, as the comment of the zip archive: torch.load
passes over that, and it can be neither lost nor mixed up as a checksum in a second file could. Exported weights are a
safetensors file, which no reader can be made to execute, with the hyper-parameters of the module they belong to.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from likeness.files.tensors import open_safetensors
from likeness.files.writing import replacing

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"  # the newest checkpoint of a run, and the one before it
WEIGHTS = "weights.safetensors"
MODULE_KEYS = ("state_dict", "pytorch-lightning_version")
# What torch's unpickler raises where the bytes make no sense to it.
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError)
_HPARAMS = "hyper_parameters"
_IN = "/"  # between a group's name and a tensor's
_MARK = b"likeness sha256 "
_COMMENT = len(_MARK) + 64  # the mark and the digest in hexadecimal
_END = b"PK\x05\x06"  # signature of the record that ends every zip archive, 22 bytes without its comment
_END_SIZE = 22
_BLOCK = 2**20


class CheckpointError(ValueError):
    """A file is not a whole, safe checkpoint of this project; the message names it."""


class HashingFile:
    """A binary file that torch.save writes to, with the SHA-256 of everything written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        """Write and count in; returns the number of bytes."""
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()

    def seal(self) -> None:
        """Put the checksum behind the archive that has just been written, as its comment."""
        self._file.seek(-2, 2)
        self._file.write(_COMMENT.to_bytes(2, "little") + _MARK + self._hash.hexdigest().encode())


def damage(path: Path) -> str | None:
    """The reason why a checkpoint's bytes are wrong, or None; an archive without a checksum of ours passes."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return None  # no archive: torch.load says what it is
        size = file.seek(0, 2)
        file.seek(max(0, size - _END_SIZE - _COMMENT))
        tail = file.read()
        if tail[-_END_SIZE:].startswith(_END) and tail.endswith(b"\0\0"):
            return None
        comment = tail[-_COMMENT:]
        length = _COMMENT.to_bytes(2, "little")
        if not tail.startswith(_END) or tail[_END_SIZE - 2 : _END_SIZE] != length or not comment.startswith(_MARK):
            return "it is truncated, or its end was altered"
        digest = _digest(file, size - _COMMENT - 2)
    return None if comment == _MARK + digest else "it was altered: its content does not agree with its checksum"


def is_sealed(path: Path) -> bool:
    """Whether a file ends in a checksum of ours, be it right or not."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _COMMENT))
        return file.read().startswith(_MARK)


def _digest(file: IO[bytes], size: int) -> bytes:
    """The digest in hexadecimal of the first ``size`` bytes and a comment's length of zero: what torch.save wrote."""
    file.seek(0)
    sha = hashlib.sha256()
    while block := file.read(min(size, _BLOCK)):
        sha.update(block)
        size -= len(block)
    sha.update(b"\0\0")
    return sha.hexdigest().encode()


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
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_HPARAMS: json.dumps(_plain(hparams))})


def read_weights(path: Path) -> dict[str, Any]:
    """The groups of tensors and ``hyper_parameters`` of a file of ``save_weights``.

    Raises FileNotFoundError, and CheckpointError for a file of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        file = open_safetensors(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    content: dict[str, Any] = {"state_dict": {}}
    metadata = file.metadata() or {}
    for key in file.keys():  # noqa: SIM118
        group, _, name = key.partition(_IN)
        content.setdefault(group, {})[name] = file.get_tensor(key)
    if _HPARAMS not in metadata:
        raise CheckpointError(f"{path} holds weights without the {_HPARAMS} of the module they belong to")
    return {**content, _HPARAMS: json.loads(metadata[_HPARAMS])}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Tensor):
        return value.tolist()
    return os.fspath(value) if isinstance(value, os.PathLike) else value
