"""Siblings equal the models trained alone, and answer for all of them."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.cli import ReduceLROnPlateau
from torch import nn, optim

from lightning_modules import SiblingClassifiers, SoftmaxClassifier
from lightning_modules.checkpoints import load_module
from likeness.batch import Batch
from likeness.networks import CNN, MLP, LabelNetwork, LabelTable, LinearHead
from likeness.networks.siblings import OwnMembers
from likeness.protocols import SoftmaxModel
from likeness.seeding import generator, mix
from tests.lightning_modules.points import Points, save, trainer

SHAPE: dict[str, Any] = {"input_shape": (2,), "num_classes": 3}
SEED, MEMBERS = 5, 3
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A second thread splits a single product, but not a batched one, and both then round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def siblings(shared_order: bool = False, num_members: int = MEMBERS, **kwargs: Any) -> SiblingClassifiers:
    return SiblingClassifiers(num_members=num_members, seed=SEED, shared_order=shared_order, **SHAPE | kwargs)


def alone(shared_order: bool = False, **kwargs: Any) -> list[SoftmaxClassifier]:
    order_seed = SEED if shared_order else None
    return [SoftmaxClassifier(seed=SEED + i, order_seed=order_seed, **SHAPE | kwargs) for i in range(MEMBERS)]


def assert_equal_weights(together: SiblingClassifiers, models: list[SoftmaxClassifier], tolerance: float) -> None:
    for i, model in enumerate(models):
        for (name, value), expected in zip(
            together.member(i).state_dict().items(), model.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(value, expected, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def batch(seed: int, step: int, dtype: torch.dtype) -> Batch:
    random = generator(seed, step)
    x = 3 * torch.randn(32, 2, generator=random, dtype=torch.float64)
    return Batch(x.to(dtype), torch.randint(3, (32,), generator=random), torch.arange(32))


def train(model: nn.Module, loss: Any, batches: Any, clip: Any, steps: int = 40) -> None:
    """A plain loop."""
    configured = model.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured.get("lr_scheduler", {}).get("scheduler")
    for step in range(steps):
        optimizer.zero_grad()
        loss(model, step, batches(step)).backward()
        clip(model, optimizer)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def loss_alone(model: SoftmaxClassifier, step: int, data: Batch) -> torch.Tensor:
    torch.manual_seed(mix(model.seed, step))
    return model.loss(data)


def loss_together(model: SiblingClassifiers, step: int, data: Batch) -> torch.Tensor:
    model.streams.reseed([mix(seed, step) for seed in model.seeds])
    return model.losses(data).sum()


def joined(seeds: Any, step: int, dtype: torch.dtype) -> Batch:
    return Batch(*(torch.cat(parts) for parts in zip(*(batch(s, step, dtype) for s in seeds), strict=True)))


COSINE = functools.partial(optim.lr_scheduler.CosineAnnealingLR, T_max=100)
DECAY: dict[str, Any] = {"optimizer": functools.partial(optim.AdamW, lr=3e-3, weight_decay=0.1), "scheduler": COSINE}
DROPOUT: dict[str, Any] = {
    "embedding": functools.partial(MLP, dropout=0.2),
    "unembedding": functools.partial(LabelNetwork, width=16, dropout=0.3),
}
MOMENTUM = {"optimizer": functools.partial(optim.SGD, lr=0.01, momentum=0.9, nesterov=True)}
LENGTHS = {"unembedding": LinearHead, "embedding_norm": 5.0, "unembedding_norm": 2.0}
TABLE = {"unembedding": LabelTable, "dim": 5, "embedding": functools.partial(MLP, width=37)}


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.long), torch.float64], ids=str)
@pytest.mark.parametrize(
    ("setting", "shared_order", "clip"),
    [
        pytest.param({}, False, None, id="plain"),
        pytest.param({}, True, 0.1, id="shared order, clipping"),
        pytest.param(DROPOUT, False, 0.1, id="dropout in f and g, clipping"),
        pytest.param(DROPOUT, True, None, id="dropout in f and g, shared order"),
        pytest.param(DECAY, False, None, id="decay and schedule"),
        pytest.param(MOMENTUM, True, None, id="momentum, shared order"),
        pytest.param(LENGTHS, False, 0.1, id="head with bias, fixed lengths, clipping"),
        pytest.param(TABLE, False, None, id="table, M = 5, odd width"),
    ],
)
def test_each_member_is_the_model_trained_alone(
    setting: dict[str, Any], shared_order: bool, clip: float | None, dtype: torch.dtype
) -> None:
    together = siblings(shared_order, **setting).to(dtype)
    models = [model.to(dtype) for model in alone(shared_order, **setting)]
    assert_equal_weights(together, models, 0.0)

    def clip_together(model: SiblingClassifiers, optimizer: optim.Optimizer) -> None:
        if clip is not None:
            model.configure_gradient_clipping(optimizer, clip, "norm")

    def clip_alone(model: SoftmaxClassifier, optimizer: optim.Optimizer) -> None:
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)

    start = nn.utils.parameters_to_vector(together.parameters()).detach().clone()
    train(together, loss_together, lambda step: joined(together.order_seeds, step, dtype), clip_together)
    assert (nn.utils.parameters_to_vector(together.parameters()) - start).abs().max() > 1e-3
    for model in models:
        train(model, loss_alone, lambda step, m=model: batch(m.order_seeds[0], step, dtype), clip_alone)
    assert_equal_weights(together, models, TOLERANCE[dtype])


@pytest.mark.parametrize(("shared_order", "precision"), [(False, "32-true"), (True, "64-true")])
def test_lightning_trains_each_member_as_it_would_alone(shared_order: bool, precision: str) -> None:
    setting = DECAY | {"embedding": functools.partial(MLP, width=16, dropout=0.2)}

    def fit(model: Any) -> None:
        limits = {"max_epochs": 8, "gradient_clip_val": 0.5, "check_val_every_n_epoch": 4}
        trainer(precision=precision, **limits).fit(model, Points())

    together, models = siblings(shared_order, **setting), alone(shared_order, **setting)
    for model in (together, *models):
        fit(model)
    assert_equal_weights(together, models, 1e-5 if precision == "32-true" else 1e-9)


def test_members_without_a_batched_product_too() -> None:
    setting: dict[str, Any] = {"input_shape": (1, 4, 4), "embedding": functools.partial(CNN, width=4)}
    together, models = siblings(**setting), alone(**setting)
    images = Batch(torch.randn(24, 1, 4, 4), torch.randint(3, (24,)), torch.arange(24))
    train(together, loss_together, lambda step: images, lambda *_: None, steps=20)
    for i, model in enumerate(models):
        own = Batch(*(part[8 * i : 8 * i + 8] for part in images))
        train(model, loss_alone, lambda step, own=own: own, lambda *_: None, steps=20)
    assert_equal_weights(together, models, 1e-5)


def test_members_with_networks_of_their_own(tmp_path: Path) -> None:
    widths = [7, 12, 12]
    each = [functools.partial(MLP, width=width) for width in widths]
    together = siblings(embeddings=each)
    models = [SoftmaxClassifier(seed=SEED + i, embedding=own, **SHAPE) for i, own in enumerate(each)]
    assert_equal_weights(together, models, 0.0)
    for model in (together, *models):
        trainer(max_epochs=2).fit(model, Points())
    assert_equal_weights(together, models, 1e-5)
    save(together, tmp_path / "siblings.ckpt")
    loaded = load_module(tmp_path / "siblings.ckpt")
    assert isinstance(loaded, SiblingClassifiers)
    assert [loaded.member(i).network.embedding.l1.out_features for i in range(MEMBERS)] == widths
    x = batch(0, 0, torch.float32).x
    assert torch.equal(loaded.eval().embed(x), together.eval().embed(x))
    with pytest.raises(ValueError, match="embeddings lists 3 networks, and num_members is 2"):
        siblings(embeddings=each, num_members=2)


def test_order_seeds() -> None:
    assert list(siblings().order_seeds) == [5, 6, 7]
    assert list(siblings(shared_order=True).order_seeds) == [5]
    assert list(siblings(order_seed=11).order_seeds) == [11, 12, 13]
    assert list(siblings(shared_order=True, order_seed=11).order_seeds) == [11]
    assert siblings(order_seed=11).member(2).order_seeds == (13,)
    assert siblings(shared_order=True, order_seed=11).member(2).order_seeds == (11,)
    assert siblings().member(2).hparams["seed"] == 7


@pytest.mark.parametrize("unembedding", [LabelNetwork, LinearHead])
def test_answers_are_those_of_the_members(unembedding: Any) -> None:
    together = siblings(unembedding=unembedding).eval()
    assert isinstance(together, SoftmaxModel)
    x = torch.randn(7, 2)
    for answers, of_member in (
        (together.embed(x), lambda m: m.embed(x)),
        (together.unembeddings(), lambda m: m.unembeddings()),
        (together(x), lambda m: m(x)),
    ):
        torch.testing.assert_close(answers, torch.stack([of_member(together.member(i)) for i in range(MEMBERS)]))


def test_metrics_are_those_of_the_members() -> None:
    together, both = siblings(), trainer()
    (metrics,) = both.validate(together, Points(eval_batch_size=4), verbose=False)
    each = [trainer().validate(together.member(i), Points(), verbose=False)[0] for i in range(MEMBERS)]
    for name in ("val/nll", "val/accuracy"):
        values = [member[name] for member in each]
        assert [metrics[f"{name}/{i}"] for i in range(MEMBERS)] == pytest.approx(values, rel=1e-6)
        assert metrics[f"{name}/min"] == pytest.approx(min(values), rel=1e-6)
        assert metrics[f"{name}/max"] == pytest.approx(max(values), rel=1e-6)
        assert metrics[name] == pytest.approx(sum(values) / MEMBERS, rel=1e-6)
    assert trainer().validate(together, Points(), verbose=False)[0] == pytest.approx(metrics, rel=1e-6)


def test_two_ranks_with_unequal_shares_measure_the_same() -> None:
    one, two = trainer(), trainer(strategy="ddp_fork", devices=2)
    for runner in (one, two):
        runner.test(siblings(), Points(eval_batch_size=4), verbose=False)
    assert len(one.callback_metrics) == 2 * (MEMBERS + 3)
    for name, value in one.callback_metrics.items():
        torch.testing.assert_close(two.callback_metrics[name], value, rtol=1e-6, atol=0)


def test_averaged_weights() -> None:
    together = siblings()
    fit = trainer(max_epochs=2, callbacks=[EMAWeightAveraging(decay=0.5, use_buffers=False)])
    fit.fit(together, Points())
    assert torch.isfinite(fit.callback_metrics["val/nll"])


def test_clipping_by_value_is_lightnings() -> None:
    together = siblings()
    trainer(max_steps=2, gradient_clip_val=1e-3, gradient_clip_algorithm="value").fit(together, Points())
    assert max(parameter.grad.abs().max() for parameter in together.parameters()) <= 1e-3


@pytest.mark.parametrize("optimizer", [optim.LBFGS, optim.Adafactor, optim.SparseAdam, optim.Muon])
def test_optimisers_that_would_mix_the_members_are_refused(optimizer: type[optim.Optimizer]) -> None:
    with pytest.raises(ValueError, match=optimizer.__name__):
        siblings(optimizer=optimizer).configure_optimizers()


def test_a_list_of_members_takes_optimisers_that_see_whole_tensors() -> None:
    class Other(LabelTable):
        """Not known to be stackable."""

    listed = functools.partial(siblings, input_shape=(1, 4, 4), embedding=CNN)
    with pytest.raises(TypeError, match="Other"):  # it has no import path to be saved under
        listed(unembedding=Other)
    with pytest.raises(ValueError, match="Adafactor"):
        listed(optimizer=optim.Adafactor).configure_optimizers()
    listed(unembedding=Listed, optimizer=optim.Adafactor).configure_optimizers()
    with pytest.raises(ValueError, match="LBFGS"):
        listed(unembedding=Listed, optimizer=optim.LBFGS).configure_optimizers()


class Listed(LabelTable):
    """Not known to be stackable."""


def test_a_plateau_scheduler_is_refused() -> None:
    with pytest.raises(ValueError, match="ReduceLROnPlateau"):
        siblings(scheduler=functools.partial(ReduceLROnPlateau, monitor="val/nll")).configure_optimizers()


def test_wrong_members_are_named() -> None:
    with pytest.raises(ValueError, match=r"there is no member 3: the siblings are 0..2"):
        siblings().member(3)
    with pytest.raises(ValueError, match="num_members must be at least 1, got 0"):
        siblings(num_members=0)


def test_running_statistics_cannot_be_spread() -> None:
    model = siblings(embedding=WithBatchNorm)
    with pytest.raises(ValueError, match=r"embedding\.members\.0\.norm keeps running statistics"):
        OwnMembers(model.network, 0, 1, model.streams)


class WithBatchNorm(nn.Module):
    def __init__(self, input_shape: Any, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(input_shape[0])
        self.linear = nn.Linear(input_shape[0], dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(x))


def test_a_validation_outside_training_is_no_hindrance_to_it() -> None:
    """Outside, Lightning validates in inference mode, whose tensors cannot be changed in place afterwards."""
    model, run = siblings(), trainer(max_steps=1, num_sanity_val_steps=1)
    data = Points()
    (before,) = run.validate(model, data, verbose=False)
    run.fit(model, data)
    (after,) = run.validate(model, data, verbose=False)
    assert before.keys() == after.keys()
    assert before["val/nll"] != after["val/nll"]
