"""``python -m tests.integration.preloaded -m MODULE ...``: MODULE in this process, which has its ranks in reserve.

For launchers whose own processes have to be real: torchrun is, and its ranks are its children, without their imports.
"""

import importlib
import os
import sys
from pathlib import Path

from tests.integration import reserves
from tests.integration.commands import PRELOADED

RESTARTS = 2  # generations of ranks


def python(folder: Path) -> str:
    """An executable in ``folder`` that starts Python like this."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.integration.preloaded "$@"\n')
    path.chmod(0o755)
    return str(path)


if __name__ == "__main__":
    for module in PRELOADED:
        importlib.import_module(module)
    reserves.keep(RESTARTS * reserves.needed_by(sys.argv))
    reserves.become(sys.argv[1:], dict(os.environ))
