"""LightningCLI with its measured faults mended; every training command is this class."""

import importlib
import inspect
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse import ActionYesNo, Namespace, set_parsing_settings
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from callbacks.loggers import RunWandbLogger
from callbacks.run.checkpoints import ExportWeights, LastCheckpoint
from callbacks.run.exact_resume import ExactResume
from callbacks.run.predictions import WritePredictions
from callbacks.run.preemption import Preemption
from callbacks.run.progress import RunProgressBar
from callbacks.run.run_files import CONFIG, note
from callbacks.run.segments import RunSegments
from callbacks.run.stop_on_nonfinite import StopOnNonFinite
from datamodules.base import ResumableDataModule
from lightning_modules.checkpoint_files import read_checkpoint, read_weights
from lightning_modules.hyperparameters import ARCHITECTURES
from likeness.files.writing import replacing
from likeness.moved_names import moved
from likeness.networks.architectures import Architectures, architecture_alone
from scripts.cli import run_directory
from scripts.cli.configurations import ROOT, dumped, prepared_arguments, read_value
from scripts.cli.entry_point import OneLineErrors, UsageError, one_line, rank, with_home
from scripts.cli.launchers import launch, notice_lost_ranks, require_all_used, require_equal_shares, start_alone
from scripts.cli.run_configuration import changes, origins, portable, replaced
from scripts.inputs import names_a_library_model

CONFIGS = ROOT / "configs"
DATA_LINKS = ("input_shape", "num_classes", "input_shift", "input_scale", "levels", "vocab_size", "context")
DEFAULT_SEED = 0
PURPOSE = "Train a model, or evaluate one that was trained: files of options first, then options that win over them."
NAMED_MODEL = "lightning_modules.PretrainedClassifier"
FOLLOWED = {
    "model.seed": "seed_everything",
    "data.seed": "seed_everything",
    "trainer.default_root_dir": "run_dir",
    "preemption.stop_after": "stop_after",
}
"""Options that are given by another one."""
SWITCHES = {
    "overwrite": "Replace a run that run_dir holds.",
    "auto_resume": "Continue the run in run_dir, or start it: the same line can be submitted again and again.",
    "allow_changes": "Continue a run with another configuration than it was started with.",
}


class NothingLeft(Exception):
    """The run that was to be continued is done; nothing in its directory was touched."""


class RunParser(OneLineErrors, LightningArgumentParser):
    """The parser of a training command's subcommand."""

    def dump(self, namespace: Namespace, **options: Any) -> str:
        """The values as text, without a second check of what was checked when it was read."""
        return super().dump(namespace, **{"skip_validation": True, **options})


class SaveRunConfig(Callback):
    """Writes ``config.yaml`` into the run directory, for ``fit`` only, and gives the nested values to W&B.

    Lightning's own callback writes beside the logger, where the second command of a run finds the file and dies.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace) -> None:
        self.parser = parser
        self.config = config

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # After the checkpoint was read: a start that fails leaves the last good config.yaml alone.
        if not trainer.is_global_zero:
            return
        target = Path(trainer.default_root_dir, CONFIG)
        content = dumped(repeatable(self.parser, self.config))
        with replacing(note(target)) as temporary:
            temporary.write_text(content, encoding="utf-8")
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config.as_dict())


class LikenessCLI(LightningCLI):
    """``{fit,validate,test,predict} --config ...``: YAML composed left to right over configs/trainer/default.yaml."""

    def __init__(self, args: Sequence[str]) -> None:
        # Without this, ${run_dir} in a file would have to be written ${fit.run_dir}.
        set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
        os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # about calls of Lightning, not of users
        self._exact_resume = ExactResume()
        self._asked = args[:1]
        self._composed = compose(args)
        self._architectures: Architectures | None = None  # those in the checkpoint that goes on
        super().__init__(
            args=self._composed,
            parser_class=RunParser,
            parser_kwargs={"parser_mode": "omegaconf+", "prog": "likeness train", "description": PURPOSE},
            save_config_callback=SaveRunConfig,  # type: ignore[arg-type]  # called as such, never asked for its type
            seed_everything_default=DEFAULT_SEED,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            trainer_defaults={
                "callbacks": [
                    *(RunSegments(), self._exact_resume, StopOnNonFinite(), ExportWeights(), WritePredictions()),
                ]
            },
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # called on the instance alone
        """The one that is asked for, all for a first word that is none: each parser takes a good part of a second."""
        known = LightningCLI.subcommands()
        return {name: skipped for name, skipped in known.items() if name in self._asked} or known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run_dir", type=str, default="runs/default", help="Where everything a run writes goes.")
        for name, meaning in SWITCHES.items():
            parser.add_argument(f"--{name}", action=ActionYesNo, nargs="?", default=False, help=meaning)
        parser.add_argument("--stop_after", type=str | None, help="Stop in time, with a checkpoint: 3h50m, 90s.")
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.add_lightning_class_args(Preemption, "preemption")
        parser.link_arguments("stop_after", "preemption.stop_after")
        parser.link_arguments("run_dir", "trainer.default_root_dir")
        for owner in ("model", "data"):
            parser.link_arguments("seed_everything", f"{owner}.init_args.seed")
        for name in DATA_LINKS:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        # sys.argv stays as it is: DDP starts the other ranks from it.
        self.config = with_home(parser.parse_args(args))

    def _parse_ckpt_path(self) -> None:
        """Name the checkpoint and claim the run directory.

        Lightning lets the checkpoint's hyper-parameters override the command line here; they never do.
        """
        subcommand = self.config.subcommand
        config = self.config[subcommand]
        run_dir = run_directory.resolve(config.run_dir)
        run_directory.announce(run_dir)
        fit, owner = subcommand == "fit", rank() == 0 and not config.trainer.fast_dev_run
        if owner and fit:  # first of all: what another process is writing there is no ground for a decision
            run_directory.enter(run_dir, subcommand)
        if fit and config.auto_resume:
            _continue_or_start(run_dir, config, owner)
        if config.ckpt_path is None and not fit and not config.trainer.fast_dev_run:
            config.ckpt_path = "last" if run_directory.checkpoints(run_dir / "checkpoints") else None
        config.weights_only = True
        if config.ckpt_path is not None:
            self._continue(run_dir, config, fit, owner)
        elif owner and fit:
            run_directory.claim(run_dir, overwrite=config.overwrite)

    def _continue(self, run_dir: Path, config: Namespace, fit: bool, owner: bool) -> None:
        """Settle on the checkpoint; for ``fit``, make sure that it is this run that goes on, and that it has to."""
        path, checkpoint = _checked_checkpoint(run_dir, config, fit)
        config.ckpt_path = str(path)
        self._architectures = checkpoint.get("hyper_parameters", {}).get(ARCHITECTURES, {})
        if not fit or config.trainer.fast_dev_run:
            return
        changed = changes(run_dir / CONFIG, repeatable(self._parser("fit"), config))
        if changed and owner and not config.allow_changes:
            raise UsageError(
                f"the run in {run_dir} was started with another configuration: {'; '.join(changed)}. "
                "Continue it with these changes by --allow_changes true, or choose another --run_dir"
            )
        if reason := run_directory.nothing_left(run_dir, checkpoint, config.trainer, changed=bool(changed)):
            raise NothingLeft(f"nothing is left to do in {run_dir}: {reason}")
        self._exact_resume.stays_stopped = not changed

    def before_instantiate_classes(self) -> None:
        """Let ``auto`` mean the processes that torchrun or srun started: Lightning would train unrelated copies."""
        _require_linked(self.config[self.subcommand], self._composed)
        trainer, started = self.config[self.subcommand].trainer, launch()
        if started is None:
            self._environment = start_alone(trainer.devices, trainer.num_nodes)
            return
        self._environment = started.environment
        if trainer.devices == "auto":
            trainer.devices, trainer.num_nodes = started.per_node, started.nodes
        elif str(trainer.devices).isdigit():  # a rank without a device of its own could not even be built
            require_all_used(started, int(trainer.devices) * trainer.num_nodes)
        if trainer.strategy == "auto" and started.processes > 1:
            trainer.strategy = "ddp"

    def instantiate_classes(self) -> None:
        """Build everything; what a constructor refuses is a wrong configuration."""
        continued = self._architectures is not None
        try:
            with architecture_alone(self._architectures) if continued else nullcontext():
                super().instantiate_classes()
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise UsageError(one_line(error)) from error

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> pl.Trainer:
        wanted = config.get("enable_progress_bar") is not False and not config.get("barebones")
        if wanted and not any(isinstance(callback, ProgressBar) for callback in config.get("callbacks") or []):
            callbacks = [*callbacks, RunProgressBar()]
        config["plugins"] = [*(config.get("plugins") or []), self._environment]
        return super()._instantiate_trainer(config, callbacks)

    def _enter_to_evaluate(self) -> None:
        """Make the directory a run's, once it is known that there are weights to evaluate."""
        config = self.config[self.subcommand]
        # Untrained weights are never what somebody wants tested, unless others have trained them.
        if config.ckpt_path is None and not getattr(self.model, "is_pretrained", False):
            run_directory.checkpoint_path(Path(config.run_dir), "last")  # raises that there is none
        if rank() == 0:
            run_directory.enter(Path(config.run_dir), self.config.subcommand)

    def after_instantiate_classes(self) -> None:
        if self.subcommand != "fit" and not self.config[self.subcommand].trainer.fast_dev_run:
            self._enter_to_evaluate()
        require_all_used(launch(), self.trainer.world_size)
        notice_lost_ranks(self.trainer)
        # Siblings that are spread over the processes train on whole batches.
        if self.subcommand == "fit" and getattr(self.model, "whole_batches", None) is None:
            require_equal_shares(getattr(self.datamodule, "batch_size", None), self.trainer.world_size)
        torch.set_float32_matmul_precision("high")
        for logger in self.trainer.loggers:
            if isinstance(logger, RunWandbLogger) and self.subcommand == "fit":
                logger.describe(repeatable(self._parser(self.subcommand), self.config[self.subcommand]))


def repeatable(parser: LightningArgumentParser, config: Namespace) -> dict[str, Any]:
    """The plain values that repeat a run, in any directory: without how this one segment of it began."""
    config = config.clone()
    config.ckpt_path = config.stop_after = None
    for switch in SWITCHES:
        config[switch] = False
    content: dict[str, Any] = portable(read_value(parser.dump(config)), config.run_dir)
    return content


def _continue_or_start(run_dir: Path, config: Namespace, owner: bool) -> None:
    """Ask for the newest checkpoint where there is one, else for a fresh start, as ``--auto_resume`` does."""
    if config.ckpt_path is not None:
        raise UsageError(f"--auto_resume chooses the checkpoint, and --ckpt_path names {config.ckpt_path}: give one")
    if config.overwrite:
        raise UsageError("--auto_resume continues the run in run_dir, and --overwrite removes it: give one")
    if run_directory.checkpoints(run_dir / "checkpoints"):
        config.ckpt_path = "last"
    else:
        if owner:
            run_directory.refuse_lost_checkpoints(run_dir)
        config.overwrite = True  # a run that was stopped before its first checkpoint begins anew


def _checked_checkpoint(run_dir: Path, config: Namespace, fit: bool) -> tuple[Path, dict[str, Any]]:
    path = run_directory.checkpoint_path(run_dir, config.ckpt_path)
    if fit and config.overwrite:
        raise UsageError(f"--ckpt_path {config.ckpt_path} continues a run, and --overwrite removes one: give one")
    if fit and path.suffix == ".safetensors":
        raise UsageError(f"{path} holds weights alone, and a training goes on from a checkpoint: name a .ckpt file")
    content = read_weights(path) if path.suffix == ".safetensors" else read_checkpoint(path, mmap=True)
    saved = content.get("hyper_parameters", {}).get("_class_path")
    if saved is not None and moved(saved) != config.model.class_path:
        raise ValueError(f"checkpoint {path} holds a {saved}, the configuration asks for a {config.model.class_path}")
    return path, content


def _require_linked(config: Namespace, args: Sequence[str]) -> None:
    """A model that must be told of its inputs cannot be given data that say nothing of them, as texts do.

    The links pass over what a datamodule does not have, and the model would be built with None. What it has they put in
    the place of a value that is given, which is refused.
    """
    data = None if config.data is None else _imported(config.data.class_path)
    bases = () if data is None else data.__mro__
    stated = {name for base in bases for name in (*vars(base), *vars(base).get("__annotations__", {}))}
    stated |= set() if data is None else set(inspect.signature(data).parameters)
    for where, key in origins(args):
        if key.startswith("model.") and key[len("model.") :] in stated.intersection(DATA_LINKS):
            raise UsageError(f"{where} follows the data: {config.data.class_path} says it")
    if data is not None and not issubclass(data, ResumableDataModule):
        return
    for name, parameter in inspect.signature(_imported(config.model.class_path)).parameters.items():
        if name in DATA_LINKS and parameter.default is parameter.empty and name not in stated:
            given = "there are no data" if data is None else f"{config.data.class_path} has none"
            raise ValueError(f"{config.model.class_path} needs the {name} of its data, and {given}")


def _imported(class_path: str) -> type:
    module, _, name = class_path.rpartition(".")
    imported: type = getattr(importlib.import_module(module), name)
    return imported


def compose(args: Sequence[str]) -> list[str]:
    """Put the default trainer file before the user's files, and find ``configs/...`` in an installed copy too."""
    args = prepared_arguments(_with_named_model(args))
    for where, key in origins(args):
        if other := FOLLOWED.get(key):  # it would be passed over without a word
            raise UsageError(f"{where} follows --{other}: give that one")
    if args and args[0] in LightningCLI.subcommands():
        args[1:1] = ["--config", str(CONFIGS / "trainer" / "default.yaml")]
        args += replaced(args[1:])
    return args


def _with_named_model(args: Sequence[str]) -> list[str]:
    """``--model timm:resnet18`` as what it stands for: the class that evaluates it, and its name."""
    words = [part for word in args for part in (word.split("=", 1) if word.startswith("--model=") else [word])]
    answer: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        is_name = before == "--model" and names_a_library_model(word)
        answer += [NAMED_MODEL, f"--model.name={word}"] if is_name else [word]
    return answer
