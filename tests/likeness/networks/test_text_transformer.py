"""Transformers of texts: small and new, or from a folder; what they read and what they refuse."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from likeness.networks import PretrainedTransformer, SmallTransformer
from likeness.networks.pretrained_text import quiet, text_library
from likeness.seeding import seeded
from tests.lightning_modules.tiny_sentences import SMALL, TEXTS, write_bert


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet():
        return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def changed(bert: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may spoil."""
    return Path(shutil.copytree(bert, tmp_path / "changed"))


def small(**options: Any) -> SmallTransformer:
    with seeded(0):
        encoder: SmallTransformer = SMALL(**options)
    encoder.learn_tokens(TEXTS)
    return encoder.eval()


def test_padding_changes_no_vector() -> None:
    encoder = small()
    alone, _ = encoder(["a cat sleeps"])
    both, mask = encoder(["a cat sleeps", "my neighbour hums a song"])
    torch.testing.assert_close(both[0, mask[0].bool()], alone[0])
    assert mask.sum(1).tolist() == [5, 7]


def test_long_texts_are_cut_and_empty_ones_are_two_tokens() -> None:
    vectors, mask = small(max_length=6)([" and ".join(TEXTS), "", "  "])
    assert vectors.shape == (3, 6, 16)
    assert mask.sum(1).tolist()[:2] == [6, 2]


def test_weights_come_from_the_generator() -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first, second = (torch.cat([p.flatten() for p in small().parameters()]) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 15}, "width must be a multiple of the 2 heads, got 15"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
    ],
)
def test_sizes_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMALL(**options)


def test_anything_but_a_list_of_texts() -> None:
    for wrong in ("a cat", torch.zeros(2, 3), [1, 2], [["a", "b"]]):
        with pytest.raises(TypeError, match="takes a list of texts, got"):
            small()(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are no tokens yet"):
        SMALL()(["a cat"])


def test_a_text_without_tokens_is_named() -> None:
    encoder = small()
    encoder.tokenizer.backend_tokenizer.post_processor = None  # no special tokens
    with pytest.raises(ValueError, match="text 1 is empty, and has no tokens"):
        encoder(["a cat", "", "sings"])


def test_a_folder_is_read_as_the_library_reads_it(bert: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModel, AutoTokenizer

    with seeded(0):
        encoder = PretrainedTransformer(str(bert), max_length=32)
    assert capfd.readouterr() == ("", "")  # no bar, no advice
    assert encoder.model.training
    assert encoder.pooling == "mean"
    with quiet():
        model, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    vectors, mask = encoder.eval()(TEXTS)
    assert torch.equal(mask, tokens["attention_mask"])
    assert torch.equal(vectors, model(**tokens).last_hidden_state)
    assert not any(p.requires_grad for name, p in encoder.named_parameters() if "pooler" in name)


def test_half_precision_weights_are_trained_in_float32(bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    with quiet():
        AutoModel.from_pretrained(bert).half().save_pretrained(tmp_path / "half")
        shutil.copy(bert / "tokenizer.json", tmp_path / "half")
        shutil.copy(bert / "tokenizer_config.json", tmp_path / "half")
    encoder = PretrainedTransformer(str(tmp_path / "half"), max_length=32)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("older", [False, True])
def test_of_sentence_transformers_the_pooling_is_taken_over(
    bert: Path, tmp_path: Path, pooling: str, older: bool
) -> None:
    library = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    with quiet():
        parts = [modules.Transformer(str(bert)), modules.Pooling(16, pooling), modules.Normalize()]
        library.SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path), create_model_card=False)
    if older:
        names = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
        settings = {"word_embedding_dimension": 16} | {f"pooling_mode_{n}": k == pooling for k, n in names.items()}
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    encoder = PretrainedTransformer(str(tmp_path), max_length=32)
    assert encoder.pooling == pooling
    assert encoder.dim == 16


def test_what_has_no_place_here_is_refused(bert: Path, changed: Path) -> None:
    (changed / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense", "path": "2"}]))
    with pytest.raises(ValueError, match="cannot be read: it has a module Dense, only Transformer, Pooling"):
        PretrainedTransformer(str(changed))
    modules = [{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"}]
    (changed / "modules.json").write_text(json.dumps(modules))
    (changed / "1_Pooling").mkdir()
    (changed / "1_Pooling" / "config.json").write_text('{"pooling_mode": ["mean", "max"]}')
    with pytest.raises(ValueError, match=r"its pooling is \['mean', 'max'\], only mean, cls, max are known"):
        PretrainedTransformer(str(changed))
    with pytest.raises(ValueError, match=r"max_length must be at most 32, the positions of .*, got 33"):
        PretrainedTransformer(str(bert), max_length=33)


def spoil(folder: Path, file: str, content: str | None) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "config"),
        ("config.json", "{", "not a valid JSON"),
        ("config.json", '{"model_type": "zzz", "auto_map": {"AutoConfig": "code.Config"}}', "custom code"),
        ("model.safetensors", None, "model.safetensors"),
        ("model.safetensors", "nothing", "header"),
        ("tokenizer.json", None, "tokenizer"),
        ("tokenizer.json", "{", "EOF|JSON|expected|Expecting"),
    ],
)
def test_a_folder_that_lacks_something(changed: Path, file: str, content: str | None, message: str) -> None:
    spoil(changed, file, content)
    with pytest.raises(ValueError, match=rf"encoder .*changed cannot be read: .*({message})"):
        PretrainedTransformer(str(changed), max_length=32)


def test_weights_that_are_missing_are_not_replaced_by_random_ones(bert: Path, changed: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(changed / "model.safetensors")
    left = {name: weight for name, weight in weights.items() if "layer.0.output" not in name}
    save_file(left, changed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks \d weights of a BertModel, first encoder\.layer\.0\.output"):
        PretrainedTransformer(str(changed), max_length=32)


def test_what_decodes_as_well_is_refused(bert: Path, changed: Path) -> None:
    from transformers import T5Config, T5Model

    with quiet():
        T5Model(T5Config(vocab_size=400, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(changed)
    with pytest.raises(ValueError, match="is a T5Model, which is no encoder of texts alone"):
        PretrainedTransformer(str(changed), max_length=32)


@pytest.mark.parametrize("name", ["no/such-model", "runs/no/such/folder"])
def test_a_model_that_is_nowhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=f"{name} is no folder and not among the downloaded models, and"):
        PretrainedTransformer(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="and HF_HUB_OFFLINE is set"):
        PretrainedTransformer(name)


def test_an_architecture_makes_the_model_without_files(bert: Path, changed: Path) -> None:
    encoder = PretrainedTransformer(str(changed), max_length=32)
    arguments = json.loads(json.dumps(encoder.arguments()))
    shutil.rmtree(changed)
    again = PretrainedTransformer(str(changed), max_length=32, **arguments)
    assert [*again.state_dict()] == [*encoder.state_dict()]
    assert type(again.model) is type(encoder.model)
    again.load_state_dict(encoder.state_dict())
    again.load_tokenizer_state(encoder.tokenizer_state())
    assert torch.equal(again.eval()(TEXTS)[0], encoder.eval()(TEXTS)[0])


def test_an_architecture_runs_no_code() -> None:
    with pytest.raises(ValueError, match="names no known model_type, got 'zzz'"):
        PretrainedTransformer("x", architecture={"model_type": "zzz", "auto_map": {"AutoConfig": "code.Config"}})
    evil = {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    implementation = {"attn_implementation": "someone/attention", "_attn_implementation": "someone/attention"}
    model = PretrainedTransformer("x", architecture=evil | implementation | {"auto_map": {"AutoModel": "code.Model"}})
    assert type(model.model).__name__ == "BertModel"
    assert "someone" not in model.model.config._attn_implementation


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match=r'text encoders need transformers: pip install -e "\.\[text\]"'):
        text_library("transformers")
