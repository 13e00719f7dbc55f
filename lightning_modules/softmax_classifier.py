"""One classifier p(y | x) = softmax_y f(x) . g(y), trained on labels or on the logits of a teacher."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.optim import Adam
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_modules.checkpoints import load_softmax_models
from lightning_modules.hyperparameters import keep_architectures, plain_factory, save_hyperparameters
from lightning_modules.metrics import MemberMean
from lightning_modules.optimization import optimization, step_seed
from likeness.adapters.libraries import LibraryClassifier
from likeness.batch import Batch
from likeness.checks import require_labels
from likeness.losses import LossName, distillation_loss
from likeness.networks import MLP, LabelNetwork, SoftmaxNetwork, build_networks
from likeness.networks.softmax_network import EmbeddingFactory, UnembeddingFactory
from likeness.protocols import SoftmaxModel


class Teacher:
    """Logits of a classifier that is read from its checkpoint when they are first needed.

    It is no ``nn.Module``, so that it belongs to no student: not to its weights, their optimiser, their averages or
    their checkpoints. A distilled checkpoint therefore is complete without its teacher, and only training on, after
    ``--ckpt_path`` too, reads the teacher again, from where it was read at first. It stays in evaluation mode, scales
    inputs by itself and follows the device of its inputs; its weights are frozen.

    Args:
        path: a run directory or checkpoint, ``PATH#3`` for a sibling.
        input_shape: that of the student, without the batch dimension.
        num_classes: K of the student.
    """

    def __init__(self, path: str, input_shape: Sequence[int], num_classes: int) -> None:
        self.path = path
        self._input_shape = tuple(input_shape)
        self._num_classes = num_classes
        self._model: SoftmaxModel | None = None

    def read(self) -> SoftmaxModel:
        """The model, on the CPU at first; random numbers are left as they are.

        Raises what ``lightning_modules.checkpoints.load_softmax_models`` does, and ValueError for siblings of which
        none is named, and for a model of other inputs or labels than the student's.
        """
        if self._model is None:
            with isolate_rng():
                model = _load(self.path)
            self._require_fit(model)
            self._model = model
        return self._model

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """f(x) . g(y), [N, K], of inputs as the datamodule stores them."""
        model = self.read()
        if isinstance(model, nn.Module):
            model.to(x.device)
        return model.embed(x) @ model.unembeddings().mT

    @torch.no_grad()
    def _require_fit(self, model: SoftmaxModel) -> None:
        labels = len(model.unembeddings())
        if labels != self._num_classes:
            raise ValueError(
                f"teacher {self.path} has {labels} labels, the student has num_classes={self._num_classes}"
            )
        try:
            model.embed(torch.zeros(1, *self._input_shape))
        except ValueError as error:
            shape = list(self._input_shape)
            raise ValueError(f"teacher {self.path} does not take the student's inputs {shape}: {error}") from error


def _load(path: str) -> SoftmaxModel:
    models = load_softmax_models(path)
    if len(models) > 1:
        raise ValueError(f"teacher {path} holds {len(models)} siblings: name one, {models[0][0]} to {models[-1][0]}")
    return models[0][1]


class SoftmaxModule(pl.LightningModule):
    """The ``network`` of one classifier or of P siblings, whose answers have a leading dimension P."""

    network: SoftmaxNetwork | LibraryClassifier

    def embed(self, x: Tensor) -> Tensor:
        """f(x), [N, M], of inputs [N, ...] as they are stored; siblings also take one batch each, [P, N, ...]."""
        return self.network.embed(x)

    def unembeddings(self) -> Tensor:
        """g(y), [K, M]."""
        return self.network.unembeddings()

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities, [N, K]."""
        return self.network(x).log_softmax(-1)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        f = self.embed(batch.x)
        log_probs = (f @ self.unembeddings().mT).log_softmax(-1)
        return {"id": batch.id, "log_probs": log_probs, "representations": f}


class EvaluatedClassifier(SoftmaxModule):
    """One classifier that is validated and tested: the mean negative log-likelihood in nats, and accuracy."""

    def set_labels(self, num_classes: int) -> None:
        """Say K, once the module has been initialised."""
        self.num_classes = num_classes
        self.val_nll, self.val_accuracy = _metrics(num_classes)
        self.test_nll, self.test_accuracy = _metrics(num_classes)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        require_labels(batch.y, self.num_classes, wait=batch_idx == 0)
        answers = self._evaluate(batch, self.val_nll, self.val_accuracy)
        # Metric objects, not values: a mean of the ranks' means is wrong where ranks hold unequal shares.
        self.log("val/nll", self.val_nll)
        self.log("val/accuracy", self.val_accuracy)
        return answers

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        require_labels(batch.y, self.num_classes, wait=batch_idx == 0)
        self._evaluate(batch, self.test_nll, self.test_accuracy)
        self.log("test/nll", self.test_nll)
        self.log("test/accuracy", self.test_accuracy)

    def _evaluate(self, batch: Batch, nll: Metric, accuracy: Metric) -> dict[str, Tensor]:
        answers = self.predict_step(batch, 0)
        log_probs = answers["log_probs"]
        nll.update(-log_probs.gather(-1, batch.y.unsqueeze(-1)).squeeze(-1))
        accuracy.update(log_probs, batch.y)
        return answers


class SoftmaxClassifier(EvaluatedClassifier):
    """Trains f and g on the mean negative log-likelihood, in nats, or on their distance from a teacher's logits.

    The first weights are a function of ``seed`` alone, dropout of (seed, batch of the run, rank); nothing depends on
    the global generator. ``order_seed`` orders the training data where it should differ from ``seed``.

    Args:
        input_shape: shape of one input as the datamodule stores it, without the batch dimension.
        num_classes: K.
        dim: M, the dimension of f(x) and g(y).
        embedding: f, a network class or factory called with (input_shape, dim).
        unembedding: g, a network class or factory called with (num_classes, dim).
        embedding_norm: fixed length of f(x), or none.
        unembedding_norm: fixed length of g(y), or none.
        optimizer: an optimiser class or factory called with the parameters.
        scheduler: a scheduler class or factory called with the optimiser; its lengths are in steps.
        input_shift: f sees (x - shift) / scale; one number, or one for each channel or coordinate.
        input_scale: see ``input_shift``.
        seed: decides the first weights, dropout and, unless ``order_seed`` does, the order of the data.
        order_seed: decides the order of the data.
        teacher: the run directory or checkpoint of a classifier to learn from in place of labels, ``PATH#3`` for a
            sibling. Only training reads it, at its start, resumed or not.
        distillation: the loss against the teacher's logits: ``kl``, ``l1``, ``l2`` or ``d_logit``
            (``likeness.losses``).
    """

    network: SoftmaxNetwork

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        dim: int = 2,
        embedding: EmbeddingFactory = MLP,
        unembedding: UnembeddingFactory = LabelNetwork,
        embedding_norm: float | None = None,
        unembedding_norm: float | None = None,
        optimizer: OptimizerCallable = Adam,
        scheduler: LRSchedulerCallable | None = None,
        input_shift: Sequence[float] = (0.0,),
        input_scale: Sequence[float] = (1.0,),
        seed: int = 0,
        order_seed: int | None = None,
        teacher: str | None = None,
        distillation: LossName = "kl",
    ) -> None:
        super().__init__()
        save_hyperparameters(self)
        f, g = build_networks(embedding, unembedding, input_shape, num_classes, dim, seed)
        norms_and_scaling = (embedding_norm, unembedding_norm, input_shift, input_scale)
        self.network = SoftmaxNetwork(f, g, input_shape, num_classes, dim, *norms_and_scaling)
        keep_architectures(self)
        self.seed = seed
        self.order_seeds: Sequence[int] = (seed if order_seed is None else order_seed,)
        self._optimizer = plain_factory(optimizer)
        self._scheduler = plain_factory(scheduler)
        self._teacher = None if teacher is None else Teacher(teacher, input_shape, num_classes)
        self._distillation = distillation_loss(distillation)
        self.set_labels(num_classes)

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log-likelihood of the labels, in nats, or the distance from the teacher.

        One pass through f, one through g.
        """
        if self._teacher is None:
            return self.network.nll(batch.x, batch.y).mean()
        return self._distillation(self._teacher.logits(batch.x), self.network(batch.x))

    def setup(self, stage: str) -> None:
        if stage == "fit" and self._teacher is not None:
            self._teacher.read()  # what is wrong with it is said before anything is trained or written

    def configure_optimizers(self) -> Any:
        return optimization(self._optimizer(self.parameters()), self._scheduler)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        require_labels(batch.y, self.num_classes, wait=batch_idx == 0)
        torch.manual_seed(step_seed(self, self.seed))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return loss


def _metrics(num_classes: int) -> tuple[Metric, Metric]:
    return MemberMean(), MulticlassAccuracy(num_classes, average="micro", validate_args=False)
