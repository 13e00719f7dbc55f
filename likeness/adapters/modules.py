"""Any torch module as a model that can be measured: f is what enters its last linear layer, g that layer's weight.

p(y | x) of an ordinary classifier is the softmax of W f(x) + b, so that f with a constant coordinate 1 and g = [W, b]
make it a :class:`likeness.protocols.SoftmaxModel`. Whether the layer found is the head in truth is checked on the
first batch: f g^T must be the model's own logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.adapters.activations import Pooling, matching_layers, pooled, representation, unwrapped
from likeness.adapters.batches import Inputs
from likeness.batch import Batch
from likeness.protocols import Embedder, SoftmaxModel, TokenModel

TOLERANCE = 64  # roundings of a product of M terms, in units of sqrt(M) eps of the largest logit


class ModelError(ValueError):
    """A model that cannot be measured in the way asked for; the message names it and says why."""


class Head(NamedTuple):
    """The last linear layer of a classifier."""

    name: str  # of the submodule
    layer: nn.Linear

    def vectors(self) -> Tensor:
        """g [K, M], with the bias as a further column where there is one."""
        weight, bias = self.layer.weight.detach(), self.layer.bias
        return weight if bias is None else torch.cat([weight, bias.detach().unsqueeze(1)], dim=1)

    def embedding(self, inputs: Tensor) -> Tensor:
        """f [..., M] of what enters the layer, with a constant coordinate where there is a bias."""
        f = inputs.detach()
        return f.clone() if self.layer.bias is None else torch.cat([f, torch.ones_like(f[..., :1])], dim=-1)


class Measurable(ABC):
    """A model that can be measured: f of each batch, and g where it has a head. Call it inside ``unnoticed``."""

    name: str  # in messages and tables
    why_no_head: str = "it has no label vectors"

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The torch modules that it runs."""
        return ()

    @abstractmethod
    def prepare(self, batch: Inputs) -> None:
        """Find out on a first batch how the model is measured. Raises ModelError where it cannot be."""

    @abstractmethod
    def embed(self, batch: Inputs) -> Tensor:
        """f [N, M] of a batch; of a model of sequences a row for each position that counts."""

    @abstractmethod
    def unembeddings(self) -> Tensor | None:
        """g [K, M] as it is now; None without a head."""


class EmbedderModel(Measurable):
    """An ``embed()`` and, of a classifier, ``unembeddings()``: a model of this project, or one made like it.

    Of a model of tokens the samples are the positions that it measures, where the data say which tokens follow.
    """

    def __init__(self, model: Embedder, name: str) -> None:
        self.model, self.name = model, name
        self.why_no_head = getattr(model, "why_no_head", self.why_no_head)

    @override
    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return (self.model,) if isinstance(self.model, nn.Module) else ()

    @override
    def prepare(self, batch: Inputs) -> None:
        require_repeatable(self.name, lambda: self.embed(batch))

    @override
    def embed(self, batch: Inputs) -> Tensor:
        device = device_of(self.modules)
        try:
            f = self.model.embed(moved(batch.x, device)).detach()
        except ValueError as error:
            shape = f" {list(batch.x.shape)}" if isinstance(batch.x, Tensor) else ""
            raise ModelError(f"model {self.name!r} does not take inputs{shape}: {error}") from error
        if batch.next_tokens is None or not isinstance(self.model, TokenModel):
            return f
        contexts = Batch(*(moved(part, device) for part in (batch.x, batch.next_tokens, batch.ids)))
        return f.index_select(-2, self.model.measured(contexts).rows)

    @override
    def unembeddings(self) -> Tensor | None:
        return self.model.unembeddings().detach() if isinstance(self.model, SoftmaxModel) else None


class ModuleModel(Measurable):
    """A torch module as it is; its weights stay where they are, and inputs are moved there.

    Args:
        module: called with a batch's inputs, by keyword where these are a dictionary.
        name: for messages and tables.
        head: the name of the last linear layer; True finds the one whose output is the model's; False is for modules
            whose output is a representation.
        pooling: how an output that is no vector becomes one, where there is no head; see
            :func:`likeness.adapters.activations.pooled`.
        transform: what the inputs go through first, the model's own preprocessing for one.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        head: str | bool = True,
        pooling: Pooling | Callable[[Tensor], Tensor] = "mean",
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.module, self.name, self.pooling, self.transform = module, name, pooling, transform
        self.head: Head | None = Head(head, linear_head(module, head, name)) if isinstance(head, str) else None
        self._finds_head = head is True
        self.why_no_head = "it was taken without a head, as asked for"

    @override
    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return (self.module,)

    @override
    def prepare(self, batch: Inputs) -> None:
        """Find and check the head on a first batch.

        Raises ModelError where a named head is not what the model's output comes from, where a value is not finite,
        and where two passes over the same inputs differ.
        """
        with _entering_linears(self.module) as entered:
            output = representation(self(batch.x))
        if output is None:
            raise ModelError(f"model {self.name!r} answers no tensor")
        require_repeatable(self.name, lambda: cast(Tensor, representation(self(batch.x))))
        if self.head is not None:
            self._require_own(self.head, entered.get(self.head.name), output)
        elif self._finds_head:
            explaining = (head for head in self._heads(entered) if _explains(head, entered[head.name], output))
            self.head = next(explaining, None)
            self.why_no_head = "no linear layer of it gives its output"

    def __call__(self, inputs: Any) -> Any:
        """The module's output."""
        inputs = moved(inputs if self.transform is None else self.transform(inputs), device_of(self.modules))
        if isinstance(inputs, Mapping):
            return self.module(**inputs)
        if isinstance(inputs, list) and hasattr(self.module, "encode"):  # of a sentence encoder, whose inputs are texts
            encode = cast(Callable[..., Tensor], self.module.encode)
            return encode(inputs, convert_to_tensor=True, show_progress_bar=False)
        return self.module(inputs)

    @override
    def embed(self, batch: Inputs) -> Tensor:
        mask = _mask(batch.x)
        if self.head is None:
            return pooled(self(batch.x), self.pooling, "output", mask)
        entered: list[Tensor] = []
        hook = self.head.layer.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        try:
            self(batch.x)
        finally:
            hook.remove()
        if len(entered) != 1:
            raise ModelError(f"the head {self.head.name!r} of {self.name} ran {len(entered)} times in one pass")
        f = self.head.embedding(entered[0])
        return f if f.ndim == 2 else pooled(f, "positions", self.head.name, mask)

    @override
    def unembeddings(self) -> Tensor | None:
        return None if self.head is None else self.head.vectors()

    def _heads(self, entered: Mapping[str, Tensor]) -> Iterator[Head]:
        """The linear layers that ran, the last one first."""
        for name in reversed(list(entered)):
            yield Head(name, cast(nn.Linear, unwrapped(self.module).get_submodule(name)))

    def _require_own(self, head: Head, entered: Tensor | None, output: Tensor) -> None:
        if entered is None:
            raise ModelError(f"the head {head.name!r} of {self.name} did not run")
        if not _explains(head, entered, output):
            raise ModelError(
                f"{self.name} is no softmax of f(x) . g(y) with the head {head.name!r}: what that layer answers, "
                f"{[*entered.shape[:-1], head.layer.out_features]}, is not the model's output {list(output.shape)}"
            )


def require_repeatable(name: str, answer: Callable[[], Tensor]) -> None:
    """Raise ModelError where a model's answers are not finite, or differ when it is asked twice."""
    first, second = answer(), answer()
    if not bool(first.isfinite().all()):
        raise ModelError(f"model {name!r} answers values that are not finite, on the first batch")
    eps = torch.finfo(first.dtype).eps if first.is_floating_point() else 0.0
    if float((first - second).abs().max()) > TOLERANCE * eps * float(first.abs().max()):
        raise ModelError(
            f"model {name!r} answers differently when asked twice: dropout or another source of chance is on in it"
        )


def device_of(modules: Iterable[nn.Module]) -> torch.device:
    """Where the weights are; the CPU where there are none."""
    for module in modules:
        for tensor in chain(module.parameters(), module.buffers()):
            return tensor.device
    return torch.device("cpu")


def moved(inputs: Any, device: torch.device) -> Any:
    """Tensors in nested lists, tuples and dictionaries on a device."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {name: moved(value, device) for name, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return type(inputs)(moved(value, device) for value in inputs)
    return inputs


def linear_head(module: nn.Module, name: str, model: str) -> nn.Linear:
    """The linear layer of this name. Raises LayerError or ModelError, with the model's name, where there is none."""
    matching_layers(module, [name])  # raises LayerError, naming what is near
    layer = unwrapped(module).get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise ModelError(f"the head {name!r} of {model} is a {type(layer).__name__}, not a Linear layer")
    return layer


def _mask(x: Any) -> Tensor | None:
    mask = x.get("attention_mask") if isinstance(x, Mapping) else None
    return mask if isinstance(mask, Tensor) else None


@contextmanager
def _entering_linears(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """What enters each linear layer while the block runs, by name, in the order in which they ran last."""
    entered: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            entered.pop(name, None)
            entered[name] = inputs[0].detach().clone()

        return hook

    linears = [(name, layer) for name, layer in unwrapped(module).named_modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(keep(name)) for name, layer in linears]
    try:
        yield entered
    finally:
        for hook in hooks:
            hook.remove()


def _explains(head: Head, entered: Tensor, output: Tensor) -> bool:
    """Whether the output [..., K] is this layer's answer, as logits, log-probabilities or probabilities."""
    if output.shape != (*entered.shape[:-1], head.layer.out_features):
        return False
    logits = (head.embedding(entered).double() @ head.vectors().double().T).to(output.device)
    eps = max(torch.finfo(dtype).eps for dtype in (entered.dtype, output.dtype))
    tolerance = TOLERANCE * eps * head.layer.in_features**0.5
    answers = (logits, logits.log_softmax(-1), logits.softmax(-1))
    return any(float((output - of).abs().max()) <= tolerance * max(1e-30, float(of.abs().max())) for of in answers)
