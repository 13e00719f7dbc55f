"""The authors' checkpoints must score what the authors' code says: 20 models, 40 pairs."""

import pytest

from likeness.similarity.catalogue import select
from likeness.similarity.metric import PairwiseSimilarity
from likeness.similarity.predictions import is_correct, log_probabilities, nll
from likeness.similarity.representations.cca import m_cca
from tests.reference import needs_reference, published, radial_test_split, representations

pytestmark = needs_reference

SEEDS = range(5)


@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_scores_of_each_model(width: int) -> None:
    _, y = radial_test_split()
    log_p = log_probabilities(*zip(*[representations(width, seed) for seed in SEEDS], strict=True))
    for model in published()["models"]:
        if model["width"] == width:
            own = log_p[model["seed"]]
            assert float(is_correct(own, y).double().mean()) == pytest.approx(model["test_acc"], abs=1e-12)
            assert float(nll(own, y).mean()) == pytest.approx(model["test_nll"], rel=1e-5)


@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_measures_of_each_pair(width: int) -> None:
    embeddings, unembeddings = zip(*[representations(width, seed) for seed in SEEDS], strict=True)
    metric = PairwiseSimilarity(select(["kl", "m_cca"]), [2] * 5, [str(seed) for seed in SEEDS])
    for start in range(0, 2000, 300):
        metric.update([f[start : start + 300] for f in embeddings], unembeddings)
    values = metric.compute()
    pairs = [pair for pair in published()["pairs"] if pair["width"] == width]
    assert len(pairs) == 10
    for pair in pairs:
        i, j = pair["seed1"], pair["seed2"]
        assert float(values["kl"][i, j]) == pytest.approx(pair["KL_12"], rel=1e-4)
        assert float(values["kl"][j, i]) == pytest.approx(pair["KL_21"], rel=1e-4)
        assert float(values["m_cca_f"][i, j]) == pytest.approx(pair["m_CCA_f"], abs=5e-6)
        assert float(values["m_cca_g"][i, j]) == pytest.approx(pair["m_CCA_g"], abs=5e-6)
        # An independent computation in float64 leaves only the models' own float32.
        assert float(values["m_cca_f"][i, j]) == pytest.approx(pair["float64"]["m_CCA_f"], abs=1e-7)
        assert float(m_cca(embeddings[i], embeddings[j])) == pytest.approx(float(values["m_cca_f"][i, j]), abs=1e-10)
