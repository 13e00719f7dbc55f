"""ImageNet at 32 x 32, in either of its two releases, which are different data.

The published files, batches of arrays or a tar of pictures, are converted once into a file that processes map into
memory. Batches may be pickles: they are read without running anything that they name.
"""

import hashlib
import os
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.base import HeldOutDataModule
from datamodules.errors import corrupt
from likeness.files.errors import DataError, missing
from likeness.files.writing import replacing

Chunk = tuple[np.ndarray, np.ndarray]  # images [n, 3, 32, 32] uint8 and labels [n] from 0
SHAPE = (3, 32, 32)
SIZES = {("new", True): 1_281_167, ("new", False): 50_000, ("old", True): 1_281_149, ("old", False): 49_999}
# SHA-256 of the archives, as TensorFlow Datasets records them
ARCHIVES = {
    ("new", True): (
        "Imagenet32_train_npz.zip",
        "94226337ecc1b0309d9fcd0167127aaadc931587035fbcb53925235edbaec4fc",
    ),
    ("new", False): (
        "Imagenet32_val_npz.zip",
        "013990e6dec1237dcd1f9beadbab81ead6604cc119af5cacbfb59ae28148377a",
    ),
    ("old", True): (
        "train_32x32.tar",
        "244a323d48f8d72f65ad8b54658c01fed68d2d7bdc77ccb43da58c11e94224e5",
    ),
    ("old", False): (
        "valid_32x32.tar",
        "862e559462b24cf736212a19f6b0d47b55c2dc8ebdaa95ccecfe71260124c8f7",
    ),
}


def load_arrays(path: Path) -> Any:
    """The dicts, lists, strings, numbers and numeric arrays that a pickle holds; Python 2's pickles too.

    An array answers to ``np.asarray``. Raises DataError where the pickle names anything but the parts of an array
    (nothing that it names is run), or is damaged.
    """
    with path.open("rb") as file:
        try:
            return _ArrayUnpickler(file, encoding="latin1").load()
        except pickle.UnpicklingError as error:
            raise DataError(f"{path.resolve()} is refused or damaged: {error}") from error
        except (EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, MemoryError) as error:
            raise DataError(f"{path.resolve()} is damaged: {type(error).__name__}: {error}") from error


class _Dtype:
    """Stands for numpy.dtype: a type of plain numbers."""

    def __init__(self, spec: str, *_: object) -> None:
        self.value = np.dtype(str(spec))
        if self.value.kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds values of type {self.value}, not numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.value = self.value.newbyteorder(state[1])  # (version, byte order, ...); the rest is for structures


class _Array:
    """Stands for numpy.ndarray: created empty, then filled from its state."""

    def __init__(self, *_: object) -> None:
        self.value = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = _from_buffer(raw, dtype, shape, "F" if fortran else "C").value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.value if dtype is None else self.value.astype(dtype)


def _from_buffer(raw: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> _Array:
    array = _Array()
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2's bytes
    array.value = np.frombuffer(raw, dtype.value).reshape(shape, order=order)
    return array


def _scalar(dtype: _Dtype, raw: Any) -> Any:
    return _from_buffer(raw, dtype, (), "C").value[()]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
    return text.encode(encoding)


# Every name that a pickled array is made of. Nothing of NumPy's own is called, for states are not safe there.
_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): None,  # an argument of _reconstruct, never called
    ("numpy.multiarray", "_reconstruct"): _Array,
    ("numpy.multiarray", "scalar"): _scalar,
    ("numpy.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,  # how Python 3 writes bytes into an old protocol
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        key = (module.replace("numpy._core", "numpy").replace("numpy.core", "numpy"), name)
        if key not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array")
        return _STAND_INS[key]


def read_new(folder: Path, train: bool) -> Iterator[Chunk]:
    """Batch files of the release on image-net.org, as npz or as pickles, in ``folder`` or one folder below.

    Each holds 'data' [n, 3072] uint8, channel by channel, and 'labels' from 1 to 1000 in the authors' own order
    of classes. Chrabaszcz, Loshchilov and Hutter 2017.
    """
    names = [f"train_data_batch_{number}" for number in range(1, 11)] if train else ["val_data"]
    paths = [_find(folder, name, train) for name in names]
    for path in paths:
        yield _batch(path, train)


def read_old(folder: Path, train: bool) -> Iterator[Chunk]:
    """PNG images in the tar of the first, withdrawn release, in its order; labels are zero, for it has none.

    van den Oord, Kalchbrenner and Kavukcuoglu 2016.
    """
    from PIL import Image, UnidentifiedImageError

    name, sha256 = ARCHIVES["old", train]
    path = folder / name
    how = "fetch the archive that the papers before 2022 used anew; image-net.org no longer has it"
    if not path.exists():
        raise missing(path, f"{how} (SHA-256 {sha256}), or set release: new")
    if _sha256(path) != sha256:
        raise corrupt(path, f"SHA-256 {sha256}", how)
    with tarfile.open(path) as archive:
        for member in archive:
            if (file := archive.extractfile(member)) is None:
                continue  # a folder
            try:
                with Image.open(file) as image:
                    pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            except (UnidentifiedImageError, OSError) as error:
                raise corrupt(path, f"an image in {member.name}", how) from error
            yield pixels[None], np.zeros(1, np.int64)


def write_cache(chunks: Iterator[Chunk], images: Path, size: int, source: Path) -> None:
    """Write all images to the .npy file ``images`` and their labels beside it, whole or not at all.

    Raises DataError where the source does not have exactly ``size`` images, OSError where the disk is full.
    """
    from rich.progress import Progress

    images.parent.mkdir(parents=True, exist_ok=True)
    labels: list[np.ndarray] = []
    # Written in sequence, not through a memory map: a full disk is an error there, and a crash here.
    with _whole_file(images) as file, Progress(transient=True) as progress:
        task = progress.add_task(f"reading {source}", total=size)
        header = {"descr": "|u1", "fortran_order": False, "shape": (size, *SHAPE)}
        np.lib.format.write_array_header_1_0(file, header)
        for x, y in chunks:
            file.write(x.tobytes())
            labels.append(y)
            progress.advance(task, len(y))
        if (read := sum(map(len, labels))) != size:
            raise DataError(f"{source.resolve()} holds {read} images for {images.stem}, expected {size}")
        with _whole_file(labels_path(images)) as beside:
            np.save(beside, np.concatenate(labels))


def read_cache(images: Path, size: int) -> Chunk:
    """All images and labels of a cache; the images memory-mapped, so that processes share them."""
    for file in _cache_files(images):
        if not file.exists():
            raise missing(file, "prepare_data() makes it from the published files")
    try:
        # "c": pages are shared until written to, and a stray write would stay in this process
        x, y = np.load(images, mmap_mode="c"), np.load(labels_path(images))
    except (ValueError, EOFError) as error:
        raise corrupt(images, f"{size} images", "delete it, and it will be made anew") from error
    if len(x) != size or len(y) != size:
        raise corrupt(images, f"{size} images, got {len(x)}", "delete it, and it will be made anew")
    return x, y


def labels_path(images: Path) -> Path:
    """Where the labels of a cache stand."""
    return images.with_name(f"{images.stem}_labels.npy")


def _cache_files(images: Path) -> tuple[Path, Path]:
    return images, labels_path(images)


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at ``path`` once it is complete and on disk, and not at all after an error."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _find(folder: Path, name: str, train: bool) -> Path:
    for pattern in (name + ".npz", "*/" + name + ".npz", name, "*/" + name):
        if found := sorted(folder.glob(pattern)):
            return found[0]
    archive, sha256 = ARCHIVES["new", train]
    how = f"log in at https://image-net.org/download-images, fetch {archive} (SHA-256 {sha256}) and unpack it there"
    if (folder / ARCHIVES["old", train][0]).exists():
        how = f"the folder has {ARCHIVES['old', train][0]}, the old release: set release: old, or {how}"
    raise missing(folder / (name + ".npz"), how)


def _batch(path: Path, train: bool) -> Chunk:
    archive, sha256 = ARCHIVES["new", train]
    how = f"unpack it again from {archive} (SHA-256 {sha256})"
    try:
        entry = _npz(path) if path.suffix == ".npz" else load_arrays(path)
        data, labels = np.asarray(entry["data"]), np.asarray(entry["labels"])
    except (zipfile.BadZipFile, EOFError, ValueError, KeyError, TypeError) as error:
        raise corrupt(path, "'data' and 'labels' as published", f"{error}; {how}") from error
    if data.dtype != np.uint8 or data.shape != (len(labels), np.prod(SHAPE)):
        raise corrupt(path, f"'data' uint8 [{len(labels)}, 3072], got {data.dtype} {list(data.shape)}", how)
    return data.reshape(-1, *SHAPE), labels.astype(np.int64) - 1


def _npz(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # verifies CRC-32 on reading
        return {name: arrays[name] for name in ("data", "labels")}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ImageNet32(HeldOutDataModule):
    """32 x 32 colour photographs: about 1.28 million for training and 50,000, the published validation set, as test.

    ``release: new`` is the anti-aliased one on image-net.org (Chrabaszcz et al. 2017), with 1,000 classes;
    ``release: old`` is the withdrawn one (van den Oord et al. 2016), without labels. Likelihoods on the two do not
    compare, so ``dataset_name`` tells them apart: "imagenet32" or "imagenet32_old".

    The first use converts the published files into one file that processes map into memory and share (4 GB).
    """

    input_shape = (3, 32, 32)
    levels = 256

    def __init__(
        self,
        data_dir: str = "data/imagenet32",
        release: Literal["new", "old"] = "new",
        val_size: int = 10_000,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            data_dir: Folder that holds the published files, which cannot be fetched without an account: for the new
                release train_data_batch_1 to 10 and val_data, as .npz or as pickles; for the old one
                train_32x32.tar and valid_32x32.tar.
            release: Which of the two.
            val_size: Training samples held out for validation; 0 validates on the published validation set.
        """
        super().__init__(val_size=val_size, **kwargs)
        self.data_dir = Path(data_dir).expanduser()
        self.release = release
        self.num_classes = 1000 if release == "new" else 1
        self.dataset_name = "imagenet32" if release == "new" else "imagenet32_old"

    def prepare_data(self) -> None:
        read = read_new if self.release == "new" else read_old
        for train in (True, False):
            cache = self._cache(train)
            if not all(file.exists() for file in _cache_files(cache)):
                write_cache(read(self.data_dir, train), cache, self._size(train), self.data_dir)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        images, labels = read_cache(self._cache(train), self._size(train))
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _cache(self, train: bool) -> Path:
        return self.data_dir / "cache" / f"{self.dataset_name}_{'train' if train else 'val'}.npy"

    def _size(self, train: bool) -> int:
        return SIZES[self.release, train]
