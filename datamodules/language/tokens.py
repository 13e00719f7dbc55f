"""Token files as data of language models: windows of T + 1 tokens, in an order that resumes exactly."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, cast

from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.base import ResumableDataModule
from datamodules.errors import OptionError
from datamodules.language.documents import DOCSTRINGS, Reading, open_documents
from datamodules.language.making import Division, TokenizerChoice, choose_tokenizer, files_key, make_token_files
from datamodules.language.token_files import SUMMARY, TokenFolder, head_digest
from datamodules.language.windows import EvaluatedWindows, TrainingWindows
from datamodules.samplers import TrainOrder
from datamodules.splits import SplitName
from likeness.checks import require_positive
from likeness.files.errors import missing
from likeness.language.loss import IGNORED
from likeness.language.text_tokenizer import BYTES, TextTokenizer

Windows = TrainingWindows | EvaluatedWindows


class Tokens(ResumableDataModule[Any]):
    """Tokens of texts of any size, memory-mapped from ``train.bin``, ``val.bin`` and ``test.bin`` of a folder.

    A batch is Batch(x [B, T], y [B, T], id [B]): y is the token behind each of x, -1 where nothing is predicted; id is
    where the window starts in the file. In training the windows of an epoch lie one behind the other from an offset
    that is, like their order, a function of (seed, epoch). In evaluation every token but the first is predicted once.
    A part that is not there is the other one of val and test. ``likeness data tokenize`` makes such folders; plain
    ``.bin`` files of uint16, as nanoGPT has them, are read as well.

    Without a folder: the docstrings of the standard library, made on first use.
    """

    context: int

    def __init__(
        self,
        folder: str | None = None,
        context: int = 128,
        stride: int | None = None,
        by_document: bool = False,
        vocab_size: int | None = None,
        data_dir: str = "data/tokens",
        dataset_name: str = "tokens",
        **kwargs: Any,
    ) -> None:
        """
        Args:
            folder: Folder of token files; null: the docstrings of the standard library.
            context: T, how many tokens a model sees; every window has as many predictions.
            stride: Of the windows in evaluation, each of which but the first predicts so many tokens, from at least
                T - stride before; null is T.
            by_document: Whether windows in evaluation see one document alone.
            vocab_size: V, to be stated for plain .bin files without tokens.json. Of the docstrings: how many byte
                pairs to learn, or 257 for bytes; null is 2,048.
            data_dir: Where the tokens of the docstrings are made.
            dataset_name: What metrics and tables call the data.
        """
        super().__init__(**kwargs)
        require_positive(context=context, stride=stride, vocab_size=vocab_size)
        if stride is not None and stride > context:
            raise ValueError(f"stride must be at most the context of {context}, got {stride}")
        self.folder = folder
        self.context = context
        self.stride = stride
        self.by_document = by_document
        self.data_dir = Path(data_dir).expanduser()
        self.dataset_name = dataset_name
        self._stated_size = vocab_size if folder is not None or vocab_size is not None else 2048
        self._files: TokenFolder | None = None

    @property
    def vocab_size(self) -> int:
        """V."""
        if self.folder is None:
            return cast(int, self._stated_size)
        return self.files.vocab_size

    @property
    def num_classes(self) -> int:
        """V, the labels that are predicted."""
        return self.vocab_size

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(T,)."""
        return (self.context,)

    @property
    def files(self) -> TokenFolder:
        """The folder of token files. Raises DataError where it is missing."""
        if self._files is None:
            self._files = TokenFolder(self._path, self._stated_size)
        return self._files

    @property
    def separator(self) -> int | None:
        """The id that stands behind each document; None where it is not known."""
        return None if self.files.summary is None else self.files.summary.separator

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """What made the tokens; None where nothing is known of it."""
        return self.files.tokenizer

    @cached_property
    def byte_counts(self) -> Tensor | None:
        """How many bytes of text each token stands for [V] int64, for bits per byte; None without a tokenizer."""
        return None if self.tokenizer is None else self.tokenizer.byte_counts

    def num_bytes(self, y: Tensor) -> int:
        """The bytes of the text that targets y of any shape, -1 for none, stand for. Raises where that is unknown."""
        if self.byte_counts is None:
            raise missing(self.files.path / SUMMARY, "bits per byte need the tokenizer of the files")
        return int(self.byte_counts.to(y.device)[y[y != IGNORED]].sum())

    @override
    def prepare_data(self) -> None:
        if self.folder is not None:
            return
        source = open_documents(DOCSTRINGS, Reading())
        _, there = make_token_files(self._path, source, _embedded(self.vocab_size), Division())
        if not there:
            rank_zero_info(f"wrote the tokens of the standard library's docstrings into {self._path}")

    @override
    def load(self, split: SplitName) -> Windows:
        part = self._part_of(split)
        file = self.files.file(part)
        if len(file) <= self.context:
            raise OptionError(
                f"{file.path} holds {len(file)} tokens, fewer than a context of {self.context} and the token behind it"
            )
        if split != "train":
            documents = self.files.documents(part) if self.by_document else None
            return EvaluatedWindows(file, self.context, self.stride or self.context, documents)
        windows = TrainingWindows(file, self.context)
        if len(windows) == 0:
            raise OptionError(
                f"{file.path} holds {len(file)} tokens: a context of {self.context} needs {2 * self.context + 1} of "
                "them, for a window at any offset"
            )
        return windows

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        loader = super().train_dataloader()
        cast(TrainOrder, loader.sampler).tells_epoch = True
        return loader

    @cached_property
    def _path(self) -> Path:
        if self.folder is not None:
            return Path(self.folder).expanduser()
        key = files_key(open_documents(DOCSTRINGS, Reading()), _embedded(self.vocab_size), Division())
        return self.data_dir / f"docstrings_{self.vocab_size}_{key[:12]}"

    def _part_of(self, split: SplitName) -> SplitName:
        """The part that a split is read from: its own, or the other held-out one."""
        there = self.files.parts()
        other: SplitName = "test" if split == "val" else "val"
        if split in there or split == "train" or other not in there:
            return split
        return other

    @override
    def _order(self) -> dict[str, Any]:
        file = self.splits["train"].file
        return super()._order() | {"context": self.context, "tokens": len(file), "digest": head_digest(file.head)}


def _embedded(vocab_size: int) -> TokenizerChoice:
    return choose_tokenizer("bytes" if vocab_size == BYTES else "bpe", vocab_size)
