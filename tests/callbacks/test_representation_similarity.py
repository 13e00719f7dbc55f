"""The callback in real trainings of a tiny model."""

import csv
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.loggers import Logger

from callbacks.loggers import RunCSVLogger
from callbacks.representation_similarity import RepresentationSimilarity
from lightning_modules.softmax_classifier import SoftmaxClassifier
from likeness.networks import MLP
from likeness.similarity.comparison import compare_softmax_models
from likeness.similarity.predictions import kl, log_probabilities
from likeness.similarity.representations.cca import m_cca
from tests.callbacks.toy_siblings import ToyData, ToySiblings, fit, save_checkpoint, trainer
from tests.likeness.similarity.softmax_pairs import mean_divergences


def logged(run: pl.Trainer) -> dict[str, float]:
    return {key: float(value) for key, value in run.callback_metrics.items()}


def test_logs_the_measures_of_the_final_weights(tmp_path: Path) -> None:
    callback, model, data = RepresentationSimilarity(), ToySiblings(), ToyData()
    run = fit(tmp_path, callback, model=model, data=data)
    with torch.no_grad():
        embeddings, unembeddings = list(model.eval().embed(data.val.x)), list(model.unembeddings())
        divergences = mean_divergences(kl, log_probabilities(embeddings, unembeddings))
    directed = [float(divergences[i, j]) for i in range(3) for j in range(3) if i != j]
    correlations = [float(m_cca(embeddings[i], embeddings[j])) for i, j in ((0, 1), (0, 2), (1, 2))]
    values = logged(run)
    assert values["similarity/kl/mean"] == pytest.approx(np.mean(directed), rel=1e-6)
    assert values["similarity/kl/min"] == pytest.approx(min(directed), rel=1e-6)
    assert values["similarity/kl/max"] == pytest.approx(max(directed), rel=1e-6)
    assert values["similarity/m_cca_f/mean"] == pytest.approx(np.mean(correlations), rel=1e-6)
    assert values["similarity/m_cca_f/min"] == pytest.approx(min(correlations), rel=1e-6)
    assert 0 < values["similarity/m_cca_g/max"] <= 1
    assert values["similarity/seconds"] > 0
    torch.testing.assert_close(callback.values["kl"], divergences, rtol=1e-11, atol=0)
    with (tmp_path / "figures" / "embeddings.csv").open() as file:
        table = list(csv.DictReader(file))
    centred = [g - g.mean(0) for g in unembeddings]
    for vector, expected, classes in (("f", embeddings, data.val.y.tolist()), ("g", centred, range(4))):
        rows = [row for row in table if row["vector"] == vector]
        assert [(row["model"], row["class"]) for row in rows] == [(m, str(y)) for m in "012" for y in classes]
        drawn = np.array([[float(row["x"]), float(row["y"])] for row in rows])
        np.testing.assert_allclose(drawn, torch.cat(expected).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_writes_metrics_and_figures_into_the_run_directory(tmp_path: Path, bias: bool) -> None:
    callback = RepresentationSimilarity(figures_every_n_validations=2)
    fit(tmp_path, callback, model=ToySiblings(bias=bias), max_epochs=3, logger=RunCSVLogger(str(tmp_path)))
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert all(0 < float(row["similarity/kl/mean"]) < math.inf for row in rows)
    names = ["embeddings", "similarity_kl", "similarity_m_cca_f", "similarity_m_cca_g"]
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    drawn = {f"{name}{end}" for name in names for end in (".png", ".pdf", "-step=000008.png")}
    assert written == drawn | {"embeddings.csv"}


def test_validation_alone_measures_too(tmp_path: Path) -> None:
    run = trainer(tmp_path, RepresentationSimilarity(every_n_validations=5))
    run.validate(ToySiblings(), datamodule=ToyData(), verbose=False)
    assert "similarity/kl/mean" in run.callback_metrics
    assert not (tmp_path / "figures").exists()


def test_distances_are_of_all_inputs_and_their_input_side_of_those_that_are_kept(tmp_path: Path) -> None:
    callback = RepresentationSimilarity(["d_llv", "d_fg", "d_logit", "agreement"], max_stored=12)
    model, data = ToySiblings(2, num_classes=5), ToyData(num_classes=5)
    values = logged(fit(tmp_path, callback, model=model, data=data))
    with torch.no_grad():
        f, g = model.eval().embed(data.val.x), model.unembeddings()
    found = compare_softmax_models(f[0], g[0], f[1], g[1])
    for name in ("d_logit", "agreement"):
        assert values[f"similarity/{name}/mean"] == pytest.approx(getattr(found, name), rel=1e-6)
    assert found.term_2 is not None
    assert max(found.term_1, found.term_2) < values["similarity/d_llv/mean"]  # fewer inputs to choose from


def test_a_validation_without_measurement_leaves_what_was_measured(tmp_path: Path) -> None:
    fit(tmp_path, RepresentationSimilarity(["kl"], every_n_validations=2), max_epochs=3)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        *("embeddings.png", "embeddings.pdf", "embeddings.csv", "similarity_kl.png", "similarity_kl.pdf"),
    }


@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_what_is_measured(tmp_path: Path, first: bool) -> None:
    callback, averages = RepresentationSimilarity(), EMAWeightAveraging(decay=0.9, use_buffers=False)
    order = [callback, averages] if first else [averages, callback]
    data = ToyData()
    fit(tmp_path, *order, data=data)
    averaged = averages._average_model.module.eval()
    with torch.no_grad():
        log_p = log_probabilities(averaged.embed(data.val.x), averaged.unembeddings())
    torch.testing.assert_close(callback.values["kl"], mean_divergences(kl, log_p), rtol=1e-9, atol=0)


def references(monkeypatch: pytest.MonkeyPatch, **models: torch.nn.Module) -> None:
    """Have these models stand for checkpoints; loading them draws random numbers, as building a network does."""

    def load_embedders(path: str) -> list[tuple[str, Any]]:
        torch.randn(10)
        return [(path, models[Path(path).name].eval().requires_grad_(False))]

    monkeypatch.setattr("callbacks.representation_similarity.load_embedders", load_embedders)


def test_one_model_against_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = {"near": ToySiblings(0, seed=1), "far": ToySiblings(0, dim=3, seed=2)}
    references(monkeypatch, **others)
    callback = RepresentationSimilarity(references=["runs/near", "runs/far"])
    model, data = ToySiblings(0), ToyData()
    run = fit(tmp_path, callback, model=model, data=data)
    with torch.no_grad():
        everyone = [model.eval(), *others.values()]
        log_p = log_probabilities([m.embed(data.val.x) for m in everyone], [m.unembeddings() for m in everyone])
    matrix = mean_divergences(kl, log_p)
    between = [matrix[0, 1], matrix[0, 2], matrix[1, 0], matrix[2, 0]]  # not the references with each other
    assert logged(run)["similarity/kl/mean"] == pytest.approx(float(np.mean(between)), rel=1e-6)
    assert logged(run)["similarity/kl/max"] == pytest.approx(float(np.max(between)), rel=1e-6)


def test_loading_references_leaves_the_training_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references(monkeypatch, near=ToySiblings(0, seed=1))
    watched, alone = ToySiblings(0), ToySiblings(0)
    fit(tmp_path, RepresentationSimilarity(references=["near"]), model=watched)
    fit(tmp_path, model=alone)
    assert torch.equal(watched.f, alone.f)


def test_a_saved_classifier_as_reference(tmp_path: Path) -> None:
    def classifier(seed: int) -> SoftmaxClassifier:
        return SoftmaxClassifier((5,), 4, embedding=partial(MLP, width=8), seed=seed)

    path = tmp_path / "other" / "checkpoints" / "last.ckpt"
    save_checkpoint(classifier(1), path)
    callback = RepresentationSimilarity(references=[str(tmp_path / "other")])
    run = fit(tmp_path, callback, model=classifier(0), max_epochs=1)
    assert callback.values["kl"].shape == (2, 2)
    assert 0 < logged(run)["similarity/m_cca_f/mean"] <= 1


class ImageLogger(Logger):
    """Keeps what a W&B logger would be sent."""

    name, version = "images", 0

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[str, list[np.ndarray]] = {}

    def log_metrics(self, metrics: Any, step: int | None = None) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_image(self, key: str, images: list[np.ndarray], step: int | None = None) -> None:
        self.images[key] = images


def test_loggers_get_integer_images_that_are_not_constant(tmp_path: Path) -> None:
    logger = ImageLogger()
    fit(tmp_path, RepresentationSimilarity(["kl"]), logger=logger)
    assert set(logger.images) == {"figures/similarity_kl", "figures/embeddings"}
    for (image,) in logger.images.values():
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.std() > 10


def test_a_fast_dev_run_draws_nothing(tmp_path: Path) -> None:
    fit(tmp_path, RepresentationSimilarity(), fast_dev_run=True)
    assert not (tmp_path / "figures").exists()


def test_what_cannot_be_measured_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(message: str, callback: pl.Callback, model: Any, data: Any = None) -> None:
        before = [parameter.clone() for parameter in model.parameters()]
        with pytest.raises(ValueError, match=message):
            fit(tmp_path, callback, model=model, data=data)
        assert all(map(torch.equal, before, model.parameters()))

    refuses("nothing to compare this run with", RepresentationSimilarity(), ToySiblings(0))
    references(monkeypatch, five=ToySiblings(0, num_classes=5))
    refuses("this run has 4, five has 5", RepresentationSimilarity(references=["five"]), ToySiblings(0))


@pytest.mark.filterwarnings("ignore:m_cca_. is NaN for 3 of 3 pairs")
@pytest.mark.parametrize(("dim", "size"), [(6, 40), (4, 3)])
def test_what_is_undefined_is_counted_and_the_rest_is_measured(tmp_path: Path, dim: int, size: int) -> None:
    """More dimensions than labels, or than samples: m_CCA of g or of f does not exist."""
    run = fit(tmp_path, RepresentationSimilarity(), model=ToySiblings(dim=dim), data=ToyData(eval_size=size))
    values = logged(run)
    name = "m_cca_g" if dim == 6 else "m_cca_f"
    assert values[f"similarity/{name}/undefined"] == 3
    assert f"similarity/{name}/mean" not in values
    assert 0 < values["similarity/kl/mean"] < math.inf


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="unknown measure 'cka'"):
        RepresentationSimilarity(["cka"])
    with pytest.raises(ValueError, match="figures_every_n_validations must be at least 1, got 0"):
        RepresentationSimilarity(figures_every_n_validations=0)


class KeepMetrics(pl.Callback):
    """Each rank's metrics, in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.save(logged(trainer), self.folder / f"{trainer.global_rank}.pt")


def test_two_ranks_log_what_one_does(tmp_path: Path) -> None:
    """Nine samples on two ranks; the learning rate is zero, for gradients are not what is compared."""

    def data() -> ToyData:
        return ToyData(eval_size=9, eval_batch_size=2)

    def model() -> ToySiblings:
        return ToySiblings(learning_rate=0.0)

    expected = logged(fit(tmp_path, RepresentationSimilarity(), model=model(), data=data(), max_epochs=1))
    fit(
        tmp_path,
        RepresentationSimilarity(),
        KeepMetrics(tmp_path),
        model=model(),
        data=data(),
        max_epochs=1,
        strategy="ddp_fork",
        devices=2,
    )
    for rank in range(2):
        values = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert values.keys() == expected.keys()
        for key in values.keys() - {"similarity/seconds"}:
            assert values[key] == pytest.approx(expected[key], rel=1e-6)
