"""Samples of a diffusion model: ``python -m scripts.sample RUN_OR_CKPT [--n 64] [--sampler ode] [--steps 1000]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from scripts.cli.entry_point import Parser
from scripts.inputs import choose_device

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_modules.diffusion import VariationalDiffusion
    from scripts.sample.sampling import Drawn, Recipe

STEPS = 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Load, sample, write; raises what went wrong."""
    arguments = build_parser().parse_args(argv)
    from likeness.checks import require_positive
    from scripts.sample.sampling import draw

    require_positive(**{"--n": arguments.n})

    module = load(arguments)
    recipe = choose_recipe(arguments, module)
    labels = choose_labels(arguments, module)
    device = choose_device(arguments.device)
    drawn = draw(module.diffusion.to(device), arguments.n, recipe, device, labels)
    for path in write(drawn, labels, module, recipe, Path(arguments.out)):
        print(f"likeness: wrote {path}")
    return 0


def build_parser() -> ArgumentParser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness sample",
        description="Draw samples of a diffusion model: samples.npz with the grey levels, and a picture.",
        epilog="scripts.evaluate takes samples.npz and measures FID and KID.",
    )
    add = parser.add_argument
    add("model", metavar="RUN_OR_CKPT", help="A run or checkpoint of a diffusion model.")
    add("--n", type=int, default=64, help="How many samples.")
    add("--steps", type=int | None, help=f"By default the model's T, or {STEPS} in infinite depth.")
    add("--sampler", type=Literal["ancestral", "ode"], default="ancestral", help="ode follows the probability flow.")
    add("--spacing", type=Literal["t", "gamma"], default="t", help="What the steps are equal in.")
    add("--threshold", type=float | None, help="Percentile of |x| to which predictions are clipped: 99.5.")
    add("--labels", type=int, nargs="+", help="Labels to draw of, repeated to n; by default all in turn.")
    add("--keep_every", type=int | None, help="Also write z and the predicted x after every so many steps.")
    add("--weights", type=Literal["ema", "raw"], default="ema", help="Averages over steps (ema), or the last (raw).")
    add("--seed", type=int, default=0, help="Seed of all noise.")
    add("--batch_size", type=int, default=64, help="Samples at a time, whose noise is drawn together.")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where it is computed.")
    add("--out", type=str, default="runs/samples", help="Where samples.npz and samples.png are written.")
    return parser


def load(arguments: Namespace) -> VariationalDiffusion:
    """The model, ready to be sampled from; raises ValueError for one of another kind."""
    from lightning_modules.checkpoints import load_module
    from lightning_modules.diffusion import VariationalDiffusion

    module = load_module(arguments.model, arguments.weights).eval().requires_grad_(False)
    if not isinstance(module, VariationalDiffusion):
        raise ValueError(f"{arguments.model} holds a {type(module).__name__}, which is no model of its inputs")
    return module


def choose_recipe(arguments: Namespace, module: VariationalDiffusion) -> Recipe:
    """How to sample; raises ValueError for numbers that cannot be meant, and for the ODE where it is unknown."""
    from likeness.diffusion.flow import require_flow
    from scripts.sample.sampling import Recipe

    if arguments.sampler == "ode":
        require_flow(module.diffusion)
    steps = (module.diffusion.num_steps or STEPS) if arguments.steps is None else arguments.steps
    names = ("sampler", "spacing", "threshold", "keep_every", "batch_size", "seed")
    return Recipe(steps, **{name: arguments[name] for name in names})


def choose_labels(arguments: Namespace, module: VariationalDiffusion) -> Tensor | None:
    """[n] labels of a class-conditional model; raises ValueError for others' and for a label that is none."""
    import torch

    if not module.class_conditional:
        if arguments.labels:
            raise ValueError(f"--labels: {arguments.model} is not class-conditional")
        return None
    count: int = module.hparams["num_classes"]
    labels = torch.tensor(arguments.labels or range(count))
    for label in labels.tolist():
        if not 0 <= label < count:
            raise ValueError(f"--labels must lie in 0..{count - 1}, got {label}")
    return labels.repeat(-(-arguments.n // len(labels)))[: arguments.n]


def write(
    drawn: Drawn, labels: Tensor | None, module: VariationalDiffusion, recipe: Recipe, folder: Path
) -> list[Path]:
    """``samples.npz`` and, of images and points, ``samples.png``."""
    import numpy as np

    from scripts.reporting import write_arrays
    from scripts.sample.sampling import write_picture

    levels = module.diffusion.levels
    arrays = {"samples": drawn.samples.numpy(), "levels": np.array(levels), "seed": np.array(recipe.seed)}
    arrays |= {"steps": np.array(recipe.num_steps)} | ({} if labels is None else {"labels": labels.numpy()})
    if recipe.keep_every:
        arrays |= {name: getattr(drawn, name).numpy() for name in ("gamma", "z", "x_hat")}
    picture = write_picture(folder / "samples.png", drawn.samples, levels)
    return [write_arrays(folder / "samples.npz", arrays)] + ([] if picture is None else [picture])
