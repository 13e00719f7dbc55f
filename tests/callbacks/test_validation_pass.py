"""Callbacks see a module's layers in the validation pass itself: one pass a batch, also of modules of others."""

import functools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from callbacks import Hubness, LabelGeometry, RepresentationSimilarity
from datamodules import Digits
from lightning_modules.sibling_classifiers import SiblingClassifiers
from lightning_modules.softmax_classifier import SoftmaxClassifier
from likeness.hubness.analysis import analyse_hubness
from likeness.label_geometry.similarity import raw_similarity
from likeness.networks import MLP
from likeness.similarity.pairwise import compare_all_pairs

X = torch.randn(90, 6, generator=torch.manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


class Stranger(pl.LightningModule):
    """A classifier that knows nothing of this project, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        body = OrderedDict(l1=nn.Linear(6, 5), act=nn.ReLU(inplace=True), drop=nn.Dropout(0.5), fc=nn.Linear(5, 3))
        self.model = nn.Sequential(body)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", cross_entropy(self.model(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def f(self) -> Tensor:
        """What enters the head, with the bias's coordinate."""
        with torch.no_grad():
            h = self.model.l1(X).relu()
        return torch.cat([h, torch.ones(len(h), 1)], dim=1)

    def g(self) -> Tensor:
        return torch.cat([self.model.fc.weight, self.model.fc.bias[:, None]], dim=1).detach()


def train(folder: Path, *callbacks: pl.Callback, model: pl.LightningModule, data: Any = None) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=1, callbacks=list(callbacks), enable_checkpointing=False, **quiet
    )
    if data is None:
        loaders = [DataLoader(TensorDataset(X, Y), batch_size=size) for size in (30, 25)]
        trainer.fit(model, *loaders)
    else:
        trainer.fit(model, datamodule=data)
    return trainer


def hooks(module: nn.Module) -> int:
    return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in module.modules())


def test_a_module_of_others_is_measured_through_hooks(tmp_path: Path) -> None:
    model = Stranger()
    labels, hubness = LabelGeometry(head="model.fc"), Hubness(layers=["model.l1", "model.act"], k=5)
    train(tmp_path, labels, hubness, model=model)
    torch.testing.assert_close(labels.values["raw"][0], raw_similarity(model.g()[:, :5].double()))
    hidden = model.f()[:, :5]
    expected = analyse_hubness(hidden, 5)
    assert hubness.values["model.act/k_skewness"].item() == pytest.approx(expected.k_skewness, rel=1e-6)
    before = analyse_hubness(model.model.l1(X).detach(), 5)
    assert hubness.values["model.l1/k_skewness"].item() == pytest.approx(before.k_skewness, rel=1e-6)
    assert hooks(model) == 0
    assert model.training


def test_it_is_compared_with_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reference(nn.Module):
        def embed(self, x: Tensor) -> Tensor:
            return x[:, :3]

        def unembeddings(self) -> Tensor:
            return torch.eye(3)

    monkeypatch.setattr("callbacks.representation_similarity._load", lambda paths: [("reference", Reference())])
    callback = RepresentationSimilarity(measures=["kl", "m_cca_f"], references=["reference"], head="model.fc")
    model = Stranger()
    train(tmp_path, callback, model=model)
    reference = Reference()
    expected = compare_all_pairs([model.f(), reference.embed(X)], [model.g(), reference.unembeddings()])
    for name in ("kl", "m_cca_f"):
        torch.testing.assert_close(callback.values[name], expected[name], rtol=1e-6, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("callbacks", [(), (RepresentationSimilarity, LabelGeometry, Hubness)])
@pytest.mark.parametrize("siblings", [True, False])
def test_one_pass_a_batch_whatever_callbacks_there_are(tmp_path: Path, siblings: bool, callbacks: Any) -> None:
    if siblings:
        model: Any = SiblingClassifiers((1, 8, 8), 10, num_members=2, dim=3)
    else:
        model = SoftmaxClassifier((1, 8, 8), 10, dim=3, embedding=functools.partial(MLP, width=8))
    built = []
    for callback in callbacks:
        if siblings or callback is not RepresentationSimilarity:  # a single model has nothing to be compared with
            built.append(callback())
    passes = []
    model.network.embedding.register_forward_hook(lambda *_: passes.append(model.training))
    data = Digits(eval_batch_size=64)
    train(tmp_path, *built, model=model, data=data)
    batches = -(-len(data.splits["val"]) // 64)
    assert passes.count(False) == batches + min(2, batches)  # the sanity check runs two batches more


def test_hooks_are_gone_after_an_error(tmp_path: Path) -> None:
    model = Stranger()
    model.validation_step = lambda batch, batch_idx: model.model(batch[0][:, :2])  # type: ignore[assignment]
    model.training_step = lambda batch, batch_idx: model.model(batch[0]).sum()  # type: ignore[assignment]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        max_epochs=1,
        callbacks=[Hubness(layers=["model.act"])],
        num_sanity_val_steps=0,
        **quiet,
    )
    loader = DataLoader(TensorDataset(X, Y), batch_size=30)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trainer.fit(model, loader, loader)
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda: Hubness(), r"Hubness measures what embed\(\) answers, and Stranger has no embed\(\): name its layers"),
        (lambda: Hubness(layers=["model.l2"]), "there is no layer 'model.l2'"),
        (lambda: LabelGeometry(), "LabelGeometry measures softmax models, .* Stranger is none: name its last linear"),
        (lambda: LabelGeometry(head="model.act"), "the head 'model.act' of Stranger is a ReLU, not a Linear layer"),
        (lambda: LabelGeometry(head="fc"), "Stranger has no layer 'fc': did you mean model.fc"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, callback: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(tmp_path, callback(), model=Stranger())
