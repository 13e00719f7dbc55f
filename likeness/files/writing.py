"""Files that a reader finds whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name to write to; what was written there takes the place of ``path``, at once, when the block ends.

    After an error ``path`` is what it was. Its folder is made. The file has the mode that the umask gives to new
    files, whatever the library that wrote it prefers.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp(), "folder", "numbers.txt")
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("1 2 3")
    >>> target.read_text()
    '1 2 3'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:12]}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # of a file system that has become read-only
            temporary.unlink(missing_ok=True)
        raise
