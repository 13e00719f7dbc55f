"""The linear CKA of all pairs of layers of two ResNet-18, against pytorch-cka where it is installed."""

import copy
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from likeness.adapters.activations import Activations
from likeness.adapters.batches import batches
from likeness.adapters.sources import adapted
from likeness.adapters.unnoticed import unnoticed
from likeness.similarity.layers.compare import compare_layers
from likeness.similarity.layers.kernel_sums import Gram, KernelSums, gram
from likeness.similarity.layers.outputs import Side
from scripts.bench.timing import Contestant, interleaved

IMAGES, RATIO, CLOSE = 1000, 3.0, 1e-5
EXACT = 100  # images on which float64 is the measure
THEIRS, OURS, FORWARD = "pytorch-cka", "compare_layers", "the two forward passes alone"
WITHOUT = "pytorch-cka is not installed, so nothing is compared with it"


@dataclass
class LayerTimes:
    """Seconds for the whole matrix of layers, with the forward passes of which all of it is made."""

    title: str
    contestants: dict[str, Contestant]
    differences: dict[str, float]  # of each in float32 from float64, the largest of all pairs
    layers: int
    distinct: int  # that do not answer the same as another
    parts: dict[str, float] = field(default_factory=dict)  # seconds of ours, measured one after another

    @property
    def ratio(self) -> float | None:
        """How many times faster we are on the whole; None where there is nobody to compare with."""
        return self._ratio(0.0)

    @property
    def ratio_of_the_rest(self) -> float | None:
        """The same of what is not the forward passes."""
        return self._ratio(self.contestants[FORWARD].median)

    @property
    def bound(self) -> float | None:
        """The ratio that would be reached if everything but the forward passes took no time."""
        theirs = self.contestants.get(THEIRS)
        return None if theirs is None else theirs.median / self.contestants[FORWARD].median

    def table(self) -> Table:
        """A row for each contestant, and the parts of ours."""
        table = Table("", "median [s]", "fastest [s]", title=self.title, title_justify="left")
        for name, one in self.contestants.items():
            table.add_row(name, f"{one.median:.2f}", f"{min(one.seconds):.2f}")
        for name, seconds in self.parts.items():
            table.add_row(f"  ours: {name}", f"{seconds:.2f}", "")
        return table

    def verdicts(self) -> list[str]:
        """Whether the numbers agree, and the ratios of the whole and of what is not the forward passes."""
        if self.ratio is None:
            return [WITHOUT]
        agree, reached = self.differences[OURS] <= CLOSE, self.ratio >= RATIO
        return [
            f"the CKA of pytorch-cka's formula in float64 to {CLOSE:g} is asked for: {_yes(agree)} "
            f"({self.differences[OURS]:.1e}; compute_cka itself, in float32: {self.differences[THEIRS]:.1e})",
            f"at least {RATIO:g} times faster is asked for: {_yes(reached)} ({self.ratio:.2f}; forward passes "
            f"alone allow {self.bound:.2f})",
            f"without the forward passes: {self.ratio_of_the_rest:.2f} times faster",
        ]

    def as_dict(self) -> dict[str, Any]:
        """Every repeat's seconds, the ratios and the difference."""
        return {
            "title": self.title,
            "seconds": {name: one.seconds for name, one in self.contestants.items()},
            "parts": self.parts,
            "layers": self.layers,
            "distinct": self.distinct,
            "differences": self.differences,
            "ratio": self.ratio,
            "ratio_of_the_rest": self.ratio_of_the_rest,
            "bound": self.bound,
        }

    def _ratio(self, less: float) -> float | None:
        theirs = self.contestants.get(THEIRS)
        return None if theirs is None else (theirs.median - less) / (self.contestants[OURS].median - less)


def layers(
    images: int = IMAGES, side: int = 32, batch_size: int = 1000, repeats: int = 3, device: str = "cpu"
) -> LayerTimes:
    """Unbiased linear CKA of all flattened layers of two ResNet-18 with random weights.

    ReLUs are not in place: pytorch-cka keeps references to outputs, which a ReLU in place would change after the fact.
    Both run the same forward passes; where these are most of the time, no ratio of the whole says much, so that
    of the rest is told as well. Of what is left the Gram matrices are nearly everything: ours are half of each, and
    none twice.

    Args:
        images: Images, drawn at random.
        side: Height and width of an image, in pixels.
        batch_size: Images in a batch of both; with as many as there are images the estimate is that of a single batch.
        repeats: Rounds that are timed.
        device: Where the models and their layers are.
    """
    models = [_resnet(seed).to(device) for seed in range(2)]
    x = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(0))
    data = [batch.to(device) for batch in x.split(batch_size)]
    work: dict[str, Callable[[], object]] = {FORWARD: lambda: _forward(models, data), OURS: lambda: _ours(models, data)}
    differences = {}
    if find_spec("cka") is not None:
        work = {THEIRS: lambda: _theirs(models, data, device), **work}
        differences = _differences(models, data, device)
    contestants = {one.name: one for one in interleaved(work, repeats, device)}
    count, distinct, parts = _parts(models, data)
    size = f"{images} images {side} x {side}, batches of {batch_size}"
    title = f"{count} layers a model, {distinct} of them distinct; {size}, float32, {device}"
    return LayerTimes(title, contestants, differences, count, distinct, parts)


def _resnet(seed: int) -> nn.Module:
    from torchvision.models import resnet18

    torch.manual_seed(seed)
    model: nn.Module = resnet18().eval()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


def _forward(models: list[nn.Module], data: list[Tensor]) -> None:
    with torch.inference_mode():
        for batch in data:
            for model in models:
                model(batch)


def _ours(models: list[nn.Module], data: list[Tensor]) -> Tensor:
    first, second = models
    found = compare_layers(first, second, data, pooling="flatten", estimator="minibatch", progress=False)
    return found["unbiased_linear_cka"]


def _theirs(models: list[nn.Module], data: list[Tensor], device: str) -> Tensor:
    from cka import compute_cka

    (matrix,) = compute_cka(*models, [data], progress=False, device=device)
    return matrix.double().cpu()


def _parts(models: list[nn.Module], data: list[Tensor]) -> tuple[int, int, dict[str, float]]:
    """How many layers there are, how many of them differ, and seconds of Gram matrices and of their products."""
    seconds = {"Gram matrices": 0.0, "their products": 0.0}

    def read(value: Tensor, name: str, mask: Tensor | None) -> Gram:
        start = time.perf_counter()
        one = gram(value.flatten(1))
        seconds["Gram matrices"] += time.perf_counter() - start
        return one

    sides = [Side(model, None, "flatten", read) for model in adapted(models, heads=[False, False])]
    sums = KernelSums(unbiased=True)
    with unnoticed(models), ExitStack() as hooks:
        for batch in batches(data):
            if batch.start == 0:
                for side in sides:
                    side.prepare(batch)
                    hooks.enter_context(side.watched())
            own, other = (list(side.collect(batch).values()) for side in sides)
            start = time.perf_counter()
            sums.add(own, other, batch.size)
            seconds["their products"] += time.perf_counter() - start
    return len(own), len({id(one) for one in own}), seconds


def _differences(models: list[nn.Module], data: list[Tensor], device: str) -> dict[str, float]:
    """How far both are from pytorch-cka's formula in float64, on at most 100 images of the first batch.

    Its ``cka_from_features`` is float64 throughout; ``compute_cka`` sums HSIC in float32 whatever the models are.
    """
    from cka import cka_from_features

    some = data[0][:EXACT]
    features = [_features(copy.deepcopy(model).double(), some.double()) for model in models]
    truth = cka_from_features(*features).cpu()
    ours, theirs = _ours(models, [some]).clamp(min=0), _theirs(models, [some], device)
    return {OURS: float((ours - truth).abs().max()), THEIRS: float((theirs - truth).abs().max())}


def _features(model: nn.Module, x: Tensor) -> list[Tensor]:
    """What all layers answer, flattened."""
    with torch.no_grad(), Activations(model, [name for name, _ in model.named_modules() if name], "flatten") as layers:
        model(x)
    return list(layers.take().values())


def _yes(reached: bool) -> str:
    return "yes" if reached else "NO"
