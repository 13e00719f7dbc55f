"""Loggers that keep one record per run, however often the run is stopped and continued."""

from callbacks.loggers.continued import ContinuedLogger
from callbacks.loggers.csv_logger import RunCSVLogger
from callbacks.loggers.mlflow_logger import RunMLFlowLogger
from callbacks.loggers.tensorboard_logger import RunTensorBoardLogger
from callbacks.loggers.trackio_logger import RunTrackioLogger
from callbacks.loggers.wandb_logger import RunWandbLogger

__all__ = [
    "ContinuedLogger",
    "RunCSVLogger",
    "RunMLFlowLogger",
    "RunTensorBoardLogger",
    "RunTrackioLogger",
    "RunWandbLogger",
]
