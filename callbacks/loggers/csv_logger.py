"""The run's own record: metrics.csv, one row a step over all segments of the run."""

import csv
import io
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from callbacks.run.run_files import METRICS, note
from likeness.files.writing import replacing

Row = dict[str, Any]


class RunCSVLogger(Logger):
    """``metrics.csv`` in the run directory: one row a step, columns added as they first appear.

    Lightning's CSVLogger deletes the file of an earlier segment. This one continues it: the row of the current
    step stays open until the step has passed, travels in the checkpoint (``state``), and rows that a later crash
    left behind the checkpoint are dropped on ``resume``. So a step never stands twice and none is missing.
    """

    def __init__(self, save_dir: str, filename: str = METRICS) -> None:
        super().__init__()
        self._directory = Path(save_dir)
        self._filename = filename
        self._columns: list[str] = []
        self._open_row: Row = {}

    @property
    def path(self) -> Path:
        return self._directory / self._filename

    @property
    def save_dir(self) -> str:
        return str(self._directory)

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run directory's config.yaml already holds them."""

    @rank_zero_only
    def begin(self, stage: str) -> None:
        """Start a fresh file: ``metrics.csv`` for a fit, ``<stage>_metrics.csv`` for everything else."""
        if stage != "fit":
            self._filename = f"{stage}_{METRICS}"
        self._columns, self._open_row = [], {}
        self.path.unlink(missing_ok=True)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Merge ``metrics`` into the row of ``step``; an earlier step's row goes to disk."""
        step = self._open_row.get("step", 0) if step is None else step
        if self._open_row and step != self._open_row["step"]:
            self._write(self._open_row)
            self._open_row = {}
        self._open_row |= {**metrics, "step": step}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Put the open row on disk too; a logger that is used again continues behind it."""
        if not self._open_row:
            return
        try:
            self._write(self._open_row)
        except OSError:
            if status != "failed":  # else what made the run fail is the error to hear of
                raise
        self._open_row = {}

    def state(self) -> Row:
        """The row still open, to be kept in a checkpoint; all earlier rows are on disk."""
        return dict(self._open_row)

    @rank_zero_only
    def resume(self, open_row: Row, global_step: int) -> None:
        """Continue the file of the interrupted run, from which every row behind the checkpoint is dropped."""
        rows = _read(self.path)
        first_dropped = open_row.get("step", global_step)
        kept = [row for row in rows if int(row["step"]) < first_dropped]
        self._columns = list(rows[0]) if rows else []
        self._open_row = dict(open_row)
        if self.path.exists():  # and a row that a full disk cut short goes, too
            _replace(self.path, self._columns, kept)

    def history(self) -> list[Row]:
        """Every row so far as numbers, the open one included; for loggers that have missed some."""
        rows = [{key: float(value) for key, value in row.items() if value} for row in _read(self.path)]
        return [*rows, dict(self._open_row)] if self._open_row else rows

    def _write(self, row: Row) -> None:
        new = sorted(set(row) - set(self._columns) - {"step"})
        try:
            if new or not self._columns:
                rows = _read(self.path) if self._columns else []
                self._columns = ["step", *sorted({*self._columns, *new} - {"step"})]
                _replace(self.path, self._columns, rows)
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        except OSError as error:
            raise OSError(f"{self.path} could not be written: {error}") from error


def _read(path: Path) -> list[Row]:
    """The whole rows of a file; one that a full disk or a kill cut short is left out."""
    if not path.exists():
        return []
    # Not splitlines, nor a file's own lines: a metric's name may hold what these take for the end of one.
    text = path.read_bytes().decode()
    return [row for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")) if row["step"]]


def _replace(path: Path, columns: list[str], rows: list[Row]) -> None:
    with replacing(note(path)) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
