"""docs/how-to/data.md against the code: its options and datamodules are there."""

import inspect
import re
from pathlib import Path

import datamodules
from datamodules.own.datamodule import OwnDataModule
from datamodules.own.image_folder import LITTER

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "data.md"
TEXT = PAGE.read_text()


def options(kind: type) -> set[str]:
    """The names of all arguments of a datamodule."""
    return {name for base in kind.__mro__ for name in inspect.signature(base.__init__).parameters}


def test_datamodules_and_options_are_there() -> None:
    for name in re.findall(r"`datamodules\.(\w+)`", TEXT):
        assert hasattr(datamodules, name), name
    own = (datamodules.ImageFolder, datamodules.Arrays, datamodules.HuggingFaceDataset)
    known = {name for kind in (*own, datamodules.Tokens) for name in options(kind)} | {
        *LITTER,
        "save_to_disk",
        "cache",
        "file",
    }
    named = set(re.findall(r"`([a-z]+_[a-z_]+)(?:: [^`]*)?`", TEXT))
    assert named - known == set()
    shared = options(OwnDataModule) - {"self", "args", "kwargs"} - options(datamodules.TensorDataModule)
    assert {name for name in shared if f"`{name}" not in TEXT} == {"dataset_name"}
