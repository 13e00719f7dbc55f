"""Files that grow, are cut, replaced and removed while they are read, against one reading of what they hold."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from scripts.cli.entry_point import UsageError
from scripts.report.curves import read_metrics
from scripts.watch import following
from scripts.watch.following import FollowedMetrics, followed
from tests.scripts.report.run_folders import write_metrics, write_run

ROWS = [(step, 5 / (step + 1), step // 7 if step % 7 == 6 else None) for step in range(120)]
COLUMNS = ("step", "train/loss", "val/nll")


def content(tmp_path: Path, columns: tuple[str, ...] = COLUMNS) -> bytes:
    return write_metrics(tmp_path / "source", columns, ROWS).read_bytes()


def assert_is_read(found: FollowedMetrics, path: Path) -> None:
    metrics, whole = found.read(), read_metrics(path)
    assert (metrics.last, metrics.last_step, metrics.notes) == (whole.last, whole.last_step, whole.notes)
    assert metrics.curves.keys() == whole.curves.keys()
    for name, curve in whole.curves.items():
        np.testing.assert_allclose(metrics.curves[name].mean, curve.mean, rtol=1e-12)


@pytest.mark.parametrize("columns", [COLUMNS, ("step", '"train\nloss"', "val/nll")])
def test_each_row_is_read_once_and_when_it_is_whole(
    tmp_path: Path, columns: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path = content(tmp_path, columns), tmp_path / "metrics.csv"
    read: list[bytes] = []
    actual = following.metrics_of
    monkeypatch.setattr(following, "metrics_of", lambda lines: read.append(lines) or actual(lines))
    head = whole[: whole.index(b"\r\n") + 2]
    cuts = np.random.default_rng(0).integers(len(head), len(whole), 12)
    found = FollowedMetrics(path)
    for end in [*sorted(cuts.tolist()), len(whole)]:
        path.write_bytes(whole[:end])
        rows = whole[len(head) : end].count(b"\n")
        assert found.read().last_step == (rows - 1 if rows else None)
    assert b"".join(lines.removeprefix(head) for lines in read) == whole[len(head) :]
    assert_is_read(found, path)


def test_a_file_that_takes_the_place_of_another_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = write_metrics(tmp_path, COLUMNS, ROWS[:30])
    found = FollowedMetrics(path)
    assert_is_read(found, path)
    wider = write_metrics(tmp_path / "new", (*COLUMNS, "x"), [(*row, 1.0) for row in ROWS[:31]])
    os.replace(wider, path)
    assert_is_read(found, path)
    path.write_bytes(content(tmp_path).replace(b"0.", b"1."))  # the same file with another, longer content
    assert_is_read(found, path)
    path.write_bytes(content(tmp_path)[:200])
    assert found.read().last_step is not None
    path.unlink()
    assert found.read().notes == ["there is none"]
    assert_is_read(found, write_metrics(tmp_path, COLUMNS, ROWS[:5]))


def test_what_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    found = FollowedMetrics(write_metrics(tmp_path, COLUMNS, ROWS))
    assert found.read() is found.read()


def test_a_configuration_and_segments_that_come_later_are_seen(tmp_path: Path) -> None:
    (run,) = followed([str(tmp_path / "later")])
    assert run.look().segments == []
    write_run(tmp_path / "later")
    assert (run.look().state, run.look().classes, run.look().steps) == ("finished", ["DiffEnc", "Digits"], 40)
    (tmp_path / "later" / "segments.json").write_text("[]")
    assert run.look().segments == []


def test_a_path_may_be_that_of_a_run_to_come_and_of_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "claimed" / ".likeness").mkdir(parents=True)
    named = ["nowhere", "empty", "claimed", "empty/../nowhere"]
    assert [run.look().name for run in followed([str(tmp_path / name) for name in named])] == named[:3]
    (tmp_path / "text").write_text("no run")
    for wrong in (tmp_path, tmp_path / "text"):
        with pytest.raises(UsageError, match=re.escape(f"{wrong} is no run directory")):
            followed([str(wrong)])
