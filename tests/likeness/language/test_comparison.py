"""Two language models compared: reference numbers, invariances, bounds, and intervals of searches cut short."""

import math

import pytest
import torch
from torch import Tensor

from likeness.language.comparison import (
    OF_LABEL_VECTORS,
    LanguageComparison,
    compare_language_models,
    compared,
    draw_subsets,
)
from likeness.language.pair_moments import PairMoments
from likeness.language.token_pass import Head
from likeness.similarity.cloud import one_pair
from likeness.similarity.d_llv import best_input_sets, choose_labels, term_1_matrix
from likeness.similarity.d_svd import d_svd_of_subsets
from likeness.similarity.metric import filled
from likeness.similarity.representations.cca import m_cca, m_cca_of_noise
from likeness.similarity.softmax_models import LabelVectors, SoftmaxModels
from tests.likeness.language.pairs import DIVERGENCES, NAMES, Pair, logits, needs_pairs, pair, random_pair

PAIR = one_pair(0, 1, torch.device("cpu"))
Model = tuple[Tensor, Tensor, Tensor | None]


def seen(first: Model, second: Model, next_token: Tensor, **settings: object) -> PairMoments:
    moments = PairMoments(Head(*first[1:]), Head(*second[1:]), **settings)
    moments.update((first[0], second[0]), next_token)
    return moments


def as_given(reference: Pair, kept: Tensor | None = None) -> SoftmaxModels:
    """Of a reference pair, in every dimension of f, as its numbers are by definition."""
    return seen(*reference[:3], kept=kept).models(0.0)


@needs_pairs
@pytest.mark.parametrize("name", NAMES)
def test_reference_pairs(name: str) -> None:
    reference = pair(name)
    results, reduced = reference.results, reference.results["reduced"]
    found = compare_language_models(*reference[:3], weights=reference.arrays["counts"])
    exact = DIVERGENCES | {
        "nll_1": "cross_entropy_1",
        "nll_2": "cross_entropy_2",
        "perplexity_1": "perplexity_1",
        "accuracy_1": "accuracy_1",
        "accuracy_2": "accuracy_2",
    }
    for own, theirs in exact.items():
        assert getattr(found, own) == pytest.approx(results[theirs], rel=1e-12), own
    assert list(found.ranks) == reduced["dims"]
    assert found.m_cca_f == pytest.approx(reduced["m_cca_f"], abs=1e-9)
    assert found.m_cca_g == pytest.approx(reduced["m_cca_g"], abs=1e-9)
    # What float32 rounding put beside the span is not in these, but in the reference.
    assert (found.pivot, found.left_out) == (results["pivot"], results["left_out"])
    assert found.term_1 == pytest.approx(results["term_1"], abs=1e-8)
    assert found.term_3 == pytest.approx(results["term_3"], abs=1e-8)
    models = seen(*reference[:3]).models()
    term_2 = best_input_sets(models.inputs, PAIR, models.bare_embeddings, 0.0).term_2
    assert float(term_2) == pytest.approx(reduced["term_2_smallest"], abs=1e-8)
    # In the last pair the best set has two equal prefixes, which are no set of M + 1 inputs: the best that has not is
    # the one among all M dimensions, where the rounding tells them apart.
    regular = results["term_2_smallest"] if name == "v65_m32" else float(term_2)
    assert found.term_2 == pytest.approx(regular, abs=1e-6 if name == "v65_m32" else 1e-8)
    assert found.certificate == pytest.approx(reduced["certificate"], abs=1e-8)
    assert found.d_rep_12 == pytest.approx(reduced["d_rep_12"], abs=1e-8)
    assert found.d_rep_21 == pytest.approx(reduced["d_rep_21"], abs=1e-8)
    assert found.d_logit**2 == pytest.approx(results["d_logit_squared"], rel=1e-7)
    assert found.d_logit_normalised == pytest.approx(results["d_logit_normalised"], rel=1e-7)
    assert found.d_logit_weighted**2 == pytest.approx(results["d_logit_squared_by_counts"], rel=1e-7)
    if "max_d_svd_f" in reduced:
        assert found.max_d_svd <= reduced["max_d_svd_f"] + 1e-8 <= found.certificate + 2e-8
    assert_bounded(found)


def assert_bounded(found: LanguageComparison) -> None:
    """What holds of any two models."""
    assert found.kl_12 <= found.d_logit**2 / 4 + 1e-12
    assert found.kl_21 <= found.d_logit**2 / 4 + 1e-12
    assert found.term_1_lower <= found.term_1
    for mean in (found.d_svd_typical, found.d_svd_frequent):
        assert mean is None or mean <= found.max_d_svd + 1e-12
    assert found.max_d_svd <= found.certificate + 1e-12
    assert found.certificate <= 2 * found.term_1**2 + 1e-12


@needs_pairs
@pytest.mark.parametrize("name", NAMES)
def test_reference_pairs_in_all_dimensions(name: str) -> None:
    """To the last digits: nothing is left out, the direction of rounding too."""
    reference = pair(name)
    results, models = reference.results, as_given(reference)
    choice = choose_labels(models.labels, PAIR)
    assert float(choice.term_1) == pytest.approx(results["term_1"], rel=1e-12)
    for found, theirs in zip(term_1_matrix(models.labels), ("T1", "T3"), strict=True):
        torch.testing.assert_close(found, reference.arrays[theirs], rtol=1e-10, atol=1e-11)
    for subset in results["d_svd_f_of_subsets"]:
        labels = torch.tensor(subset["labels"])
        found = d_svd_of_subsets(models.labels.cloud, PAIR, choice.pivot, labels[None, None])
        assert float(found) == pytest.approx(subset["d_svd"], abs=1e-12)
        assert procrustes(models.labels, int(choice.pivot), labels) == pytest.approx(subset["d_svd"], abs=1e-12)
        assert float(found) <= subset["upper"] + 1e-12
    found = best_input_sets(models.inputs, PAIR, models.bare_embeddings, 0.0)
    assert float(found.term_2) == pytest.approx(results["term_2_smallest"], abs=1e-9)


def procrustes(vectors: LabelVectors, pivot: int, labels: Tensor) -> float:
    """d_SVD as min over orthogonal Q of |U Q - U'|^2 / (2 m), U the standardised log-ratios."""
    cloud = vectors.cloud
    index = torch.tensor([[pivot, *labels.tolist()]])
    u, v = (cloud.take(torch.tensor([model]), index)[0] for model in (0, 1))
    u, v = (torch.nn.functional.normalize(x[1:] - x[:1], dim=1).T for x in (u, v))
    left, _, right = torch.linalg.svd(u.T @ v)
    return float((u @ (left @ right) - v).square().sum() / (2 * len(labels)))


@needs_pairs
@pytest.mark.parametrize("name", NAMES)
def test_reference_pairs_with_kept_labels(name: str) -> None:
    reference = pair(name)
    expected = reference.results["kept"]
    found = compare_language_models(*reference[:3], kept=reference.kept, weights=reference.arrays["counts"])
    names = {"kl_12": "kl", "js": "js", "total_variation": "tv", "agreement": "agree"}
    for own, theirs in (names | {"mass_1": "mass_1", "mass_2": "mass_2"}).items():
        assert getattr(found, own) == pytest.approx(expected[theirs], rel=1e-12), own
    assert found.term_1 == pytest.approx(expected["term_1"], abs=1e-8)
    assert (found.pivot, found.left_out) == (expected["pivot"], expected["left_out"])
    assert found.kl_12_with_rest <= reference.results["kl"]
    uniform = torch.zeros(len(reference.first[1])).index_fill(0, reference.kept, 1.0)
    weighted = compare_language_models(*reference[:3], weights=uniform).d_logit_weighted ** 2
    assert weighted * len(reference.kept) == pytest.approx(reference.results["d_logit_squared_kept"], rel=1e-7)
    assert found.d_logit**2 == pytest.approx(reference.results["d_logit_squared_kept"], rel=1e-7)


@needs_pairs
def test_what_kept_labels_say_of_each_other_does_not_know_the_rest() -> None:
    reference = pair("v65_m32")
    models = [as_given(reference, kept).labels for kept in (None, reference.kept)]
    labels, place = reference.kept[1:20], torch.arange(1, 20)
    choices = [(reference.kept[:1], labels), (torch.zeros(1, dtype=torch.long), place)]
    whole, kept = (
        d_svd_of_subsets(vectors.cloud, PAIR, pivot, subset[None, None])
        for vectors, (pivot, subset) in zip(models, choices, strict=True)
    )
    torch.testing.assert_close(whole, kept, rtol=0, atol=1e-12)
    t3 = [term_1_matrix(vectors)[1] for vectors in models]
    torch.testing.assert_close(t3[0][reference.kept][:, reference.kept], t3[1], rtol=0, atol=1e-12)


def close(found: LanguageComparison, expected: LanguageComparison, tolerance: float, but: frozenset[str]) -> None:
    for name, value in expected.to_dict().items():
        if isinstance(value, float) and name not in but:
            assert getattr(found, name) == pytest.approx(value, rel=tolerance, abs=tolerance), name


SAMPLED = frozenset(f"d_svd_{kind}{what}" for kind in ("typical", "frequent") for what in ("", "_deviation"))
SAMPLED |= {"max_d_svd"}


def test_equivalent_models() -> None:
    (f, g, b), other, next_token = random_pair(labels=12, dims=(4, 3))
    a = torch.diag(torch.tensor([0.1, 1.0, 1.0, 1.0]).double()) + 0.1 * torch.ones(4, 4).double()
    v = torch.tensor([3.0, -1.0, 2.0, 0.5]).double()
    same = (f @ a.T, g @ a.inverse() + v, b)
    itself = compare_language_models((f, g, b), (f, g, b), next_token)
    assert (itself.kl_12, itself.js, itself.total_variation, itself.agreement) == (0, 0, 0, 1)
    for found in (itself, compare_language_models((f, g, b), same, next_token)):
        assert found.kl_12 < 1e-20
        assert found.term_1 < 1e-7
        assert found.max_d_svd < 1e-12
        assert found.d_logit_weighted < 1e-7
    expected, found = (compare_language_models(x, other, next_token) for x in ((f, g, b), same))
    close(found, expected, 1e-9, SAMPLED | {"d_rep_12", "linear_cka_f", "m_cca_g"})


def test_another_numbering_of_the_tokens_changes_nothing() -> None:
    first, second, next_token = random_pair()
    order = torch.randperm(9, generator=torch.manual_seed(0))
    renamed = [(f, g[order], b[order]) for f, g, b in (first, second)]
    found = compare_language_models(*renamed, order.argsort()[next_token])
    expected = compare_language_models(first, second, next_token)
    close(found, expected, 1e-9, SAMPLED)
    assert (order[found.pivot], order[found.left_out]) == (expected.pivot, expected.left_out)


def test_parts_of_the_positions_add_up() -> None:
    first, second, next_token = random_pair(samples=90)
    documents = torch.arange(90) // 7
    whole = compare_language_models(first, second, next_token, documents=documents)
    parts = []
    for rows in (slice(0, 40), slice(40, 90)):
        part = PairMoments(Head(*first[1:]), Head(*second[1:]))
        for at in torch.arange(90)[rows].split(9):
            part.update((first[0][at], second[0][at]), next_token[at], documents[at], at)
        parts.append(part)
    parts[0].merge(parts[1])
    found = compared(parts[0])
    close(found, whole, 1e-11, frozenset())
    assert found.errors == pytest.approx(whole.errors, rel=1e-12)
    assert (found.documents, found.inputs) == (13, 90)


def test_equal_prefixes_are_kept_once_whatever_sign_their_hashes_have() -> None:
    first, second, next_token = random_pair(samples=6)
    hashes = torch.tensor([-5, -5, -(2**62), 3, 3, 2**62])
    moments = PairMoments(Head(*first[1:]), Head(*second[1:]))
    for rows in (slice(0, 4), slice(4, 6)):
        moments.update((first[0][rows], second[0][rows]), next_token[rows], ids=hashes[rows])
    assert filled(moments.stored)[0].tolist() == [-(2**62), -5, 3, 2**62]
    assert moments.count == 6


def test_what_rounding_fills_is_seen_in_merged_parts_too() -> None:
    f = torch.nn.functional.layer_norm(torch.randn(90, 5, generator=torch.Generator().manual_seed(0)), [5])
    g = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    whole, part = (PairMoments(Head(g), Head(g.flip(0))) for _ in range(2))
    part.update((f, f.clone()), torch.arange(90) % 9)
    whole.merge(part)
    assert compared(whole).ranks == (4, 4)


def test_a_repeated_row_is_compared_once_and_named() -> None:
    first, second, next_token = random_pair(bias=False)
    copied = [*range(9), 4]
    found = compare_language_models(*[(f, g[copied], None) for f, g, _ in (first, second)], next_token)
    assert found.equal_labels == ((4, 9),)
    p, q = (logits((f, g[copied], None)).log_softmax(1)[:, :9] for f, g, _ in (first, second))
    t1 = torch.zeros(9, 9)
    for pivot in range(9):
        for label in set(range(9)) - {pivot}:
            s, t = ((x[:, label] - x[:, pivot]).std() for x in (p, q))
            t1[pivot, label] = max(float((p[:, y] / s - q[:, y] / t).std()) for y in (pivot, label))
    assert found.term_1 == pytest.approx(float(t1.topk(2, dim=1).values[:, 1].min()), abs=1e-6)
    assert found.d_logit > compare_language_models(first, second, next_token).d_logit  # Z and sums keep all


def test_a_search_cut_short_is_an_interval_that_shrinks() -> None:
    first, second, next_token = random_pair(labels=400, dims=(5, 5), bias=False)
    vectors = seen(first, second, next_token).models().labels
    exact = float(choose_labels(vectors, PAIR).term_1)
    width = math.inf
    for rows in (2, 10, 60, 300, 400):
        found = choose_labels(vectors, PAIR, rows)
        assert float(found.lower) <= exact <= float(found.term_1)
        assert float(found.term_1 - found.lower) <= width + 1e-12
        width = float(found.term_1 - found.lower)
    assert float(found.term_1) == exact == float(found.lower)
    assert compare_language_models(first, second, next_token, budget=10).term_1_rows == 10


def test_widths_may_differ_and_bounds_hold() -> None:
    for seed in range(3):
        assert_bounded(compare_language_models(*random_pair(labels=14, dims=(3, 5), seed=seed)))
    found = compare_language_models(*random_pair(dims=(3, 5)))
    assert found.ranks == (3, 5)
    assert None not in (found.term_2, found.d_rep_12, found.d_rep_21, found.m_cca_f, found.certificate)


def test_uniform_weights_are_d_logit() -> None:
    models = random_pair()
    found = compare_language_models(*models, weights=torch.ones(9))
    assert 9 * found.d_logit_weighted**2 == pytest.approx(found.d_logit**2, rel=1e-12)
    assert found.d_logit_weighted_normalised == pytest.approx(found.d_logit_normalised, rel=1e-12)
    difference = logits(models[0]) - logits(models[1])
    w = torch.bincount(models[2], minlength=9).double() / 60
    expected = (w * (difference - (difference @ w)[:, None]).square()).sum(1).mean()
    assert compare_language_models(*models).d_logit_weighted ** 2 == pytest.approx(float(expected), rel=1e-10)


def test_noise_scores_what_unrelated_representations_do() -> None:
    random = torch.Generator().manual_seed(0)
    drawn = [m_cca(*torch.randn(2, 300, 20, generator=random).double()) for _ in range(5)]
    assert m_cca_of_noise(300, 20, 20) == pytest.approx(float(torch.stack(drawn).mean()), abs=0.02)
    assert m_cca_of_noise(30, 20, 20) == 1


def test_subsets_are_drawn_by_frequency() -> None:
    weights = torch.tensor([0.0, 8.0, 1.0, 1.0, 5.0])
    drawn = draw_subsets(weights, 1, 4000, torch.tensor([4]))
    shares = torch.bincount(drawn.flatten(), minlength=5) / 4000
    torch.testing.assert_close(shares, torch.tensor([0, 0.8, 0.1, 0.1, 0]), atol=0.02, rtol=0)


def test_what_cannot_be_said_is_none_with_the_reason() -> None:
    first, second, next_token = random_pair(labels=4)
    found = compare_language_models(first, second, torch.full_like(next_token, -1))
    assert (found.nll_1, found.perplexity_1, found.d_logit_weighted) == (None, None, None)
    assert "no next token is known" in found.undefined["nll_1"]
    assert "K = 4 and M = 3" in found.undefined["certificate"]
    found = compare_language_models(*[(f[:3], g, b) for f, g, b in (first, second)], next_token[:3])
    assert "M + 1 inputs" in found.undefined["term_2"]


def test_refusals() -> None:
    first, second, next_token = random_pair()
    with pytest.raises(ValueError, match=r"model '2' must be \[N, M\] = \[60, 3\], but are \[60, 2\]"):
        compare_language_models(first, (second[0][:, :2], *second[1:]), next_token)
    with pytest.raises(ValueError, match=r"kept labels must be some of 0\.\.8"):
        compare_language_models(first, second, next_token, kept=torch.tensor([3, 9]))
    broken = second[0].clone()
    broken[7, 1] = math.nan
    with pytest.raises(ValueError, match="embedding of model '2' is not finite at sample 7"):
        compare_language_models(first, (broken, *second[1:]), next_token)
    with pytest.raises(ValueError, match=r"weights must be \[V\] = \[9\], but are \[8\]"):
        compare_language_models(first, second, next_token, weights=torch.ones(8))


def test_a_soft_cap_leaves_what_is_said_of_predictions_and_of_f() -> None:
    (f1, g1, b1), (f2, g2, b2), next_token = random_pair(samples=300, labels=12, dims=(4, 3))
    cap = 2.0
    moments = PairMoments(Head(g1, b1, cap), Head(g2, b2), names=("gemma", "other"), groups=3)
    moments.update((f1, f2), next_token, torch.arange(300) // 10)
    found, plain = compared(moments), compare_language_models((f1, g1, b1), (f2, g2, b2), next_token)
    log_p = (cap * (logits((f1, g1, b1)) / cap).tanh()).log_softmax(1)
    log_q = logits((f2, g2, b2)).log_softmax(1)
    kl, difference = (log_p.exp() * (log_p - log_q)).sum(1), log_p - log_q
    assert found.kl_12 == pytest.approx(float(kl.mean()), rel=1e-12)
    assert found.nll_1 == pytest.approx(-float(log_p.gather(1, next_token[:, None]).mean()), rel=1e-12)
    assert found.entropy_1 == pytest.approx(-float((log_p.exp() * log_p).sum(1).mean()), rel=1e-12)
    variance = (log_p.exp() * difference.square()).sum(1) - kl.square()
    assert found.variance_12 == pytest.approx(float(variance.mean()), rel=1e-10)
    assert (found.m_cca_f, found.linear_cka_f) == pytest.approx((plain.m_cca_f, plain.linear_cka_f), rel=1e-10)
    assert {"m_cca_f", "linear_cka_f"} < set(found.errors)
    for name in OF_LABEL_VECTORS:
        assert getattr(found, name) is None
        assert found.undefined[name] == "the logits of gemma are capped at 2, and are no inner products"
        assert getattr(plain, name) is not None, name


def test_a_soft_cap_beyond_all_logits_changes_no_mean() -> None:
    (f1, g1, b1), (f2, g2, b2), next_token = random_pair(samples=100, labels=12, dims=(4, 3))
    moments = PairMoments(Head(g1, b1, 1e6), Head(g2, b2, 1e6))
    moments.update((f1, f2), next_token)
    found, plain = compared(moments), compare_language_models((f1, g1, b1), (f2, g2, b2), next_token)
    for name in ("kl_12", "kl_21", "js", "total_variation", "agreement", "nll_1", "entropy_2", "m_cca_f"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), rel=1e-8), name
