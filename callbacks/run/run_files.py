"""The list of files that a run has written, so that no other file is ever removed or taken for a run's.

A run directory holds a folder ``.likeness``. ``written`` in it lists every file of the run, each before or as it is
written, as paths relative to the directory; ``lock`` is held by the process that trains there. Runs from before there
was a list are known by their ``segments.json`` and ``config.yaml``; of their files those count that can be told apart.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from lightning_modules.checkpoint_files import LAST, PREVIOUS, WEIGHTS, is_sealed

FOLDER = ".likeness"
LIST = f"{FOLDER}/written"
LOCK = f"{FOLDER}/lock"
CONFIG, SEGMENTS, METRICS, WANDB_ID = "config.yaml", "segments.json", "metrics.csv", "wandb_id"
FILES = (CONFIG, METRICS, "label_disagreements.csv", SEGMENTS, WEIGHTS, WANDB_ID)
FOLDERS = ("checkpoints", "figures", "wandb")
PREDICTIONS = "predictions.npz"
# What each subcommand writes anew, beside training.
EVALUATIONS = {
    "validate": (f"validate_{METRICS}",),
    "test": (f"test_{METRICS}",),
    "predict": (f"predict_{METRICS}", PREDICTIONS),
}
IN_RUN = "${run_dir}"  # stands for the run directory in what is kept of paths: a run may be moved and copied


def mark(run_dir: Path) -> None:
    """Make the list of a run's files; for a run from before there was one it begins with those that are known."""
    file = run_dir / LIST
    if file.exists():
        return
    known = sorted(_known_without_list(run_dir))
    file.parent.mkdir(parents=True, exist_ok=True)
    _append(file, known)


def note(path: Path) -> Path:
    """Add a file, or a folder with all that is in it, to the list of the run directory it lies in; returns the path.

    Outside of run directories nothing happens.
    """
    absolute = Path(os.path.abspath(path))
    run_dir = next((folder for folder in absolute.parents if (folder / LIST).is_file()), None)
    if run_dir is None:
        return path
    name = absolute.relative_to(run_dir).as_posix() + ("/" if _is_folder(absolute) else "")
    if name not in noted(run_dir):
        _append(run_dir / LIST, [name])
    return path


def noted(run_dir: Path) -> set[str]:
    """The list: names relative to the run directory, folders with a slash at their end; empty where there is none."""
    file = run_dir / LIST
    lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    return {name for line in lines if (name := _entry(line)) is not None}


def forget_all(run_dir: Path) -> None:
    """Begin the list anew."""
    (run_dir / LIST).write_text("", encoding="utf-8")


def is_run(run_dir: Path) -> bool:
    """Whether a run has written into the directory: it has a list, or what runs from before the lists left."""
    return (run_dir / LIST).is_file() or _has_segments_and_config(run_dir)


def occupied(run_dir: Path) -> list[str]:
    """The files where a run writes its own, whoever wrote them, as sorted names relative to the directory."""
    found = [name for name in FILES if os.path.lexists(run_dir / name)]
    for folder in FOLDERS:
        path = run_dir / folder
        if path.is_dir():
            found += [str(Path(root, name).relative_to(run_dir)) for root, name in _walk(path)]
        elif os.path.lexists(path):
            found.append(folder)
    return sorted(found)


def own(run_dir: Path) -> list[str]:
    """The files of the directory that a run has written, its evaluations and unfinished writes included.

    A symbolic link, or a file that is reached through one, is nobody's: what it leads to may be anything.
    """
    listed = noted(run_dir) if (run_dir / LIST).is_file() else _known_without_list(run_dir)
    listed |= _sealed(run_dir)
    elsewhere = (name for name in listed if not name.endswith("/") and os.path.lexists(run_dir / name))
    folders = (run_dir / name for name in listed if name.endswith("/"))
    inside = (str(Path(root, name).relative_to(run_dir)) for folder in folders for root, name in _walk(folder))
    candidates = {*occupied(run_dir), *elsewhere, *inside}
    return sorted(
        name
        for name in candidates
        if _is_listed(name, listed) and not _through_link(run_dir, name) and not _is_folder(run_dir / name)
    )


def relative_paths(value: Any, run_dir: str) -> Any:
    """Nested values with the paths into the run directory, keys included, as ``${run_dir}/...``."""
    if isinstance(value, dict):
        return {relative_paths(key, run_dir): relative_paths(entry, run_dir) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)([relative_paths(entry, run_dir) for entry in value])
    for root in (run_dir, os.path.realpath(run_dir)) if isinstance(value, str) else ():
        if value == root or value.startswith(f"{root}/"):
            return IN_RUN + value[len(root) :]
    return value


def absolute_paths(value: Any, run_dir: str) -> Any:
    """The reverse of ``relative_paths``, for the place where the run directory is now."""
    if isinstance(value, dict):
        return {absolute_paths(key, run_dir): absolute_paths(entry, run_dir) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)([absolute_paths(entry, run_dir) for entry in value])
    inside = isinstance(value, str) and (value == IN_RUN or value.startswith(f"{IN_RUN}/"))
    return os.path.realpath(run_dir) + value[len(IN_RUN) :] if inside else value


def _append(file: Path, names: Iterable[str]) -> None:
    try:
        with file.open("a", encoding="utf-8") as lines:
            # Each after the end of a line: a full disk may have cut the last one short.
            lines.write("".join(f"\n{json.dumps(name)}" for name in names))
    except OSError as error:
        raise OSError(f"{file} could not be written: {error}") from error


def _entry(line: str) -> str | None:
    """The name that a line of the list holds; None for one that a kill cut short or that leads out of the run."""
    try:
        name = json.loads(line)
    except ValueError:
        return None
    parts = Path(name).parts if isinstance(name, str) else ()
    return name if parts and not os.path.isabs(name) and ".." not in parts else None


def _is_listed(name: str, listed: set[str]) -> bool:
    path = Path(name)
    unfinished = re.fullmatch(r"\.(.+?)(\.[0-9a-f]{12})?\.tmp", path.name)
    names = {name, str(path.with_name(unfinished[1]))} if unfinished else {name}
    return bool(names & listed) or any(f"{folder.as_posix()}/" in listed for folder in path.parents)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _through_link(run_dir: Path, name: str) -> bool:
    path = Path(name)
    # W&B itself links to its newest run.
    links = [path, *path.parents] if path.parts[0] != "wandb" else [Path("wandb")]
    return any((run_dir / part).is_symlink() for part in links if part != Path())


def _known_without_list(run_dir: Path) -> set[str]:
    if not _has_segments_and_config(run_dir):
        return _sealed(run_dir)
    names = {name for name in (*FILES, *chain.from_iterable(EVALUATIONS.values())) if (run_dir / name).is_file()}
    if WANDB_ID in names:
        run_id = (run_dir / WANDB_ID).read_text(encoding="utf-8").strip()
        names |= {f"wandb/{path.name}/" for path in (run_dir / "wandb").glob(f"*run-*-{run_id}") if path.is_dir()}
        names |= {f"wandb/{path.name}" for path in (run_dir / "wandb").glob("*") if path.is_symlink()}
    return names | _sealed(run_dir)


def _sealed(run_dir: Path) -> set[str]:
    """The checkpoints that carry a checksum of ours, of the names that a run itself gives."""
    names = (f"checkpoints/{name}" for name in (LAST, PREVIOUS, "best.ckpt"))
    return {name for name in names if (run_dir / name).is_file() and is_sealed(run_dir / name)}


def _has_segments_and_config(run_dir: Path) -> bool:
    try:
        segments = json.loads((run_dir / SEGMENTS).read_text(encoding="utf-8"))
        config = yaml.safe_load((run_dir / CONFIG).read_text(encoding="utf-8"))
        ours = all("first_step" in segment and "likeness" in segment["versions"] for segment in segments)
        return bool(segments) and ours and "run_dir" in config
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return False


def _walk(folder: Path) -> Iterator[tuple[str, str]]:
    """Folder and name of every file and link below; links to folders are not followed."""
    for root, folders, names in os.walk(folder):
        yield from ((root, name) for name in names)
        yield from ((root, name) for name in folders if Path(root, name).is_symlink())
