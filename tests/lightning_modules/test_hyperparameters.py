"""Checkpoints hold the same plain values, whether a module comes from Python or from the command line."""

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LightningCLI
from torch import nn, optim

from lightning_modules import SiblingClassifiers, SoftmaxClassifier
from lightning_modules.hyperparameters import class_path, rebuild, resolve_class
from likeness.networks import CNN, MLP, LabelTable
from tests.lightning_modules.points import Points, save, trainer

ARGUMENTS: dict[str, Any] = {"input_shape": (2,), "num_classes": 3}


@pytest.fixture(autouse=True)
def _quiet_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of how Lightning calls it
    monkeypatch.setattr(sys, "argv", ["train"])  # Lightning warns where it has arguments of its own


class FromCommandLine(LightningCLI):
    def add_arguments_to_parser(self, parser: Any) -> None:
        for name in ("input_shape", "num_classes", "input_shift", "input_scale"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")


def from_command_line(model: str, *options: str) -> Any:
    arguments = [f"--model={model}", f"--data={Points.__module__}.Points", *options]
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar")
    return FromCommandLine(
        args=arguments + [f"--trainer.{name}=false" for name in quiet],
        run=False,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        save_config_callback=None,
    ).model


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | torch.Tensor)


def test_python_and_the_command_line_record_the_same() -> None:
    written = SoftmaxClassifier(
        **ARGUMENTS,
        dim=4,
        embedding=functools.partial(MLP, width=7),
        unembedding=LabelTable,
        optimizer=functools.partial(optim.SGD, lr=0.5),
        scheduler=functools.partial(optim.lr_scheduler.StepLR, step_size=3),
        input_shift=[0.0, 0.0],
        input_scale=[1.0, 1.0],
    )
    typed = from_command_line(
        "lightning_modules.SoftmaxClassifier",
        "--model.dim=4",
        "--model.embedding=likeness.networks.MLP",
        "--model.embedding.width=7",
        "--model.unembedding=likeness.networks.LabelTable",
        "--model.optimizer=SGD",
        "--model.optimizer.lr=0.5",
        "--model.scheduler=StepLR",
        "--model.scheduler.step_size=3",
    )
    assert dict(written.hparams) == dict(typed.hparams)
    assert written.hparams_initial == written.hparams
    assert plain(dict(written.hparams))


def test_defaults_are_recorded_alike() -> None:
    scaling = {"input_shift": [0.0, 0.0], "input_scale": [1.0, 1.0]}
    written, typed = (
        SiblingClassifiers(**ARGUMENTS, **scaling),
        from_command_line("lightning_modules.SiblingClassifiers"),
    )
    assert dict(written.hparams) == dict(typed.hparams)
    assert written.hparams["_class_path"] == "lightning_modules.SiblingClassifiers"
    assert written.hparams["optimizer"]["class_path"] == "torch.optim.Adam"
    assert written.hparams["embedding"]["class_path"] == "likeness.networks.MLP"


@pytest.mark.parametrize("source", ["python", "command line", "member"])
def test_checkpoints_load_with_lightning(tmp_path: Path, source: str) -> None:
    network = functools.partial(MLP, width=7)
    if source == "python":
        model: Any = SoftmaxClassifier(**ARGUMENTS, embedding=network, seed=4)
    elif source == "command line":
        model = from_command_line("lightning_modules.SoftmaxClassifier", "--model.embedding.width=7", "--model.seed=4")
    else:
        model = SiblingClassifiers(**ARGUMENTS, embedding=network, seed=3).member(1)
    trainer(max_steps=2).fit(model, Points())
    save(model, tmp_path / "model.ckpt")
    loaded = SoftmaxClassifier.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert dict(loaded.hparams) == dict(model.hparams)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_siblings_load_with_lightning(tmp_path: Path) -> None:
    model = SiblingClassifiers(**ARGUMENTS, num_members=2, shared_order=True)
    save(model, tmp_path / "model.ckpt")
    loaded = SiblingClassifiers.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert dict(loaded.hparams) == dict(model.hparams)
    x = torch.randn(3, 2)
    assert torch.equal(loaded.embed(x), model.embed(x))


def test_numbers_from_numpy_are_recorded_as_numbers() -> None:
    model = SoftmaxClassifier(np.array([2]).tolist(), num_classes=np.int64(3), input_shift=np.zeros(2).tolist())
    assert type(model.hparams["num_classes"]) is int
    assert plain(dict(model.hparams))


def an_optimizer(parameters: Any) -> optim.Optimizer:
    return optim.Adam(parameters)


class Local(nn.Module):
    """Has an import path only while it stands at the top of a module."""


@pytest.mark.parametrize("optimizer", [lambda p: optim.Adam(p), an_optimizer, functools.partial(an_optimizer)])
def test_what_has_no_class_path_is_refused(optimizer: Any) -> None:
    with pytest.raises(TypeError, match=r"optimizer must be plain values, a class or functools.partial of a class"):
        SoftmaxClassifier(**ARGUMENTS, optimizer=optimizer)


def test_a_class_inside_another_is_refused_before_a_checkpoint_names_it() -> None:
    """What a checkpoint names is looked up in its module, where there is no such name."""

    class Outer:
        class Inner(MLP):
            pass

    Outer.Inner.__qualname__ = "Outer.Inner"  # as at the top of a module
    with pytest.raises(TypeError, match=r"class Outer\.Inner has no import path: define it at the top of a module"):
        SoftmaxClassifier(**ARGUMENTS, embedding=Outer.Inner)


def test_class_paths_are_the_shortest_that_import() -> None:
    assert class_path(SoftmaxClassifier) == "lightning_modules.SoftmaxClassifier"
    assert class_path(optim.Adam) == "torch.optim.Adam"
    assert class_path(optim.lr_scheduler.StepLR) == "torch.optim.lr_scheduler.StepLR"
    assert class_path(CNN) == "likeness.networks.CNN"
    for cls in (optim.AdamW, CNN, nn.Linear, optim.lr_scheduler.StepLR):
        assert resolve_class(class_path(cls)) is cls


@pytest.mark.parametrize(
    "path",
    ["os.system", "subprocess.Popen", "builtins.eval", "torch.load", "torch.optim", "MLP", "", "likeness.none.MLP", 3],
)
def test_paths_of_anything_else_are_refused(path: Any) -> None:
    with pytest.raises(ValueError, match="class path"):
        resolve_class(path)


def test_resolving_imports_nothing_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harmful.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"class path 'harmful.Network' is no subclass"):
        resolve_class("harmful.Network")


def test_rebuild_names_arguments_that_do_not_fit() -> None:
    model = SoftmaxClassifier(**ARGUMENTS)
    with pytest.raises(ValueError, match="SoftmaxClassifier takes no argument 'widht'"):
        rebuild(SoftmaxClassifier, {**model.hparams, "widht": 3})
    with pytest.raises(ValueError, match="SoftmaxClassifier needs an argument 'num_classes', which is missing"):
        rebuild(SoftmaxClassifier, {"input_shape": [2]})


class Holder(pl.LightningModule):
    """Takes a network itself rather than a factory, and a factory that may be missing."""

    def __init__(
        self, network: nn.Module, factory: type[nn.Module] | None = None, pair: tuple[int, int] = (1, 2)
    ) -> None:
        super().__init__()
        self.network, self.factory, self.pair = network, factory, pair


def test_rebuild_gives_each_argument_what_it_asks_for() -> None:
    linear = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}}
    holder = rebuild(Holder, {"network": linear, "factory": {"class_path": "torch.nn.ReLU"}, "pair": [3, 4]})
    assert isinstance(holder.network, nn.Linear)
    assert isinstance(holder.factory(), nn.ReLU)
    assert holder.pair == (3, 4)
