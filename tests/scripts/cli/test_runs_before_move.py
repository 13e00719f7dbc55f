"""Runs of the version before the packages were rebuilt: continued, validated, compared, evaluated and sampled from.

Their configurations and checkpoints were written by that version, and name classes by modules that are no longer.
"""

import csv
import lzma
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from callbacks.run.segments import read_segments
from lightning_modules.checkpoints import load_module
from likeness.moved_names import MOVED
from scripts.cli.entry_point import run_command
from scripts.compare import main as compare
from scripts.evaluate import main as evaluate
from scripts.sample import main as sample
from scripts.train import main as train
from tests.callbacks.diffusion.toy_diffusion import not_drawn

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "runs_before_move"
STEPS = {"diffenc": 5, "siblings": 10}  # of the one epoch that they were trained for


@pytest.fixture
def run_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A copy of a run as it was left, in the run directory that it was started with."""
    monkeypatch.chdir(tmp_path)

    def unpacked(name: str) -> Path:
        folder = Path("runs", f"old_{name}")
        shutil.copytree(FIXTURES / name, folder)
        for packed in folder.rglob("*.xz"):
            packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
            packed.unlink()
        return folder

    return unpacked


def ended(main: Callable[[Sequence[str]], object], *arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(main, arguments)
    return int(end.value.code or 0)


def on(folder: Path, *options: str) -> tuple[str, ...]:
    return ("--config", str(folder / "config.yaml"), "--run_dir", str(folder), *options)


@pytest.mark.parametrize("name", STEPS)
def test_a_run_is_continued_and_its_configuration_has_the_new_names(
    name: str, run_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callbacks.run.publishing.save_formats", not_drawn)  # half a second each
    folder = run_of(name)
    before = (folder / "config.yaml").read_text()
    assert ended(train, "fit", *on(folder, "--auto_resume", "--trainer.max_epochs", "2")) == 0
    segments = [(segment["first_step"], segment["last_step"]) for segment in read_segments(folder)]
    assert segments == [(0, STEPS[name]), (STEPS[name], 2 * STEPS[name])]
    after = (folder / "config.yaml").read_text()
    assert [old for old in MOVED if f"class_path: {old}\n" in before]
    assert [old for old in MOVED if f"class_path: {old}\n" in after] == []
    assert yaml.safe_load(after)["trainer"]["max_epochs"] == 2


def test_a_move_is_no_change_of_the_configuration_and_a_change_is(
    run_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_of("siblings")
    assert ended(train, "fit", *on(folder, "--auto_resume", "--model.init_args.dim", "3")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "was started with another configuration: model.init_args.dim: 3 (was 2). Continue" in error


def test_siblings_are_validated_compared_and_evaluated(run_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = run_of("siblings")
    assert ended(train, "validate", *on(folder)) == 0
    assert ended(compare, str(folder), "--out", str(tmp_path / "compare")) == 0
    assert ended(evaluate, str(folder), "--out", str(tmp_path / "evaluate")) == 0


def numbers(file: Path) -> dict[str, float]:
    """The last row of a CSV file, as far as it holds numbers."""
    with file.open() as lines:
        row = list(csv.DictReader(lines))[-1]
    return {name: float(value) for name, value in row.items() if value}


def test_the_bound_of_a_diffusion_model_is_the_one_that_it_had(run_of: Callable[[str], Path]) -> None:
    """By validation, which draws the same noise with the same averaged weights, and by evaluation in float64."""
    folder = run_of("diffenc")
    recorded = numbers(folder / "metrics.csv")
    assert ended(train, "validate", *on(folder)) == 0
    found = numbers(folder / "validate_metrics.csv")
    terms = ("bpd", "diffusion", "latent", "reconstruction")
    same = [*(f"val/{term}" for term in terms), *(f"elbo/val/{term}" for term in terms), "elbo/gamma_0", "elbo/gamma_1"]
    assert {name: found[name] for name in same} == pytest.approx({name: recorded[name] for name in same}, rel=1e-6)
    assert found["elbo/val/bpd_sample_se"] == pytest.approx(recorded["elbo/val/bpd_se"], rel=1e-6)  # renamed
    assert ended(evaluate, str(folder), "--split", "val", "--draws", "1", "--device", "cpu", "--out", "evaluated") == 0
    with Path("evaluated", "evaluation.csv").open() as lines:
        bound = next(row for row in csv.DictReader(lines) if row["bound"] == "ELBO")
    assert {term: float(bound[term]) for term in terms} == pytest.approx(
        {term: recorded[f"val/{term}"] for term in terms}, rel=1e-6
    )


def test_a_diffusion_model_is_sampled_from(run_of: Callable[[str], Path]) -> None:
    folder = run_of("diffenc")
    options = ("--n", "3", "--steps", "4", "--keep_every", "2", "--device", "cpu", "--out", "drawn")
    assert ended(sample, str(folder), *options) == 0
    with np.load("drawn/samples.npz") as file:
        drawn = dict(file)
    assert drawn["samples"].shape == (3, 1, 8, 8)
    assert drawn["samples"].max() < drawn["levels"] == 17
    assert all(np.isfinite(drawn[name]).all() for name in ("z", "x_hat"))


@pytest.mark.parametrize("name", STEPS)
def test_the_weights_and_the_checkpoint_hold_one_model(name: str, run_of: Callable[[str], Path]) -> None:
    folder = run_of(name)
    from_weights = load_module(folder / "weights.safetensors").state_dict()
    from_checkpoint = load_module(folder / "checkpoints" / "last.ckpt").state_dict()
    assert from_weights.keys() == from_checkpoint.keys()
    assert all(torch.equal(from_weights[key], from_checkpoint[key]) for key in from_weights)
