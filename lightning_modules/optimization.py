"""What Lightning is told about optimisers and schedulers."""

from typing import Any

from pytorch_lightning.cli import LRSchedulerCallable
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

MONITOR = "val/nll"


def optimization(optimizer: Optimizer, scheduler: LRSchedulerCallable | None) -> dict[str, Any]:
    """The answer of ``configure_optimizers``: schedulers step with the optimiser, so their lengths are in steps.

    ReduceLROnPlateau steps at an epoch's end with the metric it names as ``monitor``, or ``val/nll``.
    """
    if scheduler is None:
        return {"optimizer": optimizer}
    schedule = scheduler(optimizer)
    if isinstance(schedule, ReduceLROnPlateau):
        monitor = getattr(schedule, "monitor", MONITOR)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": monitor}}
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
