"""Sweep files: what W&B's agent would run at each point, the command runs, and the training command understands."""

import itertools
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.cli.entry_point import run_command
from scripts.cli.lightning_cli import CONFIGS
from scripts.sweep import WANDB, count, main, point_command, read_sweep
from scripts.train import main as train

SWEEPS = sorted((CONFIGS / "sweep").glob("*.yaml"))
POINTS = [(path, index) for path in SWEEPS for index in (0, count(read_sweep(path)) - 1)]  # the first and the last


def written(tmp_path: Path, **changed: Any) -> str:
    sweep = {
        "method": "grid",
        "parameters": {"a": {"values": [1, 2]}, "b": {"value": "x"}, "c": {"values": [True, None, 0.5]}},
        "command": ["${env}", "${interpreter}", "-m", "scripts.train", "fit", WANDB, "${args}"],
    } | changed
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return str(path)


def test_points_are_those_of_wandbs_agent(tmp_path: Path) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = read_sweep(Path(written(tmp_path)))
    assert count(sweep) == 6
    for index, (a, c) in enumerate(itertools.product([1, 2], [True, None, 0.5])):
        asked = {"args": {"a": {"value": a}, "b": {"value": "x"}, "c": {"value": c}}}
        options = create_sweep_command_args(asked)["args"]
        assert point_command(sweep, index) == [sys.executable, "-m", "scripts.train", "fit", *options]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_file_says_what_wandb_asks_for(path: Path) -> None:
    sweep = read_sweep(path)
    assert sweep.keys() == {"name", "project", "program", "method", "metric", "parameters", "command"}
    assert (CONFIGS.parent / sweep["program"]).is_file()
    assert sweep["command"].count(WANDB) == 1
    assert "--auto_resume=true" in sweep["command"]
    points = [tuple(point_command(sweep, index)) for index in range(count(sweep))]
    assert len(set(points)) == len(points)


@pytest.mark.parametrize(("path", "index"), POINTS, ids=[f"{path.stem}-{index}" for path, index in POINTS])
def test_points_are_configurations_of_their_own(
    path: Path, index: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    command = point_command(read_sweep(path), index)
    assert command[1:3] == ["-m", "scripts.train"]
    with pytest.raises(SystemExit) as end:
        run_command(train, [*command[3:], "--print_config"])
    printed = capsys.readouterr()
    assert end.value.code == 0, printed.err
    config = yaml.safe_load(printed.out)
    for word in command[-len(read_sweep(path)["parameters"]) :]:
        name, _, value = word.removeprefix("--").partition("=")
        own = rf"(?<!\d){value.rpartition('.')[2]}(?!\d)"
        assert re.search(own, config["run_dir"]), f"points that differ in {name} share a run directory"


def test_the_command_prints_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    assert main([path, "--count"]) == 0
    assert capsys.readouterr().out == "6\n"
    assert main([path, "--index", "1", "--dry_run", "--", WANDB]) == 0
    assert shlex.split(capsys.readouterr().out)[-4:] == ["--a=1", "--b=x", "--c=None", WANDB]


def test_the_command_becomes_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda file, command: executed.append([file, *command]))
    assert main([written(tmp_path), "--index", "5"]) == 0
    ((file, *command),) = executed
    assert file == command[0] == sys.executable
    assert command[-3:] == ["--a=2", "--b=x", "--c=0.5"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "bayes"}, "method is bayes"),
        ({"parameters": {"lr": {"min": 0, "max": 1}}}, "lr must have a list of values"),
        ({"command": ["${program}"]}, r"the macro ${program} is not known"),
        ({"parameters": {"a": {"values": [1]}}}, "--index must be from 0 to 0, got 5"),
    ],
)
def test_what_is_no_grid_is_refused(
    changed: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run_command(main, [written(tmp_path, **changed), "--index", "5" if "5" in message else "0"])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_no_sweep_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text(json.dumps({"trainer": {}}))
    with pytest.raises(SystemExit) as end:
        run_command(main, [str(tmp_path / "x.yaml"), "--count"])
    assert end.value.code == 2
    assert "x.yaml is no sweep: it lacks method, parameters or command" in capsys.readouterr().err
