"""Writers of tiny datasets in the formats that the real ones are published in."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def images(count: int, seed: int, shape: tuple[int, ...] = (3, 32, 32)) -> np.ndarray:
    """Random uint8 images [count, *shape]."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def write_idx(path: Path, array: np.ndarray) -> None:
    """LeCun's idx format: magic number 0x08 and dimensions, big-endian sizes, bytes; and the same gzipped beside."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.tobytes())
    with gzip.open(f"{path}.gz", "wb") as file:
        file.write(path.read_bytes())


def python2_pickle(entry: dict[str, Any]) -> bytes:
    """A dict of strings, of lists of small integers and of uint8 arrays, as Python 2's cPickle and NumPy 1 wrote it."""
    body = b"".join(_string(key.encode()) + _value(value) for key, value in entry.items())
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK + body + pickle.SETITEMS + pickle.STOP


def _value(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, str):
        return _string(value.encode())
    return pickle.EMPTY_LIST + pickle.MARK + b"".join(map(_integer, value)) + pickle.APPENDS


def _string(raw: bytes) -> bytes:
    return pickle.BINSTRING + struct.pack("<i", len(raw)) + raw


def _integer(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)


def _array(array: np.ndarray) -> bytes:
    assert array.dtype == np.uint8
    empty = (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        + b"cnumpy\nndarray\n"
        + _integer(0) + pickle.TUPLE1 + _string(b"b") + pickle.TUPLE3 + pickle.REDUCE
    )  # fmt: skip
    dtype = b"cnumpy\ndtype\n" + _string(b"u1") + _integer(0) + _integer(1) + pickle.TUPLE3 + pickle.REDUCE
    state = _integer(3) + _string(b"|") + pickle.NONE * 3 + _integer(-1) + _integer(-1) + _integer(0)
    dtype += pickle.MARK + state + pickle.TUPLE + pickle.BUILD
    shape = pickle.MARK + b"".join(map(_integer, array.shape)) + pickle.TUPLE
    filled = _integer(1) + shape + dtype + pickle.NEWFALSE + _string(array.tobytes())
    return empty + pickle.MARK + filled + pickle.TUPLE + pickle.BUILD


def write_png_tar(path: Path, x: np.ndarray) -> None:
    """A tar of a folder of PNG images, numbered from 1."""
    folder = tarfile.TarInfo(path.stem)
    folder.type = tarfile.DIRTYPE
    with tarfile.open(path, "w") as archive:
        archive.addfile(folder)
        for number, image in enumerate(x, start=1):
            png = io.BytesIO()
            Image.fromarray(image.transpose(1, 2, 0)).save(png, "png")
            member = tarfile.TarInfo(f"{path.stem}/{number:05d}.png")
            member.size = png.tell()
            png.seek(0)
            archive.addfile(member, png)
