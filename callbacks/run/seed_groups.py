"""Which runs repeat one experiment: their configurations differ in seeds, run directories and loggers alone."""

import hashlib
import json
from typing import Any

OF_ONE_RUN = {"seed", "seed_everything", "run_dir", "logger"}  # what runs of one group may differ in


def class_names(config: dict[str, Any]) -> list[str]:
    """The names of the classes of model and data, without their modules."""
    paths = [(config.get(part) or {}).get("class_path") for part in ("model", "data")]
    return [path.rpartition(".")[2] for path in paths if path]


def seed_group(config: dict[str, Any]) -> str:
    """A name that runs share whose nested configurations differ in nothing but seeds, run directories and loggers.

    The classes of model and data, and six digits of a digest of the rest: ``SoftmaxClassifier-Digits-1f0c9a``.
    """
    digest = hashlib.sha256(json.dumps(shared(config), sort_keys=True, default=str).encode()).hexdigest()
    return "-".join([*class_names(config), digest[:6]])


def shared(value: Any) -> Any:
    """Nested values without what runs of one group may differ in."""
    if isinstance(value, dict):
        return {key: shared(entry) for key, entry in value.items() if key not in OF_ONE_RUN}
    if isinstance(value, list | tuple):
        return [shared(entry) for entry in value]
    return value
