"""Decoders against nanoGPT's own code, and what must hold of any."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from likeness.networks import GPT2, Decoder, Llama
from likeness.networks.decoder_blocks import Architecture, rotary_table, rotate
from likeness.seeding import mix, seeded
from tests.likeness.networks.nanogpt import NAMES, answers, needs_nanogpt, network, parameters

V, T = 23, 12
SMALL = {"width": 16, "depth": 2, "heads": 4}
KINDS = [partial(GPT2, **SMALL), partial(Llama, **SMALL), partial(Llama, **SMALL, kv_heads=2)]


def drawn(kind: Any, seed: int = 0, spread: float = 8.0, **options: Any) -> Decoder:
    """A decoder whose weights are large enough for everything in it to be felt, in float64."""
    with seeded(seed):
        decoder = kind(V, T, **options).double().eval()
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            parameter.data *= spread
    return decoder


def contexts(rows: int = 3, length: int = T, seed: int = 0) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


@needs_nanogpt
@pytest.mark.parametrize("name", NAMES)
def test_hidden_states_logits_and_loss_are_those_of_nanogpt(name: str) -> None:
    meta, arrays = answers(name)
    decoder = network(name)
    states = torch.stack(decoder.layers(arrays["tokens"]))
    torch.testing.assert_close(states.float(), arrays["hidden"], rtol=0, atol=1e-5)
    assert torch.equal(states[-1], decoder(arrays["tokens"]))
    logits = states[-1] @ decoder.label_vectors().mT
    torch.testing.assert_close(logits.float(), arrays["logits"], rtol=0, atol=1e-5)
    assert decoder.loss(arrays["tokens"], arrays["targets"]).item() == pytest.approx(meta["loss"], abs=1e-9)
    assert sum(p.numel() for p in decoder.parameters()) == meta["params"]


@needs_nanogpt
@pytest.mark.parametrize("name", NAMES)
def test_gradients_and_a_step_of_adamw_are_those_of_nanogpt(name: str) -> None:
    meta, arrays = answers(name)
    decoder = network(name)
    decoder.loss(arrays["tokens"], arrays["targets"]).backward()
    own, gradients = dict(decoder.named_parameters()), parameters(name, "grad")
    assert own.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(own[key].grad.float(), gradient, rtol=1e-5, atol=1e-6, msg=key)
    norm = nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
    assert float(norm) == pytest.approx(meta["grad_norm"], rel=1e-6)
    groups = [{"params": [p for p in own.values() if (p.ndim > 1) == wide]} for wide in (True, False)]
    groups[1]["weight_decay"] = 0.0
    torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1).step()
    for key, after in parameters(name, "after").items():
        torch.testing.assert_close(own[key].detach().float(), after, rtol=0, atol=1e-5, msg=key)
    assert decoder.loss(arrays["tokens"], arrays["targets"]).item() == pytest.approx(meta["loss_after"], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_later_is_seen(kind: Any) -> None:
    decoder, ids = drawn(kind), contexts()
    changed = ids.clone()
    changed[:, 7] = (changed[:, 7] + 1) % V
    f, g = decoder(ids), decoder(changed)
    assert torch.equal(f[:, :7], g[:, :7])
    assert torch.all((f[:, 7:] - g[:, 7:]).norm(dim=-1) > 1e-3)
    torch.testing.assert_close(decoder(ids[:, :5]), f[:, :5], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_documents_that_are_kept_apart_are_those_documents_alone(kind: Any) -> None:
    apart = drawn(kind, separator=0)
    ids = contexts()[:1].clamp(min=1)
    ids[0, [4, 9]] = 0
    alone = torch.cat([apart(part) for part in ids.split([4, 5, 3], dim=1)], dim=1)
    torch.testing.assert_close(apart(ids), alone, rtol=1e-11, atol=1e-12)
    together = drawn(kind)(ids)
    torch.testing.assert_close(together[:, :4], alone[:, :4], rtol=1e-11, atol=1e-12)
    assert (together - alone)[:, 4:].abs().max().item() > 1e-3
    assert apart.document_positions(ids).tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2]]


def test_rotary_products_depend_on_the_distance_alone() -> None:
    random = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=random, dtype=torch.float64)
    table = rotary_table(torch.arange(40), 8, 100.0, torch.float64)
    turned = [rotate(x.expand(1, 1, 40, 8), table) for x in (q, k)]
    products = (turned[0] @ turned[1].mT)[0, 0]
    for distance in (0, 3, 11):
        of_distance = products.diagonal(-distance)
        torch.testing.assert_close(of_distance, of_distance[:1].expand_as(of_distance), rtol=1e-11, atol=1e-12)
    # coordinates j and j + d/2 turn together, by t base^(-2j/d)
    angle = torch.tensor(5 * 100.0 ** (-2 / 8), dtype=torch.float64)
    expected = q[0, 0, 0, 1] * angle.cos() - q[0, 0, 0, 5] * angle.sin()
    torch.testing.assert_close(turned[0][0, 0, 5, 1], expected, rtol=1e-12, atol=0)


def test_shared_keys_and_values_are_repeated_ones() -> None:
    few, many = drawn(KINDS[2]), drawn(KINDS[1])
    many.load_state_dict(
        few.state_dict()
        | {f"blocks.{i}.attention.qkv.weight": repeated(few.blocks[i].attention.qkv.weight) for i in range(2)}
    )
    torch.testing.assert_close(many(contexts()), few(contexts()), rtol=1e-12, atol=1e-12)


def repeated(weight: torch.Tensor) -> torch.Tensor:
    """Two key and two value heads of size 4, each twice."""
    q, k, v = weight.detach().split([16, 8, 8])
    return torch.cat([q, *(part.unflatten(0, (2, 4)).repeat_interleave(2, 0).flatten(0, 1) for part in (k, v))])


@pytest.mark.parametrize("kind", [GPT2, Llama])
def test_first_weights_have_the_spread_of_the_papers_and_are_a_function_of_the_seed(kind: Any) -> None:
    with seeded(mix(3)):
        decoder = kind(500, 64, width=64, depth=8, heads=4)
    residual = 0.02 / math.sqrt(16)
    for name, parameter in decoder.named_parameters():
        if parameter.ndim == 1:
            assert torch.all(parameter == (0 if name.endswith("bias") else 1)), name
        else:
            std = residual if name.endswith(".out.weight") else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * parameter.numel())), name
    torch.rand(3)
    with seeded(mix(3)):
        again = kind(500, 64, width=64, depth=8, heads=4)
    assert all(torch.equal(a, b) for a, b in zip(decoder.parameters(), again.parameters(), strict=True))


def test_the_presets_are_those_of_the_papers() -> None:
    gpt2, llama = GPT2(V, T), Llama(V, T, width=100, heads=5)
    assert [gpt2.unembedding, gpt2.architecture.hidden] == [None, 512]
    assert isinstance(llama.norm, nn.RMSNorm)
    assert llama.positions is None
    assert llama.architecture.hidden == 272  # 8/3 of 100, rounded up to a multiple of 8
    assert not [name for name, _ in llama.named_parameters() if "bias" in name]


def test_a_bias_of_labels_is_part_of_the_loss() -> None:
    decoder = drawn(KINDS[0], head_bias=True)
    nn.init.normal_(decoder.head_bias, generator=torch.Generator().manual_seed(0))
    ids = contexts(4, 6)
    logits = decoder(ids) @ decoder.label_vectors().mT + decoder.head_bias
    expected = F.cross_entropy(logits.flatten(0, 1), ids.flatten())
    torch.testing.assert_close(decoder.loss(ids, ids), expected, rtol=1e-12, atol=0)


def test_dropout_acts_in_training_alone() -> None:
    decoder, ids = drawn(KINDS[0], dropout=0.5), contexts()
    assert torch.equal(decoder(ids), decoder(ids))
    decoder.train()
    assert not torch.equal(decoder(ids), decoder(ids))


@pytest.mark.parametrize("kind", KINDS)
def test_few_digits_change_little(kind: Any) -> None:
    decoder, ids = drawn(kind, spread=2.0).float(), contexts()
    f = decoder(ids)
    low = decoder.bfloat16()(ids)
    assert low.dtype == torch.bfloat16
    assert ((low - f).norm() / f.norm()).item() < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10}, "width must be a multiple of the 4 heads, got 10"),
        ({"kv_heads": 3}, "heads must be a multiple of the 3 kv_heads, got 4"),
        ({"heads": 16}, "heads of an even size, got 1"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"separator": V}, "separator must lie in 0..22, got 23"),
    ],
)
def test_sizes_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Llama(V, T, **{**SMALL, **options})


def test_a_choice_that_is_none() -> None:
    with pytest.raises(ValueError, match="norm must be one of layer, rms, but it is 'batch'"):
        Decoder(Architecture(V, T, 16, 1, 2, 2, 8, "batch", "learned", "gelu", True, True))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.full((1, 2), V), "label 23 lies outside 0..22"),
        (torch.zeros(1, T + 1, dtype=torch.long), r"shape \[1, 13\], the network takes \[B, T\] with T in 1..12"),
        (torch.zeros(4, dtype=torch.long), r"shape \[4\], the network takes \[B, T\]"),
    ],
)
def test_contexts_that_cannot_be(ids: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPT2(V, T, **SMALL)(ids)
