"""The bench of layers: what it compares and says, never how fast anything is."""

import json
from pathlib import Path

import pytest

from scripts.bench import main
from scripts.bench.layers import FORWARD, OURS, THEIRS, LayerTimes
from scripts.bench.timing import Contestant


def times(theirs: float | None, ours: float, forward: float, difference: float = 1e-7) -> LayerTimes:
    seconds = {THEIRS: theirs, FORWARD: forward, OURS: ours}
    contestants = {name: Contestant(name, [one]) for name, one in seconds.items() if one is not None}
    return LayerTimes("", contestants, {OURS: difference, THEIRS: 6e-5}, 67, 52)


def test_ratios_are_of_the_whole_and_of_what_is_not_the_forward_passes() -> None:
    found = times(theirs=10, ours=4, forward=2)
    assert (found.ratio, found.ratio_of_the_rest, found.bound) == (2.5, 4, 5)
    agree, whole, rest = found.verdicts()
    assert "yes (1.0e-07; compute_cka itself, in float32: 6.0e-05)" in agree
    assert "NO (2.50; forward passes alone allow 5.00)" in whole
    assert "4.00 times faster" in rest
    assert "NO" in times(10, 4, 2, difference=1e-3).verdicts()[0]


def test_without_the_other_library_only_ours_is_timed() -> None:
    found = times(theirs=None, ours=4, forward=2)
    assert found.verdicts() == ["pytorch-cka is not installed, so nothing is compared with it"]
    assert found.as_dict()["ratio"] is None


def test_the_bench_runs_and_both_libraries_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cka")
    pytest.importorskip("torchvision")
    out = tmp_path / "layers.json"
    options = ["--images", "12", "--batch_size", "6", "--repeats", "1"]
    assert main(["layers", *options, "--threads", "1", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert (found["layers"], found["distinct"]) == (67, 52)
    assert found["differences"][OURS] < 1e-5
    assert "pytorch-cka" in capsys.readouterr().out
