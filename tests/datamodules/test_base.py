"""What all datamodules share: facts without data, loaders with and without a trainer, and refusals."""

import math
from typing import Any

import pytest
import torch

from datamodules import CIFAR10, CIFAR100, MNIST, DataError, Digits, ImageNet32, PhotoPatches, Radial, Swirl
from datamodules.base import TensorDataModule
from datamodules.splits import SplitName, TensorSplit
from likeness.batch import Batch
from tests.datamodules.toys import Numbers, Recorder, trainer

ALL = [CIFAR10, CIFAR100, Digits, ImageNet32, MNIST, PhotoPatches, Radial, Swirl]
EMBEDDED = [Digits, PhotoPatches, Radial, Swirl]


@pytest.mark.parametrize("kind", ALL)
def test_facts_are_known_without_reading_data(kind: type[TensorDataModule], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "load", lambda *_: pytest.fail("data were read"))
    data = kind()
    assert len(data.input_shift) == len(data.input_scale) == data.input_shape[0]
    assert data.num_classes >= 1
    assert data.dataset_name


@pytest.mark.parametrize("kind", EMBEDDED)
def test_facts_are_true(kind: type[TensorDataModule]) -> None:
    data = kind(batch_size=64)
    data.prepare_data()
    data.setup()
    shape = [-1] + [1] * (len(data.input_shape) - 1)
    for split in data.splits.values():
        assert split.x.shape[1:] == data.input_shape
        assert split.y.dtype == torch.int64
        assert split.y.unique().tolist() == list(range(data.num_classes))
        scaled = split.x.float() - torch.tensor(data.input_shift).view(shape)
        scaled /= torch.tensor(data.input_scale).view(shape)
        if data.levels is None:
            assert torch.equal(scaled, split.x)
        else:
            assert int(split.x.max()) < data.levels
            assert float(scaled.abs().max()) <= 1.0


def test_the_extreme_levels_become_minus_one_and_one() -> None:
    data = Digits()
    extremes = torch.tensor([0.0, data.levels - 1])
    assert ((extremes - data.input_shift[0]) / data.input_scale[0]).tolist() == [-1.0, 1.0]


def test_a_datamodule_works_without_a_trainer() -> None:
    data = Numbers(batch_size=4, eval_batch_size=3)
    data.prepare_data()
    data.setup("test")
    assert set(data.splits) == {"test"}
    batches = list(data.test_dataloader())
    assert all(isinstance(batch, Batch) for batch in batches)
    assert [batch.id.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    data.setup("fit")
    assert len(list(data.train_dataloader())) == len(data.train_dataloader()) == 5
    assert data.state_dict() == {}


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_leave_the_global_random_stream_alone(workers: int) -> None:
    data = Numbers(batch_size=4, num_workers=workers)
    data.setup()
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def fitted(model: Recorder, data: TensorDataModule, **kwargs: Any) -> Recorder:
    trainer(**{"max_epochs": 2} | kwargs).fit(model, data)
    return model


def test_order_seeds_of_the_module_decide_and_stand_one_after_the_other() -> None:
    together = fitted(Recorder(order_seeds=(7, 2)), Numbers(batch_size=4))
    alone = [fitted(Recorder(order_seeds=(seed,)), Numbers(batch_size=4)) for seed in (7, 2)]
    assert together.trained == [a + b for a, b in zip(*(model.trained for model in alone), strict=True)]
    by_seed = fitted(Recorder(), Numbers(batch_size=4, seed=7))
    assert by_seed.trained == alone[0].trained


def test_a_batch_carries_the_samples_of_its_ids() -> None:
    data = Numbers(batch_size=4)
    data.setup("fit")
    for batch in data.train_dataloader():
        assert torch.equal(batch.x, torch.stack([batch.id, -batch.id], 1).float())
        assert torch.equal(batch.y, batch.id % 3)


@pytest.mark.parametrize("kwargs", [{"on_device": True}, {"num_workers": 1}, {"on_device": True, "num_workers": 1}])
def test_where_data_lie_and_who_gathers_them_changes_nothing(kwargs: dict[str, Any]) -> None:
    plain = fitted(Recorder(), Numbers(batch_size=4))
    other = fitted(Recorder(), Numbers(batch_size=4, **kwargs))
    assert other.trained == plain.trained
    assert other.evaluated == plain.evaluated
    assert all(map(torch.equal, other.inputs, plain.inputs))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_the_gpu_data_stay_there_and_are_the_same() -> None:
    plain, resident = (
        fitted(Recorder(), Numbers(batch_size=4, on_device=on_device), accelerator="gpu", devices=1)
        for on_device in (False, True)
    )
    assert resident.inputs[0].is_cuda
    assert resident.trained == plain.trained
    assert all(map(torch.equal, resident.inputs, plain.inputs))


def test_overfitting_repeats_the_same_batches() -> None:
    model = fitted(Recorder(), Numbers(batch_size=4), overfit_batches=2, max_epochs=3)
    assert len(model.trained) == 6
    assert model.trained[:2] == model.trained[2:4] == model.trained[4:]


def test_predictions_cover_the_test_split() -> None:
    data = Numbers(eval_batch_size=3)
    predicted = trainer().predict(Recorder(), data)
    assert torch.cat(predicted).tolist() == list(range(7))


@pytest.mark.parametrize("name", ["batch_size", "eval_batch_size"])
def test_sizes_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        Numbers(**{name: 0})


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 24 exceeds the 23 training samples"):
        fitted(Recorder(), Numbers(batch_size=24))


@pytest.mark.parametrize(("stage", "split"), [("fit", "train"), ("validate", "val"), ("test", "test")])
def test_damaged_data_are_refused_at_setup(stage: str, split: str) -> None:
    class Damaged(Numbers):
        def load(self, name: SplitName) -> TensorSplit:
            good = super().load(name)
            if name == split:
                good.x[5, 0] = math.nan
            return good

    with pytest.raises(DataError, match=f"{split} sample 5 has an input that is not finite: nan"):
        Damaged().setup(stage)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="the val split is empty"):
        Numbers(sizes=(23, 0, 7)).setup("fit")
