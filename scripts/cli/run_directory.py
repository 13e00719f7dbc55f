"""The run directory: who may start in it, what continues from it.

What a configuration asks for that the run it continues did not do.
"""

import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_modules.checkpoint_files import LAST, CheckpointError, read_checkpoint
from scripts.cli.configurations import read_configuration
from scripts.cli.entry_point import UsageError, rank

CONTENTS = (
    *("config.yaml", "metrics.csv", "label_disagreements.csv", "segments.json", "weights.safetensors"),
    *("checkpoints", "figures", "wandb_id", "wandb"),
)


def claim(run_dir: Path, *, overwrite: bool) -> None:
    """Free ``run_dir`` for a new run.

    Raises FileExistsError where it holds a run already; with ``overwrite`` that run is removed.
    """
    held = contents(run_dir)
    if held and not overwrite:
        raise FileExistsError(
            f"run_dir {run_dir} already holds a run ({', '.join(held)}): continue it with --auto_resume or --ckpt_path "
            "last, replace it with --overwrite true, or choose another --run_dir"
        )
    for name in held:
        path = run_dir / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def contents(run_dir: Path) -> list[str]:
    """What a run has left in the directory."""
    return [name for name in CONTENTS if (run_dir / name).exists()]


def ensure_writable(run_dir: Path) -> None:
    """Raise OSError naming the directory where no file can be made in it."""
    probe = run_dir / ".writable"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # another run may be starting here at the same moment
    except OSError as error:
        raise OSError(f"run_dir {run_dir} cannot be written: {error.strerror or error}") from error


def lock(run_dir: Path) -> None:
    """Take the run directory for this process until it ends; raises BlockingIOError where another trains in it."""
    descriptor = os.open(run_dir / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # A record lock: gone with the process, kill -9 included, and not inherited by the loaders' workers.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 1000).decode() or "another process"
        os.close(descriptor)
        raise BlockingIOError(f"run_dir {run_dir} is in use: {holder} is training there") from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())


def checkpoint_path(run_dir: Path, ckpt_path: str) -> Path:
    """The file that ``--ckpt_path`` means: ``last`` and ``best`` are the run's own, anything else is a path.

    Where the last checkpoint is damaged or missing, ``last`` is the newest other one that is whole, and that is
    said. Raises FileNotFoundError, or CheckpointError where none is whole.
    """
    if ckpt_path == "last":
        return _newest_whole(run_dir / "checkpoints")
    path = run_dir / "checkpoints" / f"{ckpt_path}.ckpt" if ckpt_path == "best" else Path(ckpt_path)
    if not path.is_file():
        raise FileNotFoundError(f"ckpt_path {ckpt_path}: there is no checkpoint {path}")
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The last checkpoint first, then the others, newest first."""
    files = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return sorted(files, key=lambda path: path.name != LAST)


def _newest_whole(folder: Path) -> Path:
    refused = [] if (folder / LAST).exists() else [f"there is no checkpoint {folder / LAST}"]
    candidates = checkpoints(folder)
    for path in candidates:
        try:
            read_checkpoint(path, mmap=True)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        if refused and rank() == 0:
            print(f"likeness: {'; '.join(refused)}; continuing from {path}", file=sys.stderr, flush=True)
        return path
    if candidates:
        raise CheckpointError("; ".join(refused))
    raise FileNotFoundError(f"ckpt_path last: {refused[0]}")


def announce(run_dir: Path) -> None:
    """Say where everything goes, before anything else is said."""
    if rank() == 0:
        print(f"likeness: run directory {run_dir}", file=sys.stderr, flush=True)


# How a segment is run, watched and how long, as against what is trained.
FREE = {
    *("accelerator", "devices", "num_nodes", "strategy"),
    *("max_epochs", "max_steps", "max_time", "min_epochs", "min_steps"),
    *("logger", "profiler", "enable_progress_bar", "enable_model_summary", "default_root_dir"),
}
SEGMENT = {
    *("ckpt_path", "overwrite", "auto_resume", "allow_changes", "stop_after", "preemption"),
    *("checkpoint", "run_dir"),
}
_MISSING = object()


def require_unchanged(saved: Path, content: dict[str, Any]) -> None:
    """Raise UsageError listing every difference between the run's ``config.yaml`` and what is asked for now.

    Whatever decides what is trained counts; the run's length, its devices, loggers and progress bar do not.
    """
    before = read_configuration(saved)
    changes = list(differences(_trained(before), _trained(content)))
    if changes:
        raise UsageError(
            f"the run in {saved.parent} was started with another configuration: {'; '.join(changes)}. "
            "Continue it with these changes by --allow_changes true, or choose another --run_dir"
        )


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """``key: value (was value)`` for each leaf that differs between two nested configurations."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            inner = f"{key}.{name}" if key else name
            yield from differences(before.get(name, _MISSING), now.get(name, _MISSING), inner)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f"{key}[{index}]")
    elif before != now:
        yield f"{key}: {_shown(now)} (was {_shown(before)})"


def _trained(content: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in content.items() if key not in SEGMENT}
    trainer = {key: value for key, value in (kept.get("trainer") or {}).items() if key not in FREE}
    return {**kept, "trainer": trainer}


def _shown(value: Any) -> str:
    return "absent" if value is _MISSING else str(value)
