"""What the authors' configurations say, read by name."""

from collections.abc import Mapping, Sequence
from typing import Any


def option(config: Mapping[str, Any], key: str, known: Sequence[str]) -> str:
    """The value of an option; raises ValueError naming it where it is none of the known ones."""
    value = config.get(key)
    if value not in known:
        raise ValueError(f"model_config has {key} {value!r}, the known ones are {', '.join(known)}")
    return str(value)


def require_only(config: Mapping[str, Any], only: Mapping[str, Any], name: str = "model_config") -> None:
    """Raise ValueError naming an option with another value than the only one known; one that is absent has that."""
    for key, value in only.items():
        if config.get(key, value) != value:
            raise ValueError(f"{name} has {key} {config[key]!r}, only {value} is known (of all published models)")


def parameter(params: Mapping[str, Any], path: str) -> Any:
    """One of the parameters; raises ValueError where there is none of this path."""
    if path not in params:
        raise ValueError(f"these are no parameters of a published diffusion model: there is no {path}")
    return params[path]
