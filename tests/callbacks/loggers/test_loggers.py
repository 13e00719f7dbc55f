"""One record per run: metrics.csv over several segments."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbacks.loggers import RunCSVLogger


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def log(logger: RunCSVLogger, steps: range) -> None:
    for step in steps:
        logger.log_metrics({"train/loss": 1.0 / (step + 1)}, step)
        if step % 3 == 2:
            logger.log_metrics({"val/nll": 2.0 / (step + 1)}, step)


def test_metrics_of_one_step_share_a_row(tmp_path: Path) -> None:
    logger = RunCSVLogger(str(tmp_path))
    log(logger, range(4))
    logger.finalize("success")
    found = rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in found] == ["0", "1", "2", "3"]
    assert found[2] == {"step": "2", "train/loss": repr(1 / 3), "val/nll": repr(2 / 3)}
    assert found[3]["val/nll"] == ""


@given(checkpoint=st.integers(1, 11), crash=st.integers(0, 11))
def test_a_crash_behind_the_checkpoint_leaves_no_trace(
    checkpoint: int, crash: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("run")
    whole, cut = RunCSVLogger(str(directory), "whole.csv"), RunCSVLogger(str(directory), "cut.csv")
    log(whole, range(12))
    whole.finalize("success")

    log(cut, range(checkpoint))
    state = cut.state()
    log(cut, range(checkpoint, min(checkpoint + crash, 12)))  # and then the process is killed

    resumed = RunCSVLogger(str(directory), "cut.csv")
    resumed.resume(state, global_step=checkpoint)
    log(resumed, range(checkpoint, 12))
    resumed.finalize("success")
    assert rows(cut.path) == rows(whole.path)


def test_stages_other_than_fit_leave_the_training_record_alone(tmp_path: Path) -> None:
    logger = RunCSVLogger(str(tmp_path))
    log(logger, range(3))
    logger.finalize("success")
    before = (tmp_path / "metrics.csv").read_bytes()
    tester = RunCSVLogger(str(tmp_path))
    tester.begin("test")
    tester.log_metrics({"test/nll": 0.5}, 0)
    tester.finalize("success")
    assert (tmp_path / "metrics.csv").read_bytes() == before
    assert rows(tmp_path / "test_metrics.csv") == [{"step": "0", "test/nll": "0.5"}]


def test_the_history_is_every_row_as_numbers(tmp_path: Path) -> None:
    logger = RunCSVLogger(str(tmp_path))
    assert logger.history() == []
    log(logger, range(4))
    assert [row["step"] for row in logger.history()] == [0, 1, 2, 3]
    assert logger.history()[2] == {"step": 2, "train/loss": 1 / 3, "val/nll": 2 / 3}
    assert logger.history()[3] == {"step": 3, "train/loss": 1 / 4}  # not yet on disk


ODD = ["a,b", 'a"b', "a\nb", "a\r\nb", "a\rb", "a\u2028b", "a\x0bb", "a\x0cb", "a\x1cb", "a\x85b", " ", "ε", "step "]


@given(names=st.lists(st.sampled_from(ODD), min_size=1, unique=True), checkpoint=st.integers(1, 4))
def test_a_metric_of_any_name_is_continued(
    names: list[str], checkpoint: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("run")
    first = RunCSVLogger(str(directory))
    for step in range(checkpoint):
        first.log_metrics(dict.fromkeys(names[: step + 1], float(step)), step)
    state = first.state()
    first.log_metrics({names[0]: 1.0}, checkpoint)
    with first.path.open("a", newline="") as file:
        file.write("17,0.")  # and a full disk cuts a row short
    resumed = RunCSVLogger(str(directory))
    resumed.resume(state, global_step=checkpoint)
    resumed.log_metrics({"late": 1.0}, checkpoint)
    resumed.finalize("success")
    expected = [{"step": step, **dict.fromkeys(names[: step + 1], float(step))} for step in range(checkpoint)]
    assert resumed.history() == [*expected, {"step": checkpoint, "late": 1.0}]


def test_a_metric_cannot_take_the_place_of_the_step(tmp_path: Path) -> None:
    logger = RunCSVLogger(str(tmp_path))
    logger.log_metrics({"step": 7.0, "x": 1.0}, 3)
    logger.finalize("success")
    assert logger.history() == [{"step": 3.0, "x": 1.0}]
