"""What the layers of a model answer, collected in one pass, and the bounded sample of it that is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.adapters.activations import (
    Activations,
    LayerError,
    Pooling,
    matching_layers,
    pooled,
    representation,
    unwrapped,
)
from likeness.adapters.batches import Inputs
from likeness.adapters.modules import TOLERANCE, Measurable, ModelError, ModuleModel
from likeness.similarity.metric import keep

WHOLE = "f"  # the name of the one layer of a model that is no module
FEW = 3  # samples on which a model is tried before the data go by, and then on one less
Rule = Pooling | Callable[[Tensor], Tensor]
Read = Callable[[Tensor, str, Tensor | None], Any]
"""From a layer's output, its name and a mask of tokens [N, T] to what is kept of it."""


class LayerOutputs(Activations):
    """The outputs of layers, each read when it comes.

    Of a layer that runs several times in one pass the last output counts, and where ``runs`` says how often it does
    only that one is read. What a container passes on unchanged from its last child is read once: both then hold the
    same object.

    Args:
        model: whose submodules are named.
        layers: their names.
        read: what is kept of an output.
        runs: how often each layer runs in one pass, where that is known.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], read: Read, runs: Mapping[str, int] | None = None):
        super().__init__(model, layers, lambda value: value)
        self.read, self.runs = read, runs
        self.left_out: dict[str, str] = {}  # layers that ran and answer what cannot be read, and why
        self.ran: dict[str, int] = {}
        self._last: tuple[Tensor, int | None, Any] | None = None  # an output, how often it was changed, what was read

    @override
    def take(self) -> dict[str, Any]:
        """What was collected since the last time, in the order of the model."""
        rows = {name: self._rows[name] for name in self.layers if name in self._rows}
        self._rows, self._last, self.ran = {}, None, {}
        return rows

    @override
    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def collect(module: nn.Module, inputs: Any, output: Any) -> None:
            self.ran[name] = self.ran.get(name, 0) + 1
            if self.runs is None or self.ran[name] == self.runs.get(name):
                try:
                    self._rows[name] = self._read(output, name)
                except LayerError as error:
                    self.left_out[name] = str(error)

        return collect

    def _read(self, output: Any, name: str) -> Any:
        value = representation(output)
        if value is None or value.ndim < 2 or not value.is_floating_point():
            found = list(value.shape) if value is not None else type(output).__name__
            raise LayerError(f"it answers {found}, which is no vector, sequence or feature map a sample")
        value = value.detach()
        if self._last is not None and _is_same(value, *self._last[:2]):
            return self._last[2]
        rows = self.read(value, name, self.mask)
        self._last = (value, _version(value), rows)
        return rows


class Side:
    """One of the models whose layers are compared.

    Args:
        model: as ``likeness.adapters.sources.adapted`` gives it.
        layers: patterns of names; None for all layers and blocks that run.
        pooling: how an output becomes vectors.
        read: what is kept of a layer's output.
        few: reads them for ``size`` samples, to see which layers can be read at all; by their pooling.
        may_lack: whether layers that are named may be such that cannot be read.
    """

    def __init__(
        self,
        model: Measurable,
        layers: Iterable[str] | None,
        pooling: Rule,
        read: Read,
        few: Callable[..., Tensor] | None = None,
        *,
        may_lack: bool = False,
    ) -> None:
        self.model, self._read, self._size = model, read, 0
        self._few = partial(one_row_each, pooling=pooling) if few is None else few
        found = model.modules
        self.module = found[0] if found else None
        self.patterns = None if layers is None else [layers] if isinstance(layers, str) else list(layers)
        self.may_lack = may_lack
        self.layers: list[str] = [WHOLE]
        self.left_out: dict[str, str] = {}
        self._outputs: LayerOutputs | None = None

    def prepare(self, first: Inputs) -> None:
        """See on a few inputs which layers run, how often, and that they answer the same when asked twice.

        Raises LayerError for a name that does not run, and ModelError naming a layer that answers differently.
        """
        if self.module is None:
            return
        own = unwrapped(self.module)
        patterns = self.patterns or ["*"]
        wanted = matching_layers(own, patterns)
        outputs = LayerOutputs(own, wanted, self._read_few)
        few, fewer = self._first(first, FEW), self._first(first, max(1, min(FEW, first.size) - 1))
        with outputs:
            self._size = few.size
            self._run(few, outputs)
            runs, rows = outputs.ran, outputs.take()
            self._size = fewer.size
            self._run(fewer, outputs)
            again = outputs.take()
        rows = {name: rows[name] for name in rows if name in again and name not in outputs.left_out}
        self.left_out = {name: "it did not run" for name in wanted if name not in runs} | outputs.left_out
        missing = [] if self.may_lack else [name for name in self.left_out if name in patterns]
        if missing or not rows:
            name = missing[0] if missing else next(iter(self.left_out))
            raise LayerError(f"layer {name!r} of {self.model.name!r} cannot be compared: {self.left_out[name]}")
        _require_repeatable(self.model.name, rows, again)
        self.layers = list(rows)
        self._outputs = LayerOutputs(own, self.layers, self._read, runs)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Hooks on the layers inside, and none afterwards."""
        if self._outputs is None:
            yield
            return
        with self._outputs:
            yield

    def collect(self, batch: Inputs) -> dict[str, Any]:
        """What is kept of each layer for a batch. Raises LayerError naming a layer that did not run."""
        if self._outputs is None:
            return {WHOLE: self._read(self.model.embed(batch), WHOLE, None)}
        self._run(batch, self._outputs)
        return self.take(batch.start)

    def take(self, start: int = 0) -> dict[str, Any]:
        """What a pass that someone else made has left. Raises LayerError naming a layer that ran in another way."""
        assert self._outputs is not None
        expected, ran, reasons = self._outputs.runs or {}, self._outputs.ran, self._outputs.left_out
        rows = self._outputs.take()
        for name in self.layers:
            if ran.get(name, 0) != expected[name]:
                reasons = {name: f"it runs {ran.get(name, 0)} times, and on the first batch ran {expected[name]} times"}
            if name in reasons:
                raise LayerError(f"layer {name!r} of {self.model.name!r} at sample {start}: {reasons[name]}")
        return rows

    def _first(self, batch: Inputs, size: int) -> Inputs:
        """The first samples of a batch."""
        return _first_of(batch, size)

    def _read_few(self, value: Tensor, name: str, mask: Tensor | None) -> Tensor:
        return self._few(value, name, mask, size=self._size)

    def _run(self, batch: Inputs, outputs: LayerOutputs) -> None:
        x = batch.x
        mask = x.get("attention_mask") if isinstance(x, Mapping) else None
        outputs.mask = mask if isinstance(mask, Tensor) else None
        if isinstance(self.model, ModuleModel):
            self.model(x)
        else:
            self.model.embed(batch)


def one_row_each(value: Tensor, name: str, mask: Tensor | None, pooling: Rule, size: int | None = None) -> Tensor:
    """A layer's output as rows [N, d], or with the pooling ``positions`` [N P, d], P for each of N samples.

    Raises LayerError where there are others than that of ``size`` samples.
    """
    size = len(value) if size is None else size
    if pooling == "positions" and mask is not None and not bool(mask.bool().all()):
        raise LayerError("its sequences are padded, so that samples have unlike many positions: pool by mean or last")
    rows = pooled(value, pooling, name, mask)
    if len(rows) != size and (pooling != "positions" or len(rows) % size):
        raise LayerError(f"it answers {list(value.shape)} for {size} samples")
    return rows


class Stored(NamedTuple):
    """The sample that is kept, by id."""

    ids: Tensor  # [N]
    rows: dict[str, Tensor]  # [N, P, d] of each layer; one object for layers that answer the same


def each_once(rows: Mapping[str, Tensor], function: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """What a function makes of the rows of layers; of layers that answer the same it is one object again."""
    made = {key: function(tensor) for key, tensor in {id(tensor): tensor for tensor in rows.values()}.items()}
    return {name: made[id(tensor)] for name, tensor in rows.items()}


class LayerStore:
    """At most ``max_stored`` samples of every layer, chosen by a hash of their ids, in each layer's own dtype.

    No order of the data changes which. Raises ValueError where they would take more than ``max_bytes``.
    """

    def __init__(self, max_stored: int, max_bytes: int, of: str) -> None:
        self.max_stored, self.max_bytes, self.of = max_stored, max_bytes, of
        self.ids = torch.empty(0, dtype=torch.int64)
        self._rows: dict[str, Tensor] = {}
        self._like: dict[str, str] = {}  # the layer that answers what this one does

    def expect(self, samples: int, rows: Mapping[str, Tensor], size: int) -> None:
        """Raise ValueError if so many samples will not fit, of layers that answered ``rows`` for ``size`` of them."""
        distinct = {id(tensor): tensor for tensor in rows.values()}.values()
        each = sum(tensor.numel() * tensor.element_size() for tensor in distinct) // size
        require_room(each * min(samples, self.max_stored), self.max_bytes, f"the layers of {self.of}")

    def add(self, ids: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Add samples with these ids [N], and what each layer answered, [N P, d]."""
        require_finite_layers(self.of, rows, ids)
        ids, old = ids.cpu(), len(self.ids)
        candidates = torch.cat([self.ids, ids])
        kept = keep(torch.column_stack([candidates, torch.arange(len(candidates))]), self.max_stored)[:, 1]
        new, stays = kept[kept >= old].sort().values - old, torch.zeros(old, dtype=torch.bool)
        stays[kept[kept < old]] = True
        slots = torch.cat([(~stays).nonzero()[:, 0], torch.arange(old, old + len(new))])[: len(new)]
        self._grow(max(old, int(slots.max()) + 1 if len(slots) else 0), rows, len(ids))
        self.ids = torch.cat([self.ids, self.ids.new_empty(max(0, int(slots.max()) + 1 - old) if len(slots) else 0)])
        self.ids[slots] = ids[new]
        for name, tensor in self._rows.items():
            own = rows[name].reshape(len(ids), -1, tensor.shape[2])
            tensor[slots.to(tensor.device)] = own[new.to(own.device)]

    def stored(self) -> Stored:
        """What was kept, in the order of the ids."""
        order = self.ids.argsort()
        own = {name: tensor[order.to(tensor.device)] for name, tensor in self._rows.items()}
        return Stored(self.ids[order], {name: own[first] for name, first in self._like.items()})

    def _grow(self, size: int, rows: Mapping[str, Tensor], samples: int) -> None:
        """Room for so many samples; layers that no longer answer the same are told apart from now on."""
        first: dict[int, str] = {}
        for name, tensor in rows.items():
            now = first.setdefault(id(tensor), name)
            before = self._like.setdefault(name, now)
            if before == name or rows[before] is tensor:
                if name == before and name not in self._rows:
                    shape = (len(tensor) // samples, tensor.shape[1])
                    self._rows[name] = tensor.new_empty(0, *shape)
            else:
                self._rows[name], self._like[name] = self._rows[before].clone(), name
        held = len(next(iter(self._rows.values())))
        if size <= held:
            return
        room = min(self.max_stored, max(size, 2 * held))
        self._rows = {
            name: torch.cat([tensor, tensor.new_empty(room - held, *tensor.shape[1:])])
            for name, tensor in self._rows.items()
        }


def require_room(needed: int, allowed: int, what: str) -> None:
    """Raise ValueError saying what was needed and allowed, and the ways out."""
    if needed > allowed:
        raise ValueError(
            f"keeping {what} would take {needed / 1e9:.2f} GB, and {allowed / 1e9:.2f} GB are allowed (max_bytes): "
            "name fewer layers, keep fewer samples (max_stored), pool by mean, or take estimator='minibatch'"
        )


def require_finite_layers(model: str, rows: Mapping[str, Tensor], ids: Tensor) -> None:
    """Raise ValueError naming the model, the first layer and the sample where a value is not finite."""
    for layer, tensor in rows.items():
        if bool(tensor.sum().isfinite()):
            continue
        bad = (~tensor.isfinite()).reshape(len(ids), -1).any(1)
        if bool(bad.any()):
            sample = int(ids[int(bad.nonzero()[0])])
            raise ValueError(f"layer {layer!r} of {model!r} answers values that are not finite, at sample {sample}")


def _first_of(batch: Inputs, size: int) -> Inputs:
    """The first samples of a batch."""

    def part(value: Any) -> Any:
        has_rows = isinstance(value, list | tuple) or (isinstance(value, Tensor) and value.ndim > 0)
        return value[:size] if has_rows and len(value) == batch.size else value

    x = {name: part(value) for name, value in batch.x.items()} if isinstance(batch.x, Mapping) else part(batch.x)
    return Inputs(x, None, batch.ids[:size], batch.start, min(size, batch.size))


def _require_repeatable(model: str, rows: Mapping[str, Tensor], again: Mapping[str, Tensor]) -> None:
    for layer, whole in rows.items():
        second = again[layer]
        first = whole[: len(second)]
        allowed = TOLERANCE * torch.finfo(first.dtype).eps * float(first.abs().max())
        if float((first - second).abs().max()) > allowed:
            raise ModelError(
                f"layer {layer!r} of {model!r} answers differently when asked twice: dropout or another source of "
                "chance is on in it"
            )


def _is_same(value: Tensor, last: Tensor, version: int | None) -> bool:
    """Whether the output is the last one, unchanged since; that one is held, so that its memory is not another's."""
    place = (value.data_ptr(), value.shape, value.stride(), value.dtype)
    same = place == (last.data_ptr(), last.shape, last.stride(), last.dtype)
    return same and version is not None and _version(value) == version


def _version(value: Tensor) -> int | None:
    """How often the tensor was changed in place; None where it was made in inference mode, which does not count."""
    return None if value.is_inference() else value._version
