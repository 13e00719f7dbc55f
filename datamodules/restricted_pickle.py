"""Reading published pickles of arrays without letting them run code."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.errors import DataError


def load_arrays(path: Path) -> Any:
    """The dicts, lists, strings, numbers and numeric arrays that a pickle holds; Python 2's pickles too.

    An array answers to ``np.asarray``. Raises DataError where the pickle names anything but the parts of an array
    (nothing that it names is run), or is damaged.
    """
    with path.open("rb") as file:
        try:
            return _ArrayUnpickler(file, encoding="latin1").load()
        except pickle.UnpicklingError as error:
            raise DataError(f"{path.resolve()} is refused or damaged: {error}") from error
        except (EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, MemoryError) as error:
            raise DataError(f"{path.resolve()} is damaged: {type(error).__name__}: {error}") from error


class _Dtype:
    """Stands for numpy.dtype: a type of plain numbers."""

    def __init__(self, spec: str, *_: object) -> None:
        self.value = np.dtype(str(spec))
        if self.value.kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds values of type {self.value}, not numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.value = self.value.newbyteorder(state[1])  # (version, byte order, ...); the rest is for structures


class _Array:
    """Stands for numpy.ndarray: created empty, then filled from its state."""

    def __init__(self, *_: object) -> None:
        self.value = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = _from_buffer(raw, dtype, shape, "F" if fortran else "C").value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.value if dtype is None else self.value.astype(dtype)


def _from_buffer(raw: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> _Array:
    array = _Array()
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2's bytes
    array.value = np.frombuffer(raw, dtype.value).reshape(shape, order=order)
    return array


def _scalar(dtype: _Dtype, raw: Any) -> Any:
    return _from_buffer(raw, dtype, (), "C").value[()]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
    return text.encode(encoding)


# Every name that a pickled array is made of. Nothing of NumPy's own is called, for states are not safe there.
_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): None,  # an argument of _reconstruct, never called
    ("numpy.multiarray", "_reconstruct"): _Array,
    ("numpy.multiarray", "scalar"): _scalar,
    ("numpy.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,  # how Python 3 writes bytes into an old protocol
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        key = (module.replace("numpy._core", "numpy").replace("numpy.core", "numpy"), name)
        if key not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array")
        return _STAND_INS[key]
