"""The file of predictions: every sample once, in order, from any number of processes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from callbacks.run.predictions import WritePredictions
from likeness.batch import Batch, PairBatch
from tests.callbacks.two_ranks import on_two_ranks

ROWS = 7


class Member:
    num_members = 2

    def member(self, index: int) -> Any:
        raise NotImplementedError


def log_probs(ids: Tensor) -> Tensor:
    return torch.stack([ids, ids + 100], 1).float()


def trainer(folder: Path, rank: int = 0) -> Any:
    return SimpleNamespace(
        default_root_dir=str(folder),
        is_global_zero=rank == 0,
        predict_loop=SimpleNamespace(return_predictions=None),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )


def predict(folder: Path, batches: list[Tensor], module: Any = None, rank: int = 0) -> None:
    callback, run = WritePredictions(), trainer(folder, rank)
    callback.on_predict_start(run, module)
    for index, ids in enumerate(batches):
        answer = log_probs(ids)
        if module is not None:
            answer = torch.stack([answer, -answer])
        outputs = {"id": ids, "log_probs": answer, "bpd": ids.to(torch.bfloat16)}
        callback.on_predict_batch_end(run, module, outputs, Batch(ids, ids % 3, ids), index)
    callback.on_predict_end(run, module)


def read(folder: Path) -> dict[str, Any]:
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        return dict(file)


def require_whole(found: dict[str, Any]) -> None:
    ids = torch.arange(ROWS)
    assert found.keys() == {"id", "labels", "log_probs", "bpd"}
    np.testing.assert_array_equal(found["id"], ids)
    np.testing.assert_array_equal(found["labels"], ids % 3)
    np.testing.assert_array_equal(found["bpd"], ids.float())


def test_samples_stand_in_the_order_of_their_ids_and_once(tmp_path: Path) -> None:
    predict(tmp_path, [torch.tensor([3, 0, 5]), torch.tensor([6, 1, 3]), torch.tensor([2, 4])])
    found = read(tmp_path)
    require_whole(found)
    np.testing.assert_array_equal(found["log_probs"], log_probs(torch.arange(ROWS)))


@pytest.mark.parametrize("rows", [ROWS, 2])  # as many as there are members, too
def test_siblings_keep_their_axis_in_front(tmp_path: Path, rows: int) -> None:
    ids = torch.arange(rows)
    predict(tmp_path, [ids[:2], *([ids[2:]] if rows > 2 else [])], Member())
    expected = torch.stack([log_probs(ids), -log_probs(ids)])
    np.testing.assert_array_equal(read(tmp_path)["log_probs"], expected)


def test_pairs_have_scores(tmp_path: Path) -> None:
    callback, ids = WritePredictions(), torch.arange(2)
    batch = PairBatch(["a", "b"], ["c", "d"], torch.tensor([1.5, 5.0]), ids)
    callback.on_predict_batch_end(trainer(tmp_path), Any, {"id": ids, "cosine": torch.ones(2)}, batch, 0)
    callback.on_predict_end(trainer(tmp_path), Any)
    np.testing.assert_array_equal(read(tmp_path)["scores"], [1.5, 5.0])


def test_two_ranks_write_what_one_does(tmp_path: Path) -> None:
    def on_rank(rank: int) -> int:
        predict(tmp_path, list(torch.arange(rank, ROWS, 2).split(2)), rank=rank)  # four samples, and three
        return rank

    on_two_ranks(on_rank, tmp_path)
    require_whole(read(tmp_path))


def test_a_model_that_answers_otherwise_has_no_file_and_that_is_said(tmp_path: Path) -> None:
    callback, ids = WritePredictions(), torch.arange(2)
    callback.on_predict_batch_end(trainer(tmp_path), Any, log_probs(ids), Batch(ids, ids, ids), 0)
    with pytest.warns(UserWarning, match=r"no predictions\.npz: predict_step answers no dict"):
        callback.on_predict_end(trainer(tmp_path), Any)
    assert list(tmp_path.iterdir()) == []
