"""How long a run may take, as a scheduler writes it."""

import time
from datetime import timedelta

import pytest

from callbacks.run.preemption import Preemption, duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3h50m", 13800), ("90s", 90), ("1d12h", 129600), ("2m", 120), ("1d1h1m1s", 90061), ("0s", 0)],
)
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "3", "50m3h", "1.5h", "-3h", "3h 50m", "3:50:00"])
def test_other_notations_are_refused_by_value(text: str) -> None:
    with pytest.raises(ValueError, match="stop_after must be a time like 3h50m"):
        Preemption(stop_after=text)


def test_the_budget_counts_from_the_launcher_that_starts_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIKENESS_STARTED", raising=False)
    assert Preemption("1d")._status() == 0
    monkeypatch.setenv("LIKENESS_STARTED", str(time.time() - 3600))
    assert Preemption("59m")._status() == 75
    assert Preemption("2h")._status() == 0
