"""What run directories say: how runs ended, which belong together, and that damage is noted."""

import json
import os
import re
import socket
from pathlib import Path

import pytest

from scripts.cli.entry_point import UsageError
from scripts.report.groups import Study, differences
from scripts.report.runs import Run, read_run, read_runs
from tests.scripts.report.run_folders import SEGMENT, write_run

RUNNING = {**SEGMENT, "end": None, "why": "running", "last_step": None}
DEAD = 2**22 + 1  # above the largest number of a process


def read(folder: Path) -> Run:
    return read_run(folder, folder.name)


def running(folder: Path, host: str, process: int) -> Run:
    write_run(folder, segments=[{**RUNNING, "host": host}])
    (folder / ".likeness").mkdir()
    (folder / ".likeness" / "lock").write_text(f"process {process} on {host}")
    return read(folder)


def test_a_finished_run(tmp_path: Path) -> None:
    run = read(write_run(tmp_path / "run", segments=[SEGMENT, SEGMENT]))
    assert (run.state, run.fine, run.steps, run.notes) == ("finished", True, 40, [])
    assert run.seconds == 2 * (3600 + 2 * 60 + 3)
    assert run.classes == ["DiffEnc", "Digits"]
    assert run.options["model.init_args.lr"] == "0.1"


def test_whether_a_run_is_running_is_told_by_its_process(tmp_path: Path) -> None:
    here = socket.gethostname()
    assert running(tmp_path / "a", here, os.getpid()).state == "running"
    assert running(tmp_path / "b", here, DEAD).state.startswith("ended without a word")
    assert running(tmp_path / "c", "elsewhere", DEAD).state == "running on elsewhere, or killed there"


def test_a_run_without_an_end_lasted_until_it_last_wrote(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", segments=[RUNNING])
    os.utime(folder / "metrics.csv", (0, 1767261600 + 90))  # 90 s after ten o'clock
    assert read(folder).seconds == 90
    assert read(folder).steps == 40


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        ("config.yaml", "a: [1", "config.yaml cannot be read"),
        ("config.yaml", "- 1", "config.yaml is no configuration"),
        ("config.yaml", "model: {class_path: [1]}", "config.yaml is no configuration"),
        ("config.yaml", "a: &a [*a]", "config.yaml cannot be read"),
        ("config.yaml", "[" * 5000, "config.yaml cannot be read"),
        ("segments.json", '[{"why": ', "segments.json cannot be read"),
        ("segments.json", '{"why": 1}', "segments.json is no list of segments"),
        ("config.yaml", None, "there is no config.yaml"),
        ("segments.json", None, "there is no segments.json"),
        ("metrics.csv", None, "metrics.csv: there is none"),
    ],
)
def test_what_is_missing_or_damaged_is_noted(tmp_path: Path, file: str, content: str | None, note: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    assert any(note in entry for entry in read(folder).notes)


def test_a_document_of_endless_size_ends(tmp_path: Path) -> None:
    """Nine levels of nine references each: a thousand million values in 300 bytes."""
    folder = write_run(tmp_path / "run")
    levels = "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9)}]\n" for n in range(1, 10))
    (folder / "config.yaml").write_text(f"k0: &k0 x\n{levels}")
    assert read(folder).notes == ["config.yaml is no configuration of a run"]


def test_segments_of_strange_values_are_shown_as_they_are(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", segments=[{"why": None, "start": 3, "last_step": "x", "versions": 7}])
    assert (read(folder).state, read(folder).seconds, read(folder).steps) == ("None", None, 40)


def test_what_is_no_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(f"{tmp_path} is no run directory")):
        read_runs([str(tmp_path)])


def test_a_run_that_is_reached_in_two_ways_is_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (tmp_path / "latest").symlink_to(folder)
    assert [run.name for run in read_runs([str(tmp_path / "latest"), str(folder)])] == ["run"]


def test_runs_that_differ_in_their_seed_are_one_group(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"base_seed{seed}", seed=seed) for seed in (0, 1)]
    folders.append(write_run(tmp_path / "fast", lr=0.5))
    study = Study(read_runs([*map(str, folders)]))
    assert [(group.label, len(group.runs)) for group in study.groups] == [("base (2 runs)", 2), ("fast", 1)]
    assert differences(study.runs) == {
        "seed_everything": ["0", "1", "0"],
        "model.init_args.lr": ["0.1", "0.1", "0.5"],
    }


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / where / "run") for where in ("a", "b")]
    assert [run.name for run in read_runs([*map(str, folders)])] == ["a/run", "b/run"]


def test_segments_are_read_as_json(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert read(folder).segments == json.loads((folder / "segments.json").read_text())
