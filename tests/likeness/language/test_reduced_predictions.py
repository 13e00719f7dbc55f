"""Reductions of hubness and the next token: against a dense float64 computation, and a bias that was planted."""

import pytest
import torch
from torch import Tensor

from likeness.hubness.reductions import reduction
from likeness.language.reduced_predictions import (
    REDUCTIONS,
    log_mean_probability,
    reduced_predictions,
    scores_of,
    split_documents,
)


def drawn(n: int = 300, v: int = 40, m: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A bank, contexts, tokens, and next tokens drawn from the model itself."""
    generator = torch.Generator().manual_seed(1)
    bank, f, g = (torch.randn(rows, m, generator=generator, dtype=torch.float64) for rows in (n, n, v))
    return bank, f, g, (f @ g.T).softmax(1).multinomial(1, generator=generator)[:, 0]


def dense(name: str, bank: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """Scores [N, V] by definition."""
    logits, of_bank = f @ g.T, bank @ g.T
    if name.startswith("pmi"):
        return logits - float(name[4:]) * of_bank.softmax(1).mean(0).log()
    cosines = [torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(g).T for x in (f, bank)]
    return {
        "none": lambda: logits,
        "centre_g": lambda: logits,
        "centre_f": lambda: logits - of_bank.mean(0),
        "z_score": lambda: (logits - of_bank.mean(0)) / of_bank.std(0, correction=0),
        "cosine": lambda: cosines[0],
        "euclidean": lambda: -torch.cdist(f, g),
        "csls": lambda: 2 * cosines[0] - cosines[1].topk(10, dim=0).values.mean(0),
    }[name]()


@pytest.mark.parametrize("name", ["none", *REDUCTIONS])
def test_each_reduction_ranks_as_its_definition(name: str) -> None:
    bank, f, g, y = drawn()
    scores = dense(name, bank, f, g)
    baseline, *others = reduced_predictions(bank, f, g, y, reductions=[] if name == "none" else [name])
    found = others[0] if others else baseline
    ranks = 1 + (scores > scores.gather(1, y[:, None])).sum(1)
    assert found.accuracy == pytest.approx(float((ranks == 1).double().mean()))
    assert found.recall == pytest.approx(float((ranks <= 10).double().mean()))
    assert found.reciprocal_rank == pytest.approx(float((1 / ranks).mean()))
    assert (
        found.hubness.k_occurrence.tolist() == torch.bincount(scores.topk(10).indices.flatten(), minlength=40).tolist()
    )
    if found.against_none is not None:
        right, plain = ranks == 1, (f @ g.T).argmax(1) == y
        test = found.against_none
        assert (test.baseline_only, test.other_only) == (int((plain & ~right).sum()), int((right & ~plain).sum()))


def test_likelihoods_are_of_renormalised_scores() -> None:
    bank, f, g, y = drawn()
    found = reduced_predictions(bank, f, g, y, reductions=["centre_g", "pmi_0.5"])
    for answer, name in zip(found, ["none", "centre_g", "pmi_0.5"], strict=True):
        wanted = -dense(name, bank, f, g).log_softmax(1).gather(1, y[:, None]).mean()
        assert answer.nll == pytest.approx(float(wanted), rel=1e-10)
    torch.testing.assert_close(log_mean_probability(bank, g), (bank @ g.T).softmax(1).mean(0).log())


def test_a_gauge_changes_nothing_and_its_test_says_so() -> None:
    bank, f, g, y = drawn()
    plain, centred = reduced_predictions(bank, f, g, y, reductions=["centre_g"])
    assert (centred.accuracy, centred.recall) == (plain.accuracy, plain.recall)
    assert centred.hubness.k_occurrence.tolist() == plain.hubness.k_occurrence.tolist()
    assert centred.against_none is not None
    assert centred.against_none.verdict == "too few to tell"


def test_a_planted_bias_is_removed_by_the_inverted_softmax() -> None:
    bank, f, g, _ = drawn(2000)
    right = (f @ g.T).argmax(1)
    bias = torch.zeros(40, dtype=torch.float64)
    bias[:3] = 6.0  # hubs that nothing but the bias makes
    methods = ["pmi_1", reduction("inverted_softmax", beta=1.0, metric="dot")]
    plain, mutual, inverted = reduced_predictions(bank, f, g, right, bias=bias, reductions=methods)
    assert mutual.accuracy > plain.accuracy + 0.1
    assert mutual.hubness.k_skewness < plain.hubness.k_skewness
    assert mutual.against_none is not None
    assert mutual.against_none.verdict == "better"
    unbiased = reduced_predictions(bank, f, g, right, reductions=methods[1:])[1]
    assert inverted.hubness.k_occurrence.tolist() == unbiased.hubness.k_occurrence.tolist()


def test_other_reductions_by_name_are_scores_where_they_are_inner_products() -> None:
    bank, f, g, y = drawn()
    found = reduced_predictions(bank, f, g, y, reductions=["nnn"])
    assert found[1].name == "nnn"
    with pytest.raises(NotImplementedError, match="not that of an inner product"):
        scores_of("mutual_proximity", bank, f, g)
    with pytest.raises(ValueError, match="no reduction is called"):
        scores_of("absent", bank, f, g)


def test_bank_and_test_are_of_different_documents() -> None:
    documents = torch.tensor([4, 4, 9, 2, 2, 2, 9, 7])
    bank, test = split_documents(documents)
    assert sorted([*bank.tolist(), *test.tolist()]) == list(range(8))
    assert not {*documents[bank].tolist()} & {*documents[test].tolist()}
    assert torch.equal(split_documents(documents)[0], bank)
    with pytest.raises(ValueError, match="two documents"):
        split_documents(torch.zeros(5))
