"""The frontier study through its command: its data, plan, trainings, what it keeps and what it refuses."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import Digits
from lightning_modules.checkpoints import load_module
from likeness.diffusion import MultivariatePolynomial
from likeness.seeding import hashed
from scripts import study, train
from scripts.cli.entry_point import run_command
from scripts.evaluate.bounds import BoundEvaluation, Depth
from scripts.evaluate.data import open_split
from scripts.study.frontier import checks
from scripts.study.frontier.arms import ARMS, FrontierRun, planned
from scripts.study.frontier.data import DATA, arrays_file, crops, halved
from scripts.study.frontier.measures import CHECKS, checks_of, image_bits
from tests.scripts.tiny_diffusion import tiny

SMALL = ("--arms", "d", "a_map", "--seeds", "1", "--steps", "0.001", "--draws", "2", "--limit", "20")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two arms on the digits, and CIFAR-10 that is not at hand."""
    out = tmp_path_factory.mktemp("frontier")
    missing = str(out / "nowhere")
    assert (
        study.main(["frontier", *SMALL, "--data", "digits", "cifar10", "--data_dir", missing, "--out", str(out)]) == 0
    )
    return out


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as end:
        run_command(study.main, ["frontier", *map(str, arguments)])
    assert end.value.code
    return capsys.readouterr().err


def test_images_are_halved_by_the_whole_part_of_means() -> None:
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = halved(images)
    for image, small in zip(images.tolist(), found.tolist(), strict=True):
        for row in range(14):
            for column in range(14):
                block = [image[2 * row + i][2 * column + j] for i in (0, 1) for j in (0, 1)]
                assert small[row][column] == sum(block) // 4


def test_each_image_has_one_crop_at_a_place_of_its_number() -> None:
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = crops(images)
    places = []
    for number, place in enumerate(hashed(torch.arange(40)).tolist()):
        top, left = place % 25, place // 25 % 25
        places.append((top, left))
        assert torch.equal(found[number], images[number, :, top : top + 8, left : left + 8])
    assert len(set(places)) > 30
    assert torch.equal(crops(images[:7]), found[:7])


def test_arrays_are_written_once_in_two_parts(tmp_path: Path) -> None:
    source = {f"x_{part}": np.zeros((4, 32, 32, 3), np.uint8) + number for number, part in enumerate(("train", "test"))}
    np.savez(tmp_path / "cifar10.npz", **source, y_train=np.arange(4), y_test=np.arange(4))
    path = arrays_file("cifar10", tmp_path, tmp_path / "out")
    with np.load(path) as content:
        assert {name: value.shape for name, value in content.items() if name[0] == "x"} == {
            "x_train": (4, 3, 8, 8),
            "x_test": (4, 3, 8, 8),
        }
        assert content["x_test"].min() == 1
    before = path.stat().st_mtime_ns
    assert arrays_file("cifar10", tmp_path / "gone", tmp_path / "out").stat().st_mtime_ns == before


def test_the_plan_has_all_seeds_of_an_arm_last_and_the_digits_first() -> None:
    runs = list(planned(tuple(DATA), tuple(ARMS)))
    assert [run.arm for run in runs[: len(ARMS)]] == list(ARMS)
    assert {run.data for run in runs[: 5 * len(ARMS)]} == {"digits"}
    assert len({run.name for run in runs}) == len(runs)
    longer = [run for run in runs if run.times == 4]
    assert {(run.arm, run.seed, run.steps) for run in longer} == {(arm, seed, 8000) for arm in "abc" for seed in (0, 1)}
    assert {run.steps for run in planned(["mnist"], ["a"], 1, 0.001)} == {2}


@pytest.mark.parametrize("arm", ARMS)
def test_arms_differ_in_what_they_name_alone(arm: str) -> None:
    """Networks, optimiser, data and averaging are those of the VDM, but for what the arm is about."""
    named = ("network.init_args.gamma_map", "network.init_args.width", "network.init_args.groups", "encoder", "lean")
    named += ("schedule", "volatility", "times", "context", "network.init_args.context_size")
    base, own = (FrontierRun("cifar10", name, 0, 1, 1).settings() for name in ("a", arm))
    shared = {
        key for key in own if not key.removeprefix("model.init_args.").startswith(named) and "class_path" not in key
    }
    assert {key: own[key] for key in shared} == {key: base[key] for key in shared}
    assert own["model.init_args.schedule.init_args.gamma_min"] == -13.3


def test_what_is_trained_is_kept_for_each_run(finished: Path) -> None:
    d, constant = (FrontierRun("digits", arm, 0, 1, 2) for arm in ("d", "a_map"))
    assert isinstance(load_module(d.folder(finished)).diffusion.schedule, MultivariatePolynomial)
    with (finished / "runs.csv").open() as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["d", "a_map"]
    for run in (d, constant):
        bits = image_bits(run, finished)
        assert bits["bpd"].shape == (20,)
        assert bits["bpd"].mean() == pytest.approx(float(rows[run.arm]["bpd"]))
        terms = sum(float(rows[run.arm][name]) for name in ("reconstruction", "latent", "diffusion"))
        assert terms == pytest.approx(float(rows[run.arm]["bpd"]))
    assert set(image_bits(d, finished)) == {"bpd", "bpd_scalar"}
    assert "MV: not shown" in (finished / "claims.txt").read_text()


def test_without_processes_what_is_kept_is_reported(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "main", lambda argv: pytest.fail("trained again"))
    before = (finished / "runs.csv").read_bytes()
    arguments = ["--data_dir", str(finished / "nowhere"), "--arms", "d", "a_map", "j"]
    assert study.main(["frontier", *SMALL, *arguments, "--processes", "0", "--out", str(finished)]) == 0
    assert (finished / "runs.csv").read_bytes() == before
    error = capsys.readouterr().err
    assert "skipped data mnist: nowhere is missing" in error
    assert "skipped data cifar10: nowhere is missing" in error


def test_a_run_that_was_trained_is_measured_without_training(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = FrontierRun("digits", "a_map", 0, 1, 2)
    (tmp_path / "runs").mkdir()
    run.folder(tmp_path).symlink_to(run.folder(finished))
    monkeypatch.setattr(train, "main", lambda argv: pytest.fail("trained again"))
    assert study.main(["frontier", *SMALL, "--data", "digits", "--arms", "a_map", "--out", str(tmp_path)]) == 0
    assert image_bits(run, tmp_path)["bpd"] == pytest.approx(image_bits(run, finished)["bpd"])


def test_checks_of_one_model_come_after_the_trainings_and_are_kept(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = list(planned(tuple(DATA), tuple(ARMS)))
    assert [(run.name, checks_of(run)) for run in runs if checks_of(run)] == [
        ("digits_a_1x_seed0", ["times", "flow"]),
        ("digits_f_1x_seed0", ["coder"]),
    ]
    asked: list[int] = []
    monkeypatch.setitem(CHECKS, "flow", ("a_map", lambda evaluation: {"flow": asked.append(1) or evaluation.draws}))
    for name in ("runs", "rows"):
        (tmp_path / name).symlink_to(finished / name)
    for _ in range(2):
        assert study.main(["frontier", *SMALL, "--data", "digits", "--out", str(tmp_path)]) == 0
    with (tmp_path / "runs.csv").open() as file:
        assert {row["arm"]: row["flow"] for row in csv.DictReader(file)} == {"d": "", "a_map": "2"}
    assert asked == [1]


def test_what_is_of_other_settings_or_cannot_be_meant_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = ("--data", "digits", "--out", finished)
    assert "is of draws 2, not 3: choose another --out" in refusal(capsys, *SMALL, *digits, "--draws", 3)
    assert "is of steps 2, not 4: choose another --out" in refusal(capsys, *SMALL, *digits, "--steps", 0.002)
    fresh = ("--out", tmp_path / "out")
    assert "--arms must be one of a, b, c" in refusal(capsys, "--arms", "z", *fresh)
    assert "--data must be one of digits" in refusal(capsys, "--data", "stl", *fresh)
    assert "--seeds must be at least 1, got 0" in refusal(capsys, "--seeds", 0, *fresh)
    assert "--steps is a share of the steps in (0, 1], got 2.0" in refusal(capsys, "--steps", 2, *fresh)
    assert "--processes must be at least 0, got -1" in refusal(capsys, "--processes", -1, *fresh)
    assert "none of the 1 runs is measured" in refusal(capsys, *SMALL, *fresh, "--data", "digits", "--arms", "a_map",
                                                       "--processes", 0)  # fmt: skip


def test_variances_of_white_gaussian_data_are_the_known_ones() -> None:
    """r = gamma' alpha^2 chi^2_d / 2 with an exact denoiser: closed forms for d = 64."""
    bins, dims, batch = 20_000, 64, checks.BATCH_SIZE
    t = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    signal = torch.sigmoid(13.3 - 18.3 * t)
    first, second = 0.5 * 18.3 * signal * dims, (0.5 * 18.3 * signal).square() * (dims**2 + 2 * dims)
    uniform = checks.relative_variances(first, second, torch.ones_like(t))
    assert uniform["iid"] == pytest.approx(0.31357468, rel=1e-5)
    jump = (18.3 * (1 - torch.sigmoid(torch.tensor(-5.0))) / 13.293286326) ** 2 / (12 * batch)
    assert uniform["stratified"] == pytest.approx(0.03980529 + float(jump), rel=1e-4)
    best = checks.relative_variances(first, second, signal / signal.mean())
    assert (best["iid"], best["stratified"]) == pytest.approx((2 / dims, 2 / dims), rel=1e-6)


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch) -> BoundEvaluation:
    """A tiny VDM on a few digits; the checks are made small."""
    for name, value in {"BINS": 4, "IMAGES": 32, "GRADIENT_IMAGES": 3, "CODER_STEPS": 20, "FLOW_IMAGES": 3}.items():
        monkeypatch.setattr(checks, name, value)
    monkeypatch.setattr("scripts.evaluate.bounds.TOLERANCE", 0.1)
    data = Digits(eval_batch_size=50)
    module = tiny().eval().requires_grad_(False)
    splits = {name: open_split(data, name, torch.device("cpu"), limit=40) for name in ("test", "train")}
    return BoundEvaluation(module, splits["test"], splits["train"], 2, 0)


def test_one_model_is_asked_for_its_noise_its_bytes_and_its_flow(evaluation: BoundEvaluation) -> None:
    pytest.importorskip("constriction")
    found = checks.time_statistics(evaluation)
    assert found["gradient_uniform"] == pytest.approx(1)
    assert set(found) == {
        f"{kind}_{name}" for kind in ("iid", "stratified", "gradient") for name in ("uniform", "signal", "adaptive")
    }
    assert not any(weight.requires_grad for weight in evaluation.module.diffusion.parameters())
    coded = checks.coded_sizes(evaluation)
    assert coded["coder_lossless"]
    assert abs(coded["coder_net"] - coded["coder_elbo"]) < 4 * coded["coder_se"] + 32 / (40 * 64)
    flow = checks.flow_bounds(evaluation)
    few = BoundEvaluation(evaluation.module, evaluation.split, evaluation.train, 2, 0)
    elbo = few.elbo_bits(Depth(None, "one"), uniform=True)[:, :, :3]
    assert flow["flow_elbo"] == pytest.approx(float(elbo.sum(1).mean()))
    assert np.isfinite(flow["flow"])
