"""Arrays by name in the files of others, left on disk: rows are read when they are asked for. Nothing is executed."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likeness.files.errors import DataError
from likeness.files.tensors import open_safetensors
from likeness.files.text_files import existing_file, is_parquet, open_parquet
from likeness.files.writing import replacing

SUFFIXES = (".npz", ".npy", ".safetensors", ".parquet")
WHOLE = ""  # the one array of an .npy file
_STORED = "<HH"  # the lengths of name and extra field, in the local header of a zip archive
_LOCAL = 30  # bytes of that header before them


def keys(path: Path) -> list[str]:
    """The names of the arrays or columns of a file. Raises DataError where it is missing, or of another kind."""
    path = existing_file(path)
    if is_parquet(path):
        return list(open_parquet(path).schema_arrow.names)
    if path.suffix == ".npy":
        return [WHOLE]
    if path.suffix == ".safetensors":
        try:
            return list(open_safetensors(path).keys())
        except ValueError as error:
            raise DataError(str(error)) from error
    if path.suffix != ".npz":
        raise DataError(f"{path} is none of {', '.join(SUFFIXES)}")
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is not a readable .npz file: {error}") from error


class StoredArray:
    """The array ``key`` of an .npy, .npz or .safetensors file, mapped into memory where it is not compressed.

    A process that a copy is sent to opens the file itself. Raises DataError naming file and key.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = existing_file(path)
        self.key = key

    def __str__(self) -> str:
        return f"{self.path}[{self.key}]" if self.key else str(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "key": self.key}

    @cached_property
    def content(self) -> np.ndarray | Tensor:
        """All of it, of which no more is in memory than was read."""
        if self.key not in (found := keys(self.path)):
            raise DataError(f"{self.path} has no array {self.key!r}, but: {', '.join(map(repr, found))}")
        if self.path.suffix == ".safetensors":
            tensor: Tensor = open_safetensors(self.path).get_tensor(self.key)
            return tensor
        try:
            if self.path.suffix == ".npy":
                return np.load(self.path, mmap_mode="r", allow_pickle=False)
            mapped = _mapped_member(self.path, f"{self.key}.npy")
            if mapped is not None:
                return mapped
            with np.load(self.path, allow_pickle=False) as archive:
                unpacked: np.ndarray = archive[self.key]
        except (ValueError, EOFError, OSError, struct.error, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{self} cannot be read: {error}") from error
        return unpacked

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.content.shape)

    @property
    def dtype(self) -> str:
        """The name of its type: uint8, float32, ..."""
        return str(self.content.dtype).removeprefix("torch.")

    def rows(self, rows: Tensor) -> Tensor:
        """Rows [B, ...], in memory, in the byte order of this machine."""
        content = self.content
        if isinstance(content, Tensor):
            return content[rows]
        chosen = content[rows.numpy()]
        return torch.from_numpy(chosen.astype(chosen.dtype.newbyteorder("="), copy=False))

    def values(self) -> np.ndarray:
        """All of it, in memory."""
        return self.content.numpy() if isinstance(self.content, Tensor) else np.array(self.content)


def _mapped_member(path: Path, name: str) -> np.ndarray | None:
    """A member of an archive that ``np.savez`` left uncompressed, mapped; None for one that has to be unpacked."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(member.header_offset + _LOCAL - struct.calcsize(_STORED))
        file.seek(sum(struct.unpack(_STORED, file.read(struct.calcsize(_STORED)))), 1)
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            return None
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject or 0 in shape or not shape:
            return None
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


class ParquetColumn:
    """A column of a Parquet file with encoded pictures, texts or lists of numbers, mapped from an Arrow file.

    ``convert`` writes that file, once; Parquet is packed in blocks, of which no single row could be read.
    """

    def __init__(self, path: Path, key: str, cache_dir: Path | None) -> None:
        self.path = existing_file(path)
        self.key = key
        self.cache_dir = cache_dir or self.path.parent / "cache"
        file = open_parquet(self.path)
        if file.schema_arrow.names.count(key) != 1:
            raise DataError(f"{self.path} has no column {key!r}, but: {', '.join(map(repr, file.schema_arrow.names))}")
        self.length: int = file.metadata.num_rows
        self.type = str(file.schema_arrow.field(key).type)

    def __str__(self) -> str:
        return f"{self.path}[{self.key}]"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_chunks"}

    @property
    def arrow_file(self) -> Path:
        """Where the column stands once it is converted; another Parquet file of the same name gets another."""
        state = self.path.stat()
        return self.cache_dir / f"{self.path.stem}-{self.key}-{state.st_size:x}-{state.st_mtime_ns:x}.arrow"

    def convert(self) -> None:
        """Write the column into ``arrow_file``, if it is not there, a block at a time."""
        if self.arrow_file.exists():
            return
        import pyarrow

        file = open_parquet(self.path)
        schema = pyarrow.schema([file.schema_arrow.field(self.key)])
        try:
            with replacing(self.arrow_file) as temporary, pyarrow.ipc.new_file(str(temporary), schema) as writer:
                for block in file.iter_batches(batch_size=256, columns=[self.key]):
                    writer.write_batch(pyarrow.record_batch(block.columns, schema=schema))
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{self} cannot be converted into {self.arrow_file}: {error}") from error

    @cached_property
    def _chunks(self) -> tuple[Sequence[Any], np.ndarray]:
        """The blocks of the Arrow file, mapped, and the row with which each begins."""
        import pyarrow

        self.convert()
        chunks = pyarrow.ipc.open_file(pyarrow.memory_map(str(self.arrow_file))).read_all().column(0).chunks
        return chunks, np.cumsum([0, *(len(chunk) for chunk in chunks)])

    def cells(self, rows: Tensor) -> list[Any]:
        """What stands in these rows [B], as Python values."""
        chunks, starts = self._chunks
        where = np.searchsorted(starts, rows.numpy(), "right") - 1
        return [chunks[c][int(row - starts[c])].as_py() for c, row in zip(where, rows.tolist(), strict=True)]
