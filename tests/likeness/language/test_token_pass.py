"""The visit of two language models: every number of a position, and how little the way it is computed matters."""

import math

import pytest
import torch
from torch import Tensor

from likeness.language.document_sums import DocumentSums
from likeness.language.token_pass import QUANTITIES, Head, Positions, Visit, kl_of_top, kl_with_rest
from likeness.similarity.predictions import kl
from tests.likeness.language.pairs import DIVERGENCES, NAMES, logits, needs_pairs, pair, random_pair

Model = tuple[Tensor, Tensor, Tensor | None]


def visited(first: Model, second: Model, next_token: Tensor, **settings: object) -> Positions:
    visit = Visit(Head(*first[1:]), Head(*second[1:]), **settings)
    blocks = list(visit(first[0], second[0], next_token))
    values, partitions, top = (torch.cat(parts, dim=1) for parts in zip(*map(tuple_of, blocks), strict=True))
    return Positions(values, partitions, top)


def tuple_of(block: Positions) -> tuple[Tensor, Tensor, Tensor]:
    return block.values, block.log_partitions, block.top


@needs_pairs
@pytest.mark.parametrize("name", NAMES)
def test_reference_positions(name: str) -> None:
    reference = pair(name)
    found = visited(*reference[:3])
    names = DIVERGENCES | {"entropy_1": "entropy", "collision_1": "collision"}
    for own, theirs in names.items():
        torch.testing.assert_close(found[own], reference.arrays[f"per_position_{theirs}"], rtol=1e-12, atol=1e-12)
    for model in "12":
        torch.testing.assert_close(found[f"nll_{model}"], reference.arrays[f"nll_{model}"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tile", [(1, 9), (7, 1), (64, 4), (60, 100)])
@pytest.mark.parametrize("kept", [None, [0, 2, 3, 7]])
def test_tiles_change_nothing(tile: tuple[int, int], kept: list[int] | None) -> None:
    models = random_pair()
    labels = None if kept is None else torch.tensor(kept)
    whole = visited(*models, kept=labels, top=3)
    rows, columns = tile
    parts = visited(*models, kept=labels, top=3, rows=rows, columns=columns)
    torch.testing.assert_close(parts.values, whole.values, rtol=1e-12, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(parts.log_partitions, whole.log_partitions, rtol=1e-12, atol=1e-12)
    assert torch.equal(parts.top, whole.top)


def test_a_model_and_itself() -> None:
    first, _, next_token = random_pair()
    for model in (first, tuple(x.float() for x in first)):
        found = visited(model, model, next_token, kept=torch.arange(5))
        for name in ("kl_12", "kl_21", "js", "total_variation", "variance_12"):
            assert not found[name].any(), name
        assert bool(found["agreement"].all())


def test_a_head_of_zeros_knows_nothing() -> None:
    f, g, _ = random_pair()[0]
    nothing = (f, 0 * g, None)
    found = visited(nothing, nothing, torch.zeros(60, dtype=torch.long), top=4)
    torch.testing.assert_close(found["nll_1"], torch.full((60,), math.log(9)).double())
    torch.testing.assert_close(found["entropy_1"], torch.full((60,), math.log(9)).double())
    torch.testing.assert_close(found["collision_1"], torch.full((60,), 1 / 9).double())
    assert torch.equal(found.top[0], torch.arange(4).expand(60, 4))


def test_a_constant_f_is_the_unigram_model() -> None:
    unigram = torch.tensor([0.5, 0.3, 0.15, 0.05]).double()
    model = (torch.ones(40, 1).double(), unigram.log()[:, None], None)
    next_token = torch.arange(40) % 4
    found = visited(model, model, next_token)
    torch.testing.assert_close(found["nll_1"], -unigram.log()[next_token])


def test_a_bias_is_a_constant_coordinate_and_a_scale_belongs_to_either_side() -> None:
    (f, g, b), second, next_token = random_pair()
    assert b is not None
    expected = visited((f, g, b), second, next_token).values
    appended = (torch.column_stack([f, torch.ones(60).double()]), torch.column_stack([g, b]), None)
    for same in (appended, (3 * f, g / 3, b)):
        torch.testing.assert_close(visited(same, second, next_token).values, expected, rtol=1e-12, atol=1e-12)


def test_kept_labels_condition_on_the_rest() -> None:
    first, second, next_token = random_pair()
    kept = torch.tensor([1, 2, 5, 8])
    found, whole = visited(first, second, next_token, kept=kept), visited(first, second, next_token)
    inside = torch.isin(next_token, kept)
    for model in "12":
        difference = found[f"nll_{model}"] - whole[f"nll_{model}"] - found[f"log_mass_{model}"]
        assert float(difference[inside].abs().max()) < 1e-12
        assert bool(found[f"nll_{model}"][~inside].isnan().all())
    p, q = (logits(model).log_softmax(1) for model in (first, second))
    masses = [x[:, kept].logsumexp(1) for x in (p, q)]
    torch.testing.assert_close(found["log_mass_1"], masses[0])
    conditional = [x[:, kept] - mass[:, None] for x, mass in zip((p, q), masses, strict=True)]
    torch.testing.assert_close(found["kl_12"], kl(*conditional), rtol=1e-11, atol=1e-12)
    # The chain rule, with the labels that are left out as the third part.
    rest = [i for i in range(9) if i not in kept.tolist()]
    others = [x[:, rest] - x[:, rest].logsumexp(1, keepdim=True) for x in (p, q)]
    with_rest = kl_with_rest(found["kl_12"], *masses)
    torch.testing.assert_close(with_rest + (1 - masses[0].exp()) * kl(*others), kl(p, q), rtol=1e-11, atol=1e-12)


@needs_pairs
@pytest.mark.parametrize("name", NAMES)
def test_top_labels_and_the_rest_bound_kl(name: str) -> None:
    reference = pair(name)
    p, q = (logits(model).log_softmax(1) for model in reference[:2])
    values = [float(kl_of_top(p, q, k).mean()) for k in range(1, p.shape[1])]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(reference.results["kl"], rel=1e-12)
    for k, value in reference.results["kl_of_top_k_and_rest"].items():
        assert values[int(k) - 1] == pytest.approx(value, rel=1e-10)


def test_kl_is_half_the_variance_up_to_third_order() -> None:
    (f, g, b), (_, h, _), next_token = random_pair()
    remainders = []
    for size in (0.02, 0.01):
        found = visited((f, g, b), (f, g + size * h, b), next_token)
        remainders.append(float((found["kl_12"] - found["variance_12"] / 2).abs().max()))
    assert remainders[0] / remainders[1] == pytest.approx(8, rel=0.1)


def test_float32_is_that_of_float64_to_its_digits() -> None:
    first, second, next_token = random_pair(labels=300, dims=(16, 16))
    exact = visited(first, second, next_token)
    single = visited(*[tuple(x.float() for x in model) for model in (first, second)], next_token)
    for name in QUANTITIES:
        assert float((single[name] - exact[name]).abs().mean()) < 2e-6 * (1 + float(exact[name].abs().mean())), name
    # The same distribution in other coordinates, at a floor that is the square of the rounding.
    f, g, b = first
    a = torch.eye(16).double() + 0.1 * torch.randn(16, 16, generator=torch.manual_seed(1)).double()
    same = visited(first, (f @ a.T, g @ a.inverse() + 3, b), next_token)
    assert float(same["kl_12"].max()) < 1e-20


def test_errors_by_document() -> None:
    values = torch.randn(1, 200, generator=torch.manual_seed(0)).double()
    alone, single, by_document = DocumentSums(["x"]), DocumentSums(["x"]), DocumentSums(["x"])
    alone.add(values)
    single.add(values, torch.arange(200))
    documents = torch.arange(200) // 8
    by_document.add(values[:, :100], documents[:100])
    rest = DocumentSums(["x"])
    rest.add(values[:, 100:], documents[100:])
    by_document.merge(rest)
    naive = float(values.std(correction=0)) / 200**0.5
    assert alone.standard_error("x") == pytest.approx(naive, rel=1e-12)
    assert single.standard_error("x") == pytest.approx(naive, rel=1e-12)
    sums = torch.stack([part.sum() - len(part) * values.mean() for part in values[0].split(8)])
    assert by_document.standard_error("x") == pytest.approx(float(sums.square().sum().sqrt()) / 200, rel=1e-12)
    assert by_document.mean("x") == pytest.approx(float(values.mean()), rel=1e-12)


def test_refusals() -> None:
    first, second, next_token = random_pair()
    with pytest.raises(ValueError, match="same labels, but have 9 and 8"):
        Visit(Head(first[1]), Head(second[1][:8]))
    with pytest.raises(ValueError, match=r"next token 12 is not one of the labels 0\.\.8"):
        visited(first, second, next_token + 4)
