"""Artifacts: what is uploaded under which name, and which runs a configuration leads to."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from callbacks.loggers.wandb_files import input_runs, log_checkpoint, use_inputs


class Run:
    """A W&B run that writes down what is asked of it; ``known`` are the artifacts that the service has."""

    def __init__(self, known: tuple[str, ...] = (), offline: bool = False) -> None:
        self.id, self.offline, self.known = "mine", offline, known
        self.logged: list[tuple[Any, list[str]]] = []
        self.used: list[str] = []

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self.logged.append((artifact, aliases))

    def use_artifact(self, name: str) -> None:
        if self.offline:
            raise TypeError("Cannot use artifact when in offline mode.")  # as wandb does
        if name not in self.known:
            raise ValueError(f"artifact {name} not found")
        self.used.append(name)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    run_dir = tmp_path / "teacher"
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    (run_dir / "wandb_id").write_text("abc\n")
    return run_dir


def test_a_checkpoint_is_a_version_of_the_runs_model(teacher: Path) -> None:
    run = Run()
    log_checkpoint(run, teacher / "checkpoints" / "best.ckpt", step=30)
    ((artifact, aliases),) = run.logged
    assert (artifact.name, artifact.type, aliases) == ("model-mine", "model", ["best"])
    assert artifact.metadata == {"file": "best.ckpt", "step": 30}
    assert list(artifact.manifest.entries) == ["best.ckpt"]


@pytest.mark.parametrize("name", ["{}", "{}#0", "{}/checkpoints/best.ckpt", "{}/checkpoints/best.ckpt#2"])
def test_every_way_to_name_a_run_leads_to_its_id(name: str, teacher: Path) -> None:
    config = {"model": {"init_args": {"teacher": name.format(teacher)}}, "trainer": {"callbacks": [{"x": 1}]}}
    assert input_runs(config) == {"abc"}


def test_words_and_other_paths_lead_nowhere(tmp_path: Path) -> None:
    assert input_runs({"a": "kl", "b": "", "c": [str(tmp_path), None, 3], "d": "#0", "e": "."}) == set()


def test_a_run_is_linked_to_those_that_it_was_made_from(teacher: Path) -> None:
    run = Run(known=("model-abc:latest",))
    use_inputs(run, {"references": [str(teacher)], "own": SimpleNamespace()})
    assert run.used == ["model-abc:latest"]


def test_a_model_that_was_not_uploaded_is_named_and_passed_over(teacher: Path) -> None:
    with pytest.warns(UserWarning, match="does not link to the model of run abc: artifact model-abc:latest not found"):
        use_inputs(Run(), {"references": [str(teacher)]})


def test_nothing_is_looked_up_or_uploaded_offline(teacher: Path) -> None:
    run = Run(offline=True)
    use_inputs(run, {"references": [str(teacher)]})
    log_checkpoint(run, teacher / "checkpoints" / "best.ckpt", step=30)
    assert run.logged == []
