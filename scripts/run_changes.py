"""What a configuration asks for that the run it continues did not do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scripts.errors import UsageError

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
    before = yaml.safe_load(saved.read_text())
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
