"""Pickles of arrays are read in every dialect; pickles of anything else are refused before they run."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.imagenet32 import load_arrays
from likeness.files.errors import DataError
from tests.datamodules.files import images, python2_pickle

DATA = images(4, 0, (6,))


def written(tmp_path: Path, value: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["u1", "<i4", ">i2", "<f8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_numbers_come_back_from_every_protocol(tmp_path: Path, protocol: int, dtype: str, order: Any) -> None:
    array = DATA.astype(dtype, order=order)
    entry = load_arrays(written(tmp_path, {"data": array, "n": [1, 2], "last": array[0, 0]}, protocol))
    loaded = np.asarray(entry["data"])
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)
    assert entry["n"] == [1, 2]
    assert entry["last"] == array[0, 0]


def test_python_2_pickles_come_back(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(python2_pickle({"data": DATA, "labels": [3, 1000], "name": "x"}))
    entry = load_arrays(path)
    np.testing.assert_array_equal(np.asarray(entry["data"]), DATA)
    assert entry["labels"] == [3, 1000]
    assert entry["name"] == "x"


class Run:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "payload",
    [
        Run(os.system, "touch executed"),
        Run(eval, "open('executed', 'w')"),
        Run(np.load, "executed", None, True),
        Run(np.ndarray, (2,), "O"),
        {"data": Run(os.mkdir, "executed")},
    ],
    ids=["system", "eval", "numpy", "ndarray", "nested"],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_anything_else_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: Any, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, payload, protocol)
    with pytest.raises(DataError, match=str(path)):
        load_arrays(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("value", [np.array([{}], object), np.zeros(2, "u1,u2"), np.array(["a"])])
def test_arrays_of_anything_but_numbers_are_refused(tmp_path: Path, value: np.ndarray) -> None:
    with pytest.raises(DataError, match="not numbers"):
        load_arrays(written(tmp_path, value))


def test_a_pickle_that_ends_too_early_is_damaged(tmp_path: Path) -> None:
    path = written(tmp_path, {"data": DATA})
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="damaged"):
            load_arrays(path)
