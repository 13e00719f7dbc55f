"""MLflow: one MLflow run for all segments of a run, in a store without a server."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_fabric.utilities.logger import _flatten_dict
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from callbacks.loggers.continued import SQLITE_FILES, ContinuedLogger, Row, kept_id, require
from callbacks.run.run_files import note

FOLDER, RUN_ID, ADDRESS = "mlflow", "mlflow_id", "MLFLOW_TRACKING_URI"
SHOWN = 250  # characters of a parameter that Lightning's logger keeps
ABSENT = "absent"
MADE: Counter[Path] = Counter()  # how often this process has made a store


class RunMLFlowLogger(ContinuedLogger):
    """One MLflow run, whose id stands in the run directory, with every step of each metric once.

    The store is ``mlflow/mlflow.db`` in the run directory, a SQLite file, unless ``tracking_uri`` or
    ``MLFLOW_TRACKING_URI`` names another, which runs may share. MLflow cannot take values back: a run that goes on from
    an older checkpoint with other settings has the old values up to the last step that was logged. Parameters are what
    the run began with: where it went on with other settings, a tag of the parameter's name has the newest value, or
    ``absent``. ``config.yaml`` among its artifacts is the configuration of the newest segment.
    """

    def __init__(
        self,
        save_dir: str,
        experiment_name: str = "likeness",
        run_name: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        super().__init__(save_dir)
        self._experiment_name = experiment_name
        self._run_name = run_name or self._directory.absolute().name
        self._tracking_uri = tracking_uri
        self._mlflow: MLFlowLogger | None = None  # made when something is logged, on rank 0: it opens the store
        self._takes_files = True

    @property
    def name(self) -> str:
        return self._experiment_name

    @property
    def version(self) -> str | None:
        return None if self._mlflow is None else self._mlflow.run_id

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        self._open()
        assert self._mlflow is not None
        return self._mlflow.experiment

    def _start(self) -> dict[str, int]:
        require("mlflow")  # not as it is built, where jsonargparse would bury the line in what a logger may be
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        for name in ("mlflow.store.db.utils", "alembic"):  # a line for each step of making a database
            logging.getLogger(name).setLevel(logging.WARNING)
        uri = self._tracking_uri or os.environ.get(ADDRESS)
        own = None if uri else self._directory.absolute() / FOLDER
        if own is not None:
            uri = _own_store(own / "mlflow.db")
        client, run = self._run(uri, own)
        with _address_kept():
            self._mlflow = MLFlowLogger(self._experiment_name, tracking_uri=uri, run_id=run.info.run_id)
            _ = self._mlflow.experiment  # begins it
        if self._stage == "fit":
            client.update_run(run.info.run_id, status="RUNNING")
        self._takes_files = own is None or Path(run.info.artifact_uri).is_relative_to(own)
        if not self._takes_files:
            where = run.info.artifact_uri
            rank_zero_warn(f"MLflow has the files of this run in {where}, outside of the run directory: none are added")
        return {metric.key: metric.step for metric in run.data.to_proto().metrics}

    def _run(self, uri: str | None, own: Path | None) -> tuple[Any, Any]:
        """MLflow's client and the run of this directory, which is made where the store has none."""
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        client, file = MlflowClient(uri), self._directory / RUN_ID
        for _ in range(2):
            run_id = kept_id(file, lambda: self._new_run(client, own))
            try:
                return client, client.get_run(run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            file.unlink()  # the store was removed, or is another one now: metrics.csv fills the new run
        raise RuntimeError(f"{uri} does not know the MLflow run that was made in it")

    def _new_run(self, client: Any, own: Path | None) -> str:
        experiment = client.get_experiment_by_name(self._experiment_name)
        if experiment is None:
            artifacts = None if own is None else str(own / "artifacts")
            experiment_id = client.create_experiment(self._experiment_name, artifact_location=artifacts)
        else:
            experiment_id = experiment.experiment_id
        # Not Lightning's way to make a run, which would tag it with the address of the repository, password included.
        run = client.create_run(experiment_id, run_name=self._run_name).info
        folder = Path(run.artifact_uri).parent
        if own is not None and folder.is_relative_to(own):
            folder.mkdir(parents=True)
            note(folder)
        return str(run.run_id)

    def _begin_anew(self) -> None:
        self._finish("success")
        (self._directory / RUN_ID).unlink()

    def _stored(self, key: str) -> str:
        return re.sub("[^a-zA-Z0-9_/. -]+", "", key)  # as Lightning's logger names it, with a warning

    def _write(self, metrics: Row, step: int) -> None:
        assert self._mlflow is not None
        self._mlflow.log_metrics(metrics, step)

    def _write_image(self, name: str, image: np.ndarray, step: int) -> None:
        if self._takes_files:
            self.experiment.log_image(self.version, image, artifact_file=f"{name}/{step:06d}.png")

    def _write_table(self, name: str, columns: list[str], data: list[list[Any]], step: int) -> None:
        content = {column: [_cell(row[index]) for row in data] for index, column in enumerate(columns)}
        file = f"{name}/{step:06d}.json"
        # A table that is there would be made longer.
        known = {entry.path for entry in self.experiment.list_artifacts(self.version, name)}
        if self._takes_files and file not in known:
            self.experiment.log_table(self.version, content, artifact_file=file)

    def _write_config(self, config: Row) -> None:
        assert self._mlflow is not None
        run, given = self.experiment.get_run(self.version).data, _flatten_dict(config)
        self._mlflow.log_hyperparams({key: value for key, value in given.items() if key not in run.params})
        gone = {key: ABSENT for key in run.params if key not in given and key.partition("/")[0] in config}
        for key, value in (given | gone).items():
            now = str(value)[:SHOWN]
            if now != run.tags.get(key, run.params.get(key, now)):  # a parameter cannot be changed, a tag can
                self.experiment.set_tag(self.version, key, now)
        if self._takes_files:
            self.experiment.log_dict(self.version, config, "config.yaml")

    def _finish(self, status: str) -> None:
        if self._mlflow is not None and self._stage == "fit":
            self._mlflow.finalize(status)
        self._mlflow = None


@contextmanager
def _address_kept() -> Iterator[None]:
    """What is logged here becomes MLflow's address for the process and those it starts: it would be the next run's."""
    before = os.environ.get(ADDRESS)
    try:
        yield
    finally:
        os.environ.pop(ADDRESS, None)
        if before is not None:
            os.environ[ADDRESS] = before


def _own_store(file: Path) -> str:
    """The address of the run directory's own store; whoever made a file that is there keeps it."""
    if not file.exists():
        MADE[file] += 1
        file.parent.mkdir(parents=True, exist_ok=True)
        for suffix in SQLITE_FILES:
            note(file.with_name(file.name + suffix))
    # MLflow keeps the connection of an address, and would go on writing into a file that was removed meanwhile.
    return f"sqlite:///{file.parent}/{'./' * (MADE[file] - 1)}{file.name}"


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float) else str(value)
