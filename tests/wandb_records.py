"""Reads a W&B offline file back: LevelDB log framing around wandb's own protobuf records (format pinned by a test)."""

import json
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER, FILE_HEADER = 32768, 7, 7
FULL, FIRST, LAST = 1, 2, 4


def records(path: Path) -> Iterator[Any]:
    """Every whole record; a tail that is cut off or fails its checksum ends the iteration."""
    from wandb.proto import wandb_internal_pb2

    raw = path.read_bytes()
    assert raw[:4] == b":W&B", raw[:4]
    position, parts = FILE_HEADER, b""
    while position + HEADER <= len(raw):
        room = BLOCK - position % BLOCK
        if room < HEADER:
            position += room
            continue
        checksum, size, kind = struct.unpack_from("<IHB", raw, position)
        if kind == 0:  # the rest of the block is padding
            position += room
            continue
        body = raw[position + HEADER : position + HEADER + size]
        if len(body) < size or zlib.crc32(bytes([kind]) + body) != checksum:
            return
        parts = body if kind in (FULL, FIRST) else parts + body
        if kind in (FULL, LAST):
            yield wandb_internal_pb2.Record.FromString(parts)
        position += HEADER + size


def finished_records(path: Path, timeout: float = 30.0) -> list[Any]:
    """All records once the exit record is there: ``run.finish()`` can return before the last rows are on disk."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = list(records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{path} has no exit record")


def history(found: list[Any]) -> list[dict[str, Any]]:
    """The logged rows as dictionaries."""
    return [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.WhichOneof("record_type") == "history"
    ]


def summary(found: list[Any]) -> dict[str, Any]:
    """What the run's summary is at the end, as nested dictionaries."""
    result: dict[str, Any] = {}
    for record in found:
        for item in record.summary.update:
            *parents, last = [item.key] if item.key else item.nested_key
            inner = result
            for name in parents:
                inner = inner.setdefault(name, {})
            inner[last] = json.loads(item.value_json)
    return result
