"""Of two runs that are started in the same directory one is refused, and the other does not notice."""

from pathlib import Path

import pytest

from tests.faults.conftest import Trial
from tests.faults.runs import Victim


def test_the_second_of_two_is_refused(tmp_path: Path, trial: Trial) -> None:
    victim = Victim("classifier", tmp_path / "run", wait_at_step=5)
    with trial("a second run in the directory of one that trains"):
        hold = victim.run_dir / "hold"
        hold.parent.mkdir()
        hold.touch()
        first = victim.start()
        first.wait((victim.run_dir / "waiting").exists)
        refused = victim.go()
        hold.unlink()
        assert refused.status == 1, refused.output
        assert "is in use: process" in refused.output
        victim.require_finished(first.end())


@pytest.mark.parametrize("attempt", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 10))])
def test_one_of_two_at_once_is_refused(attempt: int, tmp_path: Path, trial: Trial) -> None:
    victim = Victim("classifier", tmp_path / f"run-{attempt}")
    with trial("two runs started in a directory at once"):
        ended = sorted((child.end() for child in [victim.start(), victim.start()]), key=lambda end: end.status)
        assert ended[1].status == 1, ended[1].output
        assert "is in use" in ended[1].output
        victim.require_finished(ended[0])
