"""Every YAML is built and run for one batch, as part of the composition it is meant for.

Of the experiments those run that have between them each key with each class and kind of value that any has; the rest,
which combine the same, are ``long``.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import datamodules
from datamodules.splits import TensorSplit
from lightning_modules import SoftmaxClassifier
from likeness.networks import SmallTransformer
from scripts.cli.entry_point import run_command
from scripts.cli.lightning_cli import CONFIGS
from scripts.train import main
from tests.datamodules.own import toys as own
from tests.lightning_modules.points import save
from tests.lightning_modules.tiny_sentences import TEXTS, TinyPairs

QUIET = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")
FAST = (*QUIET, "--trainer.fast_dev_run", "true")
MODEL, SIBLINGS = "configs/model/softmax_mlp.yaml", "configs/model/siblings_mlp.yaml"
DATA = "configs/data/digits.yaml"
TOKENS = ("--data", "tests.lightning_modules.tiny_tokens.TinyTokens")
CLASS_PATH = re.compile(r"(\w+\.)+[A-Z]\w*")
KINDS = {  # of models, with the callbacks that siblings of classifiers have no use for
    "diffusion": (
        ("elbo_diagnostics", "gradient_norms", "samples"),
        ("--config", "configs/experiment/digits_diffenc.yaml"),
    ),
    "classifier": (("probes",), ("--config", MODEL, "--config", DATA)),
    "language": (("prediction_hubs",), ("--config", "configs/model/language_gpt2.yaml", *TOKENS)),
}
FROM_FILES = (datamodules.MNIST, datamodules.CIFAR10, datamodules.CIFAR100, datamodules.ImageNet32)


def files(group: str) -> list[str]:
    return sorted(f"configs/{group}/{path.name}" for path in (CONFIGS / group).glob("*.yaml"))


@pytest.fixture(autouse=True)
def _few_images_instead_of_files(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """What is in the files is tested with the datamodules; here only that the compositions work."""

    def load(self: datamodules.TensorDataModule, split: str) -> TensorSplit:
        x = torch.randint(0, 256, (self.batch_size, *self.input_shape), dtype=torch.uint8)
        return TensorSplit(x, torch.arange(self.batch_size) % self.num_classes)

    monkeypatch.chdir(root)
    for kind in FROM_FILES:
        monkeypatch.setattr(kind, "load", load)
        monkeypatch.setattr(kind, "prepare_data", lambda self: None)


@pytest.fixture(autouse=True)
def _few_sentences_and_a_small_model_instead_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str) -> tuple[nn.Module, Any, str]:
        small = SmallTransformer(width=16, depth=1, heads=2, vocab_size=400)
        small.learn_tokens(TEXTS)
        return small.model, small.tokenizer, "mean"

    monkeypatch.setattr(datamodules.SentencePairs, "load", lambda self, split: TinyPairs().load(split))
    monkeypatch.setattr("likeness.networks.text_transformer.read_pretrained", read)


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        run_command(main, ["fit", *arguments])
    assert end.value.code == 0


def compose(*configs: str) -> tuple[str, ...]:
    return tuple(word for config in configs for word in ("--config", config))


def teacher(experiment: str, tmp_path: Path) -> tuple[str, ...]:
    """The one thing that an experiment may take from another run, here untrained."""
    options = yaml.safe_load((CONFIGS.parent / experiment).read_text())["model"]["init_args"]
    if "teacher" not in options:
        return ()
    save(SoftmaxClassifier(datamodules.Digits.input_shape, datamodules.Digits.num_classes), tmp_path / "teacher.ckpt")
    return ("--model.init_args.teacher", str(tmp_path / "teacher.ckpt"))


def narrow(experiment: str) -> tuple[str, ...]:
    """The papers' diffusion models as networks that take no time; what is left of them are the compositions."""
    options = yaml.safe_load((CONFIGS.parent / experiment).read_text())["model"]["init_args"]
    sizes = {"network": {"width": 32, "depth": 1}, "encoder": {"width": 32}}
    return tuple(
        word
        for network, changed in sizes.items()
        if "UNet" in (own := options.get(network) or {}).get("class_path", "")
        and own["init_args"].get("width", 64) > 32
        for name, value in changed.items()
        for word in (f"--model.init_args.{network}.init_args.{name}", str(value))
    )


def parts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Each key of a configuration with the class that it names or the kind of its value."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else (("[]", entry) for entry in value):
            yield from parts(inner, f"{key}.{name}")
    else:
        yield key, value if CLASS_PATH.fullmatch(str(value)) else type(value).__name__


def experiments() -> list[Any]:
    """All, with a mark on those that hold nothing which the others, the richest first, do not."""
    held = {name: set(parts(yaml.safe_load((CONFIGS.parent / name).read_text()))) for name in files("experiment")}
    missing, running = set().union(*held.values()), set()
    while missing:
        running.add(richest := max(held, key=lambda name: len(held[name] & missing)))
        missing -= held[richest]
    return [name if name in running else pytest.param(name, marks=pytest.mark.long) for name in held]


@pytest.mark.parametrize("experiment", experiments())
def test_an_experiment_is_complete_by_itself(experiment: str, tmp_path: Path) -> None:
    options = ("--data.batch_size", "8", "--run_dir", str(tmp_path), *teacher(experiment, tmp_path))
    run(*compose(experiment), *FAST, *options, *narrow(experiment))


@pytest.mark.parametrize("overlay", files("diffusion"))
@pytest.mark.parametrize(
    "experiment",
    ["digits_diffenc", *(pytest.param(name, marks=pytest.mark.long) for name in ("swirl_diffenc", "digits_vdm"))],
)
def test_what_is_put_over_a_diffusion_experiment(experiment: str, overlay: str) -> None:
    if (experiment, overlay) == ("swirl_diffenc", "configs/diffusion/haar_cascade.yaml"):
        pytest.skip("points have no wavelets")
    run(*compose(f"configs/experiment/{experiment}.yaml", overlay), *FAST, "--data.batch_size", "8")


def holds_tensors(data: str) -> bool:
    kind = yaml.safe_load((CONFIGS.parent / data).read_text())["data"]["class_path"].split(".")[1]
    return issubclass(getattr(datamodules, kind), datamodules.TensorDataModule)


@pytest.mark.parametrize("data", [name for name in files("data") if "swirl" not in name and holds_tensors(name)])
def test_labelled_data(data: str, tmp_path: Path) -> None:
    run(*compose(MODEL, data), *FAST, "--data.batch_size", "8", *own_data(data, tmp_path))


def own_data(data: str, tmp_path: Path) -> tuple[str, ...]:
    """Where small data of the kind that a config is for were written; nothing for data that somebody published."""
    if "image_folder" in data:
        return ("--data.data_dir", str(own.write_parts(tmp_path, {"train": 8})), "--data.num_workers", "0")
    if "arrays" in data:
        return ("--data.file", str(own.write_npz(tmp_path / "x.npz", {"train": 16, "test": 2})))
    if "hf_dataset" in data:
        pytest.importorskip("datasets")
        return ("--data.path", str(own.write_dataset(tmp_path, {"train": 16})), "--data.num_workers", "0")
    return ()


def test_data_without_labels() -> None:
    init_args = yaml.safe_load((CONFIGS / "data" / "swirl.yaml").read_text())["data"]["init_args"]
    data = datamodules.Swirl(**init_args)
    data.setup("test")
    assert next(iter(data.test_dataloader())).x.shape[1:] == data.input_shape


@pytest.mark.parametrize("model", files("model"))
def test_models(model: str) -> None:
    needs = {"resnet": "configs/data/cifar10.yaml", "sentence": "configs/data/stsb.yaml"}
    data = compose(next((file for part, file in needs.items() if part in model), DATA))
    if "language" in model:
        data = TOKENS
    run(*compose(model), *data, *FAST, "--data.batch_size", "8")


@pytest.mark.parametrize("group", ["trainer", "debug"])
def test_trainers_and_debugging_aids(group: str, tmp_path: Path) -> None:
    for config in files(group):
        short = ("--trainer.max_steps", "2", "--trainer.num_sanity_val_steps", "0", "--trainer.devices", "1")
        run_dir = ("--run_dir", str(tmp_path / Path(config).stem), "--trainer.enable_model_summary", "false")
        # A process group made here would outlive the test; DDP is run by tests/integration.
        alone = ("--trainer.strategy", "auto", "--trainer.log_every_n_steps", "1")
        run(*compose(MODEL, DATA, config), *QUIET, *short, *run_dir, *alone)


@pytest.mark.parametrize("kind", [*KINDS, "siblings"])
def test_callbacks(kind: str, tmp_path: Path) -> None:
    """All that go with a kind of model, put over it together."""
    told_apart = [name for names, _ in KINDS.values() for name in names]
    names, base = KINDS.get(kind, ((), compose(SIBLINGS, DATA)))
    of_kind = {name: Path(name).stem in (names or told_apart) for name in files("callbacks")}
    chosen = [name for name, named in of_kind.items() if named == bool(names)]
    assert chosen
    run(*base, *compose(*chosen), *FAST, "--run_dir", str(tmp_path / "never"))
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("logger", files("logger"))
def test_loggers(logger: str) -> None:
    run(*compose(MODEL, DATA, logger), *FAST)
