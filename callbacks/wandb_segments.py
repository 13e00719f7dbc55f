"""What earlier segments of a run have put into W&B's files on disk."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from pytorch_lightning.utilities.rank_zero import rank_zero_warn


def segment_files(folder: Path, run_id: str) -> list[Path]:
    """W&B's files of the run, newest first; ``folder`` is the run's ``wandb``."""
    files = folder.glob(f"*run-*-{run_id}*/run-{run_id}.wandb")
    return sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)


def is_offline(file: Path) -> bool:
    """Whether the segment was logged without the service, which knows nothing of it until it is uploaded."""
    return file.parent.name.startswith("offline-")


def last_step(files: Iterable[Path]) -> int:
    """The last row that the files, newest first, hold; -1 where they hold none.

    A process that is killed leaves a file behind that lacks the newest rows, which is why the files are asked and not
    the process's own books. Rows rise from segment to segment, so the newest file that has one tells.
    """
    for file in files:
        step = _last_step_in(file)
        if step is not None:
            return step
    return -1


def _last_step_in(file: Path) -> int | None:
    # W&B's own reader: the format of the file is nobody else's business, and changes.
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(file)]
    answer = subprocess.run(command, capture_output=True, text=True)
    try:
        step: int | None = json.loads(answer.stdout)["step"]
    except (ValueError, KeyError):
        rank_zero_warn(f"W&B cannot read {file} ({answer.stderr.strip()}): its steps are logged again")
        return None
    return step
