"""Two real processes: they evaluate each sample once, and train together on what one process would."""

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from tests.datamodules.text_toys import Words
from tests.datamodules.toys import Numbers, Recorder, Save, flat, trainer


class Writer(Recorder):
    """A recorder that leaves what it saw in a file of its rank."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def write(self) -> None:
        seen = {"trained": self.trained, "evaluated": self.evaluated}
        Path(self.folder, f"rank{self.global_rank}.json").write_text(json.dumps(seen))

    on_fit_end = on_test_end = write  # type: ignore[assignment]


def two_processes(**kwargs: Any) -> pl.Trainer:
    return trainer(strategy="ddp_fork", devices=2, **kwargs)


def seen(folder: Path, what: str) -> list[Any]:
    return [json.loads(Path(folder, f"rank{rank}.json").read_text())[what] for rank in (0, 1)]


@pytest.mark.parametrize("size", [2, 7, 10])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_each_sample_is_evaluated_exactly_once(tmp_path: Path, size: int, batch_size: int) -> None:
    data = Numbers(sizes=(23, 11, size), eval_batch_size=batch_size)
    two_processes().test(Writer(tmp_path), data, verbose=False)
    assert sorted(flat(seen(tmp_path, "evaluated"))) == list(range(size))


def test_texts_are_evaluated_exactly_once(tmp_path: Path) -> None:
    two_processes().test(Writer(tmp_path), Words(test_size=7, eval_batch_size=3), verbose=False)
    assert sorted(flat(seen(tmp_path, "evaluated"))) == list(range(7))


def test_two_ranks_train_on_the_batches_of_one(tmp_path: Path) -> None:
    alone = Recorder()
    trainer(max_epochs=2).fit(alone, Numbers(batch_size=4))
    two_processes(max_epochs=2).fit(Writer(tmp_path), Numbers(batch_size=4))
    assert together(tmp_path) == [sorted(batch) for batch in alone.trained]


def test_training_goes_on_with_another_number_of_ranks(tmp_path: Path) -> None:
    path = tmp_path / "stop.ckpt"
    alone = Recorder()
    trainer(max_epochs=2, callbacks=[Save("on_train_batch_end", 3, path)]).fit(alone, Numbers(batch_size=4))
    writer = Writer(tmp_path)
    two_processes(max_epochs=2).fit(writer, Numbers(batch_size=4), ckpt_path=path, weights_only=True)
    assert together(tmp_path) == [sorted(batch) for batch in alone.trained[3:]]


def together(folder: Path) -> list[list[int]]:
    first, second = seen(folder, "trained")
    assert {len(batch) for batch in first + second} == {2}
    return [sorted(a + b) for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        ({"batch_size": 5}, {}, "batch_size 5 .* world_size 2"),
        ({"sizes": (23, 11, 1)}, {}, "1 samples to evaluate are fewer than the 2 ranks"),
        ({}, {"use_distributed_sampler": True}, "use_distributed_sampler must be false, got true"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    tmp_path: Path, data: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    run = two_processes(max_epochs=1, **settings)
    model, numbers = Writer(tmp_path), Numbers(**{"batch_size": 4} | data)
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match=message):
        run.fit(model, numbers) if "batch_size" in data else run.test(model, numbers, verbose=False)
