"""A number that is not finite ends the run by name and step; its last good checkpoint goes on."""

from pathlib import Path

import pytest

from tests.faults.conftest import Trial
from tests.faults.runs import Victim

CASES = {
    "PoisonWeight": "train/loss is nan at step {}",
    "PoisonGradient": "is not finite at step {}: no checkpoint written",
}


def test_a_classifier_stops_and_goes_on(tmp_path: Path, trial: Trial) -> None:
    require_stop("classifier", "PoisonGradient", 4, tmp_path, trial)


@pytest.mark.long
@pytest.mark.parametrize("mishap", CASES)
@pytest.mark.parametrize("model", ["classifier", "siblings", "diffenc"])
@pytest.mark.parametrize("step", [0, 9, 22])
def test_all_stop_and_go_on(model: str, mishap: str, step: int, tmp_path: Path, trial: Trial) -> None:
    require_stop(model, mishap, step, tmp_path, trial)


def require_stop(model: str, mishap: str, step: int, tmp_path: Path, trial: Trial) -> None:
    harm = ("--trainer.callbacks+", f"tests.faults.mishaps.{mishap}", "--trainer.callbacks.step", str(step))
    victim = Victim(model, tmp_path / "run", *harm, "--trainer.callbacks.directory", str(tmp_path / "run"))
    with trial("NaN at a given step"):
        ended = victim.go()
        assert ended.status == 1, ended.output
        errors = [line for line in ended.output.splitlines() if line.startswith("likeness: error")]
        assert len(errors) == 1
        assert CASES[mishap].format(step + 1) in errors[0]
        assert "Traceback" not in ended.output
        victim.forget_step(step + 1)
        victim.require_finished(victim.go())
