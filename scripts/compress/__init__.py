"""Lossless compression of images by a diffusion model: ``python -m scripts.compress RUN IMAGES OUT``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from scripts.cli.entry_point import Parser
from scripts.cli.given import require_default
from scripts.inputs import choose_device, default_data, load_data

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lightning_modules.diffusion import VariationalDiffusion
    from likeness.diffusion.coding import Coded, Coder
    from scripts.reporting import Report

WeightsName = Literal["ema", "raw"]
STEPS = 100
OUTSIDE = 1e-4  # share of the latent variables; below it nothing is seen in the size


def main(argv: Sequence[str] | None = None) -> int:
    """Compress, print, save; raises what went wrong."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if "fitted" not in (arguments.ratio, arguments.volatility):
        require_default(parser, arguments, ["data", "fit_samples"], "where neither ratio nor volatility is fitted")
    report = compress(arguments)
    report.show()
    print(f"likeness: wrote {arguments.out}: likeness decompress {arguments.model} {arguments.out} IMAGES.npy reads it")
    return 0


def build_parser() -> ArgumentParser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness compress",
        description="Write grey levels to a file that the same model reads back bit for bit: bits back over its steps.",
        epilog="Reading takes the same weights, device type and number of threads.",
    )
    add = parser.add_argument
    add("model", metavar="RUN_OR_CKPT", help="A run or checkpoint of a diffusion model.")
    add("images", metavar="IMAGES", help="Grey levels [N, ...] in a .npy file, or in an .npz file with --key.")
    add("out", metavar="OUT", help="The file to write.")
    add("--key", type=str | None, help="The array of an .npz file.")
    add("--steps", type=int | None, help=f"Depth T; by default the model's, or {STEPS} in infinite depth.")
    of = Literal["one", "learned", "fitted"]
    add("--ratio", type=of, default="fitted", help="Ratio of the variances; fitted is on train.")
    add("--volatility", type=of | None, help="Volatility of the noise; fitted is on train, by default the model's.")
    add("--data", type=str | None, help="A data config to fit on; by default that of the run.")
    add("--fit_samples", type=int, default=1024, help="Samples of train for what is fitted, each at all T steps.")
    add("--resolution", type=int, default=4, help="Cells in a standard deviation of a step.")
    add("--batch_size", type=int, default=64, help="Images that are coded together: the first borrow bits for all.")
    add("--limit", type=int | None, help="The most images of the file, from its start.")
    add("--weights", type=WeightsName, default="ema", help="Averages over steps (ema), or the last (raw).")
    add("--seed", type=int, default=0, help="Seed of the bits that are borrowed.")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where it is computed.")
    return parser


def compress(arguments: Namespace) -> Report:
    """Write the stream; the report says its size beside the bound of the same images."""
    from likeness.checks import require_positive
    from likeness.diffusion.coding import Coder
    from scripts.compress.stream_file import write_stream

    counts = ("steps", "fit_samples", "resolution", "batch_size", "limit")
    require_positive(**{f"--{name}": arguments[name] for name in counts})
    device = choose_device(arguments.device)
    module = load_diffusion(arguments.model, arguments.weights, device)
    images = read_images(Path(arguments.images), arguments.key, module)[: arguments.limit].to(device)
    model = module.diffusion
    choose_variances(arguments, module, device)
    coder = Coder(model, arguments.resolution, arguments.seed, arguments.batch_size)
    coded = coder.encode(images)
    size = write_stream(Path(arguments.out), coder, coded)
    return _report(arguments, coder, coded, images, size)


def load_diffusion(name: str, weights: WeightsName, device: torch.device) -> VariationalDiffusion:
    """A diffusion model that needs no labels; raises ValueError naming it for another."""
    from lightning_modules.checkpoints import load_module
    from lightning_modules.diffusion import VariationalDiffusion

    module = load_module(name, weights).eval().requires_grad_(False).to(device)
    if not isinstance(module, VariationalDiffusion):
        raise ValueError(f"{name} holds a {type(module).__name__}, which is no diffusion model")
    if module.class_conditional:
        raise ValueError(f"{name} is class-conditional: a stream has no labels")
    return module


def read_images(path: Path, key: str | None, module: VariationalDiffusion) -> Tensor:
    """Grey levels [N, ...], int64; raises ValueError naming the file where they are not the model's."""
    import torch

    from likeness.diffusion.hierarchy import require_levels
    from likeness.files.columns import open_columns

    columns = open_columns(path)
    names = list(columns.shapes)
    name = key if key is not None else names[0] if len(names) == 1 else None
    if name is None or name not in names:
        given = "name one with --key" if key is None else f"got --key {key}"
        raise ValueError(f"{path} holds the arrays {columns.listed(names)}: {given}")
    images = torch.as_tensor(columns.read(name))
    own = list(module.diffusion.input_shape)
    if images.dim() != len(own) + 1 or images.is_floating_point() or list(images.shape[1:]) != own:
        given = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        raise ValueError(f"{path}: the model codes whole numbers [N, {', '.join(map(str, own))}], got {given}")
    if not len(images):
        raise ValueError(f"{path} holds no images")
    require_levels(images, module.diffusion.levels)
    return images.long()


def choose_variances(arguments: Namespace, module: VariationalDiffusion, device: torch.device) -> None:
    """Give the model its depth, ratio and volatility."""
    from scripts.evaluate.bounds import BoundEvaluation, choose_depths, set_depth
    from scripts.evaluate.data import open_split

    model = module.diffusion
    steps = arguments.steps or model.num_steps or STEPS
    (depth,) = choose_depths(model, [steps], arguments.ratio, arguments.volatility)
    if "fitted" in (depth.ratio, depth.volatility):
        data = load_data(Path(arguments.data) if arguments.data else default_data(arguments.model))
        train = open_split(data, "train", device, limit=arguments.fit_samples)
        set_depth(model, steps, *BoundEvaluation(module, train, train, 1, arguments.seed).variances(depth))
    else:
        own = model.ratio if depth.ratio == "learned" else None
        set_depth(model, steps, own, model.volatility if depth.volatility == "learned" else None)


def _report(arguments: Namespace, coder: Coder, coded: Coded, images: Tensor, size: int) -> Report:
    import math

    import torch

    from likeness.diffusion.likelihoods import log_weight
    from likeness.seeding import generator
    from scripts.reporting import Report

    pixels = images.numel()
    source = generator(arguments.seed, 1, device=images.device)
    weights = torch.cat([log_weight(coder.model, part, source).cpu() for part in images.split(coder.batch_size)])
    bits = -weights / (math.log(2) * coder.model.dims)
    row = {
        "kind": "bytes",
        "images": len(images),
        "T": coder.model.num_steps,
        "bytes": size,
        "bytes_per_image": size / len(images),
        "bpd": 8 * size / pixels,
        "bpd_borrowed": coded.borrowed_bits / pixels,
        "bpd_net": coded.net_bits / pixels,
        "elbo": float(bits.mean()),
        "elbo_se": float(bits.std() / math.sqrt(len(bits))) if len(bits) > 1 else None,
    }
    if coded.outside:
        row["outside"] = coded.outside
    title = (
        f"{arguments.images} in bits per dimension: the file, of which borrowed once for any number of images, what "
        f"one image more would add, and the negative ELBO of the same images; weights are not counted"
    )
    if coded.outside > OUTSIDE:
        title += (
            f". {coded.outside:.1%} of the latent variables lie outside the window that both sides know and cost far "
            f"more than the bound says: take more --steps than {coder.model.num_steps}"
        )
    return Report(title, [row], {"model": arguments.model})
