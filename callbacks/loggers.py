"""Loggers that keep one record per run, however often the run is stopped and continued."""

import csv
import os
import secrets
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

Row = dict[str, Any]


class RunCSVLogger(Logger):
    """``metrics.csv`` in the run directory: one row a step, columns added as they first appear.

    Lightning's CSVLogger deletes the file of an earlier segment. This one continues it: the row of the current
    step stays open until the step has passed, travels in the checkpoint (``state``), and rows that a later crash
    left behind the checkpoint are dropped on ``resume``. So a step never stands twice and none is missing.
    """

    def __init__(self, save_dir: str, filename: str = "metrics.csv") -> None:
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
            self._filename = f"{stage}_metrics.csv"
        self._columns, self._open_row = [], {}
        self.path.unlink(missing_ok=True)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Merge ``metrics`` into the row of ``step``; an earlier step's row goes to disk."""
        step = self._open_row.get("step", 0) if step is None else step
        if self._open_row and step != self._open_row["step"]:
            self._write(self._open_row)
            self._open_row = {}
        self._open_row |= {"step": step, **metrics}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Put the open row on disk too; a logger that is used again continues behind it."""
        if self._open_row:
            self._write(self._open_row)
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
        if len(kept) < len(rows):
            _replace(self.path, self._columns, kept)

    def _write(self, row: Row) -> None:
        new = sorted(set(row) - set(self._columns) - {"step"})
        if new or not self._columns:
            rows = _read(self.path) if self._columns else []
            self._columns = ["step", *sorted({*self._columns, *new} - {"step"})]
            _replace(self.path, self._columns, rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)


class RunWandbLogger(WandbLogger):
    """W&B logger whose run id lives in the run directory, so that every segment continues the same W&B run."""

    def __init__(
        self,
        save_dir: str,
        project: str = "likeness",
        name: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        offline: bool = False,
        log_model: bool = False,
    ) -> None:
        """``save_dir`` is the run directory; ``offline`` needs neither a network nor an account."""
        self._directory = Path(save_dir)
        super().__init__(
            name=name or self._directory.name,
            save_dir=save_dir,
            project=project,
            log_model=log_model,
            entity=entity,
            group=group,
            tags=tags,
            mode="offline" if offline else None,
        )
        self._wandb_init.pop("anonymous", None)  # deprecated in wandb: its mere presence prints a warning
        self._wandb_init["settings"] = {"quiet": True}

    @property
    @rank_zero_only
    def experiment(self) -> Any:
        if self._experiment is None:
            self._continue_run()
        return super().experiment

    def _continue_run(self) -> None:
        # The id must be known before any checkpoint is read, so it cannot live in one.
        self._directory.mkdir(parents=True, exist_ok=True)
        id_file = self._directory / "wandb_id"
        if not id_file.exists():
            id_file.write_text(secrets.token_hex(4))
        self._wandb_init["id"] = self._id = id_file.read_text().strip()

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log images; tensors and arrays must be uint8, because wandb shows floats in [0, 1] as black."""
        for image in images:
            dtype = getattr(image, "dtype", None)
            if dtype is not None and dtype not in (torch.uint8, "uint8"):
                raise TypeError(f"image {key!r} must be uint8, got {dtype}: wandb shows floats in [0, 1] as black")
        super().log_image(key, images, step, **kwargs)


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["step"]]


def _replace(path: Path, columns: list[str], rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".csv.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)
