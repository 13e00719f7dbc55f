"""Many signals within milliseconds are one: one orderly stop, with a whole checkpoint, and the run goes on from it."""

import random
import signal
import time
from pathlib import Path

import pytest

from callbacks.run.segments import read_segments
from tests.faults.conftest import Trial
from tests.faults.runs import Victim

SIGNALS = 40  # a storm
KINDS = {"SIGTERM": [signal.SIGTERM], "mixed signals": [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]}


@pytest.mark.parametrize(("kind", "moment", "step"), [("mixed signals", "save", 3)])
def test_a_storm_is_one_stop(kind: str, moment: str, step: int, tmp_path: Path, trial: Trial) -> None:
    require_one_stop("classifier", kind, moment, step, tmp_path, trial)


@pytest.mark.long
@pytest.mark.parametrize("model", ["classifier", "diffenc"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", ["save", "step"])
@pytest.mark.parametrize("step", [8, 9, 27])
def test_many_storms_are_one_stop_each(
    model: str, kind: str, moment: str, step: int, tmp_path: Path, trial: Trial
) -> None:
    require_one_stop(model, kind, moment, step, tmp_path, trial)


def require_one_stop(model: str, kind: str, moment: str, step: int, tmp_path: Path, trial: Trial) -> None:
    """The storm comes after ``step`` steps: within the next, or within the save at its end."""
    chance = random.Random(f"{model} {kind} {moment} {step}")
    victim = Victim(model, tmp_path / "run", wait_at_step=step)
    with trial(f"a storm of {SIGNALS} signals, {kind}"):
        child = victim.start()
        child.wait((victim.run_dir / "waiting").exists)
        if moment == "save":
            child.wait(victim.unfinished.exists, pause=0.0002)
        for number in range(SIGNALS):
            if child.runs:
                child.signal(KINDS[kind][0] if number == 0 else chance.choice(KINDS[kind]))
            time.sleep(chance.choice((0, 0, 0.0002, 0.002)))
        ended = child.end()
        # What a shell sees as 143: in the last moments of the interpreter the signal itself ends it.
        assert ended.status in (143, -signal.SIGTERM), ended.output
        assert ended.output.count("continue with --ckpt_path last") == 1
        victim.require_finished(victim.go())
        assert [segment["why"] for segment in read_segments(victim.run_dir)] == ["stopped by SIGTERM", "finished"]
