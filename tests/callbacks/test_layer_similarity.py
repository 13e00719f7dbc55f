"""Layers against their initialisation, the last validation, another model and siblings, while a model trains."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from callbacks.layer_similarity import LayerSimilarity
from lightning_modules import SiblingClassifiers
from likeness.networks import MLP
from likeness.similarity.representations.cka import linear_cka, unbiased_linear_cka
from tests.callbacks.toy_siblings import InTurns, ToyData, trainer

LAYERS = ("network.0", "network.1", "network.2")


class Plain(pl.LightningModule):
    """A module that knows nothing of this project."""

    def __init__(self, seed: int = 0, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Linear(5, width), nn.ReLU(inplace=True), nn.Linear(width, 4))
        self.forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def layers(model: Plain, x: Tensor) -> list[Tensor]:
    """What the three layers answer, in float64."""
    with torch.no_grad():
        first = model.network[0](x)
        rectified = first.relu()
        return [rows.double() for rows in (first, rectified, model.network[2](rectified))]


def run(folder: Path, model: pl.LightningModule, *callbacks: pl.Callback, data: Any = None, **options: Any) -> Any:
    own = trainer(folder, *callbacks, **{"num_sanity_val_steps": 0, **options})
    torch.manual_seed(0)
    own.fit(model, datamodule=data or ToyData(), ckpt_path=options.pop("ckpt_path", None))
    return own


def test_each_layer_against_its_start_is_what_the_weights_say(tmp_path: Path) -> None:
    model, start, data = Plain(), Plain(), ToyData()
    callback = LayerSimilarity(layers=["network.*"])
    own = run(tmp_path, model, callback, data=data)
    pairs = zip(layers(model, data.val.x), layers(start, data.val.x), strict=True)
    expected = [unbiased_linear_cka(now, before).item() for now, before in pairs]
    assert callback.found is not None
    found = callback.found.diagonal("unbiased_linear_cka")
    assert list(found) == list(LAYERS)
    assert list(found.values()) == pytest.approx(expected, abs=1e-5)
    assert max(expected) < 1 - 1e-4
    logged = {key for key in own.callback_metrics if key.startswith("layers/")}
    assert logged == {"layers/seconds", *(f"layers/unbiased_linear_cka/{name}" for name in LAYERS)}
    assert len(callback.curves["unbiased_linear_cka"]["network.0"]) == 2 == len(callback.steps)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    drawn = ("layers_unbiased_linear_cka", "layers_unbiased_linear_cka_curves")
    assert names == {f"{name}.{kind}" for name in drawn for kind in ("png", "pdf")}


def test_validation_runs_the_model_once_a_batch(tmp_path: Path) -> None:
    alone, watched = Plain(), Plain()
    run(tmp_path, alone)
    callback = LayerSimilarity(against="last")
    run(tmp_path, watched, callback)
    tries = 2  # on a few samples, to see which layers run
    assert watched.forwards == alone.forwards + tries
    for own, other in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(own, other)
    assert not any(module._forward_hooks for module in watched.modules())


def test_the_last_validation_is_the_one_before(tmp_path: Path) -> None:
    class Keeper(pl.Callback):
        def on_validation_end(self, own: pl.Trainer, module: Any) -> None:
            seen.append(layers(module, data.val.x)[2])

    seen: list[Tensor] = []
    model, data, callback = Plain(), ToyData(), LayerSimilarity(against="last", layers=["network.2"])
    run(tmp_path, model, callback, Keeper(), data=data, max_epochs=3)
    curve = callback.curves["unbiased_linear_cka"]["network.2"]
    expected = [unbiased_linear_cka(seen[i], seen[i + 1]).item() for i in range(2)]
    assert curve == pytest.approx(expected, abs=1e-5)


def test_against_a_module_of_another_width(tmp_path: Path) -> None:
    other = Plain(seed=3, width=9)
    callback = LayerSimilarity(against=other, layers=["network.*"], measures=["linear_cka"], prefix="beside")
    own = run(tmp_path, Plain(), callback)
    assert callback.found is not None
    assert callback.found["linear_cka"].shape == (3, 3)
    assert "beside/linear_cka/network.1" in own.callback_metrics
    assert other.training  # as it was


def test_a_resumed_run_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    whole, first, second = (LayerSimilarity(layers=["network.*"]) for _ in range(3))
    run(tmp_path, Plain(), whole, max_epochs=3)
    stopped = trainer(tmp_path, first, num_sanity_val_steps=0, max_epochs=1)
    torch.manual_seed(0)
    stopped.fit(Plain(), datamodule=ToyData())
    stopped.save_checkpoint(tmp_path / "stopped.ckpt")
    resumed = trainer(tmp_path, second, num_sanity_val_steps=0, max_epochs=3)
    resumed.fit(Plain(seed=5), datamodule=ToyData(), ckpt_path=tmp_path / "stopped.ckpt")
    assert second.steps == whole.steps
    assert second.curves == whole.curves


def test_a_training_after_a_validation_measures_as_one_without(tmp_path: Path) -> None:
    alone, callback = (LayerSimilarity(layers=["network.*"]) for _ in range(2))
    run(tmp_path, Plain(), alone)
    own, model, data = trainer(tmp_path, callback, num_sanity_val_steps=1), Plain(), ToyData()
    own.validate(model, data, verbose=False)
    torch.manual_seed(0)
    own.fit(model, datamodule=data)
    assert callback.steps == alone.steps
    assert callback.curves == alone.curves


def test_a_callback_that_joins_a_run_later_says_that_it_does_not_know_the_start(tmp_path: Path) -> None:
    stopped = run(tmp_path, Plain(), max_epochs=1)
    stopped.save_checkpoint(tmp_path / "stopped.ckpt")
    joined = LayerSimilarity(layers=["network.*"])
    resumed = trainer(tmp_path, joined, num_sanity_val_steps=0, max_epochs=2)
    with pytest.warns(UserWarning, match=r"LayerSimilarity joins this run at step 4, .* start: it measures nothing"):
        resumed.fit(Plain(), datamodule=ToyData(), ckpt_path=tmp_path / "stopped.ckpt")
    assert joined.found is None


class EachTimeOtherwise(Sampler):
    """An order of its own at every pass."""

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return 30

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        return iter(torch.randperm(30, generator=torch.Generator().manual_seed(self.passes)).tolist())


def test_another_order_of_samples_is_named(tmp_path: Path) -> None:
    class Reordered(pl.LightningDataModule):
        def train_dataloader(self) -> DataLoader:
            return DataLoader(TensorDataset(torch.randn(20, 5), torch.arange(20) % 4), batch_size=10)

        def val_dataloader(self) -> DataLoader:
            points = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
            return DataLoader(TensorDataset(points), batch_size=10, sampler=EachTimeOtherwise())

    with pytest.raises(ValueError, match="initialisation saw another input as sample 0 than this validation"):
        run(tmp_path, Plain(), LayerSimilarity(), data=Reordered())


class Unstacked(MLP):
    """An architecture of which there is no batched product."""


@pytest.mark.parametrize("embedding", [MLP, Unstacked])
def test_siblings_are_compared_layer_by_layer(tmp_path: Path, embedding: type[MLP]) -> None:
    model, data = SiblingClassifiers((5,), 4, num_members=3, embedding=embedding), ToyData()
    callback = LayerSimilarity(against="siblings", measures=["linear_cka"])
    trainer(tmp_path, callback).validate(model, datamodule=data, verbose=False)
    with torch.no_grad():
        f = [model.member(i).network.embedding(data.val.x) for i in range(3)]
    expected = [linear_cka(f[i].double(), f[j].double()).item() for i, j in combinations(range(3), 2)]
    assert callback.found is not None
    found = callback.found.diagonal("linear_cka")
    assert found["network.embedding"] == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert len(found) > 3  # its layers too
    assert callback.found.names == ("member 0", "member 1")


def test_each_sibling_is_held_against_its_own_start(tmp_path: Path) -> None:
    model, data = SiblingClassifiers((5,), 4, num_members=2), ToyData()
    before = [model.member(i).network.embedding for i in range(2)]
    callback = LayerSimilarity(layers=["network.embedding"], measures=["linear_cka"])
    run(tmp_path, model, callback, data=data, max_epochs=3)
    with torch.no_grad():
        pairs = [(model.member(i).network.embedding(data.val.x), before[i](data.val.x)) for i in range(2)]
    expected = [linear_cka(now.double(), start.double()).item() for now, start in pairs]
    assert callback.found is not None
    found = callback.found.diagonal("linear_cka")
    assert found == {"network.embedding": pytest.approx(sum(expected) / 2, abs=1e-5)}


def test_siblings_are_asked_for_of_siblings_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="compares siblings, but Plain has none"):
        run(tmp_path, Plain(), LayerSimilarity(against="siblings"))


class SharedValidation(ToyData):
    """Both ranks train on the same batches, so as to have the weights of one, and share 31 samples of validation."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, sampler=InTurns(40, 10), batch_size=None, generator=torch.Generator())


class KeepMatrices(pl.Callback):
    """Writes what each rank has found."""

    def __init__(self, folder: Path, callbacks: dict[str, LayerSimilarity]) -> None:
        self.folder, self.callbacks = folder, callbacks

    def on_train_end(self, own: pl.Trainer, module: pl.LightningModule) -> None:
        found = {name: (dict(one.found.values), one.curves, one.found.kept) for name, one in self.callbacks.items()}
        torch.save(found, self.folder / f"{own.world_size}_{own.global_rank}.pt")


def test_two_ranks_find_the_matrices_of_one(tmp_path: Path) -> None:
    for ranks in ({}, {"strategy": "ddp_fork", "devices": 2}):
        callbacks = {
            "start": LayerSimilarity(prefix="start"),
            "last": LayerSimilarity(against="last", measures=["linear_cka"], prefix="last"),
            "other": LayerSimilarity(against=Plain(seed=3, width=9), max_stored=12, prefix="other"),
        }
        data = SharedValidation(eval_size=31, eval_batch_size=4)
        run(tmp_path, Plain(), *callbacks.values(), KeepMatrices(tmp_path, callbacks), data=data, **ranks)
    one, *both = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1_0", "2_0", "2_1"))
    for name, (values, curves, kept) in one.items():
        assert kept == (12 if name == "other" else 31)
        assert max(value.min() for value in values.values()) < 0.999  # the weights have moved
        for found in both:
            assert found[name][2] == kept
            torch.testing.assert_close(found[name][:2], (values, curves), rtol=0, atol=1e-5, equal_nan=True)
