"""Probes at validation are what the same probes say by hand, of our modules and of others."""

import functools
from pathlib import Path

import pytest
import torch

from callbacks import Probes
from datamodules import Digits
from lightning_modules.sibling_classifiers import SiblingClassifiers
from lightning_modules.softmax_classifier import SoftmaxClassifier
from likeness.neighbours.classification import knn_score
from likeness.neighbours.exact import nearest_neighbours
from likeness.networks import MLP
from likeness.probes import fit_probe
from tests.callbacks.test_validation_pass import Stranger, X, Y, train


def test_the_layers_of_a_classifier(tmp_path: Path) -> None:
    model = SoftmaxClassifier((1, 8, 8), 10, dim=3, embedding=functools.partial(MLP, width=8, dropout=0.2))
    data, callback = Digits(eval_batch_size=64), Probes(layers=["embed", "network.embedding.l2"], train_samples=300)
    train(tmp_path, callback, model=model, data=data)
    split, val = data.splits["train"], data.splits["val"]
    chosen = split[torch.arange(300) * len(split) // 300]
    held_out = val[torch.arange(len(val))]
    model.eval()
    with torch.no_grad():
        f, g = model.embed(chosen.x), model.embed(held_out.x)
    probe = fit_probe(f, chosen.y, 10)
    expected = (probe.predict(g) == held_out.y).double().mean().item()
    assert callback.values["embed/linear"].item() == pytest.approx(expected)
    knn = knn_score(nearest_neighbours(f, 10, queries=g), chosen.y, 10, query_labels=held_out.y)
    assert callback.values["embed/knn"].item() == pytest.approx(1 - knn.error)
    assert callback.values["network.embedding.l2/linear"] > 0.3


def test_a_module_of_others(tmp_path: Path) -> None:
    class WithForward(Stranger):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x)  # type: ignore[no-any-return]

    model, callback = WithForward(), Probes(layers=["model.act"], train_samples=90, k=3, probe="logistic")
    train(tmp_path, callback, model=model)
    hidden = model.f()[:, :5]
    expected = (fit_probe(hidden, Y, 3, "logistic").predict(hidden) == Y).double().mean().item()
    assert callback.values["model.act/linear"].item() == pytest.approx(expected)
    assert len(X) == 90


def test_siblings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Probes measures one model, and SiblingClassifiers holds siblings"):
        train(tmp_path, Probes(), model=SiblingClassifiers((1, 8, 8), 10, num_members=2), data=Digits())
