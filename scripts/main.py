"""The console script: ``likeness train fit ...`` is ``python -m scripts.train fit ...``, and so on."""

import importlib
import sys
from collections.abc import Mapping, Sequence

from scripts.cli.entry_point import STATUSES, USAGE_STATUS, UsageError, run_command

COMMANDS = {
    "train": "train, validate, test or predict with a model",
    "evaluate": "how good: a bound in bits per dimension, accuracy, or FID of samples",
    "sample": "draw samples of a diffusion model",
    "compress": "images in a file that a diffusion model reads back, bit for bit",
    "decompress": "the images of such a file",
    "data": "what is in a folder or file of data, and the configuration to use it",
    "compare": "how alike finished runs, checkpoints, siblings or language models are",
    "watch": "how runs are getting on, in the terminal: pace, time left, losses, measures",
    "report": "a page of runs: what was trained, how it went and what was measured, in one HTML file",
    "study": "the papers' experiments, each with its table and its figure",
    "hubness": "which points are everybody's neighbours, against chance, and what reduces that",
    "inspect_head": "what the angles between a head's labels mean, and what they do not",
    "export_encoder": "a trained sentence encoder as a folder of sentence-transformers",
    "import_published": "published weights as checkpoints of this project",
    "sweep": "one point of a grid, as W&B's agent would train it",
    "dashboard": "a W&B workspace for a run's metrics",
    "completion": "a script that has bash, zsh or fish complete command lines",
    "doctor": "what is wrong with this environment, and what to do about it",
    "bench": "how fast it is, as ratios measured in one run",
}


def usage() -> str:
    """The text of ``likeness --help``: each command and each exit status, a line each."""
    parts = ["usage: likeness COMMAND [arguments]", *map(_listed, (COMMANDS, STATUSES))]
    parts.insert(2, "'likeness COMMAND --help' says more, with an example. The exit status is")
    return "\n\n".join(parts)


def _listed(meanings: Mapping[str, str]) -> str:
    return "\n".join(f"  {name:18s}{meaning}" for name, meaning in meanings.items())


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command, and exit with its status."""
    run_command(dispatch, argv)


def dispatch(arguments: Sequence[str]) -> None:
    """Hand the arguments after the first to the command that it names."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0 if arguments else USAGE_STATUS)
    name, *rest = arguments
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}: choose one of {', '.join(COMMANDS)}")
    importlib.import_module(f"scripts.{name}").main(rest)


if __name__ == "__main__":
    main()
