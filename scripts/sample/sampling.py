"""Samples of a diffusion model, drawn in batches and written as an ``.npz`` file and a picture."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from einops import repeat
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from torch import Tensor

from likeness.checks import require_positive
from likeness.diffusion.hierarchy import Hierarchy
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.sampling import State, ancestral, decode, flow
from likeness.diffusion.schedules import gamma_grid
from likeness.figures.output import save_figure
from likeness.figures.style import COLUMN, PALETTE, blank, in_style
from likeness.files.writing import replacing
from likeness.seeding import generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Sampler = Literal["ancestral", "ode"]
Spacing = Literal["t", "gamma"]
MAX_DRAWN = 256  # images in a grid
SMALLEST = 64  # pixels of a side, to which images are enlarged by a whole factor
_SAMPLE = 0x5A3  # sets these streams apart from every other use of the same seed


@dataclass(frozen=True)
class Recipe:
    """How samples are drawn. Raises ValueError for numbers that cannot be meant."""

    num_steps: int
    sampler: Sampler = "ancestral"
    spacing: Spacing = "t"
    threshold: float | None = None  # percentile of |x_hat| to which it is clipped
    keep_every: int | None = None  # of the steps, whose states are kept
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {"steps": self.num_steps, "keep_every": self.keep_every, "batch_size": self.batch_size}
        require_positive(**{f"--{name}": count for name, count in counts.items()})
        if self.threshold is not None and not 0 < self.threshold <= 100:
            raise ValueError(f"--threshold is a percentile in (0, 100], got {self.threshold}")


class Drawn(NamedTuple):
    """N samples, and K states of the paths to them, on the CPU."""

    samples: Tensor  # [N, ...] grey levels, uint8 where they fit
    gamma: Tensor  # [K], or [K, 1, ...] of each dimension
    z: Tensor  # [K, N, ...]
    x_hat: Tensor  # [K, N, ...]


def draw(model: DiffusionModel, count: int, recipe: Recipe, device: torch.device, labels: Tensor | None) -> Drawn:
    """``count`` samples of a model in evaluation mode, with ``labels`` [count] of a class-conditional one.

    They are a function of the weights, the recipe, the count and the kind of device. Raises ValueError for the ODE of
    an encoder whose flow is unknown.
    """
    drawn = []
    with _progress() as progress:
        task = progress.add_task("sampling", total=math.ceil(count / recipe.batch_size) * recipe.num_steps)
        for start in range(0, count, recipe.batch_size):
            size = min(recipe.batch_size, count - start)
            own = None if labels is None else labels[start : start + size].to(device)
            source = generator(recipe.seed, _SAMPLE, start, device=device)
            states = _states(model.from_prior(size, source), size, recipe, source, own)
            drawn.append(_follow(model, states, recipe, lambda: progress.advance(task)))
    samples, gammas, z, x_hat = zip(*drawn, strict=True)
    of_each = recipe.keep_every and model.schedule.context_size is not None
    gamma = torch.cat(gammas, dim=1) if of_each else gammas[0]
    return Drawn(torch.cat(samples), gamma, torch.cat(z, dim=1), torch.cat(x_hat, dim=1))


def _states(
    model: Hierarchy, count: int, recipe: Recipe, source: torch.Generator, labels: Tensor | None
) -> Iterator[State]:
    gammas = gamma_grid(model.schedule, recipe.num_steps, recipe.spacing)
    z_1 = torch.randn(count, *model.input_shape, generator=source, device=source.device, dtype=model.dtype)
    quantile = None if recipe.threshold is None else recipe.threshold / 100
    if recipe.sampler == "ode":
        return flow(model, z_1, gammas, labels, quantile)
    return ancestral(model, z_1, gammas, source, labels, quantile)


def _follow(model: DiffusionModel, states: Iterator[State], recipe: Recipe, advance: Callable[[], None]) -> Drawn:
    """The grey levels at the end of the paths, and the states that are to be kept."""
    kept: list[State] = []
    for number, last in enumerate(states, start=1):
        advance()
        if recipe.keep_every and (number % recipe.keep_every == 0 or number == recipe.num_steps):
            kept.append(State(*(tensor.cpu() for tensor in last)))
    samples = decode(last.z, last.gamma, model.levels).to("cpu", torch.uint8 if model.levels <= 256 else torch.int32)
    if not kept:
        nothing = last.z.new_empty(0, *last.z.shape, device="cpu")
        return Drawn(samples, torch.empty(0), nothing, nothing)
    return Drawn(samples, *(torch.stack(parts) for parts in zip(*kept, strict=True)))


def _progress() -> Progress:
    """A bar on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def write_picture(path: Path, samples: Tensor, levels: int) -> Path | None:
    """A grid of grey or RGB images, or a scatter plot of points; None where there is nothing that can be drawn."""
    if samples.dim() == 2 and samples.shape[1] == 2:
        return save_figure(_scatter(samples.numpy(), levels), path)
    if samples.dim() != 4 or samples.shape[1] not in (1, 3):
        return None
    from torchvision.transforms.functional import to_pil_image

    image = to_pil_image(image_grid(samples[:MAX_DRAWN], levels))
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
    return path


def image_grid(images: Tensor, levels: int) -> Tensor:
    """Grey levels [N, 1 or 3, H, W] as one RGB image, uint8 [3, H', W'], nearly square, with a border of one pixel."""
    from torchvision.utils import make_grid

    factor = math.ceil(SMALLEST / max(images.shape[-2:]))
    to_bytes = (images.double() * (255 / (levels - 1))).round().to(torch.uint8)
    enlarged = repeat(to_bytes, "n c h w -> n c (h f) (w g)", f=factor, g=factor)
    return make_grid(enlarged, nrow=math.ceil(math.sqrt(len(images))), padding=1, pad_value=255)


@in_style()
def _scatter(points: np.ndarray, levels: int) -> "Figure":
    figure = blank(COLUMN, COLUMN, "Draws of the model, none chosen, in grey levels.")
    axes = figure.add_subplot()
    axes.scatter(points[:, 0], points[:, 1], s=3, color=PALETTE[0], alpha=0.6, linewidths=0)
    axes.set(xlim=(0, levels - 1), ylim=(0, levels - 1), aspect="equal", title=f"{len(points)} samples")
    return figure
