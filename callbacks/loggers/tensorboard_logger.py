"""TensorBoard: the event files of a run's segments read as one curve."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_fabric.utilities.logger import _flatten_dict
from pytorch_lightning.loggers import TensorBoardLogger

from callbacks.loggers.continued import ContinuedLogger, Row, require
from callbacks.run.run_files import note

FOLDER, EVENTS = "tensorboard", "events.out.tfevents.*"
CONFIG = "config"
TEXT = "/text_summary"  # what TensorBoard puts behind the tag of a text


class RunTensorBoardLogger(ContinuedLogger, TensorBoardLogger):
    """Event files in ``tensorboard/`` in the run directory, one a segment, each step once.

    A run that goes on from a checkpoint takes back what was logged behind it, by the mark that TensorBoard has for
    this (``purge_step``). Each row is on disk as soon as it is logged. Tables and the configuration are texts, the
    configuration an entry of the HPARAMS page as well.
    """

    def __init__(self, save_dir: str) -> None:
        require("tensorboard")
        super().__init__(save_dir, save_dir=save_dir, name=FOLDER, version="", default_hp_metric=False)
        self._first_step = 0  # of this segment
        self._config: Row = {}  # goes before the first row: Lightning may log a module's arguments, too

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            before = set(self._files())
            _wait_for_a_later_name(before)
            self._experiment = super().experiment
            self._kwargs.pop("purge_step", None)
            for file in set(self._files()) - before:
                note(file)
        return self._experiment

    def save(self) -> None:
        """Every row is on disk already; Lightning would add ``hparams.yaml``, and config.yaml holds these."""

    def _start(self) -> dict[str, int]:
        return {tag: max(steps) for tag, steps in recorded_steps(self._files()).items()}

    def _begin_anew(self) -> None:
        self._purge(0)

    def _rewind(self, global_step: int) -> None:
        self._first_step = global_step
        steps = recorded_steps(self._files())
        # Metrics carry the number of the last batch, figures that of the steps done, one more: these may be of before.
        kept = {tag: [step for step in of_tag if step <= global_step] for tag, of_tag in steps.items()}
        self._known = {tag: max(of_tag) for tag, of_tag in kept.items() if of_tag}
        if kept != steps:
            self._purge(global_step + 1)

    def _purge(self, first_step: int) -> None:
        if self._experiment is not None:
            self._experiment.close()
        self._experiment = None
        self._kwargs["purge_step"] = first_step
        self.experiment.flush()

    def _write(self, metrics: Row, step: int) -> None:
        self._send_config()
        TensorBoardLogger.log_metrics(self, metrics, step)
        self.experiment.flush()

    def _write_image(self, name: str, image: np.ndarray, step: int) -> None:
        self.experiment.add_image(name, image, step, dataformats="HWC")
        self.experiment.flush()

    def _write_table(self, name: str, columns: list[str], data: list[list[Any]], step: int) -> None:
        self.experiment.add_text(name, as_markdown(columns, data), step)
        self.experiment.flush()

    def _write_config(self, config: Row) -> None:
        self._config |= config

    def _send_config(self) -> None:
        config, self._config = self._config, {}
        if config and CONFIG not in self._held:
            self._write_hparams(config)
        if config and self._is_new(CONFIG, self._first_step):
            text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
            self.experiment.add_text(CONFIG, "    " + text.replace("\n", "\n    "), self._first_step)

    def _write_hparams(self, config: Row) -> None:
        from torch.utils.tensorboard.summary import hparams

        writer = self.experiment._get_file_writer()
        for summary in hparams(self._sanitize_params(_flatten_dict(config)), {}):
            writer.add_summary(summary)

    def _finish(self, status: str) -> None:
        self._send_config()
        if self._experiment is not None:
            self._experiment.close()
        self._experiment = None

    def _files(self) -> list[Path]:
        return sorted(Path(self.log_dir).glob(EVENTS))


def recorded_steps(files: list[Path]) -> dict[str, list[int]]:
    """The steps of each tag that TensorBoard shows of event files, oldest first; a record cut short ends a file."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.compat.proto.event_pb2 import SessionLog

    steps: dict[str, list[int]] = {}
    for file in files:
        for event in LegacyEventFileLoader(str(file)).Load():
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                steps = {tag: [step for step in of_tag if step < event.step] for tag, of_tag in steps.items()}
            for value in event.summary.value:
                if not value.tag.startswith("_hparams_/"):
                    steps.setdefault(value.tag.removesuffix(TEXT), []).append(event.step)
    return {tag: of_tag for tag, of_tag in steps.items() if of_tag}


def _wait_for_a_later_name(files: Iterable[Path]) -> None:
    """TensorBoard reads files in the order of their names, which begin with the second in which they were made."""
    while any(file.name.startswith(EVENTS.replace("*", f"{int(time.time())}.")) for file in files):
        time.sleep(0.05)


def as_markdown(columns: list[str], data: list[list[Any]]) -> str:
    """A table as TensorBoard's texts show one; a cell of None is left empty."""
    rows = [columns, ["---"] * len(columns), *data]
    return "\n".join("| " + " | ".join(_cell(value) for value in row) + " |" for row in rows)


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
