"""Which datamodule reads a file or folder, and with which options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from datamodules.own.array_files import SUFFIXES, StoredArray, keys
from datamodules.own.datamodule import SPELLINGS, OwnDataModule
from datamodules.own.huggingface import is_saved_dataset, may_be_hub_name
from likeness.files.columns import LABELS, TEXTS
from likeness.files.errors import DataError, missing
from likeness.files.text_files import is_parquet, open_parquet

if TYPE_CHECKING:
    from scripts.data.looking import Findings

INPUTS = ("x", "images", "image", "img", "inputs", "input", "data", "pixels", "points")
SPLIT_COLUMNS = ("split", "part", "subset", "partition")
TABLES = (".csv", ".tsv", ".txt", ".json")
LARGEST = 224  # height and width proposed for pictures of several sizes


@dataclass(frozen=True)
class Proposal:
    """A kind of data in words, and the datamodule for it."""

    kind: str
    class_name: str  # in datamodules
    init_args: Mapping[str, Any]

    def build(self) -> OwnDataModule:
        """The datamodule."""
        import datamodules

        built: OwnDataModule = getattr(datamodules, self.class_name)(**self.init_args)
        return built

    def divided(self) -> Proposal:
        """With the shares of the parts that are not there: a tenth each, but a validation part serves as test."""
        there = self.build().parts()
        options: dict[str, Any] = {}
        if "train" in there and "val" not in there:
            options["val_fraction"] = 0.1
        if "train" in there and "test" not in there:
            options["test_fraction"] = 0.0 if "val" in there else 0.1
        return replace(self, init_args={**self.init_args, **options})

    def completed(self, findings: Findings) -> Proposal:
        """With the options that only a look at the samples tells."""
        options = dict(self.init_args)
        if len(findings.shapes) > 1 and all(len(shape) == 3 for shape in findings.shapes):
            shorter = min(min(shape[-2:]) for shape in findings.shapes)
            options["image_size"] = min(LARGEST, max(8, shorter // 8 * 8))
        if findings.is_grey_throughout:
            options["channels"] = 1
        if findings.levels not in (None, 256):
            options["levels"] = findings.levels
        if findings.corrupt:
            options["skip_corrupt"] = True
        trained = max(1, findings.splits.get("train", 1) - len(findings.corrupt))
        decoded = self.class_name != "Arrays" or "cache_dir" in options
        sizes = {"batch_size": min(128, trained), "eval_batch_size": 256, "num_workers": 4 if decoded else 0}
        return replace(self, init_args=options | sizes)


def as_yaml(proposal: Proposal) -> str:
    """The data config, as configs/data holds them."""
    content = {"class_path": f"datamodules.{proposal.class_name}", "init_args": dict(proposal.init_args)}
    return yaml.safe_dump({"data": content}, sort_keys=False, allow_unicode=True)


def propose(name: str, dataset_name: str | None = None, layout: str = "auto") -> Proposal:
    """The datamodule for a path or a name of the hub. Raises DataError where there is none that reads it."""
    proposal = _proposed(name, dataset_name)
    if layout != "auto":
        proposal = replace(proposal, init_args={**proposal.init_args, "layout": layout})
    return proposal.divided()


def _proposed(name: str, dataset_name: str | None) -> Proposal:
    path = Path(name).expanduser()
    called = {"dataset_name": dataset_name or re.sub(r"\W+", "_", path.stem).strip("_").lower() or "own"}
    if path.is_dir():
        if is_saved_dataset(path):
            return _of_hugging_face(name, called)
        if arrays := sorted(file.name for file in path.iterdir() if file.suffix in SUFFIXES):
            raise DataError(f"{path} holds files of arrays: name one of them, {arrays[0]} perhaps")
        return Proposal("pictures in folders", "ImageFolder", called | {"data_dir": name})
    if path.is_file():
        if is_parquet(path):
            return _of_parquet(path, called | {"file": name})
        if path.suffix in SUFFIXES:
            return _of_arrays(path, called | {"file": name})
        if path.suffix in TABLES:
            raise DataError(
                f"{path} is a table of texts, which datamodules.Sentences reads: configs/data/sentences.yaml"
            )
        raise DataError(f"{path} is none of {', '.join(SUFFIXES)}, and no folder")
    if "/" in name and may_be_hub_name(name):
        return _of_hugging_face(name, called)
    raise missing(path, "name a folder or a file of data")


def _of_arrays(path: Path, options: dict[str, Any]) -> Proposal:
    """Keys by their shapes: inputs have the most numbers in a row, labels one."""
    found = {key: StoredArray(path, key) for key in keys(path)}
    templates = _templates(found)
    kind = f"arrays in {path.suffix}"
    if path.suffix == ".npy":
        beside = [path.with_name(f"{stem}.npy") for stem in ("labels", f"{path.stem}_labels", f"{path.stem}_y", "y")]
        labels = next((str(file) for file in beside if file.is_file() and file != path), None)
        return Proposal(kind, "Arrays", options | ({"labels_file": labels} if labels else {"y_key": None}))
    shapes = {template: found[key].shape for template, key in templates.items()}
    inputs = [template for template, shape in shapes.items() if len(shape) > 1 and shape[1:] != (1,)]
    if not inputs:
        listed = ", ".join(f"{key} {list(array.shape)}" for key, array in found.items())
        raise DataError(f"{path} holds no array of inputs with two or more axes, but: {listed or 'nothing'}")
    x_key = next(
        (t for usual in INPUTS for t in inputs if _bare(t) == usual), max(inputs, key=lambda t: len(shapes[t]))
    )
    rows = shapes[x_key][0]
    lists = [
        t for t, shape in shapes.items() if shape in ((rows,), (rows, 1)) and ("{part}" in t) == ("{part}" in x_key)
    ]
    divided = next((t for t in lists if _bare(t) in SPLIT_COLUMNS), None)
    lists = [t for t in lists if t != divided]
    y_key = next((t for usual in LABELS for t in lists if _bare(t) == usual), lists[0] if len(lists) == 1 else None)
    options |= {"x_key": x_key, "y_key": y_key} | ({"split_key": divided} if divided else {})
    names = _part_names(found, x_key)
    return Proposal(kind, "Arrays", options | ({"part_names": names} if names else {}))


def _templates(names: Iterable[str]) -> dict[str, str]:
    """Each key with ``{part}`` where it names a part, and a key that it stands for, of the training part if it can."""
    spelt = {name: part for part, usual in SPELLINGS.items() for name in usual}
    answer: dict[str, str] = {}
    for key in sorted(names, key=lambda key: "train" not in key):
        words = re.split(r"(_|\.|/|-)", key)
        template = "".join("{part}" if word in spelt else word for word in words)
        answer.setdefault(template, key)
    return answer


def _part_names(names: Iterable[str], template: str) -> dict[str, str]:
    """Parts that the keys spell in another way than train, val and test."""
    there = {*names}
    return {
        part: name
        for part, usual in SPELLINGS.items()
        for name in usual
        if "{part}" in template and name != part and template.replace("{part}", name) in there
    }


def _bare(template: str) -> str:
    """The name of a key without the part that it names: ``x`` of ``x_{part}``, in small letters."""
    return re.sub(r"[_./-]?\{part\}[_./-]?", "", template).lower()


def _of_parquet(path: Path, options: dict[str, Any]) -> Proposal:
    from pyarrow import types

    schema = {field.name: field.type for field in open_parquet(path).schema_arrow}
    pictures = [n for n, t in schema.items() if types.is_struct(t) or types.is_binary(t) or types.is_large_binary(t)]
    lists = [n for n, t in schema.items() if types.is_list(t) or types.is_fixed_size_list(t) or types.is_large_list(t)]
    if not (pictures or lists):
        raise DataError(f"{path} holds neither encoded pictures nor lists of numbers, but: {', '.join(schema)}")
    keys_ = {
        "x_key": (pictures or lists)[0],
        "y_key": _usual(schema, LABELS),
        "split_key": _usual(schema, SPLIT_COLUMNS),
    }
    kind = "encoded pictures in Parquet" if pictures else "lists of numbers in Parquet"
    return Proposal(kind, "Arrays", options | keys_ | {"cache_dir": None})


def _of_hugging_face(name: str, options: dict[str, Any]) -> Proposal:
    import datasets

    from datamodules.own.huggingface import open_dataset

    found = open_dataset(name)
    features = (next(iter(found.values())) if isinstance(found, Mapping) else found).features
    pictures = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    texts = [column for column, kind in features.items() if getattr(kind, "dtype", None) == "string"]
    lists = [column for column, kind in features.items() if isinstance(kind, datasets.List | datasets.LargeList)]
    divided = None if isinstance(found, Mapping) else _usual(features, SPLIT_COLUMNS)
    classes = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    label = classes[0] if classes else _usual(features, LABELS)
    texts = [column for column in texts if column not in (label, divided)]
    column = next(iter(pictures), _usual(texts, TEXTS) or next(iter([*texts, *lists]), None))
    if column is None:
        raise DataError(f"{name} holds no pictures, texts or lists of numbers, but: {', '.join(features)}")
    options |= {"path": name, "input_column": column, "label_column": label}
    options |= {"split_column": divided} if divided else {}
    kind = "pictures" if column in pictures else "texts" if column in texts else "lists of numbers"
    return Proposal(f"{kind} in a Hugging Face data set", "HuggingFaceDataset", options)


def _usual(names: Iterable[str], usual: Iterable[str]) -> str | None:
    """The name that is called one of the usual ways, in capitals or not."""
    return next((name for wanted in usual for name in names if name.lower() == wanted), None)
