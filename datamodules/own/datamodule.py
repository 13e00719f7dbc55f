"""What the datamodules of somebody's own data share: parts that are there or held out, classes, and preparation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Literal, cast

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.base import TensorDataModule
from datamodules.errors import OptionError
from datamodules.own.labels import class_order, classes
from datamodules.own.pictures import Fit
from datamodules.own.samples import Preparation, SampleError, Selected, Source, StoredSplit, unreadable
from datamodules.samplers import TrainOrder
from datamodules.splits import PARTS, SplitName, TensorSplit, remaining_rows, require_fractions, stratified_rows
from likeness.files.errors import DataError

SPELLINGS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_NAMED = 5  # of the samples that are skipped, in a message


class OwnDataModule(TensorDataModule):
    """Samples in at most three parts; a part that is not there is held out of the training samples.

    Held-out samples are drawn by ``split_seed``, in the proportions of the classes. A part that no command asks for
    is not read. ``input_shape``, ``num_classes``, ``class_names`` and ``levels`` are read from the data when they are
    asked for first, unless arguments state them.
    """

    def __init__(
        self,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        part_names: dict[str, str] | None = None,
        class_names: tuple[str, ...] | int | None = None,
        image_size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] = 3,
        augment: list[nn.Module] | None = None,
        transform: list[nn.Module] | None = None,
        skip_corrupt: bool = False,
        levels: int | None = None,
        input_shift: list[float] | None = None,
        input_scale: list[float] | None = None,
        dataset_name: str = "own",
        **kwargs: Any,
    ) -> None:
        """
        Args:
            val_fraction: Share of the training samples held out for validation where no such part is there; 0 validates
                on the test samples, and then nothing may be selected by a validation metric.
            test_fraction: Share held out for the test where no such part is there; 0 tests on the validation samples.
            split_seed: Decides which training samples are held out.
            part_names: What the parts are called where they are not called train, val and test: {val: validation}.
            class_names: The classes in their order, or a number K for the labels 0 to K - 1. None: the labels of the
                training samples, in the order of the numbers where all are numbers, else of the alphabet.
            image_size: Height and width of the inputs: each image is resized until it covers them, and cut around its
                centre. None: all images have one size.
            channels: Of encoded pictures, 3 for RGB and 1 for grey; arrays keep theirs.
            augment: torchvision v2 transforms of training samples, before ``transform``; a function of (seed, epoch,
                sample).
            transform: torchvision v2 transforms of all samples, in place of what ``image_size`` does.
            skip_corrupt: Leave out what cannot be read, and say how many that are, after reading each sample of a part
                once; otherwise it is an error.
            levels: Grey levels of integer inputs; None: 256 of uint8, and real values of all others.
            input_shift: Models see (x - input_shift) / input_scale, a number for each channel or coordinate; None: what
                brings ``levels`` into [-1, 1].
            input_scale: See ``input_shift``.
            dataset_name: What metrics and tables call the data.
        """
        super().__init__(**kwargs)
        require_fractions(val_fraction, test_fraction)
        if wrong := sorted({*(part_names or {})} - {*PARTS}):
            raise ValueError(f"part_names may name train, val and test, got {wrong[0]!r}")
        if image_size is not None and transform is not None:
            raise ValueError("image_size and transform both decide the size of the inputs: give one of them")
        if self.on_device and augment:
            raise ValueError("on_device keeps samples as they are decoded, and augment makes them anew: give one")
        self.fractions: dict[SplitName, float] = {"val": val_fraction, "test": test_fraction}
        self.split_seed = split_seed
        self.part_names = dict(part_names or {})
        self.image_size = image_size
        self.channels: Literal[1, 3] = channels
        fit = [] if image_size is None else [Fit(image_size)]
        self.preparation = Preparation(augment or (), fit if transform is None else transform)
        self.skip_corrupt = skip_corrupt
        self.dataset_name = dataset_name
        self._given_names = class_names
        self._given: dict[str, Any] = {"levels": levels, "shift": input_shift, "scale": input_scale}
        self._sources: dict[str, Source] = {}
        self._readable: dict[str, Source] = {}

    @abstractmethod
    def parts(self) -> Sequence[SplitName]:
        """The parts that are there; nothing but their names is read. Raises DataError where none is."""

    @abstractmethod
    def open(self, part: SplitName) -> Source:
        """The samples of a part that is there, opened and not read."""

    def called(self, part: SplitName) -> str:
        """What a part is called in the data."""
        return self.part_names.get(part, part)

    def spellings(self, part: SplitName) -> tuple[str, ...]:
        """What a folder or split of a part may be called: what was said, or the usual names."""
        return (self.part_names[part],) if part in self.part_names else SPELLINGS[part]

    def parts_in(self, column: Iterable[str], where: str) -> tuple[SplitName, ...]:
        """The parts that a column of their names has. Raises DataError beginning with ``where`` for another name."""
        names, found = {self.called(part): part for part in PARTS}, {*column}
        if others := sorted(map(repr, found - {*names})):
            raise DataError(f"{where} says {others[0]}, which is none of {', '.join(names)}: see part_names")
        return tuple(part for name, part in names.items() if name in found)

    def source(self, part: SplitName) -> Source:
        """The samples of a part that is there, those that cannot be read among them."""
        if part not in self._sources:
            self._sources[part] = self.open(part)
            if len(self._sources[part]) == 0:
                raise DataError(f"the {self.called(part)} part of {self.dataset_name} is empty")
        return self._sources[part]

    def taken_from(self, split: SplitName) -> SplitName:
        """The part in which the samples of a split stand: its own, the training part, or what stands in for it."""
        there = self.parts()
        if split in there or split == "train":
            return split
        other: SplitName = "test" if split == "val" else "val"
        instead = other if self.fractions[split] == 0 and (other in there or self.fractions[other]) else "train"
        return instead if instead in there else "train"

    def rows(self, split: SplitName) -> Tensor | None:
        """Which samples of the part belong to a split [n]; None for all of them."""
        there = self.parts()
        if split in there and split != "train":
            return None
        held_out = {part: 0.0 if part in there else self.fractions[part] for part in ("val", "test")}
        if self.taken_from(split) != "train":
            return None
        source = self.readable("train")
        count = len(source)
        strata = torch.zeros(count, dtype=torch.long) if source.codes is None else source.codes
        test = stratified_rows(strata, round(held_out["test"] * count), self.split_seed)
        rest = remaining_rows(count, test)
        val = rest[stratified_rows(strata[rest], round(held_out["val"] * count), self.split_seed)]
        if split == "train":
            return remaining_rows(count, torch.cat([test, val])) if any(held_out.values()) else None
        chosen = {"val": val if held_out["val"] else test, "test": test if held_out["test"] else val}[split]
        if not len(chosen):
            raise OptionError(f"{split}_fraction leaves no sample of {count} for the {split} split")
        return chosen

    def readable(self, part: SplitName) -> Source:
        """The samples of a part without those that are skipped."""
        if not self.skip_corrupt:
            return self.source(part)
        if part not in self._readable:
            self._readable[part] = self._without_corrupt(part)
        return self._readable[part]

    def load(self, split: SplitName) -> TensorSplit:
        part = self.taken_from(split)
        if part not in self.parts():
            found = " and ".join(self.called(there) for there in self.parts())
            raise DataError(f"{self.dataset_name} has no {self.called(part)} part for the {split} split, but {found}")
        source = self.readable(part)
        like = None if self._shape is None else self._first
        return StoredSplit(source, classes(source, self._names), self.rows(split), self.preparation, like)

    def check(self, name: SplitName, split: TensorSplit) -> None:
        """What a sample holds is checked when it is read."""
        if len(split) == 0:
            raise DataError(f"the {name} split is empty")

    def train_dataloader(self) -> DataLoader[Any]:
        loader = super().train_dataloader()
        cast(TrainOrder, loader.sampler).tells_epoch = bool(self.preparation.augment)
        return loader

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes are called, [K]; none where there are no labels."""
        return self._names

    @property
    def num_classes(self) -> int:  # type: ignore[override]  # read when it is asked for
        """K; 1 where there are no labels."""
        return max(1, len(self._names))

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Of one input; AttributeError for texts, which have none."""
        if self._shape is None:
            raise AttributeError(f"{self.dataset_name} holds texts, which have no input_shape")
        return self._shape

    @property
    def levels(self) -> int | None:  # type: ignore[override]
        if self._shape is None:
            raise AttributeError(f"{self.dataset_name} holds texts, which have no levels")
        given: int | None = self._given["levels"]
        return 256 if given is None and self._first.dtype == torch.uint8 else given

    @property
    def input_shift(self) -> list[float]:
        return self._each_channel("shift", super().input_shift)

    @property
    def input_scale(self) -> list[float]:
        return self._each_channel("scale", super().input_scale)

    def _each_channel(self, name: str, usual: list[float]) -> list[float]:
        given: list[float] = self._given[name] or usual
        if len(given) not in (1, len(usual)):
            raise OptionError(f"input_{name} has {len(given)} numbers for inputs of shape {list(self.input_shape)}")
        return given * len(usual) if len(given) == 1 else given

    def labels(self, part: SplitName) -> Sequence[str] | None:
        """The distinct labels of a part that is there, as they are written; None where it has none."""
        source = self.source(part)
        return None if source.codes is None else source.names

    @cached_property
    def _names(self) -> tuple[str, ...]:
        if isinstance(self._given_names, int):
            return tuple(map(str, range(self._given_names)))
        if self._given_names is not None:
            return tuple(self._given_names)
        there = self.parts()
        found = [self.labels(part) for part in (("train",) if "train" in there else there)]
        return class_order({name for names in found for name in names or ()})

    @cached_property
    def _first(self) -> Any:
        """A text, or a sample as an evaluation prepares it: the first that can be read, of the last part."""
        source = self.source(self.parts()[-1])
        for row in map(torch.tensor, range(len(source))):
            try:
                (sample,) = source.read(row[None])
            except SampleError:
                if not self.skip_corrupt:
                    raise
            else:
                return sample if isinstance(sample, str) else self.preparation.plain([sample], row[None])[0]
        raise DataError(f"no sample of {self.dataset_name} can be read, the first of them {source.place(0)}")

    @cached_property
    def _shape(self) -> tuple[int, ...] | None:
        """Of one input; None for texts."""
        if not isinstance(self._first, str):
            return tuple(self._first.shape)
        if self.preparation.augment or self.preparation.transform:
            raise OptionError(f"{self.dataset_name} holds texts, which take no image_size, augment or transform")
        return None

    def _without_corrupt(self, part: SplitName) -> Source:
        source = self.source(part)
        wrong = unreadable(source, f"reading {self.called(part)} once")
        if not wrong:
            return source
        first = "; ".join(list(wrong.values())[:_NAMED]) + ("; ..." if len(wrong) > _NAMED else "")
        rank_zero_info(f"skipped {len(wrong)} of {len(source)} samples of {self.called(part)}: {first}")
        return Selected(source, remaining_rows(len(source), torch.tensor(list(wrong))))
