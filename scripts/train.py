"""Train, validate, test or predict: ``python -m scripts.train {fit,validate,test,predict} --config ...``."""

import logging
import sys
import warnings
from collections.abc import Sequence

from scripts.cli.entry_point import Stopped, UsageError, rank, run_command


def main(argv: Sequence[str]) -> None:
    """Run one subcommand of the training command; docs/how-to/train.md says how configurations are composed."""
    # Here, because they take seconds, in which a signal may come: run_command answers it.
    from callbacks.run.preemption import Preempted
    from datamodules.errors import OptionError
    from scripts.cli.lightning_cli import LikenessCLI, NothingLeft

    _quieten()
    try:
        LikenessCLI(argv)
    except NothingLeft as done:
        if rank() == 0:
            print(f"likeness: {done}", file=sys.stderr, flush=True)
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
    warnings.filterwarnings("ignore", message=".*WeightAveraging callback, but loading a checkpoint outside.*")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")  # a run goes on


if __name__ == "__main__":
    run_command(main)
