"""What loggers share that keep one record of a run, each step once, however often the run is stopped and continued."""

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor

from callbacks.run.run_files import note
from likeness.files.writing import replacing

SQLITE_FILES = ("", "-journal", "-wal", "-shm")  # how the names end of the files that an SQLite database may have
Row = dict[str, Any]


class ContinuedLogger(Logger):
    """A logger whose store is asked, on every start, for the last step that it holds of each key.

    What is there is not written again: a continued run repeats the steps behind its checkpoint to the last bit. What a
    kill took, or what is from before the logger was switched on, follows from ``metrics.csv``; pictures and tables do
    not, they stand in ``figures/``. The values of an evaluation go under its own name (``test/nll``,
    ``validate/val/nll``), one step an evaluation, so that they are no part of a curve of the training.

    A store that cannot be opened is an error. One that fails later ends the logging of this segment, with a warning,
    and never the training.
    """

    def __init__(self, directory: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._directory = Path(directory)
        self._stage = "fit"
        self._known: dict[str, int] | None = None  # the last step of each key; None until the store is asked
        self._failed = False

    @abstractmethod
    def _start(self) -> dict[str, int]:
        """Open the record of this run; the last step that it holds of each key."""

    @abstractmethod
    def _begin_anew(self) -> None:
        """Let the record be: what comes is another training in the same directory."""

    @abstractmethod
    def _write(self, metrics: Row, step: int) -> None:
        """Numbers of one step."""

    @abstractmethod
    def _write_image(self, name: str, image: np.ndarray, step: int) -> None:
        """A uint8 RGB image [H, W, 3]."""

    @abstractmethod
    def _write_table(self, name: str, columns: list[str], data: list[list[Any]], step: int) -> None:
        """A table; a column may hold numbers beside words and nothing at all."""

    @abstractmethod
    def _write_config(self, config: Row) -> None:
        """The resolved configuration, as nested plain values."""

    @abstractmethod
    def _finish(self, status: str) -> None:
        """Put everything into the store and let it go; ``status`` is ``success`` or ``failed``."""

    def _rewind(self, global_step: int) -> None:
        """Take back what was logged behind ``global_step``, where the store can."""

    def _stored(self, key: str) -> str:
        """The name under which the store keeps a key."""
        return key

    @property
    def save_dir(self) -> str:
        return str(self._directory)

    @property
    def _held(self) -> dict[str, int]:
        self._open()
        assert self._known is not None
        return self._known

    def _open(self) -> None:
        if self._known is None:
            self._known = self._start()

    @rank_zero_only
    def begin(self, stage: str) -> None:
        """Say what is logged from now on: a fresh ``fit``, or an evaluation."""
        self._stage = stage
        if stage == "fit" and self._held:  # of another training in the same directory
            self._begin_anew()
            self._known = None

    @rank_zero_only
    def resume(self, history: list[Row], global_step: int) -> None:
        """Continue after ``global_step`` steps; what is missing of ``history``, the rows up to there, is added."""
        self._rewind(global_step)
        for row in history:
            self.log_metrics({key: value for key, value in row.items() if key != "step"}, int(row["step"]))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._open()
        if self._failed or self._stage != "fit":
            return
        with self._training_goes_on():
            self._write_config(json.loads(json.dumps(params, default=str)))

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        named = {self._named(key): value for key, value in metrics.items() if key != "epoch" or self._stage == "fit"}
        step = self._step(named, step)
        new = {name: value for name, value in named.items() if self._is_new(name, step)}
        if new:
            self._once(new, step, lambda: self._write(new, step))

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Log uint8 images, arrays [H, W, 3] or tensors [3, H, W]; several are numbered behind the key."""
        names = [self._named(key if len(images) == 1 else f"{key}/{index}") for index in range(len(images))]
        step = self._step(names, step)
        for name, image in zip(names, images, strict=True):
            self._once([name], step, partial(self._write_image, name, as_rgb(key, image), step))

    @rank_zero_only
    def log_table(self, key: str, columns: list[str], data: list[list[Any]], step: int | None = None) -> None:
        """Log a table; a column may hold numbers beside words and nothing at all."""
        name = self._named(key)
        step = self._step([name], step)
        self._once([name], step, lambda: self._write_table(name, columns, data, step))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End this segment; a logger that is used again continues the record."""
        if self._known is None:
            return
        with self._training_goes_on():
            self._finish(status)
        self._known, self._failed = None, False

    def _named(self, key: str) -> str:
        return key if self._stage == "fit" or key.startswith(f"{self._stage}/") else f"{self._stage}/{key}"

    def _step(self, names: Iterable[str], step: int | None) -> int:
        if self._stage != "fit":
            return 1 + max((self._held.get(self._stored(name), -1) for name in names), default=-1)
        return max(self._held.values(), default=0) if step is None else step

    def _is_new(self, name: str, step: int) -> bool:
        return step > self._held.get(self._stored(name), -1)

    def _once(self, names: Iterable[str], step: int, write: Callable[[], None]) -> None:
        new = [name for name in names if self._is_new(name, step)]
        if new and not self._failed:
            with self._training_goes_on():
                write()
                self._held.update({self._stored(name): step for name in new})

    @contextmanager
    def _training_goes_on(self) -> Iterator[None]:
        """Turns a failure of the store into one line, after which nothing is logged until the run is continued."""
        try:
            yield
        except (TypeError, ValueError):  # of what was asked for, not of the store
            raise
        except Exception as error:
            self._failed = True
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            rank_zero_warn(f"{type(self).__name__} failed ({line}): metrics.csv has what it does not log from here on")


def as_rgb(key: str, image: Any) -> np.ndarray:
    """A uint8 array [H, W, 3] or tensor [3, H, W] as an array. Raises TypeError for values that are not uint8."""
    array = image.movedim(0, -1).numpy(force=True) if isinstance(image, Tensor) else np.asarray(image)
    if array.dtype != np.uint8:
        raise TypeError(f"image {key!r} must be uint8, got {array.dtype}")
    return array


def require(library: str) -> None:
    """Raise ImportError naming the extra where the library of a logger, which is called like it, is missing."""
    if find_spec(library) is None:
        raise ImportError(f'this logger needs {library}: pip install -e ".[{library}]"')


def kept_id(file: Path, make: Callable[[], str]) -> str:
    """The run's id in a store: what the file in the run directory says, or a new one, which is written there."""
    if not file.exists():
        made = make()
        with replacing(note(file)) as temporary:
            temporary.write_text(made, encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()
