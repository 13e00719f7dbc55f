"""The tokenizer of the data goes with a language model, into its checkpoints and out of them."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import Tokens
from lightning_modules import LanguageModel, SiblingLanguageModels
from lightning_modules.checkpoint_files import CheckpointError
from lightning_modules.checkpoints import load_module
from likeness import Texts, compare
from likeness.adapters.causal_models import read_causal
from likeness.adapters.modules import ModelError
from likeness.language.text_tokenizer import TextTokenizer
from likeness.networks import GPT2
from tests.datamodules.language.toys import TEXTS, make, write_texts
from tests.lightning_modules.points import trainer

pytest.importorskip("transformers")
CONTEXT = 8


def tokens(root: Path, texts: list[str] = TEXTS) -> Tokens:
    make(write_texts(root / "texts", texts), root / "tokens", "bpe", 280)
    return Tokens(str(root / "tokens"), CONTEXT, batch_size=4)


def trained(kind: Any, data: Tokens, path: Path | None = None) -> Any:
    model = kind(280, CONTEXT, network=partial(GPT2, width=8, depth=1, heads=1))
    fit = trainer(max_steps=1, limit_val_batches=0)
    fit.fit(model, data)
    if path is not None:
        fit.save_checkpoint(path)
    return model


def test_a_checkpoint_is_compared_on_texts_by_the_tokenizer_of_its_data(tmp_path: Path) -> None:
    data, checkpoint = tokens(tmp_path), tmp_path / "model.ckpt"
    pair = trained(partial(SiblingLanguageModels, num_members=2), data, checkpoint)
    assert data.tokenizer is not None
    assert load_module(checkpoint).tokenizer.digest == data.tokenizer.digest  # type: ignore[union-attr]
    texts = Texts(TEXTS[:6], positions=40, prefix="none")
    given = [read_causal(pair.member(i).eval(), tokenizer=data.tokenizer) for i in range(2)]
    found, expected = compare(f"{checkpoint}#0", f"{checkpoint}#1", texts), compare(*given, texts)
    assert found.kl_12 == pytest.approx(expected.kl_12, rel=1e-6)
    assert (found.nll_1, found.positions) == (pytest.approx(expected.nll_1, rel=1e-6), expected.positions)


def test_other_tokens_are_refused_by_their_digests(tmp_path: Path) -> None:
    data = tokens(tmp_path / "own")
    other = tokens(tmp_path / "other", [text[::-1] for text in TEXTS])
    assert data.vocab_size == other.vocab_size
    model = trained(LanguageModel, data, tmp_path / "model.ckpt")
    assert isinstance(other.tokenizer, TextTokenizer)
    digests = f"{other.tokenizer.vocabulary_digest[:12]}, the model's {model.tokenizer.vocabulary_digest[:12]}"
    for further in (
        lambda: trainer().validate(model, other, verbose=False),
        lambda: trainer(max_steps=2).fit(model, other),
    ):
        with pytest.raises(ValueError, match=f"the tokens of the data are not those of the model.*{digests}"):
            further()
    fresh = LanguageModel(280, CONTEXT, network=partial(GPT2, width=8, depth=1, heads=1))
    with pytest.raises(ValueError, match="the tokens of the checkpoint are not those of the model"):
        trainer(max_steps=2).fit(fresh, other, ckpt_path=str(tmp_path / "model.ckpt"))
    with pytest.raises(ModelError, match="ids stand for other tokens in LanguageModel and LanguageModel"):
        compare(model, trained(LanguageModel, other), data, measures=["kl"])


def test_a_tokenizer_that_is_damaged_is_named(tmp_path: Path) -> None:
    model, path = trained(LanguageModel, tokens(tmp_path), tmp_path / "model.ckpt"), tmp_path / "model.ckpt"
    content = torch.load(path, weights_only=True)
    del content["tokenizer"]["tokenizer.json"]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"is refused: a tokenizer is made of tokenizer\.json"):
        load_module(path)
    assert model.tokenizer is not None
