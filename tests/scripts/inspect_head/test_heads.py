"""Heads of other people's models: which matrix it is, against transformers, and what their files leave unsaid."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.inspect_head.heads import Head, open_head, read_head
from tests.reference import FOLDER

save_file = pytest.importorskip("safetensors.torch").save_file
MODELS = FOLDER / "language_models"
needs_models = pytest.mark.skipif(not MODELS.is_dir(), reason=f"no models in {MODELS}")


def matrix(seed: int, labels: int = 6, dim: int = 4) -> Tensor:
    return torch.randn(labels, dim, generator=torch.Generator().manual_seed(seed))


def model(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> Path:
    """A model directory with these tensors."""
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def assert_head(head: Head, key: str, rows: Tensor, tied: bool = False) -> None:
    assert (head.key, head.tied) == (key, tied)
    assert torch.equal(head.rows[:], rows)


def refusal(path: Path, key: str | None = None) -> str:
    with pytest.raises(ValueError, match=r"\S") as raised:
        read_head(path, key)
    assert "\n" not in str(raised.value)
    return str(raised.value)


CLASSIFIERS = ("classifier.weight", "score.weight", "fc.weight", "model.head.weight", "classifier.6.weight")
SMALL = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
GPT2 = {"vocab_size": 60, "n_embd": 16, "n_layer": 1, "n_head": 2}
T5 = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
BART = {
    "vocab_size": 60,
    "d_model": 16,
    **{f"{part}_layers": 1 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 16 for part in ("encoder", "decoder")},
}
ARCHITECTURES = [
    ("GPT2LMHeadModel", "GPT2Config", GPT2),
    ("GPT2ForSequenceClassification", "GPT2Config", {**GPT2, "num_labels": 3}),
    ("LlamaForCausalLM", "LlamaConfig", SMALL),
    ("LlamaForCausalLM", "LlamaConfig", {**SMALL, "tie_word_embeddings": True}),
    ("T5ForConditionalGeneration", "T5Config", T5),
    ("T5ForSequenceClassification", "T5Config", {**T5, "num_labels": 3}),
    ("BartForConditionalGeneration", "BartConfig", BART),
    ("OPTForCausalLM", "OPTConfig", {**SMALL, "ffn_dim": 16, "word_embed_proj_dim": 8}),
    ("GPTNeoXForCausalLM", "GPTNeoXConfig", SMALL),
    ("PhiForCausalLM", "PhiConfig", SMALL),
    ("BertForMaskedLM", "BertConfig", SMALL),
    ("BertForSequenceClassification", "BertConfig", {**SMALL, "num_labels": 3}),
    ("RobertaForMaskedLM", "RobertaConfig", SMALL),
    ("MambaForCausalLM", "MambaConfig", {**SMALL, "state_size": 4}),
]


@pytest.mark.parametrize(("model_class", "config_class", "sizes"), ARCHITECTURES)
@pytest.mark.filterwarnings("ignore")  # of transformers, about itself
def test_the_head_is_the_one_that_transformers_uses(
    model_class: str, config_class: str, sizes: dict[str, Any], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    made = getattr(transformers, model_class)(getattr(transformers, config_class)(**sizes))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    made.save_pretrained(tmp_path)
    output = made.get_output_embeddings()
    if "Classification" in model_class:
        output = [part for part in made.modules() if isinstance(part, torch.nn.Linear)][-1]
    bias = getattr(made, "final_logits_bias", getattr(output, "bias", None))
    head = read_head(tmp_path)
    assert torch.equal(head.rows[:], output.weight)
    assert head.tied == (made.get_input_embeddings().weight is output.weight)
    assert (head.bias is None) == (bias is None)
    if bias is not None and head.bias is not None:
        assert torch.equal(head.bias, bias.flatten())


@needs_models
@pytest.mark.parametrize(
    ("name", "tied", "scale", "cap"),
    [
        ("gemma2_softcap", True, 1, 4),
        ("gpt2_tied", True, 1, None),
        ("gptj_bias", False, 1, None),
        ("granite_scaled", True, 1 / 3, None),
        ("llama_untied_padded_sharded", False, 1, None),
        ("phi_bias", False, 1, None),
    ],
)
def test_features_and_head_give_the_logits_of_real_models(
    name: str, tied: bool, scale: float, cap: float | None
) -> None:
    head = read_head(MODELS / f"hf_{name}")
    with np.load(MODELS / f"hf_{name}" / "expected.npz") as file:
        expected = dict(file)
    assert (head.tied, head.cap) == (tied, cap)
    assert bool(head.notes) == (scale != 1)
    logits = scale * torch.from_numpy(expected["last_hidden"]).double() @ head.rows[:].double().T
    if head.bias is not None:
        logits = logits + head.bias.double()
    logits = logits if cap is None else cap * (logits / cap).tanh()
    torch.testing.assert_close(logits, torch.from_numpy(expected["logits"]).double(), rtol=0, atol=1e-4)


def test_a_head_beside_the_tower_of_another_modality(tmp_path: Path) -> None:
    tensors = {
        "language_model.lm_head.weight": matrix(0),
        "language_model.model.embed_tokens.weight": matrix(1),
        "vision_tower.lm_head.weight": matrix(2),
        "vision_tower.patch.weight": matrix(3),
    }
    assert_head(read_head(model(tmp_path, tensors)), "language_model.lm_head.weight", matrix(0))
    tied = {"text_config": {"tie_word_embeddings": True}}
    head = read_head(model(tmp_path, tensors, tied))
    assert_head(head, "language_model.model.embed_tokens.weight", matrix(1), tied=True)
    assert "language_model.lm_head.weight is in the file too, differs" in head.notes[0]


def test_embeddings_of_later_tokens_and_encoders_are_not_the_head(tmp_path: Path) -> None:
    tensors = {
        "model.embed_tokens.weight": matrix(0),
        "model.layers.61.embed_tokens.weight": matrix(1),
        "model.encoder.embed_tokens.weight": matrix(2),
        "mtp.embed_tokens.weight": matrix(3),
    }
    assert_head(read_head(model(tmp_path, tensors)), "model.embed_tokens.weight", matrix(0), tied=True)


@pytest.mark.parametrize("tied", [True, False, None])
def test_config_json_decides_between_two_matrices(tmp_path: Path, tied: bool | None) -> None:
    tensors = {"lm_head.weight": matrix(0), "model.embed_tokens.weight": matrix(1)}
    head = read_head(model(tmp_path, tensors, {} if tied is None else {"tie_word_embeddings": tied}))
    if tied:
        assert_head(head, "model.embed_tokens.weight", matrix(1), tied=True)
    else:
        assert_head(head, "lm_head.weight", matrix(0))
    # A file of the directory is read as the directory is.
    assert read_head(tmp_path / "model.safetensors").key == head.key
    assert_head(read_head(tmp_path, "lm_head.weight"), "lm_head.weight", matrix(0))


@pytest.mark.filterwarnings("ignore")
def test_the_default_of_the_model_type_counts_where_config_json_is_silent(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    tensors = {"lm_head.weight": matrix(0), "model.embed_tokens.weight": matrix(1)}
    assert read_head(model(tmp_path, tensors, {"model_type": "gemma2"})).key == "model.embed_tokens.weight"
    assert read_head(tmp_path).cap == 30
    assert read_head(model(tmp_path, tensors, {"model_type": "llama"})).key == "lm_head.weight"
    assert read_head(model(tmp_path, tensors, {"model_type": "nobody_knows"})).key == "lm_head.weight"


def test_equal_matrices_are_tied_whatever_nothing_says(tmp_path: Path) -> None:
    tensors = {"lm_head.weight": matrix(0), "model.embed_tokens.weight": matrix(0)}
    assert_head(read_head(model(tmp_path, tensors)), "lm_head.weight", matrix(0), tied=True)


def test_a_model_without_its_head_is_refused(tmp_path: Path) -> None:
    folder = model(tmp_path, {"embed_tokens.weight": matrix(0)}, {"tie_word_embeddings": False})
    assert "has no head: config.json says that it is not tied to the input embeddings embed_tokens" in refusal(folder)
    (tmp_path / "encoder").mkdir()
    encoder = {"embeddings.word_embeddings.weight": matrix(0), "encoder.layer.0.weight": matrix(1)}
    assert "name the head" in refusal(model(tmp_path / "encoder", encoder, {"tie_word_embeddings": True}))


def test_two_candidates_are_refused_by_name(tmp_path: Path) -> None:
    folder = model(tmp_path, {"lm_head.weight": matrix(0), "score.weight": matrix(1)})
    assert "it could be lm_head.weight, score.weight" in refusal(folder)
    assert_head(read_head(folder, "score.weight"), "score.weight", matrix(1))
    (folder / "config.json").write_text('{"architectures": ["LlamaForSequenceClassification"]}')
    assert_head(read_head(folder), "score.weight", matrix(1))


@pytest.mark.parametrize("key", CLASSIFIERS)
def test_heads_of_classifiers_beside_embeddings(tmp_path: Path, key: str) -> None:
    tensors = {key: matrix(0), "classifier.3.weight": matrix(1), "transformer.wte.weight": matrix(2)}
    tensors[key.removesuffix("weight") + "bias"] = torch.arange(6.0)
    if not key.startswith("classifier") or key == "classifier.weight":
        del tensors["classifier.3.weight"]
    names = {str(number): f"class {number}" for number in range(6)}
    folder = model(tmp_path, tensors, {"id2label": names})
    (folder / "vocab.txt").write_text("[PAD]\n[CLS]\n")
    head = read_head(folder)
    assert_head(head, key, matrix(0))
    assert head.bias is not None
    assert torch.equal(head.bias, torch.arange(6.0))
    assert list(head.labels) == list(names.values())


def test_a_bias_in_another_shard_and_under_another_name(tmp_path: Path) -> None:
    save_file({"model.embed_tokens.weight": matrix(0)}, tmp_path / "a.safetensors")
    save_file({"final_logits_bias": torch.arange(6.0)[None]}, tmp_path / "b.safetensors")
    where = {"model.embed_tokens.weight": "a.safetensors", "final_logits_bias": "b.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    head = read_head(tmp_path)
    assert head.bias is not None
    assert torch.equal(head.bias, torch.arange(6.0))
    where["lm_head.weight"] = "b.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert "lm_head.weight stands in b.safetensors, which does not hold it" in refusal(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    assert "is no index of weights" in refusal(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_bin_files_alone_and_in_shards(tmp_path: Path, zipped: bool) -> None:
    torch.save({"lm_head.weight": matrix(0)}, tmp_path / "one.bin", _use_new_zipfile_serialization=zipped)
    (tmp_path / "config.json").write_text("{}")
    assert_head(read_head(tmp_path), "lm_head.weight", matrix(0))
    (tmp_path / "one.bin").rename(tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"lm_head.bias": torch.arange(6.0)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    where = {f"lm_head.{name}": f"pytorch_model-0000{i}-of-00002.bin" for i, name in ((1, "weight"), (2, "bias"))}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    head = read_head(tmp_path)
    assert_head(head, "lm_head.weight", matrix(0))
    assert head.bias is not None
    torch.save({"model_state_dict": {"fc.weight": matrix(1)}, "epoch": 3}, tmp_path / "checkpoint.pth")
    assert_head(read_head(tmp_path / "checkpoint.pth"), "fc.weight", matrix(1))


def test_safetensors_come_before_bin_files_and_two_of_them_are_refused(tmp_path: Path) -> None:
    torch.save({"lm_head.weight": matrix(1)}, tmp_path / "pytorch_model.bin")
    assert_head(read_head(model(tmp_path, {"lm_head.weight": matrix(0)})), "lm_head.weight", matrix(0))
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    (tmp_path / "pytorch_model.bin").unlink()
    save_file({"lm_head.weight": matrix(0)}, tmp_path / "b.safetensors")
    assert "found a.safetensors, b.safetensors" in refusal(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "is an adapter: merge it" in refusal(tmp_path)


BLOCKS = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [4, 3]}}
CHANNELS = {"quantization_config": {"quant_method": "compressed-tensors"}}


@pytest.mark.parametrize(
    ("config", "scale"),
    [(CHANNELS, (10, 1)), (CHANNELS, (1,)), (CHANNELS, ()), (BLOCKS, (3, 3)), (CHANNELS, (10,)), (CHANNELS, (1, 8))],
)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.bfloat16])
def test_scaled_weights_are_multiplied(
    tmp_path: Path, config: dict[str, Any], scale: tuple[int, ...], dtype: torch.dtype
) -> None:
    weight = (3 * matrix(0, 10, 8)).to(dtype)
    factor = torch.rand(scale, generator=torch.Generator().manual_seed(1)) + 0.5
    folder = model(tmp_path, {"lm_head.weight": weight, "lm_head.weight_scale": factor}, config)
    expected = torch.empty(10, 8, dtype=torch.float64)
    for row, column in np.ndindex(10, 8):  # entry by entry
        entry = float(factor.flatten()[0]) if factor.numel() == 1 else 0.0
        if scale in ((10, 1), (10,)):
            entry = float(factor.flatten()[row])
        elif scale == (1, 8):
            entry = float(factor[0, column])
        elif scale == (3, 3):
            entry = float(factor[row // 4, column // 3])
        expected[row, column] = float(weight[row, column].float()) * entry
    head = read_head(folder)
    assert torch.equal(head.rows[:], expected)
    assert torch.equal(head.rows[3:7], expected[3:7])
    assert torch.equal(head.rows[9:10], expected[9:10])
    assert "multiplied" in head.notes[0]


def test_weights_whose_quantisation_is_not_certain_are_refused_by_name(tmp_path: Path) -> None:
    int8, scale = torch.ones(6, 4, dtype=torch.int8), torch.ones(6, 1)
    packed = torch.ones(6, 4, dtype=torch.uint8)
    cases: list[tuple[dict[str, Tensor], dict[str, Any], str]] = [
        (
            {"weight": matrix(0).to(torch.float8_e4m3fn), "weight_scale": scale},
            {},
            "no config.json says how to read it",
        ),
        ({"weight": int8}, CHANNELS, "stored as int8, not as real numbers"),
        ({"weight": int8, "SCB": scale}, CHANNELS, "int8 with SCB"),
        ({"weight": int8, "weight_scale": scale, "weight_zero_point": scale}, CHANNELS, "weight_zero_point"),
        ({"weight": int8, "weight_scale": torch.ones(3, 2)}, CHANNELS, "[6, 4] with weight_scale [3, 2]"),
        ({"weight": packed, "weight_scale": scale}, CHANNELS, "uint8 with weight_scale"),
        ({"weight": packed, "weight.absmax": scale, "weight.quant_map": scale}, {}, "weight.absmax, weight.quant_map"),
        ({"qweight": packed, "qzeros": packed, "scales": scale}, {}, "stored as qweight, qzeros, scales"),
        ({"weight_packed": packed, "weight_scale": scale}, CHANNELS, "weight_packed, weight_scale"),
        ({"base_layer.weight": matrix(0), "lora_A.weight": matrix(1)}, {}, "not as a matrix"),
    ]
    for stored, config, message in cases:
        tensors = {f"lm_head.{name}": tensor for name, tensor in stored.items()}
        assert message in refusal(model(tmp_path, {"model.embed_tokens.weight": matrix(5), **tensors}, config))


def test_unscaled_float8_is_what_it_is(tmp_path: Path) -> None:
    weight = matrix(0).to(torch.float8_e4m3fn)
    head = read_head(model(tmp_path, {"lm_head.weight": weight, "lm_head.input_scale": torch.ones(1)}))
    assert (head.dtype, head.notes) == ("float8_e4m3fn", ())
    assert torch.equal(head.rows[:].float(), weight.float())


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        ({"logit_scale": 0.0625}, 0.0625),
        ({"logits_scaling": 8.0}, 0.125),
        ({"text_config": {"lm_head_multiplier": 0.5}}, 0.5),
        ({"hidden_size": 1024, "dim_model_base": 256}, 0.25),
        ({"model_type": "t5", "d_model": 16, "tie_word_embeddings": True}, 0.25),
        ({"logits_scaling": 1.0, "logit_scale": None}, None),
    ],
)
def test_scales_of_the_logits_are_said(tmp_path: Path, config: dict[str, Any], factor: float | None) -> None:
    head = read_head(model(tmp_path, {"shared.weight": matrix(0)}, config))
    assert (f"with f = {factor:g} times" in head.notes[0]) if factor else head.notes == ()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["t5", "mt5", "umt5", "longt5", "switch_transformers"])
def test_scales_of_encoder_decoders_are_those_of_transformers(tmp_path: Path, kind: str, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(kind, **T5, tie_word_embeddings=tied)
    written = transformers.AutoModelForSeq2SeqLM.from_config(config).eval()
    written.save_pretrained(tmp_path)
    tokens = torch.arange(5)[None]
    with torch.no_grad():
        answer = written(input_ids=tokens, decoder_input_ids=tokens, output_hidden_states=True)
    head = read_head(tmp_path)
    factor = float(head.notes[0].partition("f = ")[2].partition(" ")[0]) if head.notes else 1.0
    logits = factor * answer.decoder_hidden_states[-1][0] @ head.rows[:].float().T
    torch.testing.assert_close(logits, answer.logits[0], rtol=1e-4, atol=1e-5)


def test_one_label_is_one_clear_line(tmp_path: Path) -> None:
    folder = model(tmp_path, {"score.weight": matrix(0, 1, 4)})
    assert "at least two label vectors, but score.weight is [1, 4]" in refusal(folder)


def test_weights_of_this_project_are_its_model(tmp_path: Path) -> None:
    save_file({"state_dict/g.weight": matrix(0)}, tmp_path / "weights.safetensors", metadata={"hyper_parameters": "{}"})
    with pytest.raises(ValueError, match="does not name the class"):
        open_head(str(tmp_path / "weights.safetensors"))
    head = open_head(str(tmp_path / "weights.safetensors"), "state_dict/g.weight")
    assert_head(head, "state_dict/g.weight", matrix(0))


@needs_models
@pytest.mark.parametrize("name", ["llama_untied_padded_sharded", "gemma2_softcap", "granite_scaled", "phi_bias"])
def test_a_language_model_by_name_has_the_head_of_its_files(name: str) -> None:
    pytest.importorskip("transformers")
    folder = MODELS / f"hf_{name}"
    named, read = open_head(f"hf:{folder}"), read_head(folder)
    assert torch.equal(named.rows[:], read.rows[:].float())
    assert (named.bias is None) == (read.bias is None)
    if named.bias is not None and read.bias is not None:
        assert torch.equal(named.bias, read.bias.float())
    assert (list(named.labels), named.tied) == (list(read.labels), read.tied)
    assert named.cap == (None if read.cap is None else pytest.approx(read.cap, rel=1e-5))
    assert len(named.notes) == len(read.notes)


def test_names_that_cannot_be_read_are_one_line() -> None:
    pytest.importorskip("transformers")
    for name, message in (("absent.gguf", "there is no file absent.gguf"), ("hf:no such name", "is no folder, and")):
        with pytest.raises(ValueError, match=message) as raised:
            open_head(name)
        assert "\n" not in str(raised.value)


def test_a_classifier_by_name_is_read_as_one(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = transformers.ViTConfig(image_size=224, patch_size=112, num_labels=5, **sizes)
    network = transformers.ViTForImageClassification(config)
    network.save_pretrained(tmp_path)
    head = open_head(f"hf:{tmp_path}")
    assert torch.equal(head.rows[:], network.classifier.weight)
    assert head.model is not None
