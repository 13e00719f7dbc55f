"""Stopped anywhere and continued, training sees the samples of the uninterrupted run, in its order."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.datamodules.toys import Numbers, Recorder, Save, trainer

BATCHES = 5  # of 4 of 23 samples, in an epoch
UNTIL_EPOCH = {"max_epochs": 4}
UNTIL_STEP = {"max_epochs": -1, "max_steps": 20}


def run(workers: int = 0, checkpoint: Path | None = None, **kwargs: Any) -> list[list[int]]:
    model = Recorder()
    data = Numbers(batch_size=4, eval_batch_size=4, num_workers=workers, seed=3)
    trainer(**kwargs).fit(model, data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return model.trained


@pytest.fixture(scope="module")
def uninterrupted() -> list[list[int]]:
    return run(max_epochs=4)


@pytest.mark.parametrize("until", [UNTIL_EPOCH, UNTIL_STEP], ids=["epochs", "steps"])
@pytest.mark.parametrize(
    ("hook", "step", "cut"),
    [
        ("on_train_batch_end", 7, False),
        ("on_train_batch_end", 10, False),
        ("on_validation_end", 10, False),
        ("on_train_epoch_end", 10, False),
        ("on_train_batch_end", 7, True),
        ("on_train_batch_end", 10, True),
        ("on_train_epoch_end", 10, True),
        ("on_train_end", 10, True),
    ],
)
def test_continues_with_the_next_batch(
    tmp_path: Path, uninterrupted: list[list[int]], until: dict[str, int], hook: str, step: int, cut: bool
) -> None:
    path = tmp_path / "stop.ckpt"
    first = until | {"max_steps": step} if cut else until
    assert run(**first, callbacks=[Save(hook, step, path)])[:step] == uninterrupted[:step]
    assert run(**until, checkpoint=path) == uninterrupted[step:]


@pytest.mark.parametrize("until", [UNTIL_EPOCH, UNTIL_STEP], ids=["epochs", "steps"])
@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_train_end"])
def test_an_epoch_cut_short_by_max_steps_is_finished_first(
    tmp_path: Path, uninterrupted: list[list[int]], until: dict[str, int], hook: str
) -> None:
    """Lightning counts that epoch as done, and so may stop before the number of steps of the uninterrupted run."""
    path = tmp_path / "stop.ckpt"
    run(**until | {"max_steps": 7}, callbacks=[Save(hook, 7, path)])
    continued = run(**until, checkpoint=path)
    assert len(continued) >= 8
    assert continued == uninterrupted[7 : 7 + len(continued)]


@pytest.mark.parametrize(
    ("hook", "step"),
    [("on_train_batch_end", 7), ("on_validation_end", 7), ("on_train_batch_end", 10), ("on_train_epoch_end", 10)],
)
def test_workers_that_fetch_ahead_fetch_from_the_right_epoch(
    tmp_path: Path, uninterrupted: list[list[int]], hook: str, step: int
) -> None:
    path = tmp_path / "stop.ckpt"
    limits = UNTIL_EPOCH | {"val_check_interval": 1, "check_val_every_n_epoch": None}
    run(workers=1, callbacks=[Save(hook, step, path)], **limits)
    assert run(workers=1, checkpoint=path, **limits) == uninterrupted[step:]


def test_stopped_twice_and_in_the_middle_of_a_step(tmp_path: Path, uninterrupted: list[list[int]]) -> None:
    first, second = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    run(max_epochs=4, callbacks=[Save("on_train_batch_end", 3, first)])
    run(max_epochs=4, checkpoint=first, callbacks=[Save("on_before_optimizer_step", 8, second)])
    assert run(max_epochs=4, checkpoint=second) == uninterrupted[8:]


def test_a_limited_epoch_is_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "stop.ckpt"
    whole = run(max_epochs=4, limit_train_batches=3)
    run(max_epochs=4, limit_train_batches=3, callbacks=[Save("on_train_batch_end", 4, path)])
    assert run(max_epochs=4, limit_train_batches=3, checkpoint=path) == whole[4:]


def test_a_schedule_that_asks_for_the_number_of_steps_changes_nothing(
    tmp_path: Path, uninterrupted: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``estimated_stepping_batches`` makes Lightning ask for the loader before it has restored its counters."""
    path = tmp_path / "stop.ckpt"
    run(max_epochs=4, callbacks=[Save("on_train_batch_end", 7, path)])
    optimizers = Recorder.configure_optimizers

    def asking(self: Recorder) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches == 20
        return optimizers(self)

    monkeypatch.setattr(Recorder, "configure_optimizers", asking)
    assert run(max_epochs=4, workers=1, checkpoint=path) == uninterrupted[7:]


def saved_state(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)["Numbers"]


def test_the_state_says_where_training_stands(tmp_path: Path) -> None:
    path = tmp_path / "stop.ckpt"
    run(max_epochs=4, callbacks=[Save("on_train_batch_end", 7, path)])
    assert saved_state(path) == {
        "epoch": 1,
        "batches_done": 2,
        "samples_done": 8,
        "total_batches": 7,
        "world_size": 1,
        "order": {"batch_size": 4, "num_samples": 23, "batches_per_epoch": BATCHES, "seeds": [3]},
    }
    run(max_epochs=4, callbacks=[Save("on_train_batch_end", 10, path)])
    assert (saved_state(path)["epoch"], saved_state(path)["batches_done"]) == (2, 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 5}, "batch_size is 5.* 2 batches into epoch 1 with 4"),
        ({"seed": 4}, r"seeds is \[4\].* with \[3\]"),
        ({"sizes": (24, 11, 7)}, "num_samples is 24.* with 23"),
    ],
)
def test_another_order_is_refused_in_the_middle_of_an_epoch_alone(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    middle, end = tmp_path / "middle.ckpt", tmp_path / "end.ckpt"
    run(max_epochs=4, callbacks=[Save("on_train_batch_end", 7, middle), Save("on_train_epoch_end", 10, end)])
    settings = {"batch_size": 4, "seed": 3} | changed
    with pytest.raises(ValueError, match=message):
        trainer(max_epochs=4).fit(Recorder(), Numbers(**settings), ckpt_path=middle, weights_only=True)
    model = Recorder()
    trainer(max_epochs=3).fit(model, Numbers(**settings), ckpt_path=end, weights_only=True)
    fresh = Recorder()
    trainer(max_epochs=3).fit(fresh, Numbers(**settings))
    per_epoch = len(fresh.trained) // 3
    assert model.trained == fresh.trained[2 * per_epoch :]


def test_a_new_fit_begins_at_the_beginning(tmp_path: Path, uninterrupted: list[list[int]]) -> None:
    path = tmp_path / "stop.ckpt"
    run(max_epochs=4, callbacks=[Save("on_train_batch_end", 7, path)])
    data = Numbers(batch_size=4, seed=3)
    trainer(max_epochs=4).fit(Recorder(), data, ckpt_path=path, weights_only=True)
    model = Recorder()
    trainer(max_epochs=4).fit(model, data)
    assert model.trained == uninterrupted
