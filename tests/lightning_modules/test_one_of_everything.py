"""One sibling, one label, one sample in a batch, one step of depth, one draw, one pair: it works, or says why not."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import callbacks
from lightning_modules import DiffEnc, SiblingClassifiers, SoftmaxClassifier, VariationalDiffusion
from likeness.diffusion import LearnedRatio
from likeness.networks import CNN, MLP, EncoderMLP, EncoderUNet, LabelTable, LinearHead, ResNet18, ScoreMLP, ScoreUNet
from tests.callbacks.diffusion.toy_diffusion import LEVELS, ToyImages, keep_figures
from tests.lightning_modules.points import trainer
from tests.lightning_modules.tiny_sentences import TinyPairs, encoder

SHAPE = (1, 8, 8)
SCORE = partial(ScoreUNet, width=8, depth=1, groups=4)
ENCODER = partial(EncoderUNet, width=8, depth=1, groups=4, output_groups=4)
IMAGES = partial(DiffEnc, SHAPE, LEVELS, SCORE, ENCODER)
POINTS = partial(DiffEnc, (2,), LEVELS, ScoreMLP, EncoderMLP)
LOOKS = (
    partial(callbacks.ElboDiagnostics, 1, gap_samples=1),
    partial(callbacks.LossByGamma, 2, 1),
    partial(callbacks.GradientNorms, 1, num_bins=1, num_samples=1),
    partial(callbacks.EncoderDiagnostics, 1, num_samples=1, num_times=2, num_images=1),
    partial(callbacks.DepthCurve, (1,), num_samples=1, every_n_validations=1),
    partial(callbacks.ScheduleDiagnostics, 1, num_samples=1),
    partial(callbacks.SampleFigures, 1, num_steps=1, path_samples=1, path_length=1, every_n_validations=1),
)


class OneSample(ToyImages):
    """One training sample and one to evaluate, both of label 0."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, size=1, eval_size=1)
        self.train.y = self.val.y = torch.zeros(1, dtype=torch.long)

    def train_dataloader(self) -> Any:
        return self._loader(self.train, 1)

    def test_dataloader(self) -> Any:
        return self.val_dataloader()


def metrics(module: pl.LightningModule, *watched: pl.Callback, folder: Path | None = None) -> dict[str, float]:
    """What one step on one sample, its validation and a test log."""
    shape = tuple(module.hparams["input_shape"])
    fit = trainer(max_steps=1, callbacks=list(watched), default_root_dir=folder)
    fit.fit(module, OneSample(shape))
    logged = {name: float(value) for name, value in fit.callback_metrics.items()}
    fit.test(module, OneSample(shape), verbose=False)
    return logged | {name: float(value) for name, value in fit.callback_metrics.items()}


@pytest.mark.parametrize("build", [partial(IMAGES, num_steps=1, lean=True, eval_draws=2), POINTS])
def test_one_sample_and_one_step_of_a_diffusion_model(
    build: partial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_figures(monkeypatch)
    logged = metrics(build(), *(look() for look in LOOKS), folder=tmp_path)
    assert all(torch.tensor(value).isfinite() for value in logged.values())
    assert "test/bpd_sample_se" not in logged
    assert ("test/bpd_draw_se" in logged) == ("eval_draws" in build.keywords)


def test_one_label_of_a_diffusion_model() -> None:
    model = VariationalDiffusion(SHAPE, LEVELS, SCORE, class_conditional=True, num_classes=1)
    assert metrics(model)["test/bpd"] > 0
    point = DiffEnc((1,), LEVELS, ScoreMLP, EncoderMLP, num_steps=1, ratio=LearnedRatio)
    assert metrics(point)["test/bpd"] > 0


@pytest.mark.parametrize("embedding", [MLP, partial(CNN, width=4)])
@pytest.mark.parametrize("unembedding", [LabelTable, LinearHead])
def test_one_sibling_and_one_label(embedding: Any, unembedding: Any) -> None:
    options = {"dim": 1, "embedding": embedding, "unembedding": unembedding}
    alone = metrics(SoftmaxClassifier(SHAPE, 1, **options))
    assert (alone["test/nll"], alone["test/accuracy"]) == (0, 1)
    sibling = metrics(SiblingClassifiers(SHAPE, 1, num_members=1, **options))
    assert [sibling[f"test/nll{key}"] for key in ("", "/0", "/min", "/max")] == [0] * 4


def test_one_sibling_is_the_classifier() -> None:
    options: dict[str, Any] = {"embedding": partial(MLP, dropout=0.2), "seed": 3}
    alone, sibling = SoftmaxClassifier(SHAPE, 2, **options), SiblingClassifiers(SHAPE, 2, 1, **options)
    assert metrics(sibling)["test/nll/0"] == metrics(alone)["test/nll"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (partial(SoftmaxClassifier, SHAPE, 2, embedding=ResNet18), "batch_size 1 of images 8x8"),
        (partial(SiblingClassifiers, SHAPE, 2, 1, embedding=ResNet18), "batch_size 1 of images 8x8"),
        (partial(SoftmaxClassifier, SHAPE, 1), "num_classes must be at least 2, got 1"),
        (
            partial(VariationalDiffusion, (1, 1, 1), LEVELS, partial(SCORE, groups=8)),
            "8 groups of 8 channels at 1x1 hold one value each",
        ),
        (
            partial(DiffEnc, (1, 1, 1), LEVELS, SCORE, partial(ENCODER, kind="constant", groups=8)),
            "8 groups of 8 channels at 1x1 hold one value each",
        ),
        (partial(SiblingClassifiers, SHAPE, 2, 0), "num_members must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_says_so(model: partial, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics(model())


def test_a_batch_of_one_is_enough_for_larger_images() -> None:
    assert metrics(SoftmaxClassifier((1, 16, 16), 2, embedding=ResNet18))["test/nll"] > 0


@pytest.mark.parametrize("size", [1, 17])
def test_one_pair_has_no_correlation(size: int) -> None:
    data = TinyPairs()
    data.sizes = data.sizes | {"test": size}
    found = trainer().test(encoder(), data, verbose=False)[0]["test/spearman"]
    assert (found != found) == (size == 1)  # NaN
