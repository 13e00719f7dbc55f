"""What the authors' code answers for their 40 pairs of classifiers, and for the construction of their Table 1.

Its ``float64`` fields were recomputed from float32 representations of another processor, whose rounding leaves 1e-7.
"""

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from likeness.similarity.comparison import SoftmaxComparison, compare_softmax_models
from likeness.similarity.d_llv import d_llv
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.pairwise import PairwiseDistances, compare_all_pairs
from likeness.similarity.softmax_models import SoftmaxModels
from scripts.bench.similarity import plain_comparison
from tests.likeness.similarity.softmax_pairs import permuted_clusters
from tests.reference import FOLDER, needs_reference, published, representations

pytestmark = needs_reference

AUTHORS = ComparisonOptions(search="sampled", num_samples=200, seed=0)
WIDTHS = pytest.mark.parametrize("width", [16, 32, 64, 128])


def pairs_of(width: int) -> list[dict[str, Any]]:
    pairs = [pair for pair in published()["pairs"] if pair["width"] == width]
    assert len(pairs) == 10
    return pairs


def compare(pair: dict[str, Any]) -> SoftmaxComparison:
    return _compare(pair["width"], pair["seed1"], pair["seed2"])


@cache
def _compare(width: int, *seeds: int) -> SoftmaxComparison:
    first, second = (representations(width, seed) for seed in seeds)
    return compare_softmax_models(*first, *second, options=AUTHORS)


@cache
def all_pairs_of(width: int) -> dict[str, Tensor]:
    models = [representations(width, seed) for seed in range(5)]
    return compare_all_pairs([f for f, _ in models], [g for _, g in models], options=AUTHORS)


@WIDTHS
def test_the_papers_search(width: int) -> None:
    for pair in pairs_of(width):
        found = compare(pair)
        assert found.input_set == tuple(pair["input_idxs"])
        assert found.term_1 == pytest.approx(pair["t1"], abs=2e-6)
        assert found.term_2 == pytest.approx(pair["t2"], abs=2e-6)
        assert found.d_llv == pytest.approx(pair["d_LLV"], abs=2e-6)
        assert (found.pivot, found.left_out) in found.ties
        assert found.kl_12 == pytest.approx(pair["KL_12"], rel=1e-4)
        assert found.kl_21 == pytest.approx(pair["KL_21"], rel=1e-4)
        assert found.m_cca_f == pytest.approx(pair["m_CCA_f"], abs=5e-6)
        assert found.m_cca_g == pytest.approx(pair["m_CCA_g"], abs=5e-6)
        assert found.d_svd_g == pytest.approx(pair["d_SVD_g"], abs=1e-5)
        assert found.paper_bound is not None
        assert found.paper_bound.value == pytest.approx(pair["bound_2M_dLLV"], abs=1e-5)
        assert found.paper_bound.informative == pair["bound_valid"]
        if (found.pivot, found.left_out) == (pair["y_pivot"], pair["left_out"]):
            assert found.max_d_svd_f == pytest.approx(pair["max_d_SVD_f"], abs=1e-5)
            assert found.d_fg == pytest.approx(pair["d_fg"], abs=1e-5)


@WIDTHS
def test_against_double_precision(width: int) -> None:
    for pair in pairs_of(width):
        found, expected = compare(pair), pair["float64"]
        assert found.term_1 == pytest.approx(expected["t1_exact"], abs=3e-7)
        assert list(found.ties) == list(zip(expected["tied_pivots"], expected["tied_leave_outs"], strict=True))
        assert any(found.max_d_svd_f == pytest.approx(tied, abs=1e-6) for tied in expected["max_d_SVD_f_per_tie"])
        assert found.max_d_svd_f_of_ties == pytest.approx(expected["max_d_SVD_f_sup"], abs=1e-6)
        assert found.m_cca_f == pytest.approx(expected["m_CCA_f"], abs=1e-7)
        assert found.m_cca_g == pytest.approx(expected["m_CCA_g"], abs=1e-7)
        assert found.d_logit**2 == pytest.approx(expected["d_logit_sq"], rel=2e-6)
        assert found.d_rep**2 == pytest.approx(expected["d_rep_sq_pinv"], rel=2e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_against_the_definitions_on_the_same_representations() -> None:
    """With the same numbers put in, nothing is left of the difference."""
    for width in (16, 128):
        models = [[x.double().numpy() for x in representations(width, seed)] for seed in range(2)]
        found = all_pairs_of(width)
        for key, expected in plain_comparison(*models[0], *models[1]).items():
            name, tolerance = key.removesuffix(", reversed"), 5e-6 if key.startswith("m_cca") else 1e-9
            matrix = found[name] if name == key else found[name].T
            assert float(matrix[0, 1]) == pytest.approx(expected, rel=tolerance, abs=tolerance), key


@WIDTHS
def test_all_pairs_at_once(width: int) -> None:
    found = all_pairs_of(width)
    for pair in pairs_of(width):
        i, j = pair["seed1"], pair["seed2"]
        assert float(found["d_llv"][i, j]) == float(found["d_llv"][j, i]) == pytest.approx(pair["d_LLV"], abs=2e-6)
        assert float(found["kl"][i, j]) == pytest.approx(pair["KL_12"], rel=1e-4)
        assert float(found["kl"][j, i]) == pytest.approx(pair["KL_21"], rel=1e-4)
        assert float(found["m_cca_f"][i, j]) == pytest.approx(pair["m_CCA_f"], abs=5e-6)
        assert float(found["d_rep"][i, j]) ** 2 == pytest.approx(pair["float64"]["d_rep_sq_pinv"], rel=2e-6)


@WIDTHS
def test_the_exact_search_is_never_above_a_sampled_one(width: int) -> None:
    models = [representations(width, seed) for seed in range(5)]
    together, _ = SoftmaxModels.evaluated(*map(list, zip(*models, strict=True)))
    sampled = [PairwiseDistances(together, replace(AUTHORS, seed=seed))["term_2"] for seed in range(5)]
    for pair in pairs_of(width):
        i, j = pair["seed1"], pair["seed2"]
        exact = float(d_llv(*models[i], *models[j]).term_2)
        assert exact <= pair["t2"]
        assert exact == pytest.approx(pair["float64"]["t2_exact_unconstrained"], abs=2e-6)
        assert exact <= min(float(values[i, j]) for values in sampled)


@pytest.mark.parametrize("index", [0, 1, 4, 9, 19])
def test_kl_goes_to_zero_while_representations_stay_apart(index: int) -> None:
    table = json.loads((FOLDER / "kl_to_zero.json").read_text())
    authors, expected = table["authors_float32"][index], table["float64"][index]
    rho = float(expected["g_length"])
    models = permuted_clusters(rho, False), permuted_clusters(rho, True)
    found = compare_softmax_models(*models[0], *models[1])
    assert found.kl_12 == pytest.approx(expected["KL"], rel=1e-10)
    assert found.kl_12 == pytest.approx(authors["KL_div"], rel=1e-4, abs=1e-8)
    assert found.term_1 == pytest.approx(expected["t1"], abs=1e-12)
    assert found.d_llv == pytest.approx(authors["d_prob"], abs=2e-6)
    assert found.term_2 == pytest.approx(expected["t2_exact"], abs=1e-10)
    choice = expected["pivot"], expected["lo"]
    assert choice in found.ties  # by symmetry all pivots are equally good
    at_choice = compare_softmax_models(*models[0], *models[1], options=replace(AUTHORS, label_choice=choice))
    assert at_choice.term_3 == pytest.approx(expected["t3"], rel=1e-10)
    assert found.m_cca_f == pytest.approx(expected["mCCA_f"], abs=1e-12)
    assert found.m_cca_g < 1e-12
    assert at_choice.max_d_svd_f == pytest.approx(expected["max_dSVD_f"], abs=1e-12)
    assert found.d_svd_g == pytest.approx(1, abs=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu() -> None:
    models = [representations(16, seed) for seed in range(3)]
    on_cpu = compare_all_pairs([f for f, _ in models], [g for _, g in models], options=AUTHORS)
    on_gpu = compare_all_pairs([f.cuda() for f, _ in models], [g.cuda() for _, g in models], options=AUTHORS)
    for name, matrix in on_gpu.items():
        torch.testing.assert_close(matrix.cpu(), on_cpu[name], rtol=1e-9, atol=1e-9)
