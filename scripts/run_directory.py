"""The run directory: who may start in it, what continues from it."""

import shutil
import sys
from pathlib import Path

from scripts.errors import rank

CONTENTS = ("config.yaml", "metrics.csv", "label_disagreements.csv", "checkpoints", "figures", "wandb_id", "wandb")


def claim(run_dir: Path, *, overwrite: bool) -> None:
    """Free ``run_dir`` for a new run.

    Raises FileExistsError where it holds a run already; with ``overwrite`` that run is removed.
    """
    held = [name for name in CONTENTS if (run_dir / name).exists()]
    if held and not overwrite:
        raise FileExistsError(
            f"run_dir {run_dir} already holds a run ({', '.join(held)}): continue it with --ckpt_path last, "
            "replace it with --overwrite true, or choose another --run_dir"
        )
    for name in held:
        path = run_dir / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def ensure_writable(run_dir: Path) -> None:
    """Raise OSError naming the directory where no file can be made in it."""
    probe = run_dir / ".writable"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"run_dir {run_dir} cannot be written: {error.strerror or error}") from error


def checkpoint_path(run_dir: Path, ckpt_path: str) -> Path:
    """The file that ``--ckpt_path`` means: ``last`` and ``best`` are the run's own, anything else is a path."""
    path = run_dir / "checkpoints" / f"{ckpt_path}.ckpt" if ckpt_path in ("last", "best") else Path(ckpt_path)
    if not path.is_file():
        raise FileNotFoundError(f"ckpt_path {ckpt_path}: there is no checkpoint {path}")
    return path


def announce(run_dir: Path) -> None:
    """Say where everything goes, before anything else is said."""
    if rank() == 0:
        print(f"likeness: run directory {run_dir}", file=sys.stderr, flush=True)
