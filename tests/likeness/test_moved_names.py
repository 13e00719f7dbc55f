"""Every class path of an earlier version names a class that is there, under the name that it is exported by."""

import importlib

import pytest

from lightning_modules.hyperparameters import resolve_class
from likeness.moved_names import MOVED, moved


@pytest.mark.parametrize("path", sorted(set(MOVED.values())))
def test_what_stands_for_a_moved_class_is_exported_under_that_name(path: str) -> None:
    package, _, name = path.rpartition(".")
    assert name in importlib.import_module(package).__all__
    assert isinstance(getattr(importlib.import_module(package), name), type)


def test_no_name_moves_twice() -> None:
    assert not MOVED.keys() & set(MOVED.values())


def test_other_texts_are_answered_as_they_are() -> None:
    assert moved("torch.optim.Adam") == "torch.optim.Adam"
    assert moved("callbacks.samples.SampleFigures and more") == "callbacks.samples.SampleFigures and more"


@pytest.mark.parametrize(
    "path", [path for path in MOVED if path.startswith(("likeness.networks", "likeness.diffusion"))]
)
def test_checkpoints_may_name_networks_and_schedules_as_they_were(path: str) -> None:
    if path.endswith("EncoderOutput"):  # options of a network, and no class that a checkpoint builds
        return
    assert resolve_class(path).__name__ == path.rpartition(".")[2]
