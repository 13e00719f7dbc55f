"""Loading what was trained, and refusing what was not."""

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn

from lightning_modules import SiblingClassifiers, SoftmaxClassifier
from lightning_modules.checkpoint_files import CheckpointError, read_weights, save_weights
from lightning_modules.checkpoints import averages_weights, load_module, load_softmax_models
from likeness.networks import MLP
from tests.lightning_modules.points import Points, save, trainer

ARGUMENTS: dict[str, Any] = {"input_shape": (2,), "num_classes": 3, "embedding": functools.partial(MLP, width=5)}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save(SoftmaxClassifier(**ARGUMENTS, seed=3), tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory of three siblings."""
    save(SiblingClassifiers(**ARGUMENTS, num_members=3, seed=3), tmp_path / "run" / "checkpoints" / "last.ckpt")
    return tmp_path / "run"


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)


def refusal(path: Path | str) -> str:
    with pytest.raises(CheckpointError) as error:
        load_module(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_averaged_and_raw_weights(tmp_path: Path) -> None:
    """Raw weights are the optimiser's: Lightning keeps them beside the averaged ones while it trains."""
    callbacks = [EMAWeightAveraging(decay=0.5, use_buffers=False), ModelCheckpoint(tmp_path, save_last=True)]
    training = trainer(max_epochs=1, callbacks=callbacks, enable_checkpointing=True, limit_val_batches=0)
    path, model = tmp_path / "last.ckpt", SoftmaxClassifier(**ARGUMENTS)
    training.fit(model, datamodule=Points())
    content = torch.load(path, weights_only=True)
    name = "network.embedding.l1.weight"
    raw, averaged = (load_module(path, weights).state_dict()[name] for weights in ("raw", "ema"))
    assert raw.equal(content["current_model_state"][name])
    assert averaged.equal(content["state_dict"][name])
    assert not raw.equal(averaged)
    assert averages_weights(path)

    change(path, lambda content: content.pop("current_model_state"))
    with pytest.raises(CheckpointError, match="holds averaged weights only"):
        load_module(path, "raw")
    change(path, lambda content: content.pop("callbacks"))
    assert load_module(path, "raw").state_dict()[name].equal(averaged)  # nothing says that they are averaged
    assert not averages_weights(path)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", [SoftmaxClassifier, SiblingClassifiers])
def test_a_module_comes_back(tmp_path: Path, kind: type[pl.LightningModule], double: bool) -> None:
    model = kind(**ARGUMENTS, seed=3)
    model = model.double() if double else model
    save(model, tmp_path / "model.ckpt")
    loaded = load_module(tmp_path / "model.ckpt")
    assert type(loaded) is kind
    assert dict(loaded.hparams) == dict(model.hparams)
    x = torch.randn(4, 2, dtype=torch.float64)
    assert torch.equal(loaded(x), model(x))
    assert loaded(x).dtype == (torch.float64 if double else torch.float32)


def test_a_run_directory_gives_its_newest_checkpoint(run: Path, tmp_path: Path) -> None:
    assert isinstance(load_module(run), SiblingClassifiers)
    with pytest.raises(FileNotFoundError, match=r"run directory .* holds no checkpoint: there is no .*last\.ckpt"):
        load_module(tmp_path)


def test_weights_are_exported_with_tensors_among_the_hyper_parameters(tmp_path: Path) -> None:
    hparams = {"input_shift": torch.tensor([1.0, 2.5]), "nested": [{"scale": torch.tensor(3)}]}
    save_weights(tmp_path / "weights.safetensors", {"state_dict": {"w": torch.ones(2)}}, hparams)
    found = read_weights(tmp_path / "weights.safetensors")["hyper_parameters"]
    assert found == {"input_shift": [1.0, 2.5], "nested": [{"scale": 3}]}


def test_siblings_give_all_members_or_one(run: Path) -> None:
    siblings, models = load_module(run), dict(load_softmax_models(run))
    assert isinstance(siblings, SiblingClassifiers)
    assert list(models) == [f"{run}#{i}" for i in range(3)]
    x = torch.randn(4, 2)
    for i, (name, model) in enumerate(models.items()):
        assert isinstance(model, SoftmaxClassifier)
        assert not model.training
        torch.testing.assert_close(model(x), siblings(x)[i])
        ((again, alone),) = load_softmax_models(name)
        assert again == name
        assert torch.equal(alone.embed(x), model.embed(x))


def test_a_classifier_gives_itself(checkpoint: Path) -> None:
    ((name, model),) = load_softmax_models(checkpoint)
    assert name == str(checkpoint)
    assert isinstance(model, SoftmaxClassifier)


def test_a_name_may_hold_the_mark(checkpoint: Path) -> None:
    marked = checkpoint.rename(checkpoint.with_name("model#2"))
    assert [name for name, _ in load_softmax_models(marked)] == [str(marked)]


def test_members_that_are_not_there_are_named(run: Path, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no member 3: its members are 0\.\.2"):
        load_softmax_models(f"{run}#3")
    with pytest.raises(CheckpointError, match="holds a single SoftmaxClassifier, so there is no member 0"):
        load_softmax_models(f"{checkpoint}#0")


class Other(pl.LightningModule):
    """No classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"_class_path": f"{__name__}.Other"})
        self.layer = nn.Linear(2, 2)


def test_another_class_is_refused(tmp_path: Path) -> None:
    save(Other(), tmp_path / "other.ckpt")
    assert isinstance(load_module(tmp_path / "other.ckpt"), Other)
    with pytest.raises(CheckpointError, match="holds a Other, which is no softmax classifier"):
        load_softmax_models(tmp_path / "other.ckpt")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*none\.ckpt"):
        load_module(tmp_path / "none.ckpt")


@pytest.mark.parametrize("keep", [0, 1, 100, -1000, -1])
def test_truncated_files_are_refused(checkpoint: Path, keep: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    assert "truncated" in refusal(checkpoint)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.ckpt"
    path.write_text("not a checkpoint")
    assert "not a checkpoint" in refusal(path)
    torch.save({"weight": torch.zeros(3)}, path)
    assert "not a Lightning checkpoint" in refusal(path)


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.target)!r}, 'w')",))


@pytest.mark.parametrize(
    "write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_a_pickle_that_would_execute_code_is_refused(checkpoint: Path, tmp_path: Path, write: Any) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["seed"] = Harmful(tmp_path / "executed")
    write(content, checkpoint)
    assert "could execute code" in refusal(checkpoint)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["embedding", "optimizer", "scheduler"])
@pytest.mark.parametrize(
    "value",
    [
        "os.system",
        {"class_path": "os.system"},
        {"class_path": "subprocess.Popen", "init_args": {"args": "true"}},
        {"class_path": "torch.hub.load", "init_args": {}},
        {"class_path": "torch.nn.Linear", "init_args": {"in_features": {"class_path": "os.system"}}},
        {"class_path": "harmful.Network"},
    ],
    ids=str,
)
def test_class_paths_that_could_execute_code_are_refused(checkpoint: Path, name: str, value: Any) -> None:
    change(checkpoint, lambda content: content["hyper_parameters"].update({name: value}))
    if value == "os.system" and name != "embedding":  # only called by configure_optimizers, where it is a string
        assert isinstance(load_module(checkpoint), SoftmaxClassifier)
    else:
        assert "is refused" in refusal(checkpoint)


@pytest.mark.parametrize("path", ["os.system", "torch.nn.Linear", "lightning_modules.None", "other.Module", None])
def test_classes_that_are_no_module_are_refused(checkpoint: Path, path: Any) -> None:
    change(checkpoint, lambda content: content["hyper_parameters"].update(_class_path=path))
    assert "is refused: class path" in refusal(checkpoint)


def test_a_checkpoint_without_a_class_is_refused(checkpoint: Path) -> None:
    change(checkpoint, lambda content: content.pop("hyper_parameters"))
    assert "does not name the class" in refusal(checkpoint)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["state_dict"].pop("network.embedding.l2.bias"), "lacks the weight network.embedding.l2.bias"),
        (lambda c: c["state_dict"].update(more=torch.zeros(1)), "holds a weight more that SoftmaxClassifier has not"),
        (
            lambda c: c["state_dict"].update({"network.embedding.l1.bias": torch.zeros(4)}),
            "holds network.embedding.l1.bias with shape [4], SoftmaxClassifier has [5]",
        ),
        (lambda c: c["hyper_parameters"].update(widht=3), "SoftmaxClassifier takes no argument 'widht'"),
        (lambda c: c["hyper_parameters"].pop("num_classes"), "SoftmaxClassifier needs an argument 'num_classes'"),
        (lambda c: c["hyper_parameters"].update(dim=0), "dim must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_named(checkpoint: Path, edit: Any, message: str) -> None:
    change(checkpoint, edit)
    assert message in refusal(checkpoint)


def test_training_goes_on_from_a_loaded_module(checkpoint: Path) -> None:
    trainer(max_steps=1).fit(load_module(checkpoint), Points())
