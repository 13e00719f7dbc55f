"""kill -9 at any moment: the same line goes on, and the end is the undisturbed run's to the last bit."""

import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.conftest import Trial
from tests.faults.runs import Victim, undisturbed
from tests.integration.commands import Command

KILLS_A_RUN = 12  # from then on a run is left alone, and compared


def test_a_classifier_survives(tmp_path: Path, trial: Trial) -> None:
    require_survival("classifier", tmp_path, trial, kills=3, seed=1)


@pytest.mark.long
@pytest.mark.parametrize(("model", "kills"), [("classifier", 36), ("siblings", 36), ("diffenc", 36)])
def test_many_survive(model: str, kills: int, tmp_path: Path, trial: Trial) -> None:
    require_survival(model, tmp_path, trial, kills, seed=kills)


def require_survival(model: str, tmp_path: Path, trial: Trial, kills: int, seed: int) -> None:
    chance, runs = random.Random(f"{model} {seed}"), 0
    while kills > 0:
        victim = Victim(model, tmp_path / f"run-{runs}")
        runs += 1
        struck: list[str] = []
        while len(struck) < min(kills, KILLS_A_RUN) and (moment := strike(victim, chance)):
            struck.append(moment)
        kills -= len(struck)
        with ExitStack() as trials:
            for moment, times in Counter(struck).items():
                trials.enter_context(trial(f"kill -9 {moment}, {model}", times))
            victim.require_finished(victim.go())


def strike(victim: Victim, chance: random.Random) -> str | None:
    """Start or continue the run and kill it; in what it was struck, or None where it was over before."""
    aim = chance.choice(("time", "change", "save"))
    change, delay = chance.randint(1, 40), chance.uniform(0, undisturbed(victim.model)[1])
    before = written(victim.unfinished)
    child = victim.start(die_at_change=change if aim == "change" else 0)
    if aim == "time":
        wait_for(child, delay)
    if aim == "save":
        wait_for_save(child, victim, change % 4, before)
        time.sleep(delay / 1000)
    if aim != "change" and child.runs:
        child.signal(signal.SIGKILL)
    ended = child.end()
    assert ended.status in (0, -signal.SIGKILL), ended.output
    if ended.status == 0:
        return None
    return "outside saves" if written(victim.unfinished) in (None, before) else "during a save"


def wait_for(child: Command, delay: float) -> None:
    deadline = time.monotonic() + delay
    child.wait(lambda: time.monotonic() > deadline)


def wait_for_save(child: Command, victim: Victim, passed: int, before: int | None) -> None:
    """Until the checkpoint after ``passed`` others is being written."""
    seen = {None, before}
    for _ in range(passed + 1):
        child.wait(lambda: written(victim.unfinished) not in seen, pause=0.0002)
        seen.add(written(victim.unfinished))


def written(path: Path) -> int | None:
    """When the file was last written; None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
