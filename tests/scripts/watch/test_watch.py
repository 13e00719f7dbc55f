"""How runs in every state stand at a fixed moment, and that what is shown of them fits and obeys nothing in them."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console

from scripts.cli.entry_point import run_command
from scripts.report.curves import metrics_of
from scripts.report.runs import read_run
from scripts.watch import look, main, watch
from scripts.watch.following import followed
from scripts.watch.headlines import BARS, curves, sparkline, values
from scripts.watch.screen import screen
from scripts.watch.standing import Standing, standing
from tests.scripts.report.run_folders import SEGMENT, config, write_metrics, write_run

TEN = 1767261600.0  # ten o'clock, when SEGMENT starts
RUNNING = {**SEGMENT, "end": None, "why": "running", "last_step": None, "host": socket.gethostname()}
FAULT = "NonFiniteError: train/loss is nan at step 12: " + 40 * "the diffusion term is not finite, "
KINDS = ("running", "finished", "failed", "stopped")
Trainer = dict[str, object]


def stand(folder: Path, now: float = TEN + 200) -> Standing:
    return standing(read_run(folder, folder.name), now)


def running(folder: Path, trainer: Trainer | None = None, segments: Sequence[object] = (RUNNING,)) -> Path:
    """A run of forty steps, the last row written 100 s after ten o'clock, the checkpoint 60 s after."""
    write_run(folder, segments=segments)
    (folder / "config.yaml").write_text(yaml.safe_dump({**config(), "trainer": trainer or {}}))
    hold(folder, os.getpid())
    os.utime(folder / "metrics.csv", (0, TEN + 100))
    os.utime(folder / "checkpoints" / "last.ckpt", (0, TEN + 60))
    return folder


def hold(folder: Path, process: int) -> None:
    (folder / ".likeness").mkdir(exist_ok=True, parents=True)
    (folder / ".likeness" / "lock").write_text(f"process {process} on {socket.gethostname()}")


def printed(standings: Sequence[Standing], height: int | None = None, **options: Any) -> str:
    console = Console(**{"file": io.StringIO(), "width": 80, **options})
    console.print(screen(standings, TEN, console, height))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    ("why", "kind"),
    [
        ("finished", "finished"),
        ("stopped by SIGTERM", "stopped"),
        ("stopped by the time budget", "stopped"),
        ("interrupted", "stopped"),
        ("ended without a word: killed, or the machine went down", "killed"),
        (FAULT, "failed"),
    ],
)
def test_a_run_that_has_ended_says_how(tmp_path: Path, why: str, kind: str) -> None:
    found = stand(write_run(tmp_path / "run", segments=[{**SEGMENT, "why": why}]), TEN + 3723 + 60)
    assert (found.kind, found.left, found.since_end) == (kind, None, 60.0)
    assert found.rate == pytest.approx(40 / 3723)
    assert (f"\n  {why[:40]}" in printed([found])) == (kind != "finished")


def test_a_run_that_has_not_ended_runs_here_elsewhere_or_not_yet(tmp_path: Path) -> None:
    assert stand(running(tmp_path / "here")).kind == "running"
    elsewhere = stand(running(tmp_path / "elsewhere", segments=[{**RUNNING, "host": "far"}]))
    assert elsewhere.kind == "running?"
    assert "running on far, or killed there" in printed([elsewhere])
    hold(tmp_path / "starting", os.getpid())
    assert [stand(tmp_path / name).kind for name in ("starting", "nowhere")] == ["starting", "not begun"]


def test_pace_and_time_left_are_those_since_the_newest_start(tmp_path: Path) -> None:
    found = stand(running(tmp_path / "run", {"max_steps": 200, "max_epochs": -1}))
    assert (found.step, found.total, found.rate, found.left) == (40, 200, 0.4, 400.0)
    assert (found.since_row, found.since_checkpoint) == (100.0, 140.0)
    again = stand(running(tmp_path / "again", {"max_steps": 200}, [SEGMENT, {**RUNNING, "first_step": 30}]))
    assert (again.rate, again.left) == (0.1, 1600.0)
    assert "2 starts" in printed([again])
    behind = stand(running(tmp_path / "behind", segments=[{**RUNNING, "first_step": 40}]))
    assert (behind.rate, behind.left, behind.total) == (None, None, None)


@pytest.mark.parametrize(
    ("epochs", "steps", "last_row", "total", "estimated"),
    [
        (4, -1, 52, 80, True),
        (4, 70, 52, 70, False),
        (4, 90, 52, 80, True),
        (4, -1, 19, None, False),  # within the first epoch nothing is known of its length
        (None, -1, 52, None, False),
    ],
)
def test_steps_in_all_are_told_from_epochs(
    tmp_path: Path, epochs: int | None, steps: int, last_row: int, total: int | None, estimated: bool
) -> None:
    """Epochs of twenty steps, a row every seven steps and at the end of each epoch."""
    folder = running(tmp_path / "run", {"max_steps": steps, "max_epochs": epochs})
    rows = [(step, step // 20) for step in range(last_row + 1) if step % 7 == 3 or step % 20 == 19]
    write_metrics(folder, ("step", "epoch"), rows)
    found = stand(folder)
    assert (found.total, found.estimated) == (total, estimated)


def test_a_run_that_is_killed_while_we_look(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    hold(running(tmp_path / "run"), process.pid)
    runs = followed([str(tmp_path / "run")])
    assert [found.kind for found in look(runs, TEN)] == ["running"]
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has asked how it ended
    assert [found.kind for found in look(runs, TEN)] == ["killed"]
    process.wait()
    assert [found.kind for found in look(runs, TEN)] == ["killed"]


def test_no_checkpoint_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = running(tmp_path / "run")
    opened: list[str] = []
    actual = io.open
    monkeypatch.setattr(io, "open", lambda file, *rest, **more: opened.append(str(file)) or actual(file, *rest, **more))
    printed(look(followed([str(folder)]), TEN))
    names = [Path(file).name for file in opened if file.startswith(str(folder))]
    assert sorted(names) == ["config.yaml", "lock", "metrics.csv", "segments.json"]


def test_curves_keep_their_shape() -> None:
    rising = "".join(f"{step},{step}\n" for step in range(80))
    curve = metrics_of(f"step,val/accuracy\n{rising}".encode()).curves["val/accuracy"]
    assert sparkline("val/accuracy", curve, 8) == BARS
    falling = "".join(f"{step},{1000 if step < 2 else 180 - step}\n" for step in range(80))
    curve = metrics_of(f"step,train/loss\n{falling}".encode()).curves["train/loss"]
    assert sparkline("train/loss", curve, 40)[:8] == "███████▇"  # the greatest tenth is cut, not the rest flattened
    wild = metrics_of(b"step,train/loss\n0,1e308\n1,1e308\n2,-1e308\n3,inf\n4,nan\n").curves["train/loss"]
    assert sparkline("train/loss", wild, 2) == "█▁"
    one = metrics_of(b"step,x\n0,3\n").curves["x"]
    assert sparkline("x", one, 10) == "▁"


def test_of_each_kind_what_matters_is_chosen() -> None:
    kinds: list[dict[str, float]] = [
        {"train/loss": 2.0, "val/nll": 1.5, "val/nll/min": 1.4, "val/accuracy": 0.5, "val/bits_per_byte": 1.1},
        {"lr-Adam": 1, "val/diffusion": 3.0, "val/latent": 0.1, "elbo/seconds": 9, "elbo/gamma_0": -7},
        {"similarity/kl/mean": 0.2, "similarity/kl/min": 0.1, "similarity/undefined": 3, "mine/x": 7},
        {"hubness/embed/gini": 0.3, "hubness/embed/k_skewness": 1.25, "hubness/embed/k_skewness_null": 0.125},
    ]
    keys = dict(pair for kind in kinds for pair in kind.items())
    row = ",".join(map(str, keys.values()))
    metrics = metrics_of(f"step,epoch,{','.join(keys)}\n5,0,{row}\n".encode())
    assert [*curves(metrics)] == ["train/loss", "val/nll", "val/accuracy", "val/bits_per_byte"]
    shown = {
        name: [(value.name, value.value, value.chance) for value in found] for name, found in values(metrics).items()
    }
    assert shown["bound"] == [("diffusion", 3.0, None), ("latent", 0.1, None)]
    assert shown["similarity"] == [("kl", 0.2, None)]
    assert shown["hubness"] == [("embed/k_skewness", 1.25, 0.125)]
    assert shown["other"] == [("x", 7.0, None)]
    assert "costs" not in shown


def some(folder: Path, count: int) -> list[Standing]:
    """One that runs behind others that have ended in different ways."""
    whys = ("finished", FAULT, "stopped by SIGTERM")
    ended = [stand(write_run(folder / str(n), segments=[{**SEGMENT, "why": why}])) for n, why in enumerate(whys)]
    named = (
        replace(one, run=replace(one.run, name=f"experiment_of_a_long_name_{number:02}_seed"))
        for number, one in zip(range(count - 1), cycle(ended), strict=False)
    )
    return [*named, stand(running(folder / "this_runs", {"max_steps": 100_000}))]


@pytest.mark.parametrize(
    ("count", "width", "height"), [(2, 80, 24), (6, 80, 24), (40, 80, 24), (40, 60, 10), (3, 200, 60)]
)
def test_all_fits_the_terminal(tmp_path: Path, count: int, width: int, height: int) -> None:
    standings = some(tmp_path, count)
    lines = printed(standings, height, width=width).splitlines()
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert any("this_runs" in line and "40/100,000" in line for line in lines)
    assert any(line.startswith("this_runs: ") for line in lines) == (count < 10)
    left_out = count - sum(any(f" {kind} " in line for kind in KINDS) for line in lines[2:] if "runs: " not in line)
    assert any(line.startswith(f"and {left_out} runs: ") for line in lines) == (left_out > 0)


def test_of_many_finished_runs_some_make_room_for_what_runs(tmp_path: Path) -> None:
    finished, *_, runs = some(tmp_path, 4)
    lines = printed([*[finished] * 39, runs], 24).splitlines()
    assert sum(" finished " in line for line in lines) == 11
    assert "and 28 runs: 28 finished" in lines
    assert any(line.startswith("this_runs: ") for line in lines)
    assert len(lines) <= 24


def test_a_narrow_terminal_keeps_both_ends_of_names(tmp_path: Path) -> None:
    text = printed(some(tmp_path, 3), width=60)
    (line,) = (line for line in text.splitlines() if " failed " in line and "runs" not in line)
    start, _, end = line.split()[0].partition("…")
    assert (start, end) == ("experiment_o"[: len(start)], "name_01_seed"[-len(end) :])
    assert min(len(start), len(end)) > 4


def test_nothing_in_a_run_is_obeyed(tmp_path: Path) -> None:
    """Names of metrics, words of errors and markup go to the terminal as text."""
    hostile = "\x1b[2J\x07[red]x[/red]"
    folder = write_run(tmp_path / "a\x1b[31mb", segments=[{**SEGMENT, "why": f"Error: {hostile}"}])
    write_metrics(folder, ("step", "train/loss", f"val/{hostile}", f"similarity/{hostile}"), [(0, 1.0, 2.0, 3.0)])
    text = printed([stand(folder)], width=200)
    assert not any(ord(letter) < 32 for letter in text.replace("\n", ""))
    assert text.count("[red]x[/red]") == 4


def test_a_terminal_without_unicode_gets_other_bars(tmp_path: Path) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=file, width=80)
    console.print(screen([stand(running(tmp_path / "run"))], TEN, console))
    file.flush()
    assert b"train/loss  0.1250    @@" in file.buffer.getvalue()  # type: ignore[attr-defined]


def status(command: Callable[[Sequence[str]], object], *arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(command, [*map(str, arguments)])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_where_no_terminal_is_plain_text_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine = write_run(tmp_path / "fine")
    failed = write_run(tmp_path / "failed", segments=[{**SEGMENT, "why": FAULT}])
    assert status(main, fine, tmp_path / "nowhere") == 0
    text = capsys.readouterr().out
    assert "  2 runs: 1 not begun, 1 finished\n" in text
    assert "\x1b" not in text
    assert status(main, "--once", fine, failed) == 1
    assert FAULT[:60] in capsys.readouterr().out
    assert status(main, tmp_path) == 2
    assert status(main, fine, "--every", "0") == 2


def test_a_run_that_was_trained(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(main, finished) == 0
    text = capsys.readouterr().out
    for part in ("finished", "2/2", "SoftmaxClassifier, Digits", "train/loss", "val/nll", "checkpoint 0:0"):
        assert part in text


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None)


def test_it_ends_when_all_have_finished(tmp_path: Path) -> None:
    folder, console = running(tmp_path / "run", {"max_steps": 100}), terminal()
    pauses: list[float] = []

    def finish(seconds: float) -> None:
        pauses.append(seconds)
        (folder / "segments.json").write_text(json.dumps([{**SEGMENT, "last_step": 100}]))

    watch(followed([str(folder)]), console, 3.0, lambda: TEN, finish)
    assert pauses == [3.0]
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.index("40/100") < text.index("100/100")
    assert text.rindex("finished") > text.index("\x1b[?1049l")  # on the screen that stays


@pytest.mark.parametrize(("signum", "expected"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_it_well(tmp_path: Path, signum: signal.Signals, expected: int) -> None:
    folder, console = running(tmp_path / "run"), terminal()

    def pause(seconds: float) -> None:
        signal.raise_signal(signum)

    assert status(lambda argv: watch(followed(argv), console, 1.0, lambda: TEN, pause), folder) == expected
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("running" in text[text.index("\x1b[?1049l") :]) == (expected == 0)
