"""Flax parameters from files: by path, as arrays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PREFIX = "param:"  # of parameters in an archive that holds other arrays too


def read_parameters(file: Path) -> dict[str, Any]:
    """Arrays by Flax path (``score_model/conv_in/kernel``) from an ``.npz`` or a Flax checkpoint.

    Of a checkpoint with averaged parameters (``ema_params``) these are read. Nothing in a file is executed.
    Raises FileNotFoundError, ValueError for a file that is damaged or holds no parameters, and ImportError with what
    to install where Flax is needed and absent.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    return _from_npz(file) if file.suffix == ".npz" else _from_checkpoint(file)


def _from_npz(file: Path) -> dict[str, Any]:
    import zipfile

    import numpy as np

    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            own = [name for name in archive.files if name.startswith(PREFIX)] or archive.files
            return {name.removeprefix(PREFIX): archive[name] for name in own}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is no archive of arrays: {error}") from error


def _from_checkpoint(file: Path) -> dict[str, Any]:
    try:
        from flax.serialization import msgpack_restore
    except ImportError as error:
        raise ImportError(f"{file} is read as a Flax checkpoint, which needs flax: pip install flax") from error

    try:
        state = msgpack_restore(file.read_bytes())
    except Exception as error:  # msgpack's own, of several kinds
        raise ValueError(f"{file} is no Flax checkpoint: {error}") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{file} holds a {type(state).__name__}, not the state of a training")
    return _flat(next((state[name] for name in ("ema_params", "params") if name in state), state))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by path; a level ``params``, which Flax puts around the parameters of a model, is left out."""
    if not prefix and set(tree) == {"params"}:
        tree = tree["params"]
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {prefix + name: value}
    return leaves
