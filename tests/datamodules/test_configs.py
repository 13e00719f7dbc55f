"""Every file of configs/data builds the datamodule it names, and none takes a key that it does not have."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentError, ArgumentParser

import datamodules
from datamodules.base import ResumableDataModule
from likeness.files.text_files import TableFormat

FILES = sorted(Path(__file__).resolve().parents[2].glob("configs/data/*.yaml"))


def built(config: dict[str, Any]) -> ResumableDataModule:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ResumableDataModule, "data")
    return parser.instantiate(parser.parse_object(config)).data


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_builds_its_datamodule(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    data = built(config)
    assert data.dataset_name == path.stem
    for name, value in config["data"]["init_args"].items():
        if name in vars(data):
            assert getattr(data, name) == as_stored(name, value)


def as_stored(name: str, value: Any) -> Any:
    if name == "file_format":
        return TableFormat(**{key: tuple(entry) if key == "columns" else entry for key, entry in value.items()})
    if name == "data_dir":
        return Path(value)
    return tuple(value) if isinstance(value, list) else value


def test_every_datamodule_has_a_file() -> None:
    classes = {
        name for name in datamodules.__all__ if name not in ("DataError", "ResumableDataModule", "TensorDataModule")
    }
    named = {yaml.safe_load(path.read_text())["data"]["class_path"] for path in FILES}
    assert named == {f"datamodules.{name}" for name in classes}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize(("key", "value"), [("batchsize", 3), ("batch_size", "many"), ("seed", 0.5)])
def test_a_misspelt_key_or_a_wrong_type_is_refused(path: Path, key: str, value: Any) -> None:
    config = yaml.safe_load(path.read_text())
    config["data"]["init_args"][key] = value
    with pytest.raises(ArgumentError, match=key):
        built(config)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_option_is_documented(path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    class_path = yaml.safe_load(path.read_text())["data"]["class_path"]
    parser.add_class_arguments(getattr(datamodules, class_path.split(".")[1]), "data", fail_untyped=True)
    undocumented = [action.dest for action in parser._actions if action.dest.startswith("data.") and not action.help]
    assert undocumented == []
