"""One classifier p(y | x) = softmax_y f(x) . g(y)."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.optim import Adam
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_modules.hyperparameters import plain_factory, save_hyperparameters
from lightning_modules.member_mean import MemberMean
from lightning_modules.optimization import optimization
from lightning_modules.step_seed import step_seed
from lightning_modules.teacher import Teacher
from likeness.batch import Batch
from likeness.distillation import LossName, distillation_loss
from likeness.networks import MLP, LabelNetwork, SoftmaxNetwork, build_networks
from likeness.networks.checks import require_labels
from likeness.networks.softmax_network import EmbeddingFactory, UnembeddingFactory


class SoftmaxClassifier(pl.LightningModule):
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
            (``likeness.distillation``).
    """

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
        self.num_classes = num_classes
        self.seed = seed
        self.order_seeds: Sequence[int] = (seed if order_seed is None else order_seed,)
        self._optimizer = plain_factory(optimizer)
        self._scheduler = plain_factory(scheduler)
        self._teacher = None if teacher is None else Teacher(teacher, input_shape, num_classes)
        self._distillation = distillation_loss(distillation)
        self.val_nll, self.val_accuracy = _metrics(num_classes)
        self.test_nll, self.test_accuracy = _metrics(num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """f(x), [N, M], of inputs as the datamodule stores them."""
        return self.network.embed(x)

    def unembeddings(self) -> Tensor:
        """g(y), [K, M]."""
        return self.network.unembeddings()

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities, [N, K]."""
        return self.network(x).log_softmax(-1)

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

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        require_labels(batch.y, self.num_classes, wait=batch_idx == 0)
        self._evaluate(batch, self.val_nll, self.val_accuracy)
        # Metric objects, not values: a mean of the ranks' means is wrong where ranks hold unequal shares.
        self.log("val/nll", self.val_nll)
        self.log("val/accuracy", self.val_accuracy)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        require_labels(batch.y, self.num_classes, wait=batch_idx == 0)
        self._evaluate(batch, self.test_nll, self.test_accuracy)
        self.log("test/nll", self.test_nll)
        self.log("test/accuracy", self.test_accuracy)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        f = self.embed(batch.x)
        log_probs = (f @ self.unembeddings().mT).log_softmax(-1)
        return {"id": batch.id, "log_probs": log_probs, "representations": f}

    def _evaluate(self, batch: Batch, nll: Metric, accuracy: Metric) -> None:
        log_probs = self(batch.x)
        nll.update(-log_probs.gather(-1, batch.y.unsqueeze(-1)).squeeze(-1))
        accuracy.update(log_probs, batch.y)


def _metrics(num_classes: int) -> tuple[Metric, Metric]:
    return MemberMean(), MulticlassAccuracy(num_classes, average="micro", validate_args=False)
