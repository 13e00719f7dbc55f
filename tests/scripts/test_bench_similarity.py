"""That both contestants of the similarity bench run; what they answer is compared with the measures' own tests."""

import pytest

from scripts.benches.similarity import related_models, similarity


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_contestants() -> None:
    report = similarity(models=3, repeats=2, large=False)
    ((name, (slow, fast)),) = report.comparisons.items()
    assert name == "all 3 pairs of 3 models, K = 6, M = 2, N = 2,000"
    assert len(slow.seconds) == len(fast.seconds) == 2
    assert report.required == {name: 100.0}


def test_models_are_related_but_not_equal() -> None:
    f, g = related_models(3, 50, 6, 2)
    assert f.shape == (3, 50, 2)
    assert g.shape == (3, 6, 2)
    assert not f[0].equal(f[1])
