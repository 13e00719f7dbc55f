"""A teacher belongs to no student, and a student comes to predict as its teacher does."""

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging

from lightning_modules import SiblingClassifiers, SoftmaxClassifier
from lightning_modules.checkpoint_files import CheckpointError
from lightning_modules.checkpoints import load_module, load_softmax_models
from lightning_modules.softmax_classifier import Teacher
from likeness.losses import LOSSES, LossName, distillation_loss
from likeness.networks import MLP, LinearHead
from tests.lightning_modules.points import Points, save, trainer

SMALL = functools.partial(MLP, width=8)
ARGUMENTS: dict[str, Any] = {"input_shape": (2,), "num_classes": 3, "embedding": SMALL}


def teacher_model(**kwargs: Any) -> SoftmaxClassifier:
    """A confident one that dropout in training mode, a scaling of its own, a bias and another M would give away."""
    options = {"embedding": functools.partial(MLP, width=16, dropout=0.5), "unembedding": LinearHead, "dim": 4}
    model = SoftmaxClassifier(**ARGUMENTS | options | {"input_scale": (3.0,), "seed": 9} | kwargs)
    with torch.no_grad():
        model.network.unembedding.weight *= 30
    return model


@pytest.fixture
def path(tmp_path: Path) -> str:
    save(teacher_model(), tmp_path / "teacher.ckpt")
    return str(tmp_path / "teacher.ckpt")


@pytest.fixture
def siblings(tmp_path: Path) -> str:
    """A run directory of three."""
    save(SiblingClassifiers(**ARGUMENTS, num_members=3), tmp_path / "run" / "checkpoints" / "last.ckpt")
    return str(tmp_path / "run")


def student(path: str, **kwargs: Any) -> SoftmaxClassifier:
    optimizer = functools.partial(torch.optim.Adam, lr=0.01)
    return SoftmaxClassifier(**ARGUMENTS | {"optimizer": optimizer, "teacher": path} | kwargs)


def whole(split: Any) -> Any:
    data = Points()
    data.setup(None)
    part = data.splits[split]
    return part[torch.arange(len(part))]


def test_logits_are_those_of_the_model_in_evaluation(path: str) -> None:
    x, model = whole("train").x, load_module(path)
    assert isinstance(model, SoftmaxClassifier)
    logits = Teacher(path, (2,), 3).logits(x)
    assert torch.equal(logits, model.eval().network(x))
    assert not logits.requires_grad


def test_a_sibling_is_named(siblings: str) -> None:
    x = whole("train").x
    expected = dict(load_softmax_models(siblings))[f"{siblings}#1"]
    assert torch.equal(Teacher(f"{siblings}#1", (2,), 3).logits(x), expected.embed(x) @ expected.unembeddings().mT)
    with pytest.raises(ValueError, match=r"teacher .*run holds 3 siblings: name one, .*run#0 to .*run#2"):
        Teacher(siblings, (2,), 3).read()


def test_what_does_not_fit_names_both(path: str) -> None:
    with pytest.raises(ValueError, match=r"teacher .*teacher.ckpt has 3 labels, the student has num_classes=5"):
        Teacher(path, (2,), 5).read()
    with pytest.raises(ValueError, match=r"teacher.ckpt does not take the student's inputs \[7\]: .* takes \[N, 2\]"):
        Teacher(path, (7,), 3).read()


def test_unusable_files_stop_the_training_before_it_starts(path: str, tmp_path: Path) -> None:
    for missing in (tmp_path / "none.ckpt", tmp_path):
        with pytest.raises(FileNotFoundError, match=str(missing)):
            trainer(max_epochs=1).fit(student(str(missing)), Points())
    Path(path).write_bytes(Path(path).read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"teacher.ckpt is (refused: it is )?truncated"):
        trainer(max_epochs=1).fit(student(path), Points())


def test_unknown_losses_are_refused_with_or_without_a_teacher(path: str) -> None:
    for teacher in (path, None):
        with pytest.raises(ValueError, match="unknown distillation loss 'mse'"):
            SoftmaxClassifier(**ARGUMENTS, teacher=teacher, distillation="mse")  # type: ignore[arg-type]


def test_random_numbers_are_left_as_they_are(path: str) -> None:
    before = torch.get_rng_state()
    Teacher(path, (2,), 3).logits(whole("train").x)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_teacher_follows_the_inputs_to_their_device(path: str) -> None:
    assert Teacher(path, (2,), 3).logits(whole("train").x.to("meta")).device.type == "meta"


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_approaches_its_teacher(path: str, name: LossName) -> None:
    model, batch = student(path, distillation=name, dim=4), whole("train")
    logits, loss = Teacher(path, (2,), 3).logits(batch.x), distillation_loss(name)
    before = loss(logits, model.network(batch.x))
    assert torch.equal(model.loss(batch), before)
    trainer(max_epochs=60, limit_val_batches=0).fit(model, Points())
    after = loss(logits, model.network(batch.x))
    assert after < 0.2 * before
    agreement = (model(batch.x).argmax(1) == logits.argmax(1)).double().mean()
    assert agreement > 0.9


def test_the_teacher_is_neither_trained_nor_saved(path: str, tmp_path: Path) -> None:
    model, x = student(path), whole("train").x
    before = Teacher(path, (2,), 3).logits(x)
    trainer(max_epochs=1).fit(model.train(), Points())
    assert model._teacher is not None
    assert torch.equal(model._teacher.logits(x), before)
    save(model, tmp_path / "student.ckpt")
    content = torch.load(tmp_path / "student.ckpt", weights_only=True)
    assert content["hyper_parameters"]["teacher"] == path
    alone = SoftmaxClassifier(**ARGUMENTS)
    assert content["state_dict"].keys() == alone.state_dict().keys()
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in alone.named_parameters()]


def test_only_training_needs_the_teacher(path: str, tmp_path: Path) -> None:
    model = student(path)
    trainer(max_epochs=1).fit(model, Points())
    save(model, tmp_path / "student.ckpt")
    Path(path).unlink()
    ((_, loaded),) = load_softmax_models(tmp_path / "student.ckpt")
    assert isinstance(loaded, SoftmaxClassifier)
    assert torch.equal(loaded.embed(whole("test").x), model.eval().embed(whole("test").x))
    for stage in ("validate", "test"):
        getattr(trainer(), stage)(loaded, Points(), verbose=False)
    trainer().predict(loaded, Points())
    with pytest.raises(FileNotFoundError, match=r"teacher\.ckpt"):
        trainer(max_epochs=1).fit(loaded.requires_grad_(True), Points())


def weights(model: SoftmaxClassifier) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def test_training_continues_exactly(path: str, tmp_path: Path) -> None:
    noisy = functools.partial(MLP, width=8, dropout=0.5)
    undisturbed, first, second = (student(path, embedding=noisy, seed=3) for _ in range(3))
    trainer(max_epochs=4).fit(undisturbed, Points())
    stopped = trainer(max_epochs=2)
    stopped.fit(first, Points())
    stopped.save_checkpoint(tmp_path / "middle.ckpt")
    torch.manual_seed(17)
    trainer(max_epochs=4).fit(second, Points(), ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    assert not torch.equal(weights(first), weights(undisturbed))
    assert torch.equal(weights(second), weights(undisturbed))


def test_averages_of_the_weights_leave_the_teacher_alone(path: str) -> None:
    model, x = student(path), whole("train").x
    trainer(max_epochs=2, callbacks=[EMAWeightAveraging(decay=0.9)]).fit(model, Points())
    assert torch.equal(Teacher(path, (2,), 3).logits(x), copy.deepcopy(model)._teacher.logits(x))  # type: ignore[union-attr]


def test_double_precision(path: str) -> None:
    model = student(path)
    trainer(max_epochs=1, precision="64-true").fit(model, Points())
    assert weights(model).dtype == torch.float64


def test_two_ranks_learn_what_one_does(tmp_path: Path) -> None:
    saved, path = [], str(tmp_path / "teacher.ckpt")
    save(teacher_model().double(), path)
    for ranks in ({}, {"strategy": "ddp_fork", "devices": 2}):
        fit = trainer(max_epochs=1, precision="64-true", **ranks)
        fit.fit(student(path, distillation="l2"), Points())
        fit.save_checkpoint(tmp_path / "student.ckpt")
        saved.append(torch.load(tmp_path / "student.ckpt", weights_only=True)["state_dict"])
    for name, value in saved[0].items():
        torch.testing.assert_close(saved[1][name].double(), value.double(), rtol=1e-6, atol=1e-9)
