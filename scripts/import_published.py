"""Published weights as checkpoints: ``likeness import_published {close-dist,diffenc,mulan} ... --out CKPT``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import Namespace

from scripts.cli.entry_point import Parser, run_command

if TYPE_CHECKING:
    import pytorch_lightning as pl

PREFIX = "param:"  # of parameters in an archive that holds other arrays too
SUFFIX = ".ckpt"
# The part that tells the authors' file names apart; the rest is the date and settings that all of them share.
CLOSE_DIST_NAME = re.compile(r"(untrained_)?radial_classification_SmallMLP_classes(\d+)_seed(\d+)_features(\d+)")


def read_parameters(file: Path) -> dict[str, Any]:
    """Arrays by Flax path (``score_model/conv_in/kernel``) from an ``.npz`` or a Flax checkpoint.

    Of a checkpoint with averaged parameters (``ema_params``) these are read. Nothing in a file is executed.
    Raises FileNotFoundError, ValueError for a file that is damaged or holds no parameters, and ImportError with what
    to install where Flax is needed and absent.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    return _from_npz(file) if file.suffix == ".npz" else _from_checkpoint(file)


def _from_npz(file: Path) -> dict[str, Any]:
    import zipfile

    import numpy as np

    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            own = [name for name in archive.files if name.startswith(PREFIX)] or archive.files
            return {name.removeprefix(PREFIX): archive[name] for name in own}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is no archive of arrays: {error}") from error


def _from_checkpoint(file: Path) -> dict[str, Any]:
    try:
        from flax.serialization import msgpack_restore
    except ImportError as error:
        raise ImportError(f"{file} is read as a Flax checkpoint, which needs flax: pip install flax") from error

    try:
        state = msgpack_restore(file.read_bytes())
    except Exception as error:  # msgpack's own, of several kinds
        raise ValueError(f"{file} is no Flax checkpoint: {error}") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{file} holds a {type(state).__name__}, not the state of a training")
    return _flat(next((state[name] for name in ("ema_params", "params") if name in state), state))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by path; a level ``params``, which Flax puts around the parameters of a model, is left out."""
    if not prefix and set(tree) == {"params"}:
        tree = tree["params"]
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {prefix + name: value}
    return leaves


def main(argv: Sequence[str] | None = None) -> int:
    """Read, convert, write; raises what went wrong, before anything is written."""
    arguments = build_parser().parse_args(argv)
    options = arguments[arguments.kind]
    convert = {"close-dist": classifiers, "diffenc": diffusion, "mulan": diffusion}[arguments.kind]
    for target, (model, description) in convert(options).items():
        save(model, target)
        print(f"likeness: wrote {target}: {description}")
    return 0


def build_parser() -> Parser:
    """One subcommand for each kind of published weights."""
    parser = Parser(prog="likeness import_published", description="Turn published weights into checkpoints.")
    kinds = parser.add_subcommands(dest="kind")
    close = Parser(
        description="The classifiers of Nielsen et al. 2025 (arXiv 2506.03784): f and g are MLPs, on radial data.",
        epilog="compare reads the checkpoints; their data are configs/data/radial.yaml, with as many classes.",
    )
    close.add_argument("files", nargs="+", metavar="FILE", help="State dicts, as torch.save wrote them.")
    close.add_argument("--out", type=str, required=True, help="A .ckpt file for one FILE, or a folder.")
    kinds.add_subcommand("close-dist", close, help=close.description)
    diffenc = Parser(
        description="The diffusion models of Nielsen et al. 2024 (arXiv 2310.19789): VDM, DiffEnc-nt and DiffEnc.",
        epilog="evaluate and sample read the checkpoint.",
    )
    mulan = Parser(
        description="The diffusion models of Sahoo et al. 2024 (arXiv 2312.13236): MuLAN, with either kind of context.",
        epilog="evaluate and sample read the checkpoint.",
    )
    mulan.add_argument(
        "--prediction", type=Literal["v", "eps"], required=True, help="What the network predicts: no file says it."
    )
    for kind, shape in ((diffenc, "of 32 x 32 if not given"), (mulan, "a square if not given")):
        kind.add_argument("--params", type=str, required=True, help="An .npz by Flax path, or a Flax checkpoint.")
        kind.add_argument("--model-config", type=str, required=True, help="The authors' configuration, as JSON.")
        kind.add_argument("--input_shape", type=list[int] | None, help=f"C H W as [C, H, W]; {shape}.")
        kind.add_argument("--out", type=str, required=True, help="A .ckpt file.")
    kinds.add_subcommand("diffenc", diffenc, help=diffenc.description)
    kinds.add_subcommand("mulan", mulan, help=mulan.description)
    for kind in (close, diffenc, mulan):
        kind.add_argument("--overwrite", type=bool, default=False, help="Replace checkpoints that are there.")
    return parser


def classifiers(options: Namespace) -> dict[Path, tuple[pl.LightningModule, str]]:
    """The checkpoints of ``close-dist`` that are to be written, with a line on each."""
    targets = choose_targets([Path(file) for file in options.files], Path(options.out), options.overwrite)
    models = {target: close_dist(file) for target, file in targets.items()}
    return {target: (model, describe(model)) for target, model in models.items()}


def diffusion(options: Namespace) -> dict[Path, tuple[pl.LightningModule, str]]:
    """The checkpoint of ``diffenc`` or ``mulan`` that is to be written, with a line on it."""
    import json

    from lightning_modules.published import load_published_diffusion

    target, file = Path(options.out), Path(options.model_config)
    if target.suffix != SUFFIX:
        raise ValueError(f"--out {target} must be a {SUFFIX} file")
    if target.exists() and not options.overwrite:
        raise FileExistsError(f"{target} exists already: replace it with --overwrite true")
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    params = read_parameters(Path(options.params))
    try:
        model = load_published_diffusion(params, config, options.input_shape, options.get("prediction"))
    except KeyError as error:
        raise ValueError(f"{file} lacks {error.args[0]}") from error
    count = sum(parameter.numel() for parameter in model.parameters())
    shape = " x ".join(map(str, model.diffusion.input_shape))
    name = config.get("ddpm_type", f"MuLAN with a {config.get('latent_type')} context")
    return {target: (model, f"{name}, {count:,} parameters, samples of {shape}")}


def choose_targets(files: Sequence[Path], out: Path, overwrite: bool) -> dict[Path, Path]:
    """Where each file's checkpoint goes: to ``out`` itself, or into that folder under a short name.

    Raises ValueError where several files would become one checkpoint, FileExistsError for one that is there.
    """
    if out.suffix == SUFFIX and len(files) > 1:
        raise ValueError(f"--out {out} is one checkpoint, but there are {len(files)} files: name a folder")
    targets: dict[Path, Path] = {}
    for file in files:
        target = out if out.suffix == SUFFIX else out / f"{short_name(file)}{SUFFIX}"
        if target in targets:
            raise ValueError(f"{file} and {targets[target]} would both become {target}: import them one by one")
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} exists already: replace it with --overwrite true")
        targets[target] = file
    return targets


def short_name(file: Path) -> str:
    """``K4_width16_seed0`` for the authors' long names, or the file's own."""
    match = CLOSE_DIST_NAME.search(file.name)
    if match is None:
        return file.stem
    untrained, num_classes, seed, width = match.groups()
    return f"{untrained or ''}K{num_classes}_width{width}_seed{seed}"


def close_dist(file: Path) -> pl.LightningModule:
    """The classifier of one file; raises naming the file where it cannot be read or holds something else."""
    from lightning_modules.published import close_dist_classifier

    try:
        return close_dist_classifier(read_state_dict(file))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def read_state_dict(file: Path) -> Mapping[str, Any]:
    """What ``torch.save`` wrote of a state dict, on the CPU; nothing in the file is executed.

    Raises FileNotFoundError, and ValueError for a file that is damaged, no state dict, or more than tensors.
    """
    import pickle

    import torch

    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError("it is truncated, no state dict, or holds more than tensors and plain values") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"it holds a {type(state).__name__}, not a state dict")
    return state


def save(model: pl.LightningModule, target: Path) -> None:
    """Write the checkpoint of a model as a training would, without an optimiser's state."""
    import logging

    import pytorch_lightning as pl

    from callbacks.run.checkpoints import AtomicCheckpointIO

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # about devices, which are not used
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = pl.Trainer(accelerator="cpu", devices=1, plugins=[AtomicCheckpointIO()], **quiet)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(target, weights_only=True)


def describe(model: pl.LightningModule) -> str:
    """The sizes that were read from the weights."""
    f, g = (model.hparams[name]["init_args"]["width"] for name in ("embedding", "unembedding"))
    widths = f"width {f}" if f == g else f"widths {f} of f and {g} of g"
    return f"K = {model.hparams['num_classes']}, M = {model.hparams['dim']}, {widths}"


if __name__ == "__main__":
    run_command(main)
