"""The run directory: who may start in it, what continues from it, and whether anything is left to do there."""

import fcntl
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import Timer

from callbacks.run.exact_resume import stopped_early
from callbacks.run.run_files import EVALUATIONS, FOLDER, LOCK, forget_all, is_run, mark, noted, occupied, own
from callbacks.run.segments import FINISHED, read_segments
from lightning_modules.checkpoint_files import LAST, WEIGHTS, CheckpointError, read_checkpoint
from scripts.cli.entry_point import UsageError, rank

SHOWN = 5  # names in an error


def resolve(run_dir: str) -> Path:
    """The directory that ``--run_dir`` means. Raises UsageError where it is empty, as an unset variable is."""
    if not run_dir.strip():
        raise UsageError(f"--run_dir is empty ({run_dir!r}): name the directory that everything is written into")
    return Path(run_dir)


def announce(run_dir: Path) -> None:
    """Say where everything goes, before anything else is said."""
    if rank() == 0:
        print(f"likeness: run directory {run_dir}", file=sys.stderr, flush=True)


def enter(run_dir: Path, subcommand: str) -> None:
    """Make the directory a run's; for ``fit`` it is this process's alone until that ends.

    Raises FileExistsError where files of others stand in a run's places, OSError where nothing can be written, and
    BlockingIOError where another process trains. A directory that is refused is left as it was.
    """
    # In this order: who starts at the same time makes its list before any of the files.
    held = occupied(run_dir)
    if held and not is_run(run_dir):
        _refuse_foreign(run_dir, sorted(set(held) - set(own(run_dir))))
    written_anew = [name for name in EVALUATIONS.get(subcommand, ()) if os.path.lexists(run_dir / name)]
    _refuse_foreign(run_dir, sorted(set(written_anew) - set(own(run_dir))))
    _ensure_writable(run_dir)
    if subcommand == "fit":
        _lock(run_dir)
    mark(run_dir)


def claim(run_dir: Path, *, overwrite: bool) -> None:
    """Free a directory that was entered for a new run.

    Raises FileExistsError where it holds a run already; with ``overwrite`` the files of that run are removed. Where
    it holds anything else that the new run would write over, nothing is removed and FileExistsError names it.
    """
    held, ours = occupied(run_dir), own(run_dir)
    if held and not overwrite:
        raise FileExistsError(
            f"run_dir {run_dir} already holds a run ({_listed(held)}): continue it with --auto_resume or --ckpt_path "
            "last, replace it with --overwrite true, or choose another --run_dir"
        )
    _refuse_foreign(run_dir, sorted(set(held) - set(ours)))
    for name in ours:
        (run_dir / name).unlink()
    for name in noted(run_dir):
        if name.endswith("/"):
            _remove_empty_folders(run_dir / name)
    forget_all(run_dir)


def refuse_lost_checkpoints(run_dir: Path) -> None:
    """Raise FileNotFoundError for a run that has trained and whose checkpoints are gone: it is not begun anew."""
    if not is_run(run_dir) or checkpoints(run_dir / "checkpoints"):
        return
    saved = any(name.endswith(".ckpt") for name in noted(run_dir))
    steps = [segment["last_step"] or segment["first_step"] for segment in read_segments(run_dir)]
    ends = tuple(segment["why"] for segment in read_segments(run_dir))
    continued = any(steps) and any(why == FINISHED or why.startswith("stopped by") for why in ends)
    if saved or continued:
        raise FileNotFoundError(
            f"the run in {run_dir} has trained{f' to step {max(steps)}' if steps else ''}, but there is no checkpoint "
            f"in {run_dir / 'checkpoints'}: bring it back (is a disk not mounted?), or begin anew with --overwrite"
        )


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


def nothing_left(run_dir: Path, checkpoint: dict[str, Any], trainer: Any, *, changed: bool) -> str | None:
    """Why a run that would continue from this checkpoint has nothing left to do, None where it has.

    That is a run that has said that it finished, at the step of the checkpoint, and whose length, in steps, epochs or
    time, is not longer now; or that a callback ended early, unless what is trained has ``changed``.
    """
    segments, step = read_segments(run_dir), checkpoint["global_step"]
    last = segments[-1] if segments else {}
    if last.get("why") != FINISHED or last["last_step"] != step or not (run_dir / WEIGHTS).is_file():
        return None
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    for name, done, limit in (("step", step, trainer.max_steps), ("epoch", epochs, trainer.max_epochs)):
        if limit is not None and 0 <= limit <= done:
            return f"{name} {done} of max_{name}s {limit} is done"
    elapsed = checkpoint["callbacks"].get("Timer", {}).get("time_elapsed", {}).get("train", 0)
    if trainer.max_time is not None and elapsed >= (Timer(trainer.max_time).time_remaining() or 0):
        return f"max_time {trainer.max_time} is over"
    if stopped_early(checkpoint) and not changed:
        return f"training was ended early, after step {step}"
    return None


def _refuse_foreign(run_dir: Path, names: Sequence[str]) -> None:
    if names:
        links = sorted({str(part) for name in names for part in _links(run_dir, name)})
        aside = f" ({', '.join(links)}: symbolic links, which are not followed)" if links else ""
        raise FileExistsError(
            f"run_dir {run_dir} holds files that are no run's: {_listed(names)}{aside}. A run would write there: move "
            "them away, or choose another --run_dir"
        )


def _links(run_dir: Path, name: str) -> list[Path]:
    return [part for part in (Path(name), *Path(name).parents) if (run_dir / part).is_symlink() and part != Path()]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _remove_empty_folders(folder: Path) -> None:
    for root, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # it holds what is not the run's
            os.rmdir(root)


def _ensure_writable(run_dir: Path) -> None:
    """Raise OSError naming the directory where no file can be made in it."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run_dir):
            pass
    except OSError as error:
        raise OSError(f"run_dir {run_dir} cannot be written: {error.strerror or error}") from error


def _lock(run_dir: Path) -> None:
    """Take the run directory for this process until it ends; raises BlockingIOError where another trains in it."""
    (run_dir / FOLDER).mkdir(exist_ok=True)
    descriptor = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # A record lock: gone with the process, kill -9 included, and not inherited by the loaders' workers.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 1000).decode() or "another process"
        os.close(descriptor)
        raise BlockingIOError(f"run_dir {run_dir} is in use: {holder} is training there") from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())


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
