"""Decoders from and to folders of Hugging Face, against what that library answers."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from likeness.networks import GPT2, Decoder, Llama
from likeness.networks.decoder_blocks import Architecture
from likeness.networks.decoder_files import read_decoder, write_decoder
from likeness.seeding import seeded
from tests.reference import FOLDER

V, T = 40, 16
SMALL = {"width": 16, "depth": 2, "heads": 4}
PUBLISHED = ("hf_gpt2_tied", "hf_llama_untied_padded_sharded")
KINDS = {
    "gpt2": partial(GPT2, gelu="gelu_tanh"),
    "exact gelu, no bias, untied": partial(GPT2, bias=False, tied=False, hidden=24),
    "llama": partial(Llama, kv_heads=2),
    "biased attention, tied": partial(Llama, bias=True, tied=True, rotary_base=500.0, eps=1e-6),
}


def drawn(kind: Any, **options: Any) -> Decoder:
    with seeded(1):
        decoder = kind(V, T, **SMALL, **options).eval()
        for parameter in decoder.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return decoder


def reference(name: str) -> Path:
    folder = FOLDER / "language_models" / name
    if not folder.exists():
        pytest.skip(f"no reference language models in {FOLDER}")
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_folder_answers_what_its_library_does(name: str) -> None:
    folder = reference(name)
    with np.load(folder / "expected.npz") as file:
        expected = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
    decoder, real = read_decoder(folder).eval(), expected["mask"].bool()
    ids = expected["input_ids"].long()
    *states, last, f = decoder.layers(ids)
    for layer, state in enumerate(states):
        torch.testing.assert_close(state[real], expected[f"hidden_{layer}"][real], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(f[real], expected["last_hidden"][real], rtol=1e-4, atol=1e-5)
    assert torch.equal(decoder.norm(last), f)
    logits = f @ decoder.label_vectors().mT
    torch.testing.assert_close(logits[real], expected["logits"][real], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_what_is_written_is_the_same_model_there_and_back(kind: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    decoder = drawn(kind)
    write_decoder(decoder, tmp_path)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ids = torch.randint(V, (3, T), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            model.eval()(ids).logits, decoder(ids) @ decoder.label_vectors().mT, rtol=1e-5, atol=1e-5
        )
    back = read_decoder(tmp_path).eval()
    assert type(back) is type(decoder)
    torch.testing.assert_close(back(ids), decoder(ids), rtol=0, atol=0)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="8KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    torch.testing.assert_close(read_decoder(tmp_path / "theirs").eval()(ids), decoder(ids), rtol=0, atol=0)


def test_a_folder_of_the_base_model_is_read_where_the_head_is_tied(tmp_path: Path) -> None:
    """The files of GPT-2 itself are such ones, with the masks of attention among the weights."""
    from safetensors.torch import load_file, save_file

    decoder = drawn(GPT2)
    write_decoder(decoder, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights = {name.removeprefix("transformer."): value for name, value in weights.items()}
    save_file(weights | {"h.0.attn.bias": torch.ones(1, 1, T, T)}, tmp_path / "model.safetensors")
    ids = torch.arange(T).unsqueeze(0)
    assert torch.equal(read_decoder(tmp_path).eval()(ids), decoder(ids))


def changed(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (GPT2, {"model_type": "bert"}, r"config.json is of model_type 'bert'; gpt2 and llama are read"),
        (GPT2, {"activation_function": "relu"}, "activation_function = 'relu'"),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True; False is read"),
        (GPT2, {"attn_pdrop": 0.5}, r"dropouts \[0.0, 0.5\]"),
        (GPT2, {"n_layer": 3}, r"lacks the weight: transformer.h.2.attn"),
        (GPT2, {"n_layer": 1}, r"holds a weight that the network has not: transformer.h.1.attn"),
        (GPT2, {"n_positions": 8}, r"transformer.wpe.weight with shape \[16, 16\], not \[8, 16\]"),
        (Llama, {"rope_parameters": {"rope_type": "llama3"}}, "rope_type = 'llama3'; 'default' is read"),
        (Llama, {"head_dim": 8}, "4 heads of 8; they must make up the width 16"),
        (Llama, {"quantization_config": {"bits": 4}}, "quantised model"),
    ],
)
def test_another_model_is_refused_by_name(kind: Any, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_decoder(drawn(kind), tmp_path)
    changed(tmp_path, **settings)
    with pytest.raises(ValueError, match=message):
        read_decoder(tmp_path)


def test_a_folder_without_its_head_or_its_shards_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write_decoder(drawn(Llama), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks the weight: lm_head\.weight"):
        read_decoder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds neither model.safetensors nor model.safetensors.index.json"):
        read_decoder(tmp_path)
    copy = shutil.copytree(reference(PUBLISHED[1]), tmp_path / "copy", copy_function=shutil.copy)
    copy.chmod(0o755)
    second = copy / "model-00002-of-00003.safetensors"
    second.chmod(0o644)
    content = second.read_bytes()
    second.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"00002-of-00003\.safetensors is not a readable safetensors file"):
        read_decoder(copy)
    second.unlink()
    with pytest.raises(FileNotFoundError, match=r"names the shard model-00002-of-00003\.safetensors"):
        read_decoder(copy)


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (GPT2(V, T, **SMALL, head_bias=True), "a bias of each label"),
        (
            Decoder(Architecture(V, T, 16, 1, 4, 4, 24, "rms", "learned", "gelu", False, True)),
            "rms, learned, gelu together",
        ),
    ],
)
def test_what_neither_of_them_has_is_not_written(decoder: Decoder, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_decoder(decoder, tmp_path)
    assert list(tmp_path.iterdir()) == []
