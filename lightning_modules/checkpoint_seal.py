"""The checksum that a checkpoint carries in itself: the comment of its zip archive, which torch.load passes over.

A checksum in a second file could be lost, copied without its checkpoint, or renamed a moment apart from it.
"""

import hashlib
from pathlib import Path
from typing import IO, Any

_MARK = b"likeness sha256 "
_COMMENT = len(_MARK) + 64  # the mark and the digest in hexadecimal
_END = b"PK\x05\x06"  # signature of the record that ends every zip archive, 22 bytes without its comment
_END_SIZE = 22
_BLOCK = 2**20


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
        """As the file's."""
        self._file.flush()

    def seal(self) -> None:
        """Put the checksum behind the archive that has just been written, as its comment."""
        self._file.seek(-2, 2)
        self._file.write(_COMMENT.to_bytes(2, "little") + _MARK + self._hash.hexdigest().encode())


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's bytes, or None; an archive without a checksum of ours passes."""
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


def _digest(file: IO[bytes], size: int) -> bytes:
    """The digest in hexadecimal of the first ``size`` bytes and a comment's length of zero: what torch.save wrote."""
    file.seek(0)
    sha = hashlib.sha256()
    while block := file.read(min(size, _BLOCK)):
        sha.update(block)
        size -= len(block)
    sha.update(b"\0\0")
    return sha.hexdigest().encode()
