"""Several language models that differ in their seed, trained in lock-step and compared as they learn."""

from typing import Any

from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_modules.hyperparameters import plain_factory, rebuild, save_hyperparameters
from lightning_modules.language_model import LanguageModel
from lightning_modules.optimization import LanguageAdamW, step_seed, without_decay_of_vectors
from lightning_modules.sibling_module import SiblingModule
from lightning_modules.token_module import DecoderFactory, TokenModule, share_of_this_rank
from likeness.batch import Batch
from likeness.networks.decoder import GPT2
from likeness.networks.siblings import DECODERS, member_state, stack
from likeness.seeding import mix, seeded

# Arguments that one language model has not.
OF_SIBLINGS = ("num_members", "shared_order")


class SiblingLanguageModels(SiblingModule, TokenModule):
    """``num_members`` language models with seeds ``seed, seed + 1, ...``, each as ``LanguageModel`` would train it.

    Member i has its own first weights, dropout and, unless ``shared_order``, its own order of the training data; it
    equals the ``LanguageModel`` of seed ``seed + i`` up to rounding. All run as one batched product a layer, which is
    faster than one after another where a step is too small to keep the processor busy, and about as fast elsewhere.
    Training batches hold the members' batches one after another, [P * B, T], or one shared batch [B, T]; evaluation
    batches are shared. Representations are [P, B T, M] and label vectors [P, V, M].

    Logs what ``LanguageModel`` does: the mean over members, ``/min``, ``/max``, and each member's under its number.

    Raises ValueError for a network that is no decoder of this project, and as ``SiblingClassifiers`` for optimisers and
    schedulers that would couple the members.

    Args:
        vocab_size: V, as the datamodule says.
        context: T, the longest context.
        num_members: P.
        network: f and g of each, a class or factory called with (vocab_size, context).
        optimizer: an optimiser class or factory called with the parameters of all members.
        scheduler: a scheduler class or factory called with the optimiser; its lengths are in steps.
        seed: member i has the seed ``seed + i``, which decides its first weights, dropout and order of the data.
        order_seed: orders the data in place of ``seed``; member i's own order has ``order_seed + i``.
        shared_order: whether all members see the same batches.
        measured_positions: held-out positions, about, that callbacks measure: a fixed choice, each time the same.
        compiled: compile the blocks of all members for training (``torch.compile``); masks of dropout are then of the
            compiler's own.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        num_members: int = 4,
        network: DecoderFactory = GPT2,
        optimizer: OptimizerCallable = LanguageAdamW,
        scheduler: LRSchedulerCallable | None = None,
        seed: int = 0,
        order_seed: int | None = None,
        shared_order: bool = False,
        measured_positions: int = 8192,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.number_members(num_members, seed, order_seed, shared_order)
        self.set_sizes(vocab_size, context, measured_positions, num_members)
        save_hyperparameters(self)
        self.network = self._stacked(network)
        self.compiled = compiled
        self._optimizer, self._scheduler = plain_factory(optimizer), plain_factory(scheduler)

    def member(self, index: int) -> LanguageModel:
        """Member ``index`` alone: its own copy of the weights, the hyper-parameters it would be trained with."""
        model: LanguageModel = rebuild(LanguageModel, self.member_hyperparameters(index, OF_SIBLINGS))
        weight = self.network.tokens.weight
        model.to(weight.device).train(self.training)
        model.network.to(weight.dtype)
        model.network.load_state_dict(member_state(self.network, index))
        model.tokenizer = self.tokenizer
        return model

    @property
    def stacks(self) -> list[nn.Module]:
        return [self.network]

    def log_tokens(self, name: str, value: Tensor, **options: Any) -> None:
        self.log_members(name, value, **options)

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(without_decay_of_vectors(self, stacked=True))
        return self.members_optimization(optimizer, self._scheduler)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.require_tokens(batch, batch_idx)
        self.streams.reseed([step_seed(self, seed) for seed in self.seeds])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.losses(batch)
        self.log("train/loss", losses.detach().mean(), prog_bar=True, batch_size=len(batch.x), sync_dist=True)
        return losses.sum()  # so that each member's gradient is its own

    def losses(self, batch: Batch) -> Tensor:
        """Each member's mean negative log-likelihood, [P], in nats, on a training batch."""
        y = self.of_members(batch.y).expand(self.num_members, -1, -1)
        return self.network.loss(self.of_members(batch.x), y) * share_of_this_rank(y)

    def _stacked(self, network: DecoderFactory) -> Any:
        alone = []
        for seed in self.seeds:
            with seeded(mix(seed)):
                alone.append(network(self.vocab_size, self.context))
        if type(alone[0]) not in DECODERS:
            known = ", ".join(kind.__name__ for kind in DECODERS)
            raise ValueError(f"network {type(alone[0]).__name__} cannot be stacked: siblings are made of {known}")
        return stack(alone, 1, self.streams)
