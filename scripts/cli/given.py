"""Options that were given where they would say nothing: they are refused, not passed over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jsonargparse import ArgumentParser, Namespace

from scripts.cli.entry_point import UsageError


def require_default(parser: ArgumentParser, options: Namespace, names: Iterable[str], why: str) -> None:
    """Raise UsageError naming those of the options that are not what the parser has where nothing is said."""
    if given := [f"--{name}" for name in names if name in options and options[name] != parser.get_default(name)]:
        raise UsageError(f"{' and '.join(given)} cannot be given {why}")


def require_needed(parser: ArgumentParser, options: Namespace, needs: Mapping[str, Iterable[str]]) -> None:
    """Raise UsageError for options given without the one that they say something about: ``{"pair": ["cosine"]}``."""
    for needed, names in needs.items():
        if needed in options and not options[needed]:
            require_default(parser, options, names, f"without --{needed}")
