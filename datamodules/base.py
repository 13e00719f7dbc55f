"""What every datamodule of tensors states about its inputs, and where the tensors lie."""

from typing import Any

from datamodules.resumable import STAGES, ResumableDataModule
from datamodules.split import SplitName, TensorSplit, check_split


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
