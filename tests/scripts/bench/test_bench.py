"""The bench's arithmetic, tables and files; never how fast anything is."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lightning_modules import SoftmaxClassifier
from likeness.batch import Batch
from likeness.networks import CNN
from scripts.bench import BENCHES, main
from scripts.bench.loss import SETTINGS, per_label_loss
from scripts.bench.timing import Contestant, Ratios, Shares, interleaved
from scripts.cli.entry_point import run_command

TINY = ["siblings", "--members", "2", "--width", "4", "--batch_size", "8", "--repeats", "2", "--whole", "false"]


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_ratios_are_of_medians() -> None:
    slow, fast = Contestant("slow", [9.0, 5.0, 6.0]), Contestant("fast", [2.0, 3.0, 70.0])
    assert Ratios("", {"step": (slow, fast)}).ratio("step") == 2.0
    assert slow.per(3).seconds == [3.0, 5 / 3, 2.0]


def test_contestants_take_turns_after_a_round_that_does_not_count() -> None:
    order: list[str] = []
    work = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    contestants = interleaved(work, repeats=3)
    assert order == ["a", "b"] * 4
    assert [(c.name, len(c.seconds)) for c in contestants] == [("a", 3), ("b", 3)]
    assert all(seconds >= 0 for c in contestants for seconds in c.seconds)


def test_short_work_is_done_again_and_counts_with_its_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr("scripts.bench.timing.time.perf_counter", lambda: clock["now"])

    def spend(seconds: float) -> None:
        clock["now"] += seconds

    work = {"short": lambda: spend(0.2), "long": lambda: spend(3.0)}
    short, long = interleaved(work, repeats=2, at_least=0.5)
    assert short.seconds == pytest.approx([0.2, 0.2])
    assert long.seconds == pytest.approx([3.0, 3.0])
    assert clock["now"] == pytest.approx(3 * (3 * 0.2 + 3.0))


def test_the_slow_loss_is_the_same_loss() -> None:
    model = SoftmaxClassifier((1, 8, 8), 10, embedding=CNN).double()
    batch = Batch(torch.randn(6, 1, 8, 8), torch.randint(10, (6,)), torch.arange(6))
    torch.testing.assert_close(per_label_loss(model, batch), model.loss(batch), rtol=1e-12, atol=1e-12)


def test_a_bench_prints_a_table_and_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "bench.json"
    assert main([*TINY, "--threads", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "in lock-step" in printed
    assert "threads 1" in printed
    result = json.loads(out.read_text())
    seconds = result["comparisons"]["step"]["seconds"]
    assert {name: len(values) for name, values in seconds.items()} == {"one after another": 2, "in lock-step": 2}
    assert result["comparisons"]["step"]["required"] == 6.0
    assert result["machine"]["threads"] == 1


def test_whole_lightning_steps(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.bench.siblings.WHOLE_STEPS", 14)
    main([*TINY[:-1], "true"])
    assert "step in Lightning's" in capsys.readouterr().out


def test_the_loss_bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "mlp", SETTINGS["mlp"]._replace(batch_size=4, steps=1))
    assert main(["loss", "--network", "mlp", "--repeats", "1"]) == 0
    assert "f once per label" in capsys.readouterr().out


def test_every_bench_says_what_its_options_mean(capsys: pytest.CaptureFixture[str]) -> None:
    for name in BENCHES:
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert end.value.code == 0
        meaning = "What is trained" if name == "callbacks" else "Rounds that are timed."
        assert meaning in capsys.readouterr().out


def test_shares_are_of_the_whole_and_judged_together() -> None:
    shares = Shares("", total=20.0, parts={"a": 0.5, "b": 1.0}, allowed=0.05)
    assert shares.share == 0.075
    assert shares.verdicts() == ["together at most 5% is asked for: NO (7.50%)"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["siblinks"], "siblinks"),
        ([*TINY, "--widht", "3"], "--widht"),
        ([*TINY, "--width", "wide"], "wide"),
        ([*TINY, "--thread", "1"], "--thread"),
        ([*TINY, "--threads", "0"], "threads must be at least 1, got 0"),
    ],
)
def test_wrong_command_lines_end_with_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run_command(main, arguments)
    assert end.value.code in (1, 2)
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert named in errors[0]
