"""Benches repeat short work for half a second and more to time it; here nothing is timed."""

from collections.abc import Callable, Mapping

import pytest

from scripts.bench.timing import Contestant, interleaved


def once(work: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu", **_: float) -> list[Contestant]:
    """``interleaved``, each piece of work once a round."""
    return interleaved(work, repeats, device)


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for bench in ("hubness", "language", "similarity"):
        monkeypatch.setattr(f"scripts.bench.{bench}.interleaved", once)
