"""Several classifiers that differ in their seed, trained in lock-step so that they can be compared as they learn."""

from collections.abc import Sequence
from typing import Any

from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn, optim

from lightning_modules.hyperparameters import keep_architectures, plain_factory, rebuild, save_hyperparameters
from lightning_modules.metrics import MemberMean
from lightning_modules.optimization import step_seed
from lightning_modules.sibling_module import SiblingModule
from lightning_modules.softmax_classifier import SoftmaxClassifier, SoftmaxModule
from likeness.batch import Batch
from likeness.checks import require_labels
from likeness.networks import MLP, LabelNetwork, SoftmaxNetwork, build_networks
from likeness.networks.siblings import OwnMembers, member_state, stack
from likeness.networks.softmax_network import EmbeddingFactory, UnembeddingFactory

# Arguments that one classifier has not.
OF_SIBLINGS = ("num_members", "shared_order", "spread_over_ranks", "embeddings")


class SiblingClassifiers(SiblingModule, SoftmaxModule):
    """``num_members`` classifiers with seeds ``seed, seed + 1, ...``, each as ``SoftmaxClassifier`` would train it.

    Member i has its own first weights, dropout and, unless ``shared_order``, its own order of the training data; it
    equals the ``SoftmaxClassifier`` of seed ``seed + i`` up to rounding. MLPs, label networks and heads run as one
    batched product a layer, other networks one after another. Training batches hold the members' batches one after
    another, [P * B, ...], or one shared batch [B, ...]; evaluation batches are shared. Representations and label
    vectors have a leading dimension P. On a CPU with one thread the rounding is the same too, bit for bit.

    An optimiser that does not treat each weight by itself, or a scheduler that follows a validation loss, would
    couple the members and raises ValueError.

    Args:
        input_shape: shape of one input as the datamodule stores it, without the batch dimension.
        num_classes: K.
        num_members: P.
        dim: M, the dimension of f(x) and g(y).
        embedding: f, a network class or factory called with (input_shape, dim).
        unembedding: g, a network class or factory called with (num_classes, dim).
        embedding_norm: fixed length of f(x), or none.
        unembedding_norm: fixed length of g(y), or none.
        optimizer: an optimiser class or factory called with the parameters of all members.
        scheduler: a scheduler class or factory called with the optimiser; its lengths are in steps.
        input_shift: f sees (x - shift) / scale; one number, or one for each channel or coordinate.
        input_scale: see ``input_shift``.
        seed: member i has the seed ``seed + i``, which decides its first weights, dropout and order of the data.
        order_seed: orders the data in place of ``seed``; member i's own order has ``order_seed + i``.
        shared_order: whether all members see the same batches.
        spread_over_ranks: whether each rank trains its share of the members on whole batches, instead of all members
            on its share of each batch; under DDP every member is then what one process would have made of it.
            Networks that are not stacked need ``strategy: ddp_find_unused_parameters_true``.
        embeddings: the members' own f, in place of ``embedding``: a list of P.
    """

    network: SoftmaxNetwork

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        num_members: int = 8,
        dim: int = 2,
        embedding: EmbeddingFactory = MLP,
        unembedding: UnembeddingFactory = LabelNetwork,
        embedding_norm: float | None = None,
        unembedding_norm: float | None = None,
        optimizer: OptimizerCallable = optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        input_shift: Sequence[float] = (0.0,),
        input_scale: Sequence[float] = (1.0,),
        seed: int = 0,
        order_seed: int | None = None,
        shared_order: bool = False,
        spread_over_ranks: bool = False,
        embeddings: list[EmbeddingFactory] | None = None,
    ) -> None:
        super().__init__()
        save_hyperparameters(self)
        self.number_members(num_members, seed, order_seed, shared_order)
        self.num_classes = num_classes
        self.spread_over_ranks = spread_over_ranks
        self._own: OwnMembers | None = None  # where members are spread over ranks
        if embeddings is not None and len(embeddings) != num_members:
            raise ValueError(f"embeddings lists {len(embeddings)} networks, and num_members is {num_members}")
        networks = [
            build_networks(own, unembedding, input_shape, num_classes, dim, s)
            for own, s in zip(embeddings or [embedding] * num_members, self.seeds, strict=True)
        ]
        f = stack([f for f, _ in networks], len(input_shape), self.streams)
        g = stack([g for _, g in networks], len(input_shape), self.streams)
        norms_and_scaling = (embedding_norm, unembedding_norm, input_shift, input_scale)
        self.network = SoftmaxNetwork(f, g, input_shape, num_classes, dim, *norms_and_scaling)
        keep_architectures(self)
        self._optimizer = plain_factory(optimizer)
        self._scheduler = plain_factory(scheduler)
        self.nll = MemberMean(num_members)
        self.accuracy = MemberMean(num_members)

    def member(self, index: int) -> SoftmaxClassifier:
        """Member ``index`` alone: its own copy of the weights, the hyper-parameters it would be trained with."""
        hparams = self.member_hyperparameters(index, OF_SIBLINGS)
        if self.hparams.get("embeddings") is not None:
            hparams["embedding"] = self.hparams["embeddings"][index]
        model: SoftmaxClassifier = rebuild(SoftmaxClassifier, hparams)
        model.to(self.network.input_shift.device).train(self.training)
        model.network.to(self.network.input_shift.dtype)
        model.network.embedding.load_state_dict(member_state(self.network.embedding, index))
        model.network.unembedding.load_state_dict(member_state(self.network.unembedding, index))
        return model

    @property
    def own_members(self) -> range:
        """The members that this rank trains: all, unless they are spread over ranks."""
        if not self.spread_over_ranks or self._trainer is None:
            return range(self.num_members)
        count, rest = divmod(self.num_members, self.trainer.world_size)
        if rest:
            raise ValueError(f"{self.num_members} members cannot be spread evenly over {self.trainer.world_size} ranks")
        return range(self.global_rank * count, (self.global_rank + 1) * count)

    @property
    def whole_batches(self) -> slice | None:
        """Which of ``order_seeds`` this rank takes, where it takes whole batches of them; else None."""
        if not self.spread_over_ranks:
            return None
        own = self.own_members
        return slice(own.start, own.stop) if len(self.order_seeds) > 1 else slice(None)

    def losses(self, batch: Batch) -> Tensor:
        """Mean negative log-likelihood of each member that this rank trains, [P], in nats, on a training batch."""
        nll = self.network.nll if self._own is None else self._own.losses
        x, y = (self.of_members(rows, len(self.own_members)) for rows in (batch.x, batch.y))
        return nll(x, y).mean(1)

    def setup(self, stage: str) -> None:
        own = self.own_members
        if stage == "fit" and len(own) < self.num_members:
            self._own = OwnMembers(self.network, own.start, len(own), self.streams)

    @property
    def stacks(self) -> list[nn.Module]:
        return [self.network.embedding, self.network.unembedding]

    def configure_optimizers(self) -> Any:
        return self.members_optimization(self._optimizer(self.parameters()), self._scheduler)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        require_labels(batch.y, self.num_classes, wait=batch_idx == 0)
        rank = 0 if self.spread_over_ranks else self.global_rank
        self.streams.reseed([step_seed(self, self.seeds[i], rank) for i in self.own_members])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.losses(batch)
        self.log("train/loss", losses.detach().mean(), prog_bar=True, sync_dist=True)
        # Of the sum, so that each member's gradient is its own; DDP will divide by the number of ranks.
        return losses.sum() * (1 if self._own is None else self.trainer.world_size)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _evaluate(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        require_labels(batch.y, self.num_classes, wait=batch_idx == 0)
        answers = self.predict_step(batch, batch_idx)
        log_probs = answers["log_probs"]
        y = batch.y.expand(self.num_members, -1)
        self.nll.update(-log_probs.gather(-1, y.unsqueeze(-1)).squeeze(-1))
        self.accuracy.update(log_probs.argmax(-1) == y)
        return answers

    def _log_metrics(self, stage: str) -> None:
        for name, metric in (("nll", self.nll), ("accuracy", self.accuracy)):
            self.log_members(f"{stage}/{name}", metric.compute())
            metric.reset()
