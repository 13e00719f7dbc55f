"""Sentence encoders: what they are a function of, what training does, and that a checkpoint is complete."""

import copy
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from scipy.stats import spearmanr

from lightning_modules import SentenceEncoder
from lightning_modules.checkpoint_files import CheckpointError
from lightning_modules.checkpoints import load_module
from lightning_modules.optimization import SentenceAdamW
from likeness.batch import PairBatch
from likeness.losses import cosine_loss
from likeness.networks import PretrainedTransformer
from likeness.networks.pretrained_text import quiet
from likeness.protocols import Embedder
from tests.lightning_modules.points import save, trainer
from tests.lightning_modules.tiny_sentences import SMALL, TEXTS, TinyPairs, encoder, write_bert

FAST = partial(SentenceAdamW, lr=3e-3)


def weights(module: SentenceEncoder) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach()


def test_satisfies_the_protocol() -> None:
    module = encoder().eval()
    assert isinstance(module, Embedder)
    with torch.no_grad():
        assert module.embed(TEXTS).shape == (30, 16)
    with pytest.raises(TypeError, match="takes a list of texts, got Tensor"):
        module.embed(torch.zeros(3, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("head", ["none", "z", "n", "c", "c_n", "feature_c_n", "feature_z"])
def test_an_embedding_does_not_depend_on_its_batch(head: Any) -> None:
    module = encoder(head=head).eval()
    with torch.no_grad():
        together = module.embed(TEXTS)
        alone = torch.cat([module.embed([text]) for text in TEXTS])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)


class FirstBatch(Callback):
    """Keeps what the first step was given, and its loss."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: PairBatch, batch_idx: int) -> None:
        self.batch, self.loss = batch, float(outputs["loss"])


def test_one_step_is_the_loss_of_the_pairs() -> None:
    first = FirstBatch()
    module = encoder(encoder=partial(SMALL, dropout=0.0), head="n")
    fresh = copy.deepcopy(module)
    trainer(max_steps=1, limit_val_batches=0, callbacks=[first]).fit(module, TinyPairs())
    assert isinstance(first.batch, PairBatch)
    with torch.no_grad():
        expected = cosine_loss(fresh.embed(first.batch.first), fresh.embed(first.batch.second), first.batch.score)
    assert first.loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("loss", ["cosine", "euclidean", "ranking"])
def test_learns_what_people_say(loss: Any) -> None:
    module = SentenceEncoder(encoder=SMALL, loss=loss, head="c_n", optimizer=FAST)
    fit = trainer(max_epochs=12, check_val_every_n_epoch=12)
    fit.fit(module, TinyPairs())
    learnt = float(fit.callback_metrics["val/spearman"])
    assert set(fit.callback_metrics) == {"train/loss", "val/spearman"}
    fresh = encoder(loss=loss, head="c_n")
    untrained = trainer().validate(fresh, TinyPairs(), verbose=False)[0]["val/spearman"]
    assert learnt > max(untrained, 0) + 0.1


def test_spearman_is_of_all_pairs_of_a_split() -> None:
    module = encoder(head="n").eval()
    data = TinyPairs()
    found = trainer().test(module, data, verbose=False)[0]["test/spearman"]
    split = data.splits["test"]
    with torch.no_grad():
        cosines = (module.embed(split.first) * module.embed(split.second)).sum(1)
    assert found == pytest.approx(spearmanr(cosines, split.score).statistic, abs=1e-6)
    predictions = trainer().predict(module, data)
    assert torch.cat([part["id"] for part in predictions]).tolist() == list(range(17))
    torch.testing.assert_close(torch.cat([part["cosine"] for part in predictions]), cosines)


def test_training_depends_on_the_seed_alone() -> None:
    def train(seed: int, order_seed: int | None, noise: int) -> torch.Tensor:
        torch.manual_seed(noise)
        module = SentenceEncoder(encoder=partial(SMALL, dropout=0.5), seed=seed, order_seed=order_seed, optimizer=FAST)
        trainer(max_epochs=1).fit(module, TinyPairs())
        return weights(module)

    first = train(seed=3, order_seed=None, noise=0)
    assert torch.equal(train(seed=3, order_seed=3, noise=1), first)
    assert not torch.equal(train(seed=3, order_seed=4, noise=0), first)
    assert not torch.equal(train(seed=4, order_seed=3, noise=0), first)


def test_training_uses_dropout() -> None:
    """A model that was read comes in evaluation mode, in which Lightning leaves it."""
    module = encoder(encoder=partial(SMALL, dropout=0.5))
    assert not torch.equal(module.embed(TEXTS), module.embed(TEXTS))


def test_decay_and_rates() -> None:
    groups = encoder().configure_optimizers()["optimizer"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert [group["lr"] for group in groups] == [2e-5, 2e-5]
    assert all(parameter.ndim == 1 for parameter in groups[1]["params"])


def test_bfloat16_is_near_float32() -> None:
    module = encoder(head="n").eval()
    with torch.no_grad():
        exact = module.embed(TEXTS)
        with torch.autocast("cpu", torch.bfloat16):
            rough = module.embed(TEXTS)
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(rough, exact).min() > 0.999
    fit = trainer(max_epochs=1, precision="bf16-mixed")
    fit.fit(SentenceEncoder(encoder=SMALL, head="feature_z", loss="ranking"), TinyPairs())
    assert fit.callback_metrics["train/loss"].isfinite()


def test_a_checkpoint_is_the_module_and_its_tokens(tmp_path: Path) -> None:
    module = SentenceEncoder(encoder=SMALL, head="feature_z_n", pooling="max", optimizer=FAST)
    trainer(max_epochs=1).fit(module, TinyPairs())
    save(module, tmp_path / "model.ckpt")
    loaded = load_module(tmp_path / "model.ckpt").eval()
    assert isinstance(loaded, SentenceEncoder)
    with torch.no_grad():
        assert torch.equal(loaded.embed(TEXTS), module.eval().embed(TEXTS))


def test_a_checkpoint_of_a_pretrained_model_needs_its_folder_no_more(tmp_path: Path) -> None:
    with quiet():
        folder = write_bert(tmp_path / "bert")
    module = SentenceEncoder(encoder=partial(PretrainedTransformer, name=str(folder), max_length=32))
    trainer(max_epochs=1).fit(module, TinyPairs())
    save(module, tmp_path / "model.ckpt")
    shutil.rmtree(folder)
    loaded = load_module(tmp_path / "model.ckpt").eval()
    with torch.no_grad():
        assert torch.equal(loaded.embed(TEXTS), module.eval().embed(TEXTS))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({"../x": torch.zeros(1, dtype=torch.uint8)}, r"a tokenizer's file cannot be called '\.\./x'"),
        ({"tokenizer.json": torch.zeros(1)}, r"the tokenizer's tokenizer\.json is not made of bytes"),
        ({"tokenizer.json": torch.zeros(9, dtype=torch.uint8)}, "its tokenizer cannot be read"),
        (None, "it has no tokenizer"),
    ],
)
def test_a_checkpoint_with_damaged_tokens_is_refused(tokens: Any, message: str, tmp_path: Path) -> None:
    save(encoder(), tmp_path / "good.ckpt")
    checkpoint = torch.load(tmp_path / "good.ckpt", weights_only=True)
    checkpoint |= {"tokenizer": checkpoint["tokenizer"] | tokens} if tokens else {}
    if tokens is None:
        del checkpoint["tokenizer"]
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match=rf"bad\.ckpt is refused: {message}"):
        load_module(tmp_path / "bad.ckpt")


def test_averaged_weights_are_trained_and_read(tmp_path: Path) -> None:
    module = SentenceEncoder(encoder=SMALL, head="n", optimizer=FAST)
    callbacks = [EMAWeightAveraging(decay=0.5, use_buffers=False), ModelCheckpoint(tmp_path, "model")]
    trainer(max_epochs=1, callbacks=callbacks, enable_checkpointing=True).fit(module, TinyPairs())
    averaged, raw = (load_module(tmp_path / "model.ckpt", kind) for kind in ("ema", "raw"))  # type: ignore[arg-type]
    assert not torch.equal(weights(averaged), weights(raw))  # type: ignore[arg-type]
    copy.deepcopy(module)


def test_a_small_transformer_needs_texts_to_learn_its_tokens_from() -> None:
    data = TinyPairs()
    data.setup("fit")
    with pytest.raises(ValueError, match="learns its tokens from a datamodule's training pairs"):
        trainer(max_epochs=1).fit(SentenceEncoder(encoder=SMALL), data.train_dataloader(), data.val_dataloader())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "z_c"}, "head must be one of none, z, n, c, c_n"),
        ({"pooling": "sum"}, "pooling must be one of mean, cls, max, got 'sum'"),
        ({"loss": "triplet"}, "loss must be one of cosine, euclidean, ranking, got 'triplet'"),
    ],
)
def test_options_that_there_are_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(**options)


def test_what_others_have_trained_can_be_tested_at_once(tmp_path: Path) -> None:
    with quiet():
        folder = write_bert(tmp_path / "bert")
    pretrained = partial(PretrainedTransformer, name=str(folder), max_length=32)
    module = SentenceEncoder(encoder=pretrained)
    assert module.is_pretrained
    assert not SentenceEncoder(encoder=pretrained, head="feature_c").is_pretrained  # its means are yet to be learned
    assert not encoder().is_pretrained
    architecture = module.encoder.arguments()["architecture"]
    untrained = partial(PretrainedTransformer, name="none", max_length=32, architecture=architecture)
    assert not SentenceEncoder(encoder=untrained).is_pretrained
