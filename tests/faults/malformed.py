"""Malformed configurations, generated from well-formed ones: a wrong key, type, class or range, and missing files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
BASES = {
    "classifier": "tests/integration/classifier.yaml",
    "siblings": "configs/experiment/demo.yaml",
    "resnet": "configs/experiment/cifar10_resnet18.yaml",
    "diffenc": "tests/integration/diffenc.yaml",
    "vdm": "configs/experiment/digits_vdm.yaml",
    "distillation": "configs/experiment/digits_distillation.yaml",
    "sentences": "configs/experiment/docstrings_encoder.yaml",
}
# What a value of each type cannot be; in YAML 1.1 the times of day are numbers.
NOT_OF_TYPE = {bool: ("perhaps",), int: ("many", "1:30"), float: ("much", "12:30:00")}
NUMBERS_OUT_OF_RANGE = {
    "classifier": {
        "data.init_args.batch_size": (0, -4, 100_000),
        "data.init_args.eval_batch_size": (0,),
        "model.init_args.dim": (0, -1),
        "model.init_args.embedding_norm": (0, -1.5),
        "model.init_args.unembedding_norm": (-2,),
        "model.init_args.embedding.init_args.width": (0, -3),
        "model.init_args.embedding.init_args.dropout": (1.5, -0.1),
        "checkpoint.every_n_train_steps": (-7,),
        "trainer.limit_train_batches": (-1,),
        "stop_after": ("soon", "3:50:00", "-1h"),
    },
    "siblings": {"model.init_args.num_members": (0, -2)},
    "diffenc": {
        "model.init_args.eval_draws": (0, -1),
        "model.init_args.network.init_args.width": (0,),
        "model.init_args.network.init_args.groups": (3, 0),
        "model.init_args.network.init_args.depth": (-1,),
        "model.init_args.network.init_args.dropout": (2,),
        "model.init_args.encoder.init_args.width": (0,),
        "model.init_args.schedule.init_args.width": (0,),
        "model.init_args.num_steps": (0, -5),
        "model.init_args.prediction": ("velocity",),
    },
}
MISSING_FILES = {
    "classifier": {
        "config": "nowhere/at_all.yaml",
        "ckpt_path": "nowhere/last.ckpt",
        "model.init_args.teacher": "nowhere/teacher",
    },
    "resnet": {"data.init_args.data_dir": "nowhere/cifar"},
}
WITHOUT_NETWORK = {"resnet": ("--data.init_args.download", "false")}


class Malformed(NamedTuple):
    """One malformed command line, and what the one line of its answer must name."""

    base: str
    kind: str
    options: tuple[str, ...]
    named: str

    @property
    def name(self) -> str:
        """For pytest."""
        return f"{self.base}-{self.kind}-{self.options[-2].lstrip('-')}-{self.options[-1]}"


def malformed() -> list[Malformed]:
    """All of them, in a fixed order."""
    cases = [case for base, file in BASES.items() for case in _of(base, yaml.safe_load((ROOT / file).read_text()))]
    return [case._replace(options=(*WITHOUT_NETWORK.get(case.base, ()), *case.options)) for case in cases]


def _of(base: str, content: dict[str, Any]) -> Iterator[Malformed]:
    for path, value in _entries(content):
        key, last = ".".join(path), path[-1]
        if isinstance(value, dict) and last != "init_args" and "class_path" not in value:
            yield Malformed(base, "key", (f"--{key}.{_typo('width')}", "3"), _typo("width"))
        if isinstance(value, dict) and last == "init_args":
            yield Malformed(base, "key", (f"--{key}.{_typo('seed')}", "3"), _typo("seed"))
        if last == "class_path":
            yield Malformed(base, "class", (f"--{'.'.join(path[:-1])}", f"{value}s"), str(value).rpartition(".")[2])
            yield Malformed(base, "class", (f"--{'.'.join(path[:-1])}", "os.system"), "os.system")
        if type(value) in NOT_OF_TYPE and last != "wd":
            for wrong in NOT_OF_TYPE[type(value)]:
                yield Malformed(base, "type", (f"--{key}", wrong), last)
    for kind, table in (("range", NUMBERS_OUT_OF_RANGE), ("file", MISSING_FILES)):
        for key, values in table.get(base, {}).items():
            for value in values if isinstance(values, tuple) else (values,):
                named = str(value) if kind == "file" else key.rpartition(".")[2]
                yield Malformed(base, kind, (f"--{key}", str(value)), named)


def _entries(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every entry that an option can name: nested dictionaries, not the items of lists."""
    for key, value in content.items():
        if key.endswith("+"):
            continue
        yield (*path, key), value
        if isinstance(value, dict):
            yield from _entries(value, (*path, key))


def _typo(word: str) -> str:
    return f"{word[0]}x{word[1:]}"
