"""One classifier: its metrics, its randomness, its optimisers."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import ReduceLROnPlateau
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, log_loss

from lightning_modules import SoftmaxClassifier
from likeness.batch import Batch
from likeness.networks import MLP, LabelTable, LinearHead
from likeness.protocols import SoftmaxModel
from tests.lightning_modules.points import Points, trainer

SMALL = functools.partial(MLP, width=8)


def classifier(**kwargs: Any) -> SoftmaxClassifier:
    return SoftmaxClassifier(**{"input_shape": (2,), "num_classes": 3, "embedding": SMALL} | kwargs)


def split(name: str) -> Batch:
    data = Points()
    data.setup(None)
    part = data.splits[name]  # type: ignore[index]
    return part[torch.arange(len(part))]


def weights(model: SoftmaxClassifier) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def test_satisfies_the_protocol() -> None:
    assert isinstance(classifier(), SoftmaxModel)


@pytest.mark.parametrize("unembedding", [LabelTable, LinearHead])
def test_prediction_is_the_softmax_of_f_g(unembedding: Any) -> None:
    model = classifier(unembedding=unembedding, dim=4).eval()
    predictions = trainer().predict(model, Points())
    batch = split("test")
    assert torch.equal(torch.cat([part["id"] for part in predictions]), batch.id)
    log_probs = torch.cat([part["log_probs"] for part in predictions])
    with torch.no_grad():
        f, g = model.embed(batch.x), model.unembeddings()
    torch.testing.assert_close(torch.cat([part["representations"] for part in predictions]), f)
    expected = log_softmax((f.double() @ g.detach().double().T).numpy(), axis=1)
    np.testing.assert_allclose(log_probs.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("eval_batch_size", [1, 5, 100])
@pytest.mark.parametrize("stage", ["val", "test"])
def test_metrics_are_those_of_scikit_learn(stage: str, eval_batch_size: int) -> None:
    model, data = classifier(), Points(eval_batch_size=eval_batch_size)
    evaluate = trainer().validate if stage == "val" else trainer().test
    (metrics,) = evaluate(model, data, verbose=False)
    batch = split(stage)
    probabilities = model(batch.x).exp().detach().numpy()
    assert metrics[f"{stage}/nll"] == pytest.approx(log_loss(batch.y, probabilities), abs=1e-6)
    assert metrics[f"{stage}/accuracy"] == pytest.approx(accuracy_score(batch.y, probabilities.argmax(1)), abs=1e-6)


def test_two_ranks_with_unequal_shares_measure_the_same(tmp_path: Path) -> None:
    alone = trainer()
    alone.test(classifier(), Points(eval_batch_size=4), verbose=False)
    both = trainer(strategy="ddp_fork", devices=2)
    both.test(classifier(), Points(eval_batch_size=4), verbose=False)
    for name, value in alone.callback_metrics.items():
        torch.testing.assert_close(both.callback_metrics[name], value, rtol=1e-7, atol=0)


def test_it_learns() -> None:
    model = classifier(optimizer=functools.partial(torch.optim.Adam, lr=0.01))
    fit = trainer(max_epochs=40)
    fit.fit(model, Points())
    assert fit.callback_metrics["val/accuracy"] > 0.8
    assert set(fit.callback_metrics) == {"train/loss", "val/nll", "val/accuracy"}


def test_double_precision() -> None:
    model = classifier()
    fit = trainer(max_epochs=1, precision="64-true")
    fit.fit(model, Points())
    assert weights(model).dtype == torch.float64
    assert model.network.input_scale.dtype == torch.float64
    assert model.val_nll.total.dtype == torch.float64


def test_training_depends_on_the_seed_alone() -> None:
    def train(seed: int, order_seed: int | None, noise: int) -> torch.Tensor:
        torch.manual_seed(noise)
        model = classifier(seed=seed, order_seed=order_seed, embedding=functools.partial(MLP, width=8, dropout=0.5))
        trainer(max_epochs=2).fit(model, Points())
        return weights(model)

    first = train(seed=3, order_seed=None, noise=0)
    assert torch.equal(train(seed=3, order_seed=3, noise=1), first)
    assert not torch.equal(train(seed=3, order_seed=4, noise=0), first)
    assert not torch.equal(train(seed=4, order_seed=3, noise=0), first)


class LearningRates(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_schedulers_step_with_the_optimiser() -> None:
    rates = LearningRates()
    scheduler = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    model = classifier(optimizer=functools.partial(torch.optim.SGD, lr=1.0), scheduler=scheduler)
    trainer(max_steps=4, callbacks=[rates]).fit(model, Points())
    assert rates.seen == [0.5, 0.25, 0.125, 0.0625]


@pytest.mark.parametrize("scheduler", [ReduceLROnPlateau, torch.optim.lr_scheduler.ReduceLROnPlateau])
def test_plateaus_follow_the_validation_loss(scheduler: Any) -> None:
    rates = LearningRates()
    options: dict[str, Any] = {"patience": 0, "factor": 0.5, "threshold": 1e9, "threshold_mode": "abs"}
    if scheduler is ReduceLROnPlateau:
        options["monitor"] = "val/accuracy"
    model = classifier(
        optimizer=functools.partial(torch.optim.SGD, lr=0.01), scheduler=functools.partial(scheduler, **options)
    )
    trainer(max_epochs=4, callbacks=[rates]).fit(model, Points())
    assert rates.seen == [0.01] * 10 + [0.005] * 5 + [0.0025] * 5  # nothing falls by 1e9 after the first epoch
    monitor = model.configure_optimizers()["lr_scheduler"]["monitor"]
    assert monitor == options.get("monitor", "val/nll")


def test_wrong_labels_are_named() -> None:
    class Wrong(Points):
        num_classes = 4

        def load(self, split: Any) -> Any:
            part = super().load(split)
            part.y[3] = 3
            return part

    with pytest.raises(ValueError, match=r"label 3 lies outside 0..2 \(num_classes=3\)"):
        trainer(max_epochs=1).fit(classifier(), Wrong())
    with pytest.raises(ValueError, match=r"label 3 lies outside"):
        trainer().test(classifier(), Wrong(), verbose=False)


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match=r"x has shape \[5, 2\], the model takes \[N, 7\]"):
        trainer().test(classifier(input_shape=(7,)), Points(), verbose=False)
