"""A run that is stopped and continued is the uninterrupted run: every loss, sample, weight and logged row.

One run is broken off in every way there is and continued in a fresh process each time; another goes through
undisturbed; then the two are compared to the last bit.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.commands import QUIET, Ended, command, interrupted
from tests.integration.recorder import steps

RECORDER = "tests.integration.recorder.Recorder"
BASE = (
    *QUIET,
    "--trainer.accelerator",
    "cpu",
    "--trainer.log_every_n_steps",
    "1",
    "--trainer.num_sanity_val_steps",
    "0",
)
BEST = ("--config", "configs/callbacks/best_nll.yaml")
STEPS_PER_EPOCH, EPOCHS = 10, 3
MODELS = {
    "classifier": ("--config", "tests/integration/classifier.yaml"),
    "siblings": ("--config", "tests/integration/siblings.yaml"),
    "diffenc": ("--config", "tests/integration/diffenc.yaml"),
    "sentence": ("--config", "tests/integration/sentence.yaml"),
    "language": ("--config", "tests/integration/language.yaml"),
}


class Run:
    """A training in ``directory``, continued segment by segment."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options

    def arguments(
        self, *more: str, crash_at_step: int = -1, wait_at_step: int = -1, max_epochs: int = EPOCHS
    ) -> tuple[str, ...]:
        started = (self.directory / "checkpoints" / "last.ckpt").exists()
        return (
            *("fit", *self.options, *BASE, "--run_dir", str(self.directory), "--trainer.max_epochs", str(max_epochs)),
            *("--trainer.callbacks+", RECORDER, "--trainer.callbacks.directory", str(self.directory)),
            *("--trainer.callbacks.crash_at_step", str(crash_at_step)),
            *("--trainer.callbacks.wait_at_step", str(wait_at_step)),
            *("--allow_changes", "true"),  # of the recorder's settings
            *(("--ckpt_path", "last") if started and "--ckpt_path" not in more else ()),
            *more,
        )

    def go(self, *more: str, **limits: int) -> Ended:
        return command("train", *self.arguments(*more, **limits))

    def interrupt(self, in_step: int) -> Ended:
        waiting = self.directory / "waiting"
        return interrupted("train", *self.arguments(wait_at_step=in_step), when=waiting.exists)

    @property
    def checkpoint(self) -> dict[str, Any]:
        content: dict[str, Any] = torch.load(self.directory / "checkpoints" / "last.ckpt", weights_only=True)
        return content


def assert_same(left: Any, right: Any, where: str) -> None:
    """Equal to the last bit, through dictionaries and lists; the message names the first place that differs."""
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    else:
        assert left == right, where


def logged(directory: Path) -> list[dict[str, str]]:
    """metrics.csv without what measures time."""
    with (directory / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.endswith("/seconds")} for row in csv.DictReader(file)]


def assert_same_run(broken: Run, whole: Run, ranks: int = 1) -> None:
    for rank in range(ranks):
        assert steps(broken.directory, rank) == steps(whole.directory, rank)
    assert sorted(steps(whole.directory)) == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "current_model_state"):
        if part in whole.checkpoint:
            assert_same(broken.checkpoint[part], whole.checkpoint[part], part)
    assert logged(broken.directory) == logged(whole.directory)


def at_limit(run: Run) -> None:
    """In the middle of epoch 0."""
    assert run.go("--trainer.max_steps", "4").status == 0


def by_signal(run: Run) -> None:
    stopped = run.interrupt(in_step=7)
    assert stopped.status == 130, stopped.output
    assert "continue with --ckpt_path last" in stopped.output


def by_crash(run: Run) -> None:
    """Some steps behind a checkpoint."""
    crashed = run.go("--checkpoint.every_n_train_steps", "5", crash_at_step=17)
    assert crashed.status == 9, crashed.output


def at_end_of_epoch(run: Run) -> None:
    assert run.go(max_epochs=2).status == 0


# Every way for one model, and for the others, which a signal stops on two ranks, below, those that differ from it most.
WAYS: dict[str, tuple[Callable[[Run], None], ...]] = {
    "classifier": (at_limit, by_signal, by_crash, at_end_of_epoch),
    "siblings": (at_limit, at_end_of_epoch),
    "diffenc": (by_crash,),
    "sentence": (by_crash, at_end_of_epoch),
    "language": (by_signal, by_crash),  # both in the middle of an accumulated gradient
}


@pytest.mark.parametrize(
    "model",
    [
        "diffenc",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("classifier", "siblings", "sentence", "language")),
    ],
)
def test_every_way_of_stopping_continues_exactly(model: str, tmp_path: Path) -> None:
    whole, broken = Run(tmp_path / "whole", *MODELS[model]), Run(tmp_path / "broken", *MODELS[model])
    assert whole.go().status == 0
    for stop in WAYS[model]:
        stop(broken)
    finished = broken.go()
    assert finished.status == 0, finished.output
    assert_same_run(broken, whole)


def test_a_checkpoint_from_the_middle_of_validation_time_continues_exactly(tmp_path: Path) -> None:
    options = (*MODELS["classifier"], *BEST, "--trainer.val_check_interval", "5")
    whole, broken = Run(tmp_path / "whole", *options), Run(tmp_path / "broken", *options)
    assert whole.go().status == 0
    assert broken.go(crash_at_step=7).status == 9  # best.ckpt was written by the validation after step 5
    best = broken.directory / "checkpoints" / "best.ckpt"
    finished = broken.go("--ckpt_path", str(best))
    assert finished.status == 0, finished.output
    assert_same_run(broken, whole)


@pytest.mark.parametrize(
    ("model", "fresh"),
    [
        ("classifier", False),
        pytest.param("classifier", True, marks=pytest.mark.long),  # the ranks start as a user's do
        *(pytest.param(name, False, marks=pytest.mark.long) for name in ("diffenc", "siblings", "sentence")),
    ],
)
def test_two_ranks_continue_exactly(model: str, fresh: bool, tmp_path: Path) -> None:
    options = (*MODELS[model], "--trainer.strategy", "ddp", "--trainer.devices", "2")
    whole, broken = Run(tmp_path / "whole", *options), Run(tmp_path / "broken", *options)
    started = command("train", *whole.arguments(), fresh=fresh)
    assert started.status == 0, started.output
    stopped = broken.interrupt(in_step=13)
    assert stopped.status == 130, stopped.output
    finished = broken.go()
    assert finished.status == 0, finished.output
    assert_same_run(broken, whole, ranks=2)
    first, second = (steps(whole.directory, rank)[1]["ids"] for rank in range(2))
    assert len(first) == len(second)
    if model != "siblings":  # these have an order each, so that samples return across members
        assert set(first).isdisjoint(second)
