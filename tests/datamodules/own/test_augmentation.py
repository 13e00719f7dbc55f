"""Augmentation is a function of (seed, epoch, sample): the same with any workers, ranks, batches and interruptions."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from datamodules import Arrays, HuggingFaceDataset, ImageFolder
from datamodules.own.datamodule import OwnDataModule
from likeness.batch import Batch
from tests.datamodules.own.toys import write_dataset, write_npz, write_parts
from tests.datamodules.toys import Recorder, Save, trainer

AUGMENT = [v2.RandomCrop((7, 6)), v2.RandomHorizontalFlip()]
TRANSFORM = [v2.Resize((8, 8))]
EPOCHS = 3
Make = Callable[..., OwnDataModule]


class Watcher(Recorder):
    """Remembers the inputs of each sample by (epoch, id), besides the order."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen: dict[tuple[int, int], Tensor] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        for id_, x in zip(batch.id.tolist(), batch.x, strict=True):
            self.seen[self.current_epoch, id_] = x.clone()
        return super().training_step(batch, batch_idx)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("own")
    write_parts(where / "images", {"train": 11, "test": 3})
    write_npz(where / "arrays.npz", {"train": 22, "test": 6}, shape=(12, 10, 3))
    write_dataset(where / "dataset", {"train": 22, "test": 6})
    return where


@pytest.fixture(params=["images", "arrays", "dataset"])
def make(request: pytest.FixtureRequest, folder: Path) -> Make:
    kinds: dict[str, Make] = {
        "images": lambda **kwargs: ImageFolder(str(folder / "images"), **kwargs),
        "arrays": lambda **kwargs: Arrays(str(folder / "arrays.npz"), "x_{part}", "y_{part}", **kwargs),
        "dataset": lambda **kwargs: HuggingFaceDataset(str(folder / "dataset"), **kwargs),
    }
    usual = {"val_fraction": 0, "batch_size": 4, "eval_batch_size": 4, "seed": 3, "augment": AUGMENT}
    return lambda **kwargs: kinds[request.param](**usual | {"transform": TRANSFORM} | kwargs)


def run(data: OwnDataModule, checkpoint: Path | None = None, **kwargs: Any) -> Watcher:
    model = Watcher()
    given = {"max_epochs": EPOCHS, "limit_val_batches": 0} | kwargs
    trainer(**given).fit(model, data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return model


def same(one: dict[Any, Tensor], other: dict[Any, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_stopped_in_mid_epoch_and_continued_with_and_without_workers(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "stop.ckpt"
    whole = run(make(), callbacks=[Save("on_train_batch_end", 7, path)])
    assert len(whole.seen) == 3 * 20
    for workers in (0, 2):
        rest = run(make(num_workers=workers), path)
        assert rest.trained == whole.trained[7:]
        assert all(torch.equal(a, b) for a, b in zip(rest.inputs, whole.inputs[7:], strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_two_ranks_continue_what_one_began(make: Make, tmp_path: Path, workers: int) -> None:
    """The ranks' rows of the global batches, one rank after the other, are what a single process goes on with."""
    path = tmp_path / "stop.ckpt"
    whole = run(make(), callbacks=[Save("on_train_batch_end", 7, path)])
    ranks = []
    for rank in (0, 1):
        data = make(num_workers=workers)
        data._rank_and_world_size = lambda rank=rank: (rank, 2)  # type: ignore[method-assign]
        ranks.append(run(data, path))
    for batch, ids in enumerate(whole.trained[7:]):
        halves = [model.trained[batch] for model in ranks]
        assert [*map(len, halves)] == [2, 2]
        looks = dict(zip(chain(*halves), torch.cat([model.inputs[batch] for model in ranks]), strict=True))
        assert torch.equal(torch.stack([looks[id_] for id_ in ids]), whole.inputs[7 + batch])


def test_each_epoch_looks_different_and_an_evaluation_is_left_alone(make: Make) -> None:
    seen, data = run(make()).seen, make()
    twice = [id_ for epoch, id_ in seen if epoch == 0 and (1, id_) in seen]
    assert sum(torch.equal(seen[0, id_], seen[1, id_]) for id_ in twice) < len(twice) / 3
    data.setup()
    raw = make(augment=None)
    raw.setup()
    ids = torch.arange(len(data.splits["train"]))
    assert torch.equal(data.splits["train"][ids].x, raw.splits["train"][ids].x)
    assert torch.equal(
        torch.cat([b.x for b in data.test_dataloader()]), torch.cat([b.x for b in raw.test_dataloader()])
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_sample_looks_the_same_in_any_batch_and_on_any_rank(
    make: Make, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, found = run(make(), max_epochs=1).seen, {}
    for rank in range(ranks):
        data = make(batch_size=20)
        monkeypatch.setattr(data, "_rank_and_world_size", lambda rank=rank: (rank, ranks))
        data.setup("fit")
        for batch in data.train_dataloader():
            found |= {(0, id_): x for id_, x in zip(batch.id.tolist(), batch.x, strict=True)}
    assert same(found, expected)


def test_the_generator_of_everything_else_is_left_as_it_was(make: Make) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    data = make()
    data.setup("fit")
    assert len(list(data.train_dataloader())) == 5
    assert torch.equal(torch.rand(3), expected)


def test_it_is_the_transform_itself_under_a_seed_of_its_own(folder: Path) -> None:
    """Flips happen to half of the samples, and to the same ones as by hand."""
    data = Arrays(
        str(folder / "arrays.npz"), "x_{part}", "y_{part}", val_fraction=0, batch_size=22, augment=[AUGMENT[1]]
    )
    data.setup("fit")
    flipped = 0
    for epoch in range(8):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
        raw = data.splits["train"][batch.id].x
        mirrored = (batch.x == raw.flip(-1)).flatten(1).all(1)
        assert ((batch.x == raw).flatten(1).all(1) ^ mirrored).all()
        flipped += int(mirrored.sum())
    assert 60 < flipped < 116  # of 176, within four standard deviations of half


def test_each_sibling_sees_what_it_would_see_alone(make: Make) -> None:
    """The order's seed is the augmentation's: member 1 of siblings is the model that is trained alone with its seed."""
    together, alone = Watcher(order_seeds=(3, 9)), Watcher(order_seeds=(9,))
    for model in (together, alone):
        trainer(max_epochs=1, limit_val_batches=0).fit(model, make())
    for both, own, ids in zip(together.inputs, alone.inputs, alone.trained, strict=True):
        assert torch.equal(both[4:], own)
        assert len(ids) == 4


def test_overfitting_on_purpose_shows_the_same_batches_again(make: Make) -> None:
    model = run(make(), overfit_batches=2, max_epochs=2)
    assert model.trained[:2] == model.trained[2:]
    assert all(torch.equal(a, b) for a, b in zip(model.inputs[:2], model.inputs[2:], strict=True))


def test_two_processes_evaluate_each_sample_once(make: Make) -> None:
    ids = []
    for rank in (0, 1):
        data = make(eval_batch_size=4)
        data._rank_and_world_size = lambda rank=rank: (rank, 2)  # type: ignore[method-assign]
        data.setup("test")
        ids += [id_ for batch in data.test_dataloader() for id_ in batch.id.tolist()]
    assert sorted(ids) == list(range(6))


def test_an_augmentation_that_changes_what_inputs_are_is_refused(folder: Path) -> None:
    data = ImageFolder(str(folder / "images"), batch_size=4, augment=[v2.ToDtype(torch.float32, scale=True)])
    data.setup("fit")
    with pytest.raises(ValueError, match=r"png is float32 \[3, 12, 10\] once prepared, where inputs are uint8"):
        next(iter(data.train_dataloader()))
