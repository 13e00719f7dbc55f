"""W&B beside its curves: its files of earlier segments, checkpoints as artifacts, and the runs a run builds on."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from callbacks.run.run_files import WANDB_ID


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


def log_checkpoint(run: Any, path: Path, step: int) -> None:
    """Upload a checkpoint as a version of the run's model, named like the file: ``last`` or ``best``.

    An offline run uploads nothing; its checkpoints stay where they are.
    """
    if run.offline:
        return
    import wandb

    artifact = wandb.Artifact(_model(run.id), type="model", metadata={"file": path.name, "step": step})
    artifact.add_file(str(path), skip_cache=True, policy="immutable")  # no copies in the user's home
    run.log_artifact(artifact, aliases=[path.stem])


def use_inputs(run: Any, config: Any) -> None:
    """Tell W&B which other runs' models the configuration names: a teacher, references, a checkpoint to start from.

    Nothing happens offline, where W&B cannot look them up. A run whose model is not on W&B is passed over, and said.
    """
    if run.offline:
        return
    for run_id in sorted(input_runs(config) - {run.id}):
        try:
            run.use_artifact(f"{_model(run_id)}:latest")
        except Exception as error:  # not uploaded, or in another project: the training needs the file, not the link
            rank_zero_warn(f"W&B does not link to the model of run {run_id}: {error}")


def input_runs(config: Any) -> set[str]:
    """The W&B ids of all run directories that paths in the nested configuration lead into."""
    return {run_id for text in _strings(config) if (run_id := _run_of(text)) is not None}


def _model(run_id: str) -> str:
    return f"model-{run_id}"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _strings(entry)


def _run_of(text: str) -> str | None:
    """The id of the run that a path belongs to: a run directory, ``run#member``, or a file of its checkpoints."""
    path = Path(text.partition("#")[0])
    for folder in (path, *path.parents[:2]) if path.name else ():
        if (folder / WANDB_ID).is_file():
            return (folder / WANDB_ID).read_text(encoding="utf-8").strip()
    return None
