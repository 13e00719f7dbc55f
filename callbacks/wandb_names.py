"""What W&B is told by names alone: which direction of a metric is better, and which runs belong together."""

import hashlib
import json
from typing import Any, Literal

MINIMISED = {"loss", "nll", "bpd"}
MAXIMISED = {"accuracy", "spearman"}
OF_ONE_RUN = {"seed", "seed_everything", "run_dir", "logger"}  # what runs of one group may differ in


def goal(key: str) -> Literal["min", "max"] | None:
    """How the metric's curve is summarised: by its minimum, its maximum, or, with None, by its last value.

    A part of the key decides, as in ``val/nll/3``, a sibling's.
    """
    parts = set(key.split("/")[1:])
    return "min" if parts & MINIMISED else "max" if parts & MAXIMISED else None


def class_names(config: dict[str, Any]) -> list[str]:
    """The names of the classes of model and data, without their modules."""
    paths = [(config.get(part) or {}).get("class_path") for part in ("model", "data")]
    return [path.rpartition(".")[2] for path in paths if path]


def seed_group(config: dict[str, Any]) -> str:
    """A name that runs share whose nested configurations differ in nothing but seeds, run directories and loggers.

    The classes of model and data, and six digits of a digest of the rest: ``SoftmaxClassifier-Digits-1f0c9a``.
    """
    digest = hashlib.sha256(json.dumps(_shared(config), sort_keys=True, default=str).encode()).hexdigest()
    return "-".join([*class_names(config), digest[:6]])


def _shared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shared(entry) for key, entry in value.items() if key not in OF_ONE_RUN}
    if isinstance(value, list | tuple):
        return [_shared(entry) for entry in value]
    return value
