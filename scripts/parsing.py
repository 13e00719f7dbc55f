"""The command line of every door: no abbreviations, and one line when something is wrong."""

from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from scripts.errors import USAGE_STATUS, report


class OneLineErrors:
    """For parsers: an error is one line instead of a page of usage, and options are never abbreviated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and exit with the status of a wrong command line."""
        report(message)
        raise SystemExit(USAGE_STATUS) from ex


class Parser(OneLineErrors, ArgumentParser):
    """The parser of a door that is not LightningCLI's."""
