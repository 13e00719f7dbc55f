"""trackio: one trackio run for all segments of a run, in SQLite, without a server."""

import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from callbacks.loggers.continued import SQLITE_FILES, ContinuedLogger, Row, kept_id, require
from callbacks.run.run_files import note

FOLDER, RUN_ID, DIRECTORY = "trackio", "trackio_id", "TRACKIO_DIR"
INTERVAL = 1.0  # seconds for which rows are collected: each writing opens the database anew


class RunTrackioLogger(ContinuedLogger):
    """One trackio run, whose id stands in the run directory, with every step of each metric once.

    The store is ``trackio/`` in the run directory, unless ``TRACKIO_DIR`` names another, which runs may share; trackio
    settles on one directory for a process. It is written by trackio's storage and not by ``trackio.init``, which asks
    the Hugging Face hub who the user is, prints, and watches the machine in threads. trackio cannot take values back:
    a run that goes on from an older checkpoint with other settings has the old values up to the last step logged.
    """

    def __init__(self, save_dir: str, project: str = "likeness", name: str | None = None) -> None:
        super().__init__(save_dir)
        self._project = project
        self._run_name = name or self._directory.absolute().name
        self._id = ""
        self._storage: Any = None
        self._rows: dict[int, Row] = {}  # by step, not yet written
        self._written = 0.0
        self._config: Row = {}  # goes with the next row

    @property
    def name(self) -> str:
        return self._project

    @property
    def version(self) -> str:
        return self._id

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        self._open()
        return self._storage

    def _start(self) -> dict[str, int]:
        require("trackio")  # not as it is built, where jsonargparse would bury the line in what a logger may be
        self._storage = _storage(self._directory.absolute() / FOLDER)
        self._storage.validate_project_name(self._project)
        database: Path = self._storage.get_project_db_path(self._project)
        if not database.exists():
            database.parent.mkdir(parents=True, exist_ok=True)
            for file in (*(database.name + suffix for suffix in SQLITE_FILES), f"{database.stem}.lock"):
                note(database.with_name(file))
        self._id = kept_id(self._directory / RUN_ID, lambda: secrets.token_hex(4))
        held: dict[str, int] = {}
        for row in self._storage.get_logs(self._project, self._run_name, run_id=self._id):
            for key in row.keys() - {"step", "timestamp"}:
                held[key] = max(row["step"], held.get(key, -1))
        return held

    def _begin_anew(self) -> None:
        self._finish("success")
        (self._directory / RUN_ID).unlink()

    def _stored(self, key: str) -> str:
        from trackio.utils import RESERVED_KEYS

        return f"__{key}" if key in RESERVED_KEYS or key.startswith("__") else key

    def _write(self, metrics: Row, step: int) -> None:
        self._rows.setdefault(step, {}).update({self._stored(key): value for key, value in metrics.items()})
        if time.monotonic() - self._written >= INTERVAL:
            self._send()

    def _write_image(self, name: str, image: np.ndarray, step: int) -> None:
        import trackio

        picture = trackio.Image(image)
        picture._save(self._project, self._run_name, step)
        note(Path(str(picture._get_absolute_file_path())))
        self._write({name: picture._to_dict()}, step)
        self._send()  # metrics.csv could not bring it back

    def _write_table(self, name: str, columns: list[str], data: list[list[Any]], step: int) -> None:
        import trackio

        table = trackio.Table(columns=columns, data=data)
        self._write({name: table._to_dict(self._project, self._run_name, step)}, step)
        self._send()

    def _write_config(self, config: Row) -> None:
        self._config |= config

    def _send(self) -> None:
        rows, self._rows = self._rows, {}
        if rows:
            self._storage.bulk_log(
                self._project,
                self._run_name,
                list(rows.values()),
                steps=list(rows),
                config=self._config or None,
                run_id=self._id,
            )
            self._config = {}
        self._written = time.monotonic()

    def _finish(self, status: str) -> None:
        self._send()


def _storage(folder: Path) -> Any:
    """trackio's storage in ``folder``, or in ``TRACKIO_DIR`` where that is set."""
    if "trackio" not in sys.modules and not os.environ.get(DIRECTORY):
        os.environ[DIRECTORY] = str(folder)  # read once, when trackio is imported
        try:
            import trackio  # noqa: F401
        finally:
            del os.environ[DIRECTORY]
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import TRACKIO_DIR, is_network_filesystem

    wanted = Path(os.environ.get(DIRECTORY) or folder)
    if wanted != TRACKIO_DIR:
        rank_zero_warn(f"trackio logs into {TRACKIO_DIR}, which this process has begun with, and not into {wanted}")
    if is_network_filesystem(TRACKIO_DIR):  # where SQLite's default of trackio, WAL, is not safe
        os.environ.setdefault("TRACKIO_SQLITE_JOURNAL_MODE", "delete")
    return SQLiteStorage
