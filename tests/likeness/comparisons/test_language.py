"""Two causal language models on texts by ``compare``: brute force over the library's logits, invariances, refusals."""

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from likeness import LanguageComparison, Texts, compare
from likeness.adapters.modules import ModelError
from likeness.comparisons.language_layers import logit_lens
from likeness.comparisons.language_pairs import LanguageComparisons
from likeness.language.vocabularies import shared_labels
from likeness.networks.decoder import GPT2
from likeness.networks.decoder_files import write_decoder
from tests.likeness.comparisons.toy_language_models import (
    ROWS,
    TEXTS,
    TOKENS,
    capped_network,
    documents,
    int8,
    log_probabilities,
    network,
    noisy,
    renumbered,
    rotated,
    scorer,
    tokenizer,
)

pytest.importorskip("transformers")
MEANS = ("kl_12", "kl_21", "js", "total_variation", "agreement", "nll_1", "nll_2", "entropy_1", "accuracy_2")
DRAWN = {name for name in LanguageComparison.__dataclass_fields__ if name.startswith("d_svd")} | {"max_d_svd"}


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL of log-probabilities [..., V]."""
    return (p.exp() * (p - q)).sum(-1)


def close(
    found: LanguageComparison, expected: LanguageComparison, tolerance: float, but: set[str] | None = None
) -> None:
    for name, value in expected.to_dict().items():
        if isinstance(value, float) and name not in (but or set()):
            assert getattr(found, name) == pytest.approx(value, rel=tolerance, abs=tolerance), name


def test_means_over_positions_are_those_of_the_librarys_logits() -> None:
    first, second = network(0), network(1, rows=TOKENS)  # as many tokens, and other rows beside them
    found = compare(scorer(first), scorer(second), Texts(TEXTS, batch_size=2), names=["one", "two"])
    values: dict[str, list[float]] = {name: [] for name in ("kl_12", "kl_21", "nll_1", "nll_2", "agreement", "mass_1")}
    errors, seen = [], set()
    for ids in documents(tokenizer(), TEXTS):
        p, q = (log_probabilities(model, ids[:64]) for model in (first, second))
        every = log_probabilities(first, ids[:64], ROWS)
        start = len(values["kl_12"])
        for t in range(1, min(len(ids), 65) - 1):
            if tuple(ids[: t + 1]) in seen:
                continue
            seen.add(tuple(ids[: t + 1]))
            numbers = {"kl_12": kl(p[t], q[t]), "kl_21": kl(q[t], p[t]), "nll_1": -p[t, ids[t + 1]]}
            numbers |= {"nll_2": -q[t, ids[t + 1]], "agreement": (p[t].argmax() == q[t].argmax()).double()}
            for name, number in (numbers | {"mass_1": every[t, :TOKENS].exp().sum()}).items():
                values[name].append(float(number))
        errors.append(values["kl_12"][start:])
    for name, numbers in values.items():
        assert getattr(found, name) == pytest.approx(sum(numbers) / len(numbers), rel=1e-4, abs=1e-6), name
    assert (found.positions, found.documents, found.labels) == (len(seen), len(TEXTS), TOKENS)
    between = sum((sum(part) - len(part) * found.kl_12) ** 2 for part in errors)
    assert found.errors["kl_12"] == pytest.approx(math.sqrt(between) / len(seen), rel=1e-3)
    assert found.mass_2 == 1.0
    assert (found.names, found.prefix) == (("one", "two"), "'<|endoftext|>' (separator)")


def test_of_models_with_a_soft_cap_predictions_are_compared_and_the_rest_is_named(tmp_path: Path) -> None:
    first, second = capped_network(0), capped_network(1)
    found = compare(scorer(first), scorer(second), TEXTS, names=["one", "two"])
    values: dict[str, list[float]] = {"kl_12": [], "nll_2": [], "total_variation": []}
    for ids in documents(tokenizer(), TEXTS):
        p, q = (log_probabilities(model, ids) for model in (first, second))
        for t in range(1, len(ids) - 1):
            values["kl_12"].append(float(kl(p[t], q[t])))
            values["nll_2"].append(-float(q[t, ids[t + 1]]))
            values["total_variation"].append(0.5 * float((p[t].exp() - q[t].exp()).abs().sum()))
    assert found.positions == len(values["kl_12"])
    for name, numbers in values.items():
        assert getattr(found, name) == pytest.approx(sum(numbers) / len(numbers), rel=1e-4), name
    assert 0 < found.m_cca_f < 1
    assert (found.term_1, found.d_logit, found.m_cca_g) == (None, None, None)
    assert found.undefined["term_1"] == "the logits of one are capped at 4, and are no inner products"
    said = " ".join(str(found).split())
    assert "capped at 4, and are no inner products: without d_LLV, term 1: labels, d_LLV, term 3" in said
    written = {path.relative_to(tmp_path).as_posix() for path in found.save(tmp_path)}
    pictures = {f"{folder}comparison.{kind}" for folder in ("", "figures/") for kind in ("png", "pdf")}
    assert written == {"comparison.json", "comparison.csv", "index.html", *pictures}
    last = logit_lens(scorer(first), TEXTS)[-1].row()
    assert float(last["kl"]) < 1e-9
    assert float(last["nll"]) == pytest.approx(found.nll_1, rel=1e-6)


def test_a_model_and_itself_are_alike_and_its_copies_in_order(tmp_path: Path) -> None:
    model = scorer(network())
    same = compare(model, scorer(deepcopy(model.model)), TEXTS)
    assert (same.kl_12, same.kl_21, same.js, same.total_variation, same.agreement) == (0, 0, 0, 0, 1)
    assert same.term_1 <= 1e-7
    assert same.max_d_svd <= 1e-12
    assert same.errors["kl_12"] == 0
    rounded, perturbed = (compare(model, scorer(copy(model.model)), TEXTS) for copy in (int8, lambda m: noisy(m, 0.05)))
    for name in ("kl_12", "kl_21", "js", "total_variation", "term_1", "d_svd_typical", "d_logit_weighted"):
        assert getattr(same, name) < getattr(rounded, name) < getattr(perturbed, name), name
    written = perturbed.save(tmp_path / "out")
    files = [*(f"comparison.{kind}" for kind in ("json", "csv", "png", "pdf")), "index.html"]
    files += ["figures/comparison.png", "figures/comparison.pdf"]
    assert [str(path.relative_to(tmp_path / "out")) for path in written] == files
    assert "largest d_SVD(f)" in written[4].read_text()
    assert json.loads(written[0].read_text())["kl_12"] == perturbed.kl_12
    rows = {row["quantity"]: row for row in perturbed.rows()}
    assert (rows["term_1"]["kind"], rows["max_d_svd"]["kind"], rows["kl_12"]["unit"]) == ("exact", "found", "nats")
    assert (rows["max_d_svd"]["low"], rows["max_d_svd"]["high"]) == (perturbed.max_d_svd, perturbed.certificate)
    assert "found, in [" in str(perturbed)
    assert "unrelated models" in perturbed._repr_html_()
    assert "5 texts: " in str(perturbed)  # fewer positions than were asked for


def test_a_search_cut_short_is_an_interval_in_the_table() -> None:
    found = compare(scorer(network()), scorer(network(1)), TEXTS, budget=2)
    assert found.term_1_lower < found.term_1
    (row,) = (row for row in found.rows() if row["quantity"] == "term_1")
    assert (row["kind"], row["low"], row["high"]) == ("found", found.term_1_lower, found.term_1)


def test_equivalent_models_are_at_the_floors() -> None:
    model, other = scorer(network()), scorer(noisy(network(), 0.2))
    turned = scorer(rotated(model.model))
    mixed = deepcopy(model.model)  # f A^T, g A^-1 + v
    a = torch.eye(16) + 0.2 * torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    after = nn.Linear(16, 16, bias=False)
    with torch.no_grad():
        after.weight.copy_(a)
        mixed.lm_head.weight.copy_(mixed.lm_head.weight @ a.inverse() + torch.linspace(-1, 1, 16))
    mixed.model.norm = nn.Sequential(mixed.model.norm, after)
    expected = compare(model, other, TEXTS)
    for same in (turned, scorer(mixed)):
        found = compare(model, same, TEXTS)
        assert max(found.kl_12, found.kl_21, found.js) < 1e-8
        assert found.term_1 < 2e-3
        assert found.max_d_svd < 1e-5
        assert found.m_cca_f == pytest.approx(1, abs=1e-5)
        close(compare(same, other, TEXTS), expected, 5e-3, DRAWN | {"d_rep_12", "linear_cka_f", "m_cca_g"})


def test_rows_without_a_token_are_conditioned_on() -> None:
    first, second = network(0), network(1)
    kept, every = (compare(scorer(first, rows=r), scorer(second, rows=r), TEXTS) for r in ("tokens", "all"))
    assert (kept.labels, every.labels) == (TOKENS, ROWS)
    for model in "12":
        whole = getattr(every, f"nll_{model}") + getattr(kept, f"log_mass_{model}")
        assert getattr(kept, f"nll_{model}") == pytest.approx(whole, abs=1e-5)
        assert getattr(kept, f"mass_{model}") < 1 == getattr(every, f"mass_{model}")
    assert kept.kl_12_with_rest < every.kl_12


def test_another_numbering_of_the_tokens_changes_nothing() -> None:
    first, second = network(0), network(1)
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0))
    expected = compare(scorer(first), scorer(second), TEXTS)
    found = compare(*(scorer(*renumbered(model, order)) for model in (first, second)), TEXTS)
    close(found, expected, 1e-5, DRAWN)
    assert (order[found.pivot], order[found.left_out]) == (expected.pivot, expected.left_out)
    assert {*found.tokens.values()} == {*expected.tokens.values()} != set()


def test_batches_windows_and_the_order_of_texts_change_no_number() -> None:
    first, second = scorer(network(0)), scorer(network(1))
    expected = compare(first, second, Texts(TEXTS, batch_size=5))
    for other in (Texts(TEXTS, batch_size=1), Texts(TEXTS[::-1], batch_size=2)):
        close(compare(first, second, other), expected, 2e-5, {"term_2", "term_4"})
    few = compare(first, second, Texts(TEXTS, positions=7, length=16))
    assert few.positions == 7


def test_errors_of_documents_with_one_position_are_the_naive_ones() -> None:
    first, second = network(0), network(1)
    own = tokenizer()
    texts = [own.decode([i, j]) for i, j in ((260, 261), (262, 280), (281, 282), (270, 271), (285, 266))]
    ids = [ids for ids in documents(own, texts) if len(ids) == 3]
    texts = [own.decode(one[1:]) for one in ids]
    assert len(texts) >= 3
    found = compare(scorer(first), scorer(second), texts)
    values = torch.stack([kl(*(log_probabilities(model, one)[1] for model in (first, second))) for one in ids])
    assert found.positions == len(texts) == found.documents
    assert found.errors["kl_12"] == pytest.approx(float(values.std(correction=0)) / len(ids) ** 0.5, rel=1e-3)


def shared_by_brute_force(models: tuple[nn.Module, nn.Module]) -> dict[str, float]:
    """KL among the tokens that both have where both have read the same text, and the bits per byte of each model."""
    own = (tokenizer(), tokenizer("other"))
    texts_of = [{one: bytes_ for one, bytes_ in t.tokens.items() if one != t.separator} for t in own]
    ids_of = {bytes_: one for one, bytes_ in texts_of[1].items()}
    pairs = [(one, ids_of[bytes_]) for one, bytes_ in texts_of[0].items() if bytes_ in ids_of]
    kept = [torch.tensor([pair[model] for pair in pairs]) for model in (0, 1)]
    values, bits, size, seen = [], [0.0, 0.0], 0, set()
    for text, *ids in zip(TEXTS, documents(own[0], TEXTS), documents(own[1], TEXTS), strict=True):
        log_p = [log_probabilities(model, one, TOKENS) for model, one in zip(models, ids, strict=True)]
        for model, (p, one) in enumerate(zip(log_p, ids, strict=True)):
            bits[model] -= sum(float(p[t, one[t + 1]]) for t in range(len(one) - 1)) / math.log(2)
        size += len(text.encode())
        for i in range(2, len(ids[0])):
            for j in range(2, len(ids[1])):
                before = own[0].decode(ids[0][1:i])
                if before == own[1].decode(ids[1][1:j]) and before not in seen:
                    seen.add(before)
                    p, q = (x[t - 1][labels].log_softmax(-1) for x, t, labels in zip(log_p, (i, j), kept, strict=True))
                    values.append(float(kl(p, q)))
    found = {"kl_12": sum(values) / len(values), "positions": len(values), "labels": len(pairs)}
    return found | {f"bits_per_byte_{i + 1}": bits[i] / size for i in (0, 1)}


def test_two_tokenizers_are_compared_by_the_tokens_that_both_have() -> None:
    models = network(0, rows=TOKENS), network(1, rows=TOKENS)
    scorers = scorer(models[0]), scorer(models[1], tokenizer("other"))
    with pytest.raises(ValueError, match=r"differ: \d+ of 290 and 290 ids .* shared_tokens compares them"):
        compare(*scorers, TEXTS)
    found = compare(*scorers, Texts(TEXTS, shared_tokens=True))
    for name, value in shared_by_brute_force(models).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-4), name
    assert 0 < found.mass_1 < 1
    assert found.kl_12_with_rest > 0
    assert "token events differ" in str(found)
    assert found.tokens[found.pivot] == scorers[0].shown(found.pivot)
    with pytest.raises(ValueError, match="no boundary in common"):
        compare(*scorers, Texts(["q"], shared_tokens=True))


def test_a_tokenizer_shares_all_tokens_with_itself() -> None:
    model = scorer(network())
    vocabulary = model.vocabulary
    assert vocabulary is not None
    assert len(shared_labels(vocabulary, vocabulary)) == TOKENS - 1  # without the separator
    first, second = model, scorer(network(1))
    expected, found = (compare(first, second, Texts(TEXTS, shared_tokens=shared)) for shared in (False, True))
    assert found.positions == expected.positions
    assert found.nll_1 - found.log_mass_1 == pytest.approx(expected.nll_1 - expected.log_mass_1, abs=1e-5)


def test_a_decoder_of_this_project_is_its_exported_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    decoder = GPT2(TOKENS, 64, width=16, depth=1, heads=2, gelu="gelu_tanh").eval()
    write_decoder(decoder, tmp_path / "gpt2")
    for name, content in tokenizer().files().items():
        (tmp_path / "gpt2" / name).write_text(content)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    found = compare(scorer(decoder), str(tmp_path / "gpt2"), tmp_path / "texts.txt", names=["own", "theirs"])
    assert found.kl_12 < 1e-10
    assert found.ranks == (15, 15)
    assert (found.data, found.names) == ("texts.txt", ("own", "theirs"))


def refusal(first: object, second: object, texts: object = tuple(TEXTS)) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (what it says is looked at)
        compare(first, second, texts)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_compared_is_named_in_one_line(tmp_path: Path) -> None:
    model = scorer(network())
    assert "no tokenizer, so that it takes no texts" in refusal(model, network())
    assert "texts are what causal language models are compared on" in refusal(model, nn.Linear(3, 2))
    assert "there is no model" in refusal("absent/model", model) or "cannot be read" in refusal("absent/model", model)
    assert "and LlamaForCausalLM (2) 290: rows='tokens'" in refusal(scorer(network(), rows="all"), scorer(network()))
    assert "text 1 of 2 is empty" in refusal(model, model, ["a text", ""])
    assert "no position" in refusal(model, model, ["a"])
    assert "rows must be one of" in refusal_of_texts(rows="some")
    assert "positions must be" in refusal_of_texts(positions=0)
    assert "none.txt" in refusal(model, model, "none.txt")
    options: dict[str, Any] = {"measures": ["kl"], "head": False, "pooling": "last"}
    options |= {"batch_size": 2, "max_stored": 9, "permutations": 1}
    for name, value in options.items():
        with pytest.raises(ValueError, match=f"^{name} cannot be given here: language models on texts"):
            compare(model, model, Texts(TEXTS), **{name: value})
    unmasked = network()
    for layer in unmasked.model.layers:
        layer.self_attn.is_causal = False
    assert "sees the future" in refusal(model, unmasked)
    with pytest.raises(ModelError, match="two language models or more are compared on texts, got 1"):
        compare([model], TEXTS)


def refusal_of_texts(**options: object) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Texts(TEXTS, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_values_that_are_not_finite_are_named() -> None:
    model, broken = scorer(network()), scorer(network())
    with torch.no_grad():
        broken.model.lm_head.weight[7] = torch.nan
    assert "the output embedding of model 'LlamaForCausalLM (2)' is not finite at token 7" in refusal(model, broken)
    overflowing = scorer(network().half())
    with torch.no_grad():
        overflowing.model.model.norm.weight.fill_(6e4)
    assert "f is not finite at token" in refusal(model, overflowing)


def test_tokenizers_that_split_otherwise_are_told_of() -> None:
    content = json.loads(tokenizer().content)
    content["model"]["merges"] = content["model"]["merges"][:3]
    other = type(tokenizer())(json.dumps(content))
    found = compare(scorer(network(0)), scorer(network(1), other), TEXTS)
    assert any("split 5 of 5 texts in other ways" in note for note in found.notes)


def test_all_pairs_of_three_models_are_what_each_pair_is_alone(tmp_path: Path) -> None:
    models = [scorer(network(0)), scorer(network(1, rows=TOKENS)), scorer(capped_network())]
    passes = [0, 0, 0]
    for number, model in enumerate(models):
        model.model.register_forward_hook(lambda *_, number=number: passes.__setitem__(number, passes[number] + 1))
        model.model.get_decoder().register_forward_hook(
            lambda *_, number=number: passes.__setitem__(number, passes[number] + 1)
        )
    texts = Texts(TEXTS, batch_size=2)
    found = compare(models, texts, names=["a", "b", "c"])
    assert passes == [3, 3, 3]  # five texts, two at a time
    assert isinstance(found, LanguageComparisons)
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    for (i, j), pair in found.items():
        alone = compare(models[i], models[j], texts)
        assert pair.names == ("abc"[i], "abc"[j])
        close(pair, alone, 1e-9)
        assert pair.undefined.keys() == alone.undefined.keys()
    assert found["a", "c"] is found[0, 2]
    with pytest.raises(KeyError, match=r"\('a', 'c'\)"):
        found["c", "a"]
    assert [row["model"] for row in found.model_rows()] == ["a", "b", "c"]
    assert found.model_rows()[2]["nll"] == found[1, 2].nll_2
    row = found.rows()[2]
    assert (row["model_1"], row["model_2"], row["kl_12"]) == ("b", "c", found[1, 2].kl_12)
    assert (row["kl_12_error"], row["term_1"]) == (found[1, 2].errors["kl_12"], None)
    assert "without some numbers: the logits of c are capped" in " ".join(str(found).split())
    written = {str(path.relative_to(tmp_path)) for path in found.save(tmp_path)}
    assert {
        "models.csv",
        "comparison.csv",
        "comparison.json",
        "0-1/comparison.csv",
        "1-2/comparison.png",
        "index.html",
    } <= written
    with pytest.raises(ModelError, match=r"shared_tokens is for two language models, got 3: a, b, c"):
        compare(models, Texts(TEXTS, shared_tokens=True), names=["a", "b", "c"])


def test_the_bar_knows_how_many_windows_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = []

    def tracked(steps: list[object], description: str, *, total: int, shown: bool | None) -> list[object]:
        steps = list(steps)
        totals.append((total, len(steps)))
        return steps

    monkeypatch.setattr("likeness.comparisons.language.tracked", tracked)
    for texts in (Texts(TEXTS, batch_size=2), Texts(TEXTS, batch_size=1, length=16, positions=20)):
        compare(scorer(network(0)), scorer(network(1)), texts)
    compare(scorer(network(0)), scorer(network(1), tokenizer("other")), Texts(TEXTS, shared_tokens=True))
    assert all(total == steps > 0 for total, steps in totals)
