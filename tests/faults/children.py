"""Commands that kill themselves just before they change a file."""

import os
import signal
import sys
from typing import Any

CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def die_at(change: int, folder: str) -> None:
    """Kill this process just before it opens for writing, renames or removes a file in ``folder``, the n-th time."""
    left = change

    def hook(event: str, details: tuple[Any, ...]) -> None:
        nonlocal left
        opened = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
        if (opened or event in CHANGING) and str(details[0]).startswith(folder):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
