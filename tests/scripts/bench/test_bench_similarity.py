"""That the contestants of the similarity bench run and what is asked of them is judged; never how fast they are.

What they answer is compared in the measures' own tests.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from scripts.bench.similarity import GIGABYTES, LARGE, related_models, similarity
from scripts.bench.timing import Contestant, Peak, Ratios, RatiosAndMemory, peak_of


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_contestants() -> None:
    report = similarity(models=3, repeats=2, one_pair=False)
    ((name, (slow, fast)),) = report.ratios.comparisons.items()
    assert name == "all 3 pairs of 3 models, K = 6, M = 2, N = 2,000"
    assert len(slow.seconds) == len(fast.seconds) == 2
    assert report.ratios.required == {name: 100.0}
    assert report.as_dict()["large"] is None


def test_verdicts() -> None:
    contestants = Contestant("slow", [30.0]), Contestant("fast", [0.2])
    ratios = Ratios("", {"pairs": contestants}, required={"pairs": 100.0}, allowed={"pairs": 0.25})
    assert RatiosAndMemory(ratios, LARGE, GIGABYTES, Peak(9_000_000_000, 12.3)).verdicts() == [
        "pairs: at least 100 times faster is asked for: yes (150.0)",
        "pairs: under 0.25 s is asked for: yes (0.200)",
        f"{LARGE}: under 8 GB is asked for: NO (9.00 GB, 12 s)",
    ]


def test_models_are_related_but_not_equal() -> None:
    f, g = related_models(3, 50, 6, 2)
    assert f.shape == (3, 50, 2)
    assert g.shape == (3, 6, 2)
    assert not f[0].equal(f[1])


def fill_100_megabytes(before: Path) -> None:
    """Write down what the process has held at most so far, in kB, and hold more."""
    before.write_text(re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[0])
    np.ones(12_500_000)


def test_a_peak_is_that_of_the_work(tmp_path: Path) -> None:
    peak = peak_of(partial(fill_100_megabytes, tmp_path / "before"))
    before = 1024 * int((tmp_path / "before").read_text())
    assert peak.resident - before == pytest.approx(1e8, abs=2e7)
