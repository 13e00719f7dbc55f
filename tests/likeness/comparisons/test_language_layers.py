"""Layers of causal language models and the logit lens, against the hidden states that the library answers."""

import pytest
import torch
from torch import Tensor, nn

from likeness import Texts, compare, compare_layers
from likeness.comparisons.language_layers import logit_lens
from likeness.networks.decoder import GPT2
from likeness.similarity.representations.cka import linear_cka
from tests.likeness.comparisons.toy_language_models import (
    TEXTS,
    TOKENS,
    documents,
    network,
    noisy,
    rotated,
    scorer,
    tokenizer,
)

pytest.importorskip("transformers")
BLOCKS = ["embed_tokens", "layers.0", "layers.1"]


def states_of(model: nn.Module) -> tuple[list[Tensor], list[int]]:
    """h_0, ..., h_L and f at the positions behind the first token of each text, [n, M], and the next tokens."""
    rows: list[list[Tensor]] = []
    following: list[int] = []
    for ids in documents(tokenizer(), TEXTS):
        kept: dict[str, Tensor] = {}
        hook = model.model.norm.register_forward_pre_hook(lambda _, x, kept=kept: kept.update(last=x[0]))
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        hook.remove()
        rows.append([h[0, 1:-1] for h in (*hidden[:-1], kept["last"], hidden[-1])])
        following += ids[2:]
    return [torch.cat(layer) for layer in zip(*rows, strict=True)], following


def test_layers_are_compared_at_the_positions_behind_the_first() -> None:
    first, second = network(0), noisy(network(0), 0.3)
    found = compare_layers(scorer(first), scorer(second), TEXTS, measures=["linear_cka"], permutations=19)
    assert found.layers_a == [*BLOCKS, "norm"]
    states = [states_of(model)[0] for model in (first, second)]
    for i, a in enumerate(states[0]):
        for j, b in enumerate(states[1]):
            assert float(found["linear_cka"][i, j]) == pytest.approx(float(linear_cka(a, b)), abs=1e-5)
    assert (found.samples, found.pooling) == (len(states[0][0]), "per position")
    assert bool(found.nulls["linear_cka"].significant[1, 1])
    itself = compare_layers(scorer(first), None, Texts(TEXTS, batch_size=2), estimator="minibatch")
    torch.testing.assert_close(itself["unbiased_linear_cka"].diagonal(), torch.ones(4, dtype=torch.float64))
    few = compare_layers(scorer(first), scorer(second), TEXTS, layers="layers.*.mlp", max_stored=20)
    assert (few.layers_a, few.kept) == (["layers.0.mlp", "layers.1.mlp"], 20)


def test_a_rotated_residual_stream_is_the_same_to_measures_that_do_not_see_rotations() -> None:
    found = compare_layers(scorer(network()), scorer(rotated(network())), TEXTS, layers=BLOCKS, measures=["linear_cka"])
    torch.testing.assert_close(found["linear_cka"].diagonal(), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(found["linear_cka"], found["linear_cka"].T, rtol=0, atol=1e-5)


def test_the_lens_norms_each_state_by_its_own_statistics() -> None:
    model = network()
    lens = logit_lens(scorer(model), TEXTS)
    states, following = states_of(model)
    with torch.no_grad():
        f = [*(model.model.norm(h) for h in states[:-2]), states[-1]]
        log_p = [(h.double() @ model.lm_head.weight[:TOKENS].double().T).log_softmax(-1) for h in f]
    last = log_p[-1]
    for number, (layer, own) in enumerate(zip(lens, log_p, strict=True)):
        assert layer.blocks == number
        assert layer.nll == pytest.approx(-float(own[torch.arange(len(own)), following].mean()), rel=1e-5)
        assert layer.kl == pytest.approx(float((last.exp() * (last - own)).sum(1).mean()), rel=1e-4, abs=1e-12)
        assert layer.entropy == pytest.approx(-float((own.exp() * own).sum(1).mean()), rel=1e-5)
        assert layer.agreement == pytest.approx(float((own.argmax(1) == last.argmax(1)).double().mean()))
    found = compare(scorer(model), scorer(network(1)), TEXTS)
    assert (lens[-1].kl, lens[-1].agreement) == (0, 1)
    assert (lens[-1].nll, lens[-1].errors["nll"]) == pytest.approx((found.nll_1, found.errors["nll_1"]), rel=1e-6)


def test_blocks_that_add_nothing_leave_all_lenses_equal() -> None:
    torch.manual_seed(0)
    decoder = GPT2(TOKENS, 64, width=16, depth=3, heads=2)
    for name, weight in decoder.named_parameters():
        if ".out." in name:
            nn.init.zeros_(weight)
    lens = logit_lens(scorer(decoder), TEXTS)
    assert [layer.kl for layer in lens] == pytest.approx([0.0] * 4, abs=1e-10)
    assert {round(layer.nll, 6) for layer in lens} == {round(lens[0].nll, 6)}


def test_what_has_no_layers_to_compare_is_refused() -> None:
    model, other = scorer(network()), scorer(network(), tokenizer("other"))
    with pytest.raises(ValueError, match="the tokenizers of "):
        compare_layers(model, other, TEXTS)
    with pytest.raises(ValueError, match="texts are a list of texts"):
        logit_lens(model, 7)
    with pytest.raises(ValueError, match="texts are what causal language models"):
        compare_layers(nn.Linear(2, 2), None, TEXTS)
