"""The DiffEnc study through its command: what it trains, continues, writes and refuses."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_modules import DiffEnc, VariationalDiffusion
from lightning_modules.checkpoints import load_module
from scripts import study, train
from scripts.cli.configurations import read_configuration
from scripts.cli.entry_point import run_command
from scripts.study.diffenc_vs_vdm import MODELS, DiffusionRun, Setting
from scripts.study.training_run import flattened

CONFIG = """
seed_everything: 0
run_dir: runs/tiny
model:
  class_path: lightning_modules.DiffEnc
  init_args:
    network:
      class_path: likeness.networks.ScoreUNet
      init_args: {width: 8, depth: 1, groups: 4, fourier_exponents: [2]}
    encoder:
      class_path: likeness.networks.EncoderUNet
      init_args: {width: 8, depth: 1, groups: 4, output_groups: 4}
    lean: true
data:
  class_path: datamodules.Digits
  init_args: {batch_size: 8}
trainer:
  max_steps: 3
  limit_val_batches: 0
"""
SMALL = ("--seeds", "1", "--draws", "2", "--depths", "3", "--ratio_steps", "2", "--limit", "20", "--device", "cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all runs of the tiny study."""
    out = tmp_path_factory.mktemp("study")
    assert study.main(["diffenc_vs_vdm", "--config", str(config), *SMALL, "--out", str(out)]) == 0
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 1) -> str:
    with pytest.raises(SystemExit) as end:
        run_command(study.main, ["diffenc_vs_vdm", *map(str, arguments)])
    assert end.value.code == status
    return capsys.readouterr().err


def test_the_models_share_score_network_and_training(finished: Path) -> None:
    vdm, nt, diffenc = (load_module(finished / name) for name in ("vdm_seed0", "nt_seed0", "diffenc_seed0"))
    assert type(vdm) is VariationalDiffusion
    assert (type(nt), nt.hparams["encoder"]) == (DiffEnc, None)
    assert diffenc.hparams["encoder"]["init_args"]["width"] == 8
    for name in ("network", "schedule", "optimizer", "levels", "seed"):
        assert vdm.hparams[name] == nt.hparams[name] == diffenc.hparams[name]


def test_tables_and_figures_are_written(finished: Path) -> None:
    assert len(rows(finished / "seeds.csv")) == 6
    assert {row["hypothesis"] for row in rows(finished / "tests.csv")} == {"DiffEnc < VDM", "DiffEnc < NT"}
    models = rows(finished / "models.csv")
    assert [(row["split"], row["model"]) for row in models] == [(s, m) for s in ("test", "train") for m in MODELS]
    for row in models:
        terms = sum(float(row[name]) for name in ("reconstruction", "latent", "diffusion"))
        assert terms == pytest.approx(float(row["bpd"]))
    found = rows(finished / "ratios.csv")
    assert [(row["model"], row["seed"], row["T"]) for row in found] == [(model, "0", "3") for model in MODELS]
    for row in found:
        assert float(row["gain_fitted"]) == pytest.approx(float(row["bpd_one"]) - float(row["bpd_fitted"]))
        assert 0 < float(row["gain_learned"]) < float(row["gain_fitted"])  # after two steps
    for name in ("models", "gains"):
        assert (finished / f"{name}.png").stat().st_size > 0


def test_a_second_call_trains_nothing_and_finds_the_same(
    finished: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "main", lambda argv: pytest.fail("trained again"))
    before = rows(finished / "seeds.csv")
    torch.manual_seed(1)
    arguments = ["--config", str(config), *SMALL, "--depths", "--out", str(finished)]
    assert study.main(["diffenc_vs_vdm", *arguments]) == 0
    assert rows(finished / "seeds.csv") == before


def test_a_run_that_stopped_continues_to_the_same_weights(finished: Path, config: Path, tmp_path: Path) -> None:
    run = DiffusionRun(config, "DiffEnc", seed=0, steps=3)
    replace(run, steps=2).ensure_trained(tmp_path, "cpu")
    run.ensure_trained(tmp_path, "cpu")
    whole, continued = (load_module(run.folder(out)).state_dict() for out in (finished, tmp_path))
    assert all(torch.equal(value, continued[name]) for name, value in whole.items())


def test_a_run_of_another_configuration_is_refused(
    finished: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(
        CONFIG.replace("width: 8, depth: 1, groups: 4, fourier", "width: 12, depth: 1, groups: 4, fourier")
    )
    message = "is of model.init_args.network.init_args.width 8, not 12: choose another --out"
    assert message in refusal(capsys, "--config", other, *SMALL, "--out", finished)
    message = "has done 3 steps, more than 2"
    assert message in refusal(capsys, "--config", config, *SMALL, "--steps", 2, "--out", finished)


def test_what_cannot_be_run_is_refused(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for name in ("seeds", "steps", "draws", "limit", "depths"):
        message = f"{name} must be at least 1, got 0"
        assert message in refusal(capsys, "--config", config, f"--{name}", 0, "--out", out)
    assert "there is no configuration none.yaml" in refusal(capsys, "--config", "none.yaml", "--out", out, status=2)
    assert not out.exists()


@pytest.mark.parametrize("data", ["digits", "photo_patches"])
def test_experiments_of_one_name_are_the_models_of_the_study(data: str, root: Path) -> None:
    """What trains alone is what the study trains: same network, optimiser, data and steps."""
    names = {"VDM": "vdm", "NT": "diffenc_nt", "DiffEnc": "diffenc"}
    folder = root / "configs" / "experiment"
    config = folder / ("digits_diffenc_vs_vdm.yaml" if data == "digits" else "photo_patches_diffenc.yaml")
    for model, name in names.items():
        alone = flattened(read_configuration(folder / f"{data}_{name}.yaml"))
        wanted = DiffusionRun(config, model, seed=0, steps=1).settings()
        common = alone.keys() & wanted.keys()
        assert {key: alone[key] for key in common} == {key: wanted[key] for key in common}
        assert alone["trainer.max_steps"] == flattened(read_configuration(config))["trainer.max_steps"]


def test_without_options_there_are_three_seeds_of_each_model_and_four_depths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the configuration is found from anywhere
    setting = Setting(Path("configs/experiment/digits_diffenc_vs_vdm.yaml"))
    assert setting.depths == (4, 10, 50, 100)
    runs = setting.runs()
    assert [(run.model, run.seed) for run in runs] == [(model, seed) for seed in range(3) for model in MODELS]
    assert {run.steps for run in runs} == {read_configuration(runs[0].config)["trainer"]["max_steps"]}
