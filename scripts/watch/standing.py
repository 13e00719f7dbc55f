"""How a run stands at a moment: whether it runs, how far it is, how fast, and how long it has been silent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from scripts.report.runs import KILLED as KILLED_STATE
from scripts.report.runs import Run, holder_is_alive, modified, moment

RUNNING, STARTING, FINISHED, STOPPED = "running", "starting", "finished", "stopped"
FAILED, KILLED, WAITING = "failed", "killed", "not begun"
ELSEWHERE = "running?"  # on another machine, which alone knows
FAULTS = (FAILED, KILLED)
ACTIVE = (RUNNING, ELSEWHERE)
# What is shown where room is scarce.
URGENCY = (RUNNING, ELSEWHERE, STARTING, FAILED, KILLED, STOPPED, WAITING, FINISHED)


@dataclass(frozen=True)
class Standing:
    """A run at a moment; None is what its files do not say."""

    run: Run
    kind: str  # of URGENCY
    step: int | None  # done so far
    total: int | None  # steps that it will have done
    estimated: bool  # whether the total was told from epochs
    rate: float | None  # steps a second since its newest start, validations included
    since_row: float | None  # seconds since metrics.csv was written
    since_checkpoint: float | None
    since_end: float | None

    @property
    def left(self) -> float | None:
        """Seconds to the last step at this rate; None where it does not run."""
        if self.kind not in ACTIVE or not self.rate or self.total is None or self.step is None:
            return None
        return (self.total - self.step) / self.rate

    @property
    def epoch(self) -> int | None:
        """The number of the epoch of the last row."""
        epoch = self.run.metrics.last.get("epoch")
        return None if epoch is None else int(epoch)


def standing(run: Run, now: float) -> Standing:
    """How a run stands ``now``, in seconds since the epoch."""
    kind, step = _kind(run), run.steps
    total, estimated = _total(run)
    if kind == FINISHED:
        total, estimated = step, False
    elif total is not None and step is not None:
        total = max(total, step)
    saved = [time for path in run.checkpoints() if path.suffix == ".ckpt" and (time := modified(path)) is not None]
    return Standing(
        run,
        kind,
        step,
        total,
        estimated,
        _rate(run),
        _since(now, modified(run.path / "metrics.csv")),
        _since(now, max(saved, default=None)),
        _since(now, moment(run.segments[-1].get("end")) if run.segments else None),
    )


def _kind(run: Run) -> str:
    if not run.segments:
        return STARTING if holder_is_alive(run.path) else WAITING
    state = run.state
    if state in (RUNNING, FINISHED):
        return state
    if state == KILLED_STATE:
        return KILLED
    beginnings = {"running on": ELSEWHERE, "stopped by": STOPPED, "interrupted": STOPPED}
    return next((kind for words, kind in beginnings.items() if state.startswith(words)), FAILED)


def _total(run: Run) -> tuple[int | None, bool]:
    """The steps that a run will have done, and whether that is told from the epochs so far; None while nothing says."""
    trainer = run.config.get("trainer")
    steps, epochs = (
        _count(trainer.get(key)) if isinstance(trainer, dict) else None for key in ("max_steps", "max_epochs")
    )
    by_epochs = _steps_of_epochs(run, epochs) if epochs else None
    if by_epochs is None or (steps is not None and steps <= by_epochs):
        return steps, False
    return by_epochs, True


def _steps_of_epochs(run: Run, epochs: int) -> int | None:
    """The steps of so many epochs; None before the second has begun.

    Each row bounds the steps of an epoch from below, (step + 1) / (epoch + 1), and the last row of an epoch is tight.
    """
    curve = run.metrics.curves.get("epoch")
    if curve is None or curve.high[-1] < 1:
        return None
    return math.ceil(float(np.max((curve.step + 1) / (curve.high + 1))) * epochs - 1e-6)


def _count(value: Any) -> int | None:
    """A number of the configuration, whose values are texts; None where it stands for no limit."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else None


def _rate(run: Run) -> float | None:
    if not run.segments:
        return None
    newest = run.segments[-1]
    first, last, seconds = newest.get("first_step"), newest.get("last_step"), run.seconds_of(newest)
    if last is None and run.metrics.last_step is not None:
        last = run.metrics.last_step + 1
    if not isinstance(first, int) or not isinstance(last, int) or not seconds or last <= first:
        return None
    return (last - first) / seconds


def _since(now: float, time: float | None) -> float | None:
    return None if time is None else max(now - time, 0.0)
