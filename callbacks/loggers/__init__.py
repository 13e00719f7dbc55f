"""Loggers that keep one record per run, however often the run is stopped and continued."""

from callbacks.loggers.csv_logger import RunCSVLogger
from callbacks.loggers.wandb_logger import RunWandbLogger

__all__ = ["RunCSVLogger", "RunWandbLogger"]
