"""Models in coordinates of what their embeddings span: the same distribution, and measures that are right."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from likeness.similarity.catalogue import select
from likeness.similarity.comparison import compare_softmax_models
from likeness.similarity.d_llv import d_llv
from likeness.similarity.metric import PairwiseSimilarity
from likeness.similarity.options import ComparisonOptions
from likeness.spans import reduce_to_span
from tests.likeness.language.pairs import NAMES, needs_pairs, pair
from tests.reference import FOLDER


def layer_normed(seed: int, samples: int = 60, dim: int = 4, labels: int = 8) -> tuple[Tensor, Tensor]:
    """f [N, M] behind a LayerNorm with a gain and a bias, in float32, and g [K, M]."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, dim, generator=random)
    gain, bias = 0.5 + torch.rand(dim, generator=random), torch.randn(dim, generator=random)
    return layer_norm(x, [dim], gain, bias), torch.randn(labels, dim, generator=random)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_norm_leaves_one_dimension_less(dtype: torch.dtype) -> None:
    f, g = (x.to(dtype) for x in layer_normed(0))
    bias = torch.randn(8, generator=torch.Generator().manual_seed(1))
    reduced = reduce_to_span(f, g, bias)
    assert (reduced.rank, reduced.f.shape, reduced.g.shape) == (3, (60, 3), (8, 3))
    before = (f.double() @ g.double().T + bias).log_softmax(1)
    assert float(((reduced.f @ reduced.g.T + reduced.bias).log_softmax(1) - before).abs().max()) < 1e-6
    again = reduce_to_span(reduced.f, reduced.g, reduced.bias)
    assert again.rank == 3
    torch.testing.assert_close(again.f @ again.g.T + again.bias, reduced.f @ reduced.g.T + reduced.bias)


def test_the_scale_of_a_coordinate_is_no_rank() -> None:
    f = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([1.0, 1e-9, 1e6])
    assert reduce_to_span(f, torch.eye(3).double()).rank == 3
    f = torch.cat([f, f[:, :1] - 2 * f[:, 1:2]], dim=1)
    reduced = reduce_to_span(f, torch.eye(4).double())
    assert reduced.rank == 3
    torch.testing.assert_close(reduced.f @ reduced.g.T + reduced.bias, f, rtol=1e-9, atol=1e-9)


@needs_pairs
@pytest.mark.parametrize(
    ("folder", "missing"),
    [
        ("llama_untied_padded_sharded", 0),
        ("gemma2_softcap", 0),
        ("granite_scaled", 0),
        ("gpt2_tied", 1),
        ("phi_bias", 1),
        ("gptj_bias", 1),
    ],
)
def test_ranks_of_real_families(folder: str, missing: int) -> None:
    import numpy as np

    with np.load(FOLDER / "language_models" / f"hf_{folder}" / "expected.npz") as file:
        f = torch.from_numpy(file["last_hidden"])[torch.from_numpy(file["mask"]).bool()]
    assert reduce_to_span(f, torch.eye(f.shape[1])).rank == min(f.shape[1] - missing, len(f) - 1)


@needs_pairs
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("held_in", [torch.float32, torch.float64])
def test_reference_pairs_as_classifiers(name: str, held_in: torch.dtype) -> None:
    """The answers of a search that ended, in the span, whatever type the rounded numbers are held in."""
    (f1, g1, b1), (f2, g2, b2), _, results, _, _ = pair(name)
    models = [
        (f, g) if b is None else (torch.column_stack([f, torch.ones(len(f)).to(f)]), torch.column_stack([g, b]))
        for f, g, b in ((f1, g1, b1), (f2, g2, b2))
    ]
    found = compare_softmax_models(
        *(x.to(held_in) for model in models for x in model), options=ComparisonOptions(max_choices=100)
    )
    reduced = results["reduced"]
    assert list(found.ranks) == reduced["dims"]
    assert found.m_cca_f == pytest.approx(reduced["m_cca_f"], abs=1e-9)
    assert found.m_cca_g == pytest.approx(reduced["m_cca_g"], abs=1e-9)
    assert found.d_rep == pytest.approx(reduced["d_rep_12"], abs=1e-7)
    assert found.term_1 == pytest.approx(results["term_1"], abs=1e-7)
    if f1.shape[1] == f2.shape[1]:
        # In the last pair the reference's set has two equal prefixes, and is none here.
        smallest = results["term_2_smallest"] if name == "v65_m32" else reduced["term_2_smallest"]
        assert found.term_2 == pytest.approx(smallest, abs=1e-7)
        assert found.input_search == "exact"
        assert found.certificate is not None
        assert found.certificate.value == pytest.approx(reduced["certificate"], abs=1e-7)
    if "max_d_svd_f" in reduced:
        assert found.max_d_svd_f == pytest.approx(reduced["max_d_svd_f"], abs=1e-7)


def test_d_llv_of_layer_normed_classifiers_is_that_of_their_reductions() -> None:
    first, second = layer_normed(0), layer_normed(1)
    found = d_llv(*first, *second)
    a, b = reduce_to_span(*first), reduce_to_span(*second)
    ones = torch.ones(60, 1).double()
    biased = [(torch.cat([x.f, ones], dim=1), torch.column_stack([x.g, x.bias])) for x in (a, b)]
    expected = d_llv(*biased[0], *biased[1])
    assert float(found.d_llv) == pytest.approx(float(expected.d_llv), abs=1e-7)  # Z knows the rounding of f
    assert torch.equal(found.inputs, expected.inputs)
    assert found.inputs.shape == (1, 4)


def test_streamed_models_are_reduced_too() -> None:
    (f1, g1), (f2, g2) = layer_normed(0), layer_normed(1)
    metric = PairwiseSimilarity(select(["m_cca_f", "term_2", "linear_cka_f"]), [4, 4], ["a", "b"])
    for rows in (slice(0, 25), slice(25, 60)):
        metric.update([f1[rows], f2[rows]], [g1, g2], torch.arange(60)[rows])
    values, whole = metric.compute(), compare_softmax_models(f1, g1, f2, g2)
    assert metric.ranks == whole.ranks == (3, 3)
    assert metric.widths == (4, 4)
    assert float(values["m_cca_f"][0, 1]) == pytest.approx(whole.m_cca_f, abs=1e-12)
    assert float(values["term_2"][0, 1]) == pytest.approx(whole.term_2, abs=1e-12)


def test_equal_labels_are_searched_once() -> None:
    (f1, g1), (f2, g2) = (tuple(x.double() for x in layer_normed(seed)) for seed in (0, 1))
    copied = [0, 1, 2, 3, 4, 5, 6, 7, 2, 2, 5]
    with_copies = [(f1, g1[copied]), (f2, g2[copied])]
    found = compare_softmax_models(*with_copies[0], *with_copies[1])
    assert found.equal_labels == ((2, 8, 9), (5, 10))
    # The same search among the distinct labels, with the log-probabilities of all eleven.
    p, q = ((f @ g.T).log_softmax(1)[:, :8] for f, g in with_copies)
    entries = torch.tensor([[_entry(p, q, y0, y) for y in range(8)] for y0 in range(8)])
    assert found.term_1 == pytest.approx(float(entries.topk(2, dim=1).values[:, 1].min()), abs=1e-6)
    assert max(found.pivot, found.left_out) < 8
    assert float(d_llv(*with_copies[0], *with_copies[1]).term_1) == found.term_1


def _entry(p: Tensor, q: Tensor, pivot: int, label: int) -> float:
    """Term 1 of d_LLV for a pivot and a label, by definition."""
    if pivot == label:
        return 0.0
    s, t = ((x[:, label] - x[:, pivot]).std() for x in (p, q))
    return max(float((p[:, y] / s - q[:, y] / t).std()) for y in (pivot, label))
