"""W&B for runs that are stopped and continued: one W&B run, and each of its steps once.

Which direction of a metric is better W&B is told by names alone.
"""

import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

from callbacks.loggers.continued import kept_id
from callbacks.loggers.wandb_files import is_offline, last_step, log_checkpoint, segment_files, use_inputs
from callbacks.run.run_files import WANDB_ID, note
from callbacks.run.seed_groups import class_names, seed_group

X_AXIS = "trainer/global_step"
MINIMISED = {"loss", "nll", "bpd"}
MAXIMISED = {"accuracy", "spearman"}
Row = dict[str, Any]


def goal(key: str) -> Literal["min", "max"] | None:
    """The summary of the metric's curve: its minimum, its maximum, or, with None, its last value.

    A part of the key decides, as in ``val/nll/3``, a sibling's.
    """
    parts = set(key.split("/")[1:])
    return "min" if parts & MINIMISED else "max" if parts & MAXIMISED else None


class RunWandbLogger(WandbLogger):
    """One W&B run for all segments and ranks of a run, which holds every step once.

    The run's id stands in the run directory. A step is one row of W&B, with the step as W&B's own row number, and is
    sent once later steps have come: a dashboard is at most two logged steps behind. On every start W&B is asked for
    the last step it holds; online the service, offline the files of earlier segments. Rows up to there are not sent
    again, for a continued run repeats them to the last bit. Rows that a kill took from W&B's buffers follow from
    ``metrics.csv``, as do those from before W&B was switched on; pictures do not, they stand in ``figures/``.
    Whoever continues from an older checkpoint with other settings finds the new values behind the old ones' last
    step.

    Losses are summarised by their minimum, accuracies by their maximum, over all segments. Evaluation after training
    fills the run's summary and no curve. Where the service is out of reach at the start, or W&B breaks down later,
    training goes on; what was logged stands in ``wandb/`` in the run directory, and ``wandb sync`` uploads it.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "likeness",
        name: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        offline: bool = False,
        log_model: bool = False,
        timeout: float = 60.0,
    ) -> None:
        """``save_dir`` is the run directory; ``offline`` needs neither a network nor an account.

        Args:
            group: of runs that W&B averages; by default all runs that differ in nothing but their seeds.
            tags: beside the names of the model's and the data's class.
            log_model: upload the checkpoints, as artifacts, when training has ended. Not with ``offline``.
            timeout: seconds that W&B may take to start, and to send what is left at the end.
        """
        if offline and log_model:
            raise ValueError("log_model uploads checkpoints, and an offline run uploads nothing: choose one of them")
        self._directory = Path(save_dir)
        super().__init__(
            name=name or self._directory.name,
            save_dir=save_dir,
            project=project,
            log_model=log_model,
            entity=entity,
            group=group,
            job_type=job_type,
            tags=tags,
            mode="offline" if offline else None,
        )
        self._wandb_init.pop("anonymous", None)  # deprecated in wandb: its mere presence prints a warning
        self._wandb_init["settings"] = {
            "silent": True,  # W&B's lines advertise; the one that matters is printed here
            "init_timeout": timeout,
            "finish_timeout": timeout,
            "finish_timeout_raises": True,
            "x_transaction_log_flush_interval": 1.0,  # seconds; by default a kill takes fifteen along
        }
        self._stage = "fit"
        self._broken = False
        self._rows: dict[int, Row] = {}  # by step; something may still be added to them
        self._held = -1  # the last step that W&B has
        self._held_at_start = -1
        self._best: dict[str, float] = {}  # over all segments; W&B itself forgets the earlier ones
        self._defined: set[str] = set()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._start()
        return self._experiment

    def describe(self, config: dict[str, Any]) -> None:
        """Take the default group, and tags, from the run's nested configuration; call it before W&B is started."""
        self._wandb_init["group"] = self._wandb_init["group"] or seed_group(config)
        self._wandb_init["tags"] = [*(self._wandb_init["tags"] or []), *class_names(config)]

    @rank_zero_only
    def begin(self, stage: str) -> None:
        """Say what is logged from now on: a fresh ``fit``, or an evaluation."""
        self._stage = stage
        if stage == "fit" and self._held >= 0:  # of another training in the same directory
            self.finalize("success")
            (self._directory / WANDB_ID).unlink()

    @rank_zero_only
    def resume(self, history: list[Row]) -> None:
        """Continue a run whose rows up to the checkpoint are ``history``; what W&B lacks of them is sent."""
        for row in history:
            self.log_metrics({key: value for key, value in row.items() if key != "step"}, int(row["step"]))

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        with self._training_goes_on():
            super().log_hyperparams(params)
            use_inputs(self.experiment, params)

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Merge ``metrics`` into the row of ``step`` and send the rows that are complete by now."""
        run = self.experiment
        if self._stage != "fit":
            with self._training_goes_on():
                run.summary.update({key: value for key, value in metrics.items() if key != "epoch"})
            return
        self._note_best(metrics)
        step = max(self._rows, default=self._held + 1) if step is None else step
        if step > self._held:
            self._rows.setdefault(step, {}).update(metrics)
            # Figures carry the number of steps done, metrics that of the last batch, one less: both may come yet.
            self._send(before=step - 1)
        elif step > self._held_at_start:
            rank_zero_warn(f"W&B has step {self._held} already: {', '.join(metrics)} of step {step} is left out")

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log images; tensors and arrays must be uint8, because wandb shows floats in [0, 1] as black."""
        for image in images:
            dtype = getattr(image, "dtype", None)
            if dtype is not None and dtype not in (torch.uint8, "uint8"):
                raise TypeError(f"image {key!r} must be uint8, got {dtype}: wandb shows floats in [0, 1] as black")
        with self._training_goes_on():
            super().log_image(key, images, step, **kwargs)

    @rank_zero_only
    def log_table(
        self, key: str, columns: Any = None, data: Any = None, dataframe: Any = None, step: int | None = None
    ) -> None:
        """Log a table; a column may hold numbers beside words and nothing at all."""
        import wandb

        with self._training_goes_on():
            table = wandb.Table(columns=columns, data=data, dataframe=dataframe, allow_mixed_types=True)
            self.log_metrics({key: table}, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send what is left and end this segment of the W&B run; a logger that is used again begins another one."""
        run = self._experiment
        if run is None:
            return
        self._send(before=math.inf)
        with self._training_goes_on():
            run.summary.update({key: {goal(key): best} for key, best in self._best.items()})
            for callback in self._checkpoint_callbacks.values() if status == "success" else ():
                log_checkpoint(run, Path(callback.best_model_path), callback._last_global_step_saved)
        with self._training_goes_on():
            run.finish(exit_code=int(status != "success"))
        if self._broken:
            _abandon()
        self._experiment, self._broken, self._defined = None, False, set()

    def _start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        # No checkpoint has been read yet, so the id cannot live in one; a sweep's agent chooses ids.
        own_id = kept_id(self._directory / WANDB_ID, lambda: os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))
        self._wandb_init["id"] = self._id = own_id
        files = segment_files(self._directory / "wandb", self._id)
        run = self._reached_or_offline()
        self._note_files(run)
        if not run.offline:  # the service may have got less of an online segment than is on disk
            files = [file for file in files if is_offline(file)]
        self._held = self._held_at_start = max(last_step(files), run.starting_step - 1)
        where = (
            f"offline, `wandb sync {self._directory / 'wandb'}` uploads it" if run.offline else run.url or "disabled"
        )
        rank_zero_info(f"W&B run {self._id}: {where}")

    def _note_files(self, run: Any) -> None:
        """W&B's own process writes: list the folder of this segment, and the links that lead to the newest one."""
        if not run.disabled:
            note(Path(run.dir).parent)
            for link in (path for path in (self._directory / "wandb").glob("*") if path.is_symlink()):
                note(link)

    def _reached_or_offline(self) -> Any:
        import wandb

        try:
            return super().experiment
        except wandb.errors.CommError as error:
            rank_zero_warn(f"W&B cannot be reached: this segment of the run is logged offline ({_first_line(error)})")
            _abandon()  # its process would go on holding the run's id
            self._wandb_init["mode"] = "offline"
            return super().experiment

    def _send(self, before: float) -> None:
        run: Any = self._experiment
        for step in sorted(step for step in self._rows if step < before):
            row = self._rows.pop(step)
            with self._training_goes_on():
                self._define(row)
                run.log({**row, X_AXIS: step}, step=step, commit=True)
            self._held = step

    def _define(self, row: Row) -> None:
        run: Any = self._experiment
        for key in row.keys() - self._defined:
            if summary := goal(key):
                run.define_metric(key, step_metric=X_AXIS, step_sync=True, summary=summary)
        self._defined |= row.keys()

    def _note_best(self, metrics: Row) -> None:
        for key, value in metrics.items():
            direction = goal(key)
            if direction and isinstance(value, int | float) and math.isfinite(value):
                better = min if direction == "min" else max
                self._best[key] = better(value, self._best.get(key, value))

    @contextmanager
    def _training_goes_on(self) -> Iterator[None]:
        """Turns any failure of W&B into one line, once a segment."""
        try:
            yield
        except Exception as error:
            if not self._broken:
                folder = self._directory / "wandb"
                rank_zero_warn(f"W&B failed ({_first_line(error)}): what it has not sent is in {folder}")
            self._broken = True


def _abandon() -> None:
    """Let go of W&B's process, or what is left of it: at exit wandb would fail on it with a traceback."""
    import wandb

    with suppress(Exception):
        wandb.teardown()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
