"""What modules of several models share that differ in their seed and are trained in lock-step."""

from collections.abc import Collection, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.cli import LRSchedulerCallable
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_modules.optimization import optimization
from likeness.checks import require_positive
from likeness.networks.siblings import MemberList, clip_member_gradients
from likeness.networks.stacked_layers import MemberStreams

# Optimisers whose update of a weight depends on that weight and its own gradients only: on stacked parameters they
# do to each member what they would do to it alone.
ELEMENTWISE = (
    optim.SGD,
    optim.ASGD,
    optim.Adam,
    optim.AdamW,
    optim.Adamax,
    optim.NAdam,
    optim.RAdam,
    optim.Adagrad,
    optim.Adadelta,
    optim.RMSprop,
    optim.Rprop,
)


class SiblingModule(pl.LightningModule):
    """P models with seeds s, s + 1, ..., each with its own random stream, clipping and, where it has one, order.

    A subclass builds its networks with ``likeness.networks.siblings.stack`` and names them in ``stacks``.
    """

    num_members: int
    seeds: range
    order_seeds: Sequence[int]

    def number_members(self, num_members: int, seed: int, order_seed: int | None, shared_order: bool) -> None:
        """Call in ``__init__``, before the networks are made. Raises ValueError for no members."""
        require_positive(num_members=num_members)
        self.num_members = num_members
        self.seeds = range(seed, seed + num_members)
        first_order = seed if order_seed is None else order_seed
        self.order_seeds = range(first_order, first_order + (1 if shared_order else num_members))
        self.streams = MemberStreams()

    @property
    def stacks(self) -> list[nn.Module]:
        """The stacked networks, whose parameters are all that is trained."""
        raise NotImplementedError

    def member_hyperparameters(self, index: int, without: Collection[str]) -> dict[str, Any]:
        """Those with which member ``index`` would be trained alone, ``without`` the arguments that one model has not.

        Raises ValueError for a member that is not there.
        """
        if not 0 <= index < self.num_members:
            raise ValueError(f"there is no member {index}: the siblings are 0..{self.num_members - 1}")
        own = {"seed": self.seeds[index], "order_seed": self.order_seeds[index % len(self.order_seeds)]}
        return {name: value for name, value in self.hparams.items() if name not in without} | own

    def of_members(self, rows: Tensor, count: int | None = None) -> Tensor:
        """The members' batches [P, B, ...] of a training batch that holds one after another, or their shared one."""
        return rows.unflatten(0, (count or self.num_members, -1)) if len(self.order_seeds) > 1 else rows

    def members_optimization(self, optimizer: optim.Optimizer, scheduler: LRSchedulerCallable | None) -> Any:
        """The answer of ``configure_optimizers``. Raises ValueError for what would couple the members."""
        lists = all(isinstance(stack, MemberList) for stack in self.stacks)
        separate = not isinstance(optimizer, optim.LBFGS) if lists else isinstance(optimizer, ELEMENTWISE)
        if self.num_members > 1 and not separate:
            raise ValueError(
                f"optimizer {type(optimizer).__name__} would mix the siblings, whose weights are stacked: use one that "
                "treats each weight by itself (Adam, AdamW, SGD, ...), or train the members as runs of their own"
            )
        answer = optimization(optimizer, scheduler)
        if isinstance(answer.get("lr_scheduler", {}).get("scheduler"), ReduceLROnPlateau):
            raise ValueError(
                "scheduler ReduceLROnPlateau follows one model's validation loss, but siblings share one learning rate"
            )
        return answer

    def configure_gradient_clipping(
        self,
        optimizer: optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if gradient_clip_algorithm == "value" or not gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            clip_member_gradients(self.stacks, self.num_members, gradient_clip_val)

    def log_members(self, name: str, values: Tensor, **options: Any) -> None:
        """Log the mean over members as ``name``, with ``/min``, ``/max`` and each member's value under its number."""
        values = values.reshape(self.num_members).float()  # torchmetrics makes a scalar of a single number
        summary = {"": values.mean(), "/min": values.min(), "/max": values.max()}
        members = {f"/{i}": value for i, value in enumerate(values)}
        # The metric has already summed over the ranks; sync_dist only tells Lightning that they agree.
        for key, value in (summary | members).items():
            self.log(f"{name}{key}", value, sync_dist=True, **options if not key else {})
