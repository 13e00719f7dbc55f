"""Data that are larger than the memory that a process may have: an epoch over them, in a process that is limited."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.datamodules.own.toys import png
from tests.integration.commands import Process

ALLOWED = 32 << 20  # bytes of its own that each training may take beyond the libraries
# Pages of files that are mapped do not count: the kernel takes them back when it needs them.
TRAINING = """
import re, resource, sys
from pathlib import Path
import numpy as np, torch
from datamodules import Arrays, HuggingFaceDataset, ImageFolder

def limited(data, allowed):
    data.setup("fit")
    next(iter(data.train_dataloader()))  # libraries are in memory
    status = Path("/proc/self/status").read_text()
    own = int(re.search(r"VmData:\\s+(\\d+) kB", status)[1]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (own + allowed, resource.RLIM_INFINITY))
    seen = sum(batch.x.numel() * batch.x.element_size() for batch in data.train_dataloader())
    try:
        np.ones(seen, np.uint8)
    except MemoryError:
        print(data.dataset_name, seen > 2 * allowed, "the limit holds")
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

import datasets, PIL.Image, pyarrow, torchvision  # what is loaded later would count
folder, allowed = sys.argv[1], int(sys.argv[2])
usual = {"batch_size": 1}
limited(ImageFolder(f"{folder}/images", **usual), allowed)
limited(Arrays(f"{folder}/x.npy", y_key=None, **usual | {"batch_size": 64}), allowed)
limited(Arrays(f"{folder}/x.npz", y_key=None, **usual | {"batch_size": 64}, dataset_name="archive"), allowed)
limited(Arrays(f"{folder}/x.parquet", "image", None, **usual, dataset_name="parquet"), allowed)
limited(HuggingFaceDataset(f"{folder}/dataset", label_column=None, **usual), allowed)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Pictures of 95 MB, written as a few kilobytes each, and sparse arrays of as much."""
    datasets, parquet = pytest.importorskip("datasets"), pytest.importorskip("pyarrow.parquet")
    import pyarrow

    folder = tmp_path_factory.mktemp("large")
    encoded = png(np.full((600, 600, 3), 128, np.uint8))
    (folder / "images").mkdir()
    for number in range(90):
        (folder / "images" / f"{number}.png").write_bytes(encoded)
    array = np.lib.format.open_memmap(folder / "x.npy", "w+", np.uint8, (9_000, 3, 50, 80))
    array[-1] = 1
    array.flush()
    np.savez(folder / "x.npz", x=array)
    cells = [{"bytes": encoded, "path": None}] * 90
    parquet.write_table(pyarrow.table({"image": cells}), folder / "x.parquet", row_group_size=24)
    datasets.Dataset.from_dict({"image": cells}, features=datasets.Features({"image": datasets.Image()})).save_to_disk(
        str(folder / "dataset")
    )
    yield folder
    shutil.rmtree(folder)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a process's own memory is Linux's")
def test_an_epoch_over_more_than_a_process_may_hold(large: Path) -> None:
    ended = Process("-c", TRAINING, str(large), str(ALLOWED)).end()
    kinds = ("image_folder", "arrays", "archive", "parquet", "hf_dataset")
    assert ended.output.splitlines() == [f"{kind} True the limit holds" for kind in kinds]
