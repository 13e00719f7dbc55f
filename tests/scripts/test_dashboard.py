"""The dashboard is built offline, and shows nothing that a run of its configuration does not log."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.cli.entry_point import run_command
from scripts.cli.lightning_cli import CONFIGS
from scripts.dashboard import build, main, read_config, sections, summary
from scripts.main import COMMANDS
from scripts.train import main as train
from tests.wandb_records import finished_records, history

pytest.importorskip("wandb_workspaces", reason="needs the extra: dashboard")
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")  # wandb-workspaces' own

QUIET = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")
TINY = (
    *("--trainer.log_every_n_steps", "1", "--trainer.num_sanity_val_steps", "0", "--trainer.max_steps", "2"),
    *("--trainer.max_epochs", "-1", "--trainer.check_val_every_n_epoch", "1", "--trainer.limit_train_batches", "1"),
    *("--trainer.limit_val_batches", "1", "--config", "configs/logger/wandb_offline.yaml"),
)
Callbacks = dict[str, dict[str, Any]]
SIBLINGS: Callbacks = {
    "callbacks.label_geometry.LabelGeometry": {},
    "callbacks.hubness.Hubness": {"layers": ["network.embedding", "embed"], "max_samples": 100, "knn_accuracy": True},
}
DIFFENC: Callbacks = {
    "callbacks.diffusion.elbo.ElboDiagnostics": {"gap_every_n_validations": 1, "gap_samples": 8},
    "callbacks.diffusion.gamma.LossByGamma": {},
    "callbacks.diffusion.gamma.ScheduleDiagnostics": {},
    "callbacks.diffusion.encoder.EncoderDiagnostics": {},
    "callbacks.diffusion.elbo.DepthCurve": {"depths": [2], "num_samples": 4},
    "callbacks.diffusion.samples.SampleFigures": {"num_samples": 4, "num_steps": 2},
    "callbacks.diffusion.gamma.GradientNorms": {"every_n_steps": 1, "num_bins": 2, "num_samples": 2},
}
CLASSIFIER: Callbacks = {
    "callbacks.layer_similarity.LayerSimilarity": {"layers": ["network.embedding.*"], "prefix": "moved"},
    "callbacks.probes.Probes": {"layers": ["embed"], "train_samples": 100},
}
LANGUAGE: Callbacks = {"callbacks.prediction_hubs.PredictionHubs": {"k": 5}}
SHORT = ("--data.batch_size", "20", "--data.eval_batch_size", "100")
RUNS: dict[str, tuple[str, Callbacks, tuple[str, ...]]] = {
    "classifier": ("tests/integration/classifier.yaml", CLASSIFIER, ()),
    "siblings": ("tests/integration/siblings.yaml", SIBLINGS, ()),
    "diffenc": ("tests/integration/diffenc.yaml", DIFFENC, ("--data.eval_batch_size", "20")),
    "sentences": ("configs/experiment/docstrings_encoder.yaml", {}, ("--data.train_size", "100")),
    "language": ("tests/integration/language.yaml", LANGUAGE, ("--data.batch_size", "6")),
}
LONG = ("siblings", "diffenc", "language")
SECTIONS = {
    "classifier": ["Training", "Layers", "System"],
    "siblings": ["Training", "Similarity", "Labels", "Hubness", "System"],
    "diffenc": ["Training", "ELBO", "System"],
    "sentences": ["Training", "System"],
    "language": ["Training", "Hubness", "System"],
}


def logged(run_dir: Path) -> Iterator[str]:
    """The keys of metrics, figures and tables in the run's W&B file; system metrics as W&B's plots call them."""
    (file,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    records = finished_records(file)
    for row in history(records):
        for key in row:
            yield key.removesuffix("._type")
    for record in records:
        for item in record.stats.item:
            yield f"system/{item.key}"


@pytest.mark.parametrize("run", [pytest.param(run, marks=pytest.mark.long) if run in LONG else run for run in RUNS])
def test_every_panel_shows_what_the_run_logs(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    config, callbacks, options = RUNS[run]
    added = [{"class_path": name, "init_args": chosen} for name, chosen in callbacks.items()]
    (tmp_path / "callbacks.yaml").write_text(json.dumps({"trainer": {"callbacks+": added}}))
    files = ("--config", config, "--config", str(tmp_path / "callbacks.yaml"))
    with pytest.raises(SystemExit) as end:
        run_command(train, ["fit", *files, *QUIET, *TINY, *SHORT, *options, "--run_dir", str(tmp_path / "run")])
    assert end.value.code == 0

    shown = sections(read_config(tmp_path / "run"))
    assert [section.name for section in shown] == SECTIONS[run]
    keys = {key for section in shown for panel in section.panels for key in panel.keys}
    # There is no GPU here, and the load of the CPU is known from the second sample on, after fifteen seconds.
    elsewhere = {"system/gpu.0.gpu", "system/gpu.0.memoryAllocated", "system/cpu"}
    assert keys - set(logged(tmp_path / "run")) - elsewhere == set()


def test_the_workspace_holds_the_panels_over_steps_and_groups_seeds() -> None:
    shown = sections(read_config(CONFIGS / "experiment" / "demo.yaml"))
    workspace = build(shown, entity="somebody", project="likeness", name="demo")
    assert [section.name for section in workspace.sections] == [section.name for section in shown]
    assert [len(section.panels) for section in workspace.sections] == [len(section.panels) for section in shown]
    loss = workspace.sections[0].panels[0]
    assert (loss.x, loss.y) == ("trainer/global_step", ["train/loss"])
    spec = json.dumps(json.loads(workspace._to_model().model_dump_json(by_alias=True)))  # what would be sent
    assert '"grouping": [{"section": "run", "name": "group"}]' in spec
    assert '"xAxis": "_runtime"' in spec
    assert '"mediaKeys": ["figures/similarity_kl", "figures/similarity_m_cca_f", "figures/similarity_m_cca_g"]' in spec


@pytest.mark.parametrize("path", sorted((CONFIGS / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_has_a_dashboard(path: Path) -> None:
    shown = sections(yaml.safe_load(path.read_text()))
    assert [section.name for section in shown][:: len(shown) - 1] == ["Training", "System"]
    build(shown, entity="somebody", project="likeness", name=path.stem)


def test_what_only_some_diffusion_models_log_has_panels_there_alone() -> None:
    """The term of a context and the loss of a flow head."""
    config = yaml.safe_load((CONFIGS / "experiment" / "digits_diffenc.yaml").read_text())
    own = {"val/context", "train/flow_matching"}

    def keys() -> set[str]:
        return {key for section in sections(config) for panel in section.panels for key in panel.keys}

    assert not keys() & own
    config["model"]["init_args"] |= {"context": {"class_path": "likeness.diffusion.GaussianContext"}, "flow_head": True}
    assert own <= keys()


def test_language_models_have_their_likelihood_and_their_hubs() -> None:
    alone, siblings = (
        {
            panel.title: panel.keys
            for section in sections(read_config(CONFIGS / "experiment" / name))
            for panel in section.panels
        }
        for name in ("docstrings_lm.yaml", "docstrings_lm_siblings.yaml")
    )
    assert alone["Validation NLL, nats"] == ("val/nll",)
    assert ("val/nll", "val/nll/min", "val/nll/max") in siblings.values()
    assert siblings["Skewness of predictions, and by chance"][0] == "hubness/prediction/k_skewness"
    assert "hubness/prediction/seconds" in siblings["Seconds that callbacks took"]


def test_without_save_the_command_prints_what_it_would_make(capsys: pytest.CaptureFixture[str]) -> None:
    demo = CONFIGS / "experiment" / "demo.yaml"
    assert main([str(demo)]) == 0
    assert json.loads(capsys.readouterr().out) == summary(sections(read_config(demo)))
    assert "dashboard" in COMMANDS


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (None, 1, "neither a run directory with a config.yaml nor a configuration file"),
        ("trainer: {max_epochs: 1}", 1, "names no model"),
        ("- 1", 2, "config.yaml holds a list, and no keys"),
    ],
)
def test_what_is_no_configuration_is_refused(
    content: str | None, status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(SystemExit) as end:
        run_command(main, [str(tmp_path)])
    assert end.value.code == status
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
