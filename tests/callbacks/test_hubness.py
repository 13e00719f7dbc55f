"""The hubness callback says what analyse_hubness says of the same samples, and training does not notice it."""

import csv
import functools
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel
from torch import Tensor, nn

from callbacks.hubness import Hubness, choose_samples
from datamodules import Digits
from lightning_modules import SiblingClassifiers, SoftmaxClassifier
from likeness.batch import Batch
from likeness.hubness.analysis import analyse_hubness
from likeness.neighbours.classification import knn_score
from likeness.neighbours.exact import nearest_neighbours
from likeness.networks import CNN, MLP
from tests.lightning_modules.tiny_diffusion import awake, vdm

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def trainer(tmp_path: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        accelerator="cpu",
        use_distributed_sampler=False,
        **(QUIET | options),
    )


def classifier() -> SoftmaxClassifier:
    return SoftmaxClassifier((1, 8, 8), 10, dim=6, input_shift=[8.0], input_scale=[8.0], seed=3)


@pytest.fixture(scope="module")
def digits() -> Batch:
    data = Digits()
    data.setup("validate")
    split = data.splits["val"]
    return split[torch.arange(len(split))]


def test_each_layer_is_measured_on_the_chosen_samples(tmp_path: Path, digits: Batch) -> None:
    model, chosen = classifier(), choose_samples(len(digits.y), 100, 7).nonzero().flatten()
    hidden = next(name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    callback = Hubness(("embed", hidden), k=5, max_samples=100, seed=7, knn_accuracy=True, num_hubs=4)
    trainer(tmp_path, callback).validate(model, Digits(eval_batch_size=64), verbose=False)

    x, y = digits.x[chosen], digits.y[chosen]
    found: dict[str, Tensor] = {}
    hook = model.get_submodule(hidden).register_forward_hook(lambda *call: found.update({hidden: call[2].clone()}))
    with torch.no_grad():
        found["embed"] = model.eval().embed(x)
    hook.remove()
    for layer, embeddings in found.items():
        report = analyse_hubness(embeddings, 5, labels=y)
        for name, value in report.indices().items():
            assert callback.values[f"{layer}/{name}"].item() == pytest.approx(value, abs=1e-12), (layer, name)
        score = knn_score(nearest_neighbours(embeddings, 5), y, 5)
        assert callback.values[f"{layer}/knn_accuracy"].item() == pytest.approx(1 - score.error)
        assert callback.values[f"{layer}/mean_norm"].item() == pytest.approx(embeddings.mean(0).norm().item(), rel=1e-5)
        assert callback.values[f"{layer}/dead_dimensions"] == (embeddings.std(0) == 0).sum()
        positions, occurrences = report.top_hubs(4)
        with (tmp_path / "figures" / "hubs.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["layer"] == layer]
        assert [int(row["sample"]) for row in rows] == chosen[positions].tolist()
        assert [int(row["occurrences"]) for row in rows] == occurrences.tolist()
        assert [int(row["label"]) for row in rows] == y[positions].tolist()


def test_siblings_answer_with_their_mean_and_range(tmp_path: Path, digits: Batch) -> None:
    model, callback = SiblingClassifiers((1, 8, 8), 10, num_members=3, dim=4, seed=5), Hubness(k=3)
    trainer(tmp_path, callback).validate(model, Digits(), verbose=False)
    with torch.no_grad():
        embeddings = model.eval().embed(digits.x)
    skews = torch.tensor([analyse_hubness(f, 3).k_skewness for f in embeddings], dtype=torch.float64)
    for key, expected in (("", skews.mean()), ("/min", skews.min()), ("/max", skews.max())):
        assert callback.values[f"embed/k_skewness{key}"].item() == pytest.approx(expected.item(), abs=1e-12)


def test_a_diffusion_model_has_hubness(tmp_path: Path) -> None:
    callback = Hubness(max_samples=60)
    trainer(tmp_path, callback).validate(awake(vdm()), Digits(), verbose=False)
    assert callback.reports["embed"].n == 60
    assert callback.values["embed/robin_hood"] > 0


def test_training_does_not_notice(tmp_path: Path) -> None:
    def weights(*callbacks: pl.Callback, folder: str) -> dict[str, Tensor]:
        model = SoftmaxClassifier((1, 8, 8), 10, embedding=functools.partial(MLP, dropout=0.3), seed=1)
        trainer(tmp_path / folder, *callbacks, max_steps=6, val_check_interval=2).fit(model, Digits())
        return model.state_dict()

    callback = Hubness(max_samples=50, layers=("embed", "network.embedding"))
    measured, plain = weights(callback, folder="measured"), weights(folder="plain")
    assert all(torch.equal(measured[name], plain[name]) for name in plain)
    assert callback.state_dict() == {"validations": 3}  # not the sanity check
    assert (tmp_path / "measured" / "figures" / "hubness.png").stat().st_size > 2_000


def test_what_is_logged(tmp_path: Path) -> None:
    run = trainer(tmp_path, Hubness(max_samples=50))
    run.validate(classifier(), Digits(), verbose=False)
    logged = {name for name in run.callback_metrics if name.startswith("hubness/")}
    assert {"hubness/seconds", "hubness/embed/robin_hood", "hubness/embed/robin_hood_null"} <= logged
    assert {"hubness/embed/bad_occurrence", "hubness/embed/antihub_rate", "hubness/embed/mean_norm"} <= logged


def test_the_choice_of_samples_is_a_function_of_the_seed() -> None:
    assert choose_samples(100, 30, 1).sum() == 30
    assert torch.equal(choose_samples(100, 30, 1), choose_samples(100, 30, 1))
    assert not torch.equal(choose_samples(100, 30, 1), choose_samples(100, 30, 2))
    assert choose_samples(20, 30, 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ("network.nothing",)}, "there is no layer 'network.nothing': name embed or a submodule.*network"),
        ({"layers": ()}, "layers must name one layer at least"),
        ({"layers": ("embed", "embed")}, "each once"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"max_samples": 0}, "max_samples must be at least 1, got 0"),
        ({"k": 10, "max_samples": 10}, "k must be from 1 to 9, but it is 10"),
        ({"layers": ("network.unembedding",)}, r"layer 'network.unembedding' gives \[10, 6\] for"),
    ],
)
def test_what_cannot_be_measured_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, Hubness(**options)).validate(classifier(), Digits(), verbose=False)


def test_a_layer_of_one_sibling_is_refused(tmp_path: Path) -> None:
    model = SiblingClassifiers((1, 8, 8), 10, num_members=2, dim=4, embedding=functools.partial(CNN, width=4))
    layer = "network.embedding.members.0.features"
    with pytest.raises(ValueError, match=f"layer '{layer}' gives vectors of 1 of the 2 siblings"):
        trainer(tmp_path, Hubness((layer,))).validate(model, Digits(), verbose=False)


def test_a_model_without_embeddings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"BoringModel has no embed\(\)"):
        trainer(tmp_path, Hubness()).validate(BoringModel(), Digits(), verbose=False)
