"""Causal language models of transformers as softmax models over contexts, against what the library itself answers."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from likeness.adapters.causal_models import read_causal
from likeness.adapters.causal_scorers import CausalModel, TokenScorer
from likeness.adapters.modules import EmbedderModel, ModelError
from likeness.language.token_batches import PADDING, TokenBatch
from likeness.protocols import SoftmaxModel
from tests.language_reference import LANGUAGE, NAMES, arrays, needs_models

transformers = pytest.importorskip("transformers")
pytestmark = needs_models

FACTS = {  # bias, scale, soft cap, tied, rows, tokens, norm
    "llama_untied_padded_sharded": (False, 1.0, None, False, 320, 290, "LlamaRMSNorm"),
    "gpt2_tied": (False, 1.0, None, True, 280, 280, "LayerNorm"),
    "gemma2_softcap": (False, 1.0, 4.0, True, 285, 285, "Gemma2RMSNorm"),
    "granite_scaled": (False, 1 / 3, None, True, 280, 280, "GraniteRMSNorm"),
    "phi_bias": (True, 1.0, None, False, 280, 280, "LayerNorm"),
    "gptj_bias": (True, 1.0, None, False, 280, 280, "LayerNorm"),
}
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@cache
def model(name: str, rows: Any = "all") -> TokenScorer:
    return read_causal(f"hf:{LANGUAGE / f'hf_{name}'}", rows=rows)


@cache
def padded(name: str) -> tuple[TokenBatch, dict[str, Tensor]]:
    """The texts of a folder as a batch, and what the library answers of them."""
    expected, _ = arrays(f"hf_{name}/expected.npz")
    ids, mask = expected["input_ids"], expected["mask"].bool()
    x = ids.where(mask, PADDING)
    y = torch.cat([x[:, 1:], torch.full_like(x[:, :1], PADDING)], dim=1)
    return TokenBatch(x, y, torch.arange(len(x)), torch.zeros(len(x), dtype=torch.long)), expected


def causal(**options: Any) -> Any:
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": 50, "num_key_value_heads": 2, "max_position_embeddings": 32} | options
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()


@pytest.mark.parametrize("name", NAMES)
def test_the_facts_of_every_head_are_found_by_numbers(name: str) -> None:
    facts = model(name).facts
    bias, scale, cap, tied, rows, tokens, norm = FACTS[name]
    assert (facts.bias, facts.tied, facts.rows, facts.tokens, facts.norm) == (bias, tied, rows, tokens, norm)
    assert facts.scale == pytest.approx(scale, rel=1e-5)
    assert facts.soft_cap == (None if cap is None else pytest.approx(cap, rel=1e-5))


@pytest.mark.parametrize("name", NAMES)
def test_f_logits_and_likelihoods_are_the_librarys(name: str) -> None:
    batch, expected = padded(name)
    own, real, counted = model(name), batch.x != PADDING, batch.y != PADDING
    f = own.embed(batch.x)
    hidden = own.facts.scale * expected["last_hidden"][real]
    torch.testing.assert_close(f[:, : hidden.shape[1]], hidden, rtol=1e-4, atol=1e-5)
    logits = expected["logits"][real]
    torch.testing.assert_close(own.logits(f), logits, rtol=1e-4, atol=1e-4)
    positions = own.predictions(batch)
    nll = -own.next_log_probabilities(positions).double()
    torch.testing.assert_close(nll, expected["nll"][counted[:, :-1]], rtol=1e-4, atol=2e-5)
    assert torch.equal(positions.next, batch.y[counted])


@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_sum_to_the_loss_of_the_library_times_its_count(name: str) -> None:
    batch, _ = padded(name)
    own, ids = model(name), batch.x.clamp(min=0)
    with torch.no_grad():
        loss = own.model(ids, attention_mask=(batch.x != PADDING).long(), labels=batch.x.where(batch.x >= 0, -100)).loss
    log_p = own.next_log_probabilities(own.predictions(batch))
    assert -float(log_p.double().mean()) == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_padding_batches_and_order_change_no_likelihood(name: str) -> None:
    batch, _ = padded(name)
    own = model(name)
    together = own.next_log_probabilities(own.predictions(batch))
    singly = []
    for i in reversed(range(len(batch.x))):
        length = int((batch.x[i] != PADDING).sum())
        row = TokenBatch(*(part[i : i + 1] for part in batch))
        row = row._replace(x=row.x[:, :length], y=row.y[:, :length])
        singly.insert(0, own.next_log_probabilities(own.predictions(row)))
    torch.testing.assert_close(together, torch.cat(singly), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gemma2_softcap"])
def test_label_vectors_give_the_logits(name: str) -> None:
    own = model(name)
    assert isinstance(own, CausalModel)
    assert isinstance(own, SoftmaxModel)
    f = own.embed(padded(name)[0].x)
    torch.testing.assert_close(f @ own.unembeddings().T, own.logits(f))
    assert EmbedderModel(own, name).unembeddings() is not None


def test_a_soft_cap_has_likelihoods_but_no_label_vectors() -> None:
    capped = model("gemma2_softcap")
    assert not isinstance(capped, SoftmaxModel)
    assert float(capped.logits(capped.embed(padded("gemma2_softcap")[0].x)).abs().max()) <= 4
    adapted = EmbedderModel(capped, "gemma")
    assert adapted.unembeddings() is None
    assert "capped at 4" in adapted.why_no_head


def test_rows_without_a_token_are_left_out_and_their_mass_is_told() -> None:
    kept, every = model("llama_untied_padded_sharded", "tokens"), model("llama_untied_padded_sharded")
    positions = kept.predictions(padded("llama_untied_padded_sharded")[0])
    assert (kept.kept, every.kept) == (290, 320)
    mass = kept.log_mass(positions.f)
    assert float(mass.max()) < 0
    nll, nll_kept = -every.next_log_probabilities(positions), -kept.next_log_probabilities(positions)
    torch.testing.assert_close(nll_kept, nll + mass, rtol=0, atol=1e-5)
    torch.testing.assert_close(every.log_mass(positions.f), torch.zeros_like(mass))


def test_texts_get_the_prefix_that_is_asked_for_and_no_other() -> None:
    llama = model("llama_untied_padded_sharded")
    plain = llama.tokenizer("<bos>", add_special_tokens=False)["input_ids"]
    for prefix, first in [("none", None), ("bos", 2), ("separator", 1), (7, 7)]:
        (batch,) = llama.batches(["Raise ValueError if the file does not exist."], prefix=prefix)
        rest = batch.x[0].tolist() if first is None else batch.x[0, 1:].tolist()
        assert (prefix, batch.x[0, 0].item() if first is not None else None) == (prefix, first)
        assert 2 not in rest
    (batch,) = llama.batches(["<bos> a"], prefix="bos")
    assert batch.x[0, :2].tolist() == [2, *plain[:1]]


def test_windows_at_a_stride_score_each_token_once() -> None:
    gpt2 = model("gpt2_tied")
    texts = ["Return the number of items in the list. " * 3, "Raise ValueError."]
    documents = [gpt2.tokenizer(text)["input_ids"] for text in texts]
    for length, stride in [(16, 16), (16, 5), (48, None)]:
        seen: dict[tuple[int, int], int] = {}
        for batch in gpt2.batches(texts, prefix="none", length=length, stride=stride, batch_size=3):
            positions = gpt2.predictions(batch)
            places = zip(positions.document.tolist(), positions.t.tolist(), strict=True)
            for (document, t), y in zip(places, positions.next.tolist(), strict=True):
                assert (document, t) not in seen
                seen[document, t] = y
        assert seen == {(d, t): y for d, tokens in enumerate(documents) for t, y in enumerate(tokens[1:])}


def test_positions_are_chosen_once_for_each_prefix() -> None:
    llama = model("llama_untied_padded_sharded", "tokens")
    texts = ["Return the list.", "Return the text.", "Return the list."]
    every = llama.positions(texts, 1000)
    documents = [[1, *llama.tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
    places = zip(every.document.tolist(), every.t.tolist(), every.next.tolist(), strict=True)
    prefixes = {tuple(documents[d][: t + 1]) for d, t, y in places if documents[d][t + 1] == y}
    wanted = {tuple(tokens[:t]) for tokens in documents for t in range(2, len(tokens))}
    assert len(every.t) == len(prefixes)
    assert prefixes == wanted
    few = llama.positions(texts, 5)
    assert torch.equal(few.f, every.f[:5])
    assert torch.equal(llama.positions(texts, 5, batch_size=1).document, few.document)
    first = {llama.positions(texts, 1, seed=seed).document.item() for seed in range(8)}
    assert first == {0, 1, 2}
    with pytest.raises(ValueError, match="text 1 of 2 is empty"):
        llama.positions(["a", ""], 5)
    with pytest.raises(ModelError, match="no texts"):
        llama.positions([], 5)


def test_half_precision_is_multiplied_in_float32() -> None:
    network = causal()
    exact, half = read_causal(network), read_causal(causal().bfloat16())
    x = torch.arange(20).reshape(2, 10)
    assert half.embed(x).dtype == torch.float32
    torch.testing.assert_close(half.logits(half.embed(x)), exact.logits(exact.embed(x)), rtol=0.05, atol=0.05)


def test_equal_rows_of_the_head_are_named() -> None:
    network = causal()
    with torch.no_grad():
        network.lm_head.weight[[9, 30]] = network.lm_head.weight[4].clone()
        network.lm_head.weight[11] = network.lm_head.weight[7]
    assert read_causal(network).facts.duplicates == ((4, 9, 30), (7, 11))


def test_probing_leaves_no_trace() -> None:
    network = causal(attention_dropout=0.5).train()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    own = read_causal(network)
    x = torch.arange(12).reshape(1, 12)
    assert torch.equal(own.embed(x), own.embed(x))
    assert network.training
    assert torch.equal(torch.random.get_rng_state(), before)


def copied(tmp_path: Path, name: str = "llama_untied_padded_sharded") -> Path:
    folder = tmp_path / name
    shutil.copytree(LANGUAGE / f"hf_{name}", folder, ignore=shutil.ignore_patterns("expected.npz"))
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


def refusal(model: Any, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        read_causal(model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_encoder_sees_the_future(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=32, **SIZES)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    assert "sees the future" in refusal(tmp_path / "bert")
    unmasked = causal()
    for layer in unmasked.model.layers:
        layer.self_attn.is_causal = False
    assert "sees the future" in refusal(unmasked)


def test_a_folder_of_a_base_model_has_no_head(tmp_path: Path) -> None:
    causal().model.save_pretrained(tmp_path / "base")
    assert "lacks 1 weights of a LlamaForCausalLM, first lm_head.weight" in refusal(tmp_path / "base")


def test_half_read_shards_are_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    shard = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:1000])
    assert "cannot be read as a causal language model" in refusal(folder)
    shard.unlink()
    assert "model-00002-of-00003" in refusal(folder)


def test_other_heads_are_refused_with_their_residuals() -> None:
    network = causal()
    head = network.lm_head.forward
    network.lm_head.forward = lambda x: head(x) ** 3
    assert "is no softmax of f(x) . g(y): its logits differ" in refusal(network)
    network.lm_head.forward = lambda x: head(x)[..., :-1]
    assert "has 49 logits, but 50 rows" in refusal(network)
    network.lm_head.forward = lambda x: head(x) * torch.nan
    assert "the logits of a few tokens are not finite" in refusal(network)


def test_models_that_overflow_or_have_no_head_are_named() -> None:
    network = causal()
    with torch.no_grad():
        network.model.norm.weight.fill_(6e4)
    assert "not finite in torch.float16" in refusal(network.half())
    assert "has no output embedding" in refusal(transformers.LlamaModel(network.config))
    assert "no tokenizer" in refusal(causal(), rows="tokens")
    silent = causal()
    silent.model.forward = lambda **_: (torch.zeros(2, 8, 32),)
    assert "answers no last hidden state, but a tuple" in refusal(silent)
    assert "there is no file" in refusal("absent.gguf")


def test_tokens_windows_and_texts_that_do_not_fit_are_named() -> None:
    llama = model("llama_untied_padded_sharded", "tokens")
    for x, message in [
        (torch.tensor([[1, 320]]), "token 320 lies beyond the 320 rows"),
        (torch.tensor([[1, -2]]), "-2 is no token"),
        (torch.zeros(1, 65, dtype=torch.long), "takes 64 tokens at once, got windows of 65"),
        (torch.zeros(2, 3), r"got torch.float32 of shape \[2, 3\]"),
    ]:
        with pytest.raises(ModelError, match=message):
            llama.embed(x)
    with pytest.raises(ValueError, match="padding before a token"):
        llama.embed(torch.tensor([[PADDING, 5]]))
    with pytest.raises(ValueError, match="text 1 is empty"):
        list(llama.batches(["a text", ""]))
    with pytest.raises(ModelError, match="no texts"):
        list(llama.batches([]))
    positions = llama.predictions(TokenBatch(*(torch.tensor(part) for part in ([[5]], [[300]], [0], [0]))))
    with pytest.raises(ModelError, match="next token 300 is none of the 290"):
        llama.next_log_probabilities(positions)
    with pytest.raises(ModelError, match="prefix 400 is no token"):
        llama.prefix(400)
    with pytest.raises(ModelError, match="is no folder"):
        read_causal("not a name")


def test_a_soft_cap_beyond_all_logits_is_none(tmp_path: Path) -> None:
    folder = copied(tmp_path, "gemma2_softcap")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"final_logit_softcapping": 4.0', '"final_logit_softcapping": 1e6'))
    wide, capped = read_causal(folder), model("gemma2_softcap")
    assert isinstance(wide, CausalModel)
    f = wide.embed(padded("gemma2_softcap")[0].x)
    torch.testing.assert_close(4 * (wide.logits(f) / 4).tanh(), capped.logits(f), rtol=1e-4, atol=1e-4)


def test_a_scale_of_f_is_one_of_the_label_vectors() -> None:
    granite = model("granite_scaled")
    assert isinstance(granite, CausalModel)
    batch, expected = padded("granite_scaled")
    f = expected["last_hidden"][batch.x != PADDING]
    torch.testing.assert_close(granite.logits(granite.embed(batch.x)), f @ (granite.unembeddings() / 3).T)


def test_left_padding_with_positions_gives_the_same_likelihoods() -> None:
    """What the library answers with padding on the other side, where positions say so."""
    batch, _ = padded("gpt2_tied")
    own, lengths = model("gpt2_tied"), (batch.x != PADDING).sum(1)
    width = batch.x.shape[1]
    order = (torch.arange(width) - width + lengths[:, None]) % width
    left = batch.x.gather(1, order).clamp(min=0)
    mask = torch.arange(width) >= width - lengths[:, None]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        log_p = own.model(left, attention_mask=mask.long(), position_ids=positions).logits.log_softmax(-1)[mask]
    torch.testing.assert_close(own.log_probabilities(own.embed(batch.x)), log_p, rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match="padded on the right"):
        own.embed({"input_ids": left, "attention_mask": mask.long()})


def test_no_bar_is_drawn_over_the_tensors_of_a_gguf_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = pytest.importorskip("transformers.modeling_gguf_pytorch_utils")
    (tmp_path / "model.gguf").touch()
    drawn = reader.tqdm

    def load(*_: object, **options: object) -> None:
        assert options["gguf_file"] == "model.gguf"
        assert list(reader.tqdm([1, 2], desc="Converting")) == [1, 2]
        raise OSError("this is no such file")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(ModelError, match="cannot be read as a causal language model: this is no such file"):
        read_causal(tmp_path / "model.gguf")
    assert capsys.readouterr().err == ""
    assert reader.tqdm is drawn
