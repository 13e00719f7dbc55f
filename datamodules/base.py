"""The bases of datamodules: loaders that resume exactly on any number of ranks, and data that are held as tensors."""

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.samplers import EvaluationOrder, RepeatedOrder, TrainOrder
from datamodules.splits import Split, SplitName, TensorSplit, check_split, held_out
from likeness.checks import require_positive
from likeness.files.errors import DataError

AnySplit = TypeVar("AnySplit", bound=Split)
STAGES: dict[str | None, tuple[SplitName, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
    None: ("train", "val", "test"),
}


class Position(NamedTuple):
    """Where training stands: ``batches`` global batches of epoch ``epoch`` are done, ``total`` in the whole run."""

    epoch: int = 0
    batches: int = 0
    total: int = 0


class ResumableLoader(DataLoader[Any]):
    """A DataLoader that Lightning knows to be resumable; where to go on stands in the datamodule's state."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class ResumableDataModule(pl.LightningDataModule, ABC, Generic[AnySplit]):
    """A dataset held in memory, or in a memory map; a subclass says what it is and loads a split.

    A loader yields the named tuples that the splits answer when indexed, each with the samples' positions as ``id``.
    Training batches are a pure function of (seed, epoch, rank); evaluation visits each sample exactly once over all
    ranks. Works without a trainer, as rank 0 of 1: ``prepare_data()``, ``setup("test")``, ``test_dataloader()``.
    """

    dataset_name: str  # how metrics and tables call the data
    on_device: bool = False  # the splits lie on the training device: no workers, no pinned memory

    def __init__(self, batch_size: int = 128, eval_batch_size: int = 1024, num_workers: int = 0, seed: int = 0) -> None:
        """
        Args:
            batch_size: Samples in a training batch over all ranks.
            eval_batch_size: Samples in an evaluation batch of one rank.
            num_workers: Processes that gather batches; 0, in this process, is fastest for data in memory.
            seed: Decides the order of training samples, unless the model names its own ``order_seeds``, and
                augmentation.
        """
        super().__init__()
        require_positive(batch_size=batch_size, eval_batch_size=eval_batch_size)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.splits: dict[SplitName, AnySplit] = {}
        self._resumed = Position()
        self._resumed_order: dict[str, Any] | None = None

    @abstractmethod
    def load(self, split: SplitName) -> AnySplit:
        """Read or draw one split. Raises DataError where the data are missing or damaged."""

    def check(self, name: SplitName, split: AnySplit) -> None:
        """Raise DataError, naming the sample, where a loaded split is not what models can read."""
        if len(split) == 0:
            raise DataError(f"the {name} split is empty")

    def setup(self, stage: str | None = None) -> None:
        if stage in ("fit", None):
            self._resumed, self._resumed_order = Position(), None
        for name in STAGES[stage]:
            if name not in self.splits:
                split = self.load(name)
                self.check(name, split)
                self.splits[name] = split

    def train_dataloader(self) -> DataLoader[Any]:
        self._check_resumed_order()
        overfit = self.trainer is not None and self.trainer.overfit_batches  # type: ignore[attr-defined]
        order = RepeatedOrder if overfit else TrainOrder
        follow = self.trainer is not None and order is TrainOrder
        module = self.trainer.lightning_module if self.trainer is not None else None
        whole: slice | None = getattr(module, "whole_batches", None)
        sampler = order(
            len(self.splits["train"]),
            self.batch_size,
            self._order_seeds()[whole or slice(None)],
            *(self._rank_and_world_size() if whole is None else (0, 1)),
            position=(lambda: self.position()[:2]) if follow else None,
        )
        return self._loader("train", sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        return self._evaluation_loader("test")

    def position(self) -> Position:
        """Where training stands now.

        Counted in batches processed: ``completed`` lags by one in a checkpoint of ``on_train_batch_end``, and
        Lightning's epoch counter is one too high after a checkpoint of an epoch's end when max_steps is set or cut
        the epoch short.
        """
        assert self.trainer is not None
        processed: int = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        total = max(processed, self._resumed.total)  # loaders may be asked for before Lightning's counters return
        done = self._resumed.batches + total - self._resumed.total
        epochs, batches = divmod(done, self._batches_per_epoch())
        return Position(self._resumed.epoch + epochs, batches, total)

    def state_dict(self) -> dict[str, Any]:
        """Where training stands and in which order; plain numbers, so that a checkpoint loads ``weights_only``."""
        if self.trainer is None or "train" not in self.splits:
            return {}
        position = self.position()
        return {
            "epoch": position.epoch,
            "batches_done": position.batches,
            "samples_done": position.batches * self.batch_size,
            "total_batches": position.total,
            "world_size": self.trainer.world_size,
            "order": self._order(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the saved position. Global batches are the same at any world size, so it may change."""
        self._resumed = Position(state_dict["epoch"], state_dict["batches_done"], state_dict["total_batches"])
        self._resumed_order = dict(state_dict["order"])
        if self.trainer is not None and (before := state_dict["world_size"]) != (now := self.trainer.world_size):
            rank_zero_info(
                f"continuing on {now} processes what {before} began: the same global batches, but other dropout"
            )

    def _order(self) -> dict[str, Any]:
        """Everything that decides which samples stand in which global batch."""
        return {
            "batch_size": self.batch_size,
            "num_samples": len(self.splits["train"]),
            "batches_per_epoch": self._batches_per_epoch(),
            "seeds": list(self._order_seeds()),
        }

    def _check_resumed_order(self) -> None:
        """In the middle of an epoch the order must stay what it was; a new epoch may begin with another."""
        if self._resumed_order is None or self._resumed.batches == 0:
            return
        for key, now in self._order().items():
            if now != (saved := self._resumed_order.get(key)):
                raise ValueError(
                    f"{key} is {now}, but the checkpoint was written {self._resumed.batches} batches into epoch "
                    f"{self._resumed.epoch} with {saved}: continue with the same, or from the end of an epoch"
                )

    def _order_seeds(self) -> Sequence[int]:
        module = self.trainer.lightning_module if self.trainer is not None else None
        seeds = getattr(module, "order_seeds", None)
        return (self.seed,) if seeds is None else tuple(seeds)

    def _batches_per_epoch(self) -> int:
        batches, limit = len(self.splits["train"]) // self.batch_size, 1.0
        if self.trainer is not None:
            limit = self.trainer.limit_train_batches
        return max(1, min(batches, limit) if isinstance(limit, int) else int(batches * limit))

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _evaluation_loader(self, name: SplitName) -> DataLoader[Any]:
        sampler = EvaluationOrder(len(self.splits[name]), self.eval_batch_size, *self._rank_and_world_size())
        return self._loader(name, sampler)

    def _loader(self, name: SplitName, sampler: TrainOrder | EvaluationOrder) -> DataLoader[Any]:
        self._refuse_distributed_sampler()
        to_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        workers = 0 if self.on_device else self.num_workers
        return ResumableLoader(
            self.splits[name],
            sampler=sampler,
            batch_size=None,  # the sampler yields whole batches
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=to_gpu and not self.on_device,
            worker_init_fn=_leave_signals_to_the_trainer if workers else None,
            generator=torch.Generator(),  # iterating draws from it, and must not move the global stream
        )

    def _refuse_distributed_sampler(self) -> None:
        if self.trainer is None or self.trainer.world_size == 1:
            return
        if self.trainer._accelerator_connector.use_distributed_sampler:
            raise ValueError(
                "trainer.use_distributed_sampler must be false, got true: it would pad the evaluation and reorder "
                "the training that the datamodule already divides among the ranks"
            )


def _leave_signals_to_the_trainer(worker_id: int) -> None:
    """For loaders' workers: a signal to the whole run is for the process that trains, which still needs them.

    Ctrl-C, torchrun and some schedulers signal the process group; workers would die, and the run with them, before
    it has its checkpoint. In a group of their own they end with the trainer, or when it terminates them.
    """
    os.setpgid(0, 0)
    for signum in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)


class TensorDataModule(ResumableDataModule[TensorSplit]):
    """A dataset that fits in memory (or in a memory map) as tensors; a subclass says what it is and loads a split.

    ``input_shape``, ``num_classes``, ``levels``, ``input_shift``, ``input_scale`` and ``dataset_name`` are known
    before any data are read. A loader yields ``Batch``: inputs as stored, uint8 images or float points.
    """

    input_shape: tuple[int, ...]  # of one input, without the batch dimension
    num_classes: int  # 1 where there are no labels
    levels: int | None = None  # grey levels of integer inputs, None for real-valued ones

    def __init__(self, on_device: bool = False, **kwargs: Any) -> None:
        """
        Args:
            on_device: Keep the whole dataset on the training device; no workers are used then.
        """
        super().__init__(**kwargs)
        self.on_device = on_device

    @property
    def input_shift(self) -> list[float]:
        """Per channel or coordinate: ``(x - input_shift) / input_scale`` brings integers into [-1, 1]."""
        return [(self.levels - 1) / 2 if self.levels else 0.0] * self.input_shape[0]

    @property
    def input_scale(self) -> list[float]:
        """Per channel or coordinate, see ``input_shift``; 1 for real-valued inputs."""
        return [(self.levels - 1) / 2 if self.levels else 1.0] * self.input_shape[0]

    def check(self, name: SplitName, split: TensorSplit) -> None:
        check_split(name, split, self.num_classes)

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        if self.on_device and self.trainer is not None:
            for name in STAGES[stage]:
                self.splits[name] = self.splits[name].to(self.trainer.strategy.root_device)


class HeldOutDataModule(TensorDataModule):
    """Divides the published training samples into train and val; a subclass reads the published parts."""

    def __init__(self, val_size: int, split_seed: int = 0, **kwargs: Any) -> None:
        """
        Args:
            val_size: Training samples held out for validation. 0 trains on all of them and validates on the test
                samples, as most published tables do; then nothing may be selected by a validation metric.
            split_seed: Decides which training samples are held out.
        """
        super().__init__(**kwargs)
        if val_size < 0:
            raise ValueError(f"val_size must be at least 0, got {val_size}")
        self.val_size = val_size
        self.split_seed = split_seed
        self._published: dict[bool, tuple[Tensor, Tensor]] = {}

    @abstractmethod
    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the published training or test samples, in their published order."""

    def load(self, split: SplitName) -> TensorSplit:
        from_train = split == "train" or (split == "val" and self.val_size > 0)
        if from_train not in self._published:
            self._published[from_train] = self.read(train=from_train)
        x, y = self._published[from_train]
        if not from_train or self.val_size == 0:
            return TensorSplit(x, y)
        train, val = held_out(len(y), self.val_size, self.split_seed)
        return TensorSplit(x, y, train if split == "train" else val)
