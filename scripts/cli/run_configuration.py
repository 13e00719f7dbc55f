"""Configurations as values: which options replace one another, what repeats a run, and what has changed in one."""

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from callbacks.run.run_files import relative_paths
from scripts.cli.configurations import read_configuration, read_value
from scripts.cli.entry_point import UsageError

# Options that say the same thing in different units, each with the values that say nothing. The one that is given
# last holds; those that were given before it are set to their first such value.
RIVALS: tuple[dict[str, tuple[Any, ...]], ...] = (
    {
        "checkpoint.every_n_epochs": (None, 0),
        "checkpoint.every_n_train_steps": (None, 0),
        "checkpoint.train_time_interval": (None,),
    },
    {"trainer.max_epochs": (-1, None), "trainer.max_steps": (-1,)},
    {"trainer.val_check_interval": (1.0, None), "trainer.check_val_every_n_epoch": (1, None)},
)
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


def replaced(args: Sequence[str]) -> list[str]:
    """Options that take back those of a command line, its files included, which a later one replaces."""
    given = list(_given(args))
    resets = []
    for rivals in RIVALS:
        order = [(place, key) for place, key, value in given if key in rivals and not _is_any(value, rivals[key])]
        if not order:
            continue
        last = max(place for place, _ in order)
        winners = {key for place, key in order if place == last}
        for key in sorted({key for _, key in order} - winners):
            resets.append(f"--{key}={_neutral(key, rivals[key][0], given)}")
    return resets


def origins(args: Sequence[str]) -> list[tuple[str, str]]:
    """Of each value on a command line and in its files, where it stands, as ``FILE: KEY`` or ``--KEY``, and its key.

    A null is no value, and keys are as they are written where ``init_args`` is left out.
    """
    found = []
    for place, key, value in _given(args):
        name, _, file = args[place].partition("=")
        where = f"{file or args[place + 1]}: {key}" if name == "--config" else f"--{key}"
        found += [] if value is None else [(where, key.replace(".init_args.", "."))]
    return found


def _is_any(value: Any, values: tuple[Any, ...]) -> bool:
    """Whether it is one of them, of the same type: an interval of 1 is one batch, and 1.0 a whole epoch."""
    return any(type(value) is type(other) and value == other for other in values)


def _neutral(key: str, value: Any, given: Sequence[tuple[int, str, Any]]) -> str:
    if key == "trainer.check_val_every_n_epoch":
        # A number of batches, or a time, counts on over the epochs; a share is one of each epoch.
        interval = next(value for _, name, value in reversed(given) if name == "trainer.val_check_interval")
        return "1" if isinstance(interval, float) else "null"
    return "null" if value is None else str(value)


def _given(args: Sequence[str]) -> Iterator[tuple[int, str, Any]]:
    """Place, dotted key and value of all options and of all values in configuration files, in their order."""
    words = iter(enumerate(args))
    for place, word in words:
        if not word.startswith("--"):
            continue
        name, equals, text = word[2:].partition("=")
        if not equals:
            text = next(words, (0, ""))[1] if place + 1 < len(args) and not args[place + 1].startswith("--") else ""
        value = _parsed(text)
        content = _content(text) if name == "config" else {name: value}
        yield from ((place, key, entry) for key, entry in _leaves(content))


def _content(file: str) -> Any:
    try:
        return read_configuration(Path(file))
    except UsageError:
        return None  # the parser says what is wrong with it


def _parsed(text: str) -> Any:
    try:
        return read_value(text)
    except yaml.YAMLError:
        return text


def _leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _leaves(value, f"{prefix}{name}.")
    else:
        yield prefix.rstrip("."), content


def portable(content: Any, run_dir: str) -> Any:
    """A nested configuration with the paths into its run directory as ``${run_dir}/...``.

    Repeated in another directory, the run stays out of this one.
    """
    return {**relative_paths(content, run_dir), "run_dir": run_dir}


def changes(saved: Path, content: dict[str, Any]) -> list[str]:
    """Every difference between a run's ``config.yaml`` and what is asked for now; none where there is no such file.

    Whatever decides what is trained counts; the run's length, its devices, loggers and progress bar do not.
    """
    if not saved.exists():
        return []
    before = read_configuration(saved)
    return list(differences(_trained(before), _trained(content)))


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """``key: value (was value)`` for each leaf that differs between two nested configurations.

    An argument that a class has got since, at its default, is no difference.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        if isinstance(now.get("class_path"), str) and isinstance(now.get("init_args"), dict):
            known = before.get("init_args") or {}
            now = now | {"init_args": _without_new_defaults(now["class_path"], now["init_args"], known)}
        for name in sorted(before.keys() | now.keys()):
            inner = f"{key}.{name}" if key else name
            yield from differences(before.get(name, _MISSING), now.get(name, _MISSING), inner)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f"{key}[{index}]")
    elif before != now:
        yield f"{key}: {_shown(now)} (was {_shown(before)})"


def _without_new_defaults(class_path: str, arguments: dict[str, Any], known: Any) -> dict[str, Any]:
    """The arguments without those that are not among the known ones and have the value of the class's signature."""
    module, _, name = class_path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    bases = [base for base in inspect.getmro(cls) if "__init__" in vars(base)][:-1] if inspect.isclass(cls) else [cls]
    defaults: dict[str, Any] = {}
    for base in reversed(bases):
        defaults |= {name: parameter.default for name, parameter in inspect.signature(base).parameters.items()}
    return {
        argument: value
        for argument, value in arguments.items()
        if argument in known or type(value) is not type(defaults.get(argument)) or value != defaults[argument]
    }


def _trained(content: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in content.items() if key not in SEGMENT}
    trainer = {key: value for key, value in (kept.get("trainer") or {}).items() if key not in FREE}
    return {**kept, "trainer": trainer}


def _shown(value: Any) -> str:
    return "absent" if value is _MISSING else str(value)
