"""Trained models from run directories, checkpoints and exported weights, and what they are called in tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_modules.checkpoint_files import LAST, CheckpointError, read_checkpoint, read_weights
from lightning_modules.hyperparameters import rebuild, resolve_class
from likeness.protocols import Embedder, Siblings, SoftmaxModel

LAST_IN_RUN = Path("checkpoints", LAST)
Weights = Literal["ema", "raw"]
RAW = "current_model_state"  # where Lightning's weight averaging puts what it averages
AVERAGING = {"WeightAveraging", "EMAWeightAveraging"}
# Unlike module.to(dtype), these leave the states of metrics as they are.
CASTS = {torch.float64: nn.Module.double, torch.float16: nn.Module.half, torch.bfloat16: nn.Module.bfloat16}


def load_module(path: str | Path, weights: Weights = "ema") -> pl.LightningModule:
    """The module of a checkpoint or weights file, or of the newest checkpoint of a run directory, on the CPU.

    Of a run that averages its weights these are the averaged ones (``ema``) or the last step's (``raw``); another
    run has only its own. The class is one of this project or of a module that is already imported, and so is every
    class its hyper-parameters name: a file cannot make anything else run.
    Raises FileNotFoundError, and CheckpointError (one line that names the file) for one that is truncated, is no
    checkpoint, could execute code, does not fit the class it names, or holds averaged weights where ``raw`` ones are
    asked for.
    """
    path = _checkpoint_file(Path(path))
    checkpoint = read_weights(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    hparams = checkpoint.get("hyper_parameters")
    if not isinstance(hparams, Mapping) or "_class_path" not in hparams:
        raise CheckpointError(f"checkpoint {path} does not name the class that it is of (hyper_parameters._class_path)")
    try:
        module: pl.LightningModule = rebuild(resolve_class(hparams["_class_path"], (pl.LightningModule,)), hparams)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {path} is refused: {error}") from error
    _load_weights(module, _with(weights, checkpoint, path), path)
    return module


def averages_weights(path: str | Path) -> bool:
    """Whether a checkpoint, or the newest one of a run directory, holds averaged weights beside the raw ones.

    Exported weights are one set only.
    """
    file = _checkpoint_file(Path(path))
    return file.suffix != ".safetensors" and RAW in read_checkpoint(file, mmap=True)


def load_softmax_models(path: str | Path, weights: Weights = "ema") -> list[tuple[str, SoftmaxModel]]:
    """The classifiers of a run directory or checkpoint, each with the name that selects it alone, ready to evaluate.

    Siblings give all their members, named ``PATH#0``, ``PATH#1``, ...; ``PATH#3`` as ``path`` gives that one.
    Raises what ``load_module`` does, and CheckpointError for a model of another kind or a member that is not there.
    """
    location, index = split_member(str(path))
    return softmax_models(load_module(location, weights), location, index)


def load_embedders(path: str | Path) -> list[tuple[str, Embedder]]:
    """The models with representations of a run directory or checkpoint: classifiers as above, or one of another kind.

    Raises what ``load_softmax_models`` does.
    """
    location, index = split_member(str(path))
    module = load_module(location)
    if isinstance(module, SoftmaxModel) or not isinstance(module, Embedder):
        return list(softmax_models(module, location, index))
    return [(location, module.eval().requires_grad_(False))]


def softmax_models(module: pl.LightningModule, location: str, index: int | None) -> list[tuple[str, SoftmaxModel]]:
    """The classifiers that a loaded module holds, or its member ``index``; see :func:`load_softmax_models`."""
    module.eval().requires_grad_(False)
    if isinstance(module, Siblings):
        members = range(module.num_members) if index is None else [index]
        if index is not None and not 0 <= index < module.num_members:
            raise CheckpointError(f"{location} has no member {index}: its members are 0..{module.num_members - 1}")
        return [(f"{location}#{i}", cast(SoftmaxModel, module.member(i).requires_grad_(False))) for i in members]
    if not isinstance(module, SoftmaxModel):
        raise CheckpointError(f"{location} holds a {type(module).__name__}, which is no softmax classifier")
    if index is not None:
        raise CheckpointError(f"{location} holds a single {type(module).__name__}, so there is no member {index}")
    return [(location, module)]


def _checkpoint_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    last = path / LAST_IN_RUN
    if not last.is_file():
        raise FileNotFoundError(f"run directory {path} holds no checkpoint: there is no {last}")
    return last


def split_member(path: str) -> tuple[str, int | None]:
    """``PATH#3`` as the path and the member's number, which is None where the path names no member."""
    location, mark, index = path.rpartition("#")
    if not mark or not index.isdecimal() or Path(path).exists():
        return path, None
    return location, int(index)


def _with(weights: Weights, checkpoint: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The checkpoint with the set of weights that is asked for as its ``state_dict``."""
    if weights == "ema":
        return checkpoint
    if RAW not in checkpoint and AVERAGING & checkpoint.get("callbacks", {}).keys():
        raise CheckpointError(f"checkpoint {path} holds averaged weights only: there are no raw ones in it")
    return {**checkpoint, "state_dict": checkpoint.get(RAW, checkpoint["state_dict"])}


def _load_weights(module: pl.LightningModule, checkpoint: Mapping[str, Any], path: Path) -> None:
    weights: Mapping[str, Tensor] = checkpoint["state_dict"]
    own = module.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name not in weights:
            raise CheckpointError(f"checkpoint {path} lacks the weight {name} of {type(module).__name__}")
        if name not in own:
            raise CheckpointError(f"checkpoint {path} holds a weight {name} that {type(module).__name__} has not")
        if own[name].shape != weights[name].shape:
            shapes = f"{list(weights[name].shape)}, {type(module).__name__} has {list(own[name].shape)}"
            raise CheckpointError(f"checkpoint {path} holds {name} with shape {shapes}")
    dtype = next((value.dtype for value in weights.values() if value.is_floating_point()), torch.float32)
    CASTS.get(dtype, nn.Module.float)(module)
    try:
        module.on_load_checkpoint(dict(checkpoint))
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path} is refused: {error}") from error
    module.load_state_dict(weights)


def short_names(names: Sequence[str]) -> list[str]:
    """The runs' names in place of ``PATH`` or ``PATH#member``; whole paths where runs share a name.

    A model that occurs again gets a number: demo#0, demo#0 (2).
    """
    locations = {name: _split(name)[0] for name in names}
    shared = Counter(_run_name(location) for location in set(locations.values()))
    seen: Counter[str] = Counter()
    answer = []
    for name in names:
        location, member = _split(name)
        run = _run_name(location)
        short = (run if shared[run] == 1 else location) + member
        seen[short] += 1
        answer.append(short if seen[short] == 1 else f"{short} ({seen[short]})")
    return answer


def _split(name: str) -> tuple[str, str]:
    location, mark, member = name.rpartition("#")
    return (location, mark + member) if member.isdecimal() and mark else (name, "")


def _run_name(location: str) -> str:
    """``demo`` for runs/demo and its last checkpoint, ``demo/best`` for another checkpoint, else the file's name."""
    path = Path(location).absolute()
    if path.suffix != ".ckpt":
        return path.name
    if path.parent.name != "checkpoints":
        return path.stem
    run = path.parent.parent.name
    return run if path.stem == "last" else f"{run}/{path.stem}"
