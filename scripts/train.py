"""Train, validate, test or predict: ``python -m scripts.train {fit,validate,test,predict} --config ...``."""

import logging
import warnings
from collections.abc import Sequence

from callbacks.preemption import Preempted
from datamodules.errors import OptionError
from scripts.cli import LikenessCLI
from scripts.errors import Stopped, UsageError, door


def main(argv: Sequence[str]) -> None:
    """Run one subcommand of the training door; see README.md for the composition of configurations."""
    _quieten()
    try:
        LikenessCLI(argv)
    except Preempted as stop:
        raise Stopped(str(stop), stop.status) from stop
    except (FileNotFoundError, OptionError) as error:  # the command line or a configuration names what is not there
        raise UsageError(str(error)) from error


def _quieten() -> None:
    # Advertisements and advice that a user of this project cannot act on.
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(lambda r: "litlogger" not in r.getMessage())
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=".*WeightAveraging callback with a model that overrides.*")


if __name__ == "__main__":
    door(main)
