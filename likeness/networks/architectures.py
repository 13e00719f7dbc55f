"""How networks of other libraries are built where their weights are about to come from a checkpoint of ours."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

Architectures = Mapping[str, Any]
"""By the name of a model, what a checkpoint keeps of it: plain values that build it without its files."""

_KNOWN: ContextVar[Architectures | None] = ContextVar("architectures", default=None)


@contextmanager
def architecture_alone(known: Architectures | None = None) -> Iterator[None]:
    """Inside, networks are built without pretrained weights, and without files where ``known`` has their names."""
    token = _KNOWN.set(known or {})
    try:
        yield
    finally:
        _KNOWN.reset(token)


def known_architectures() -> Architectures | None:
    """Those of the checkpoint whose weights are about to be loaded; None where there is none."""
    return _KNOWN.get()


def architectures_of(module: nn.Module) -> dict[str, Any]:
    """What a checkpoint of the module has to keep, of all :class:`likeness.networks.Backbone` in it."""
    found: dict[str, Any] = {}
    for part in module.modules():
        found |= getattr(part, "kept_architecture", {})
    return found
