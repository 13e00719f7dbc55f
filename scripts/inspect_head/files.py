"""The unembedding matrix of a model on disk, read row by row and not at once.

The names of a head's labels, and finding a label by its name.

Writing a translated head to disk, block by block where the format allows it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from likeness.files import replacing
from likeness.label_geometry.similarity import LabelRows, row_blocks
from likeness.numerics import as_float64

if TYPE_CHECKING:
    import numpy as np

    from likeness.label_geometry.similarity import LabelRows


class Labels:
    """The names of K labels; without names, their numbers."""

    def __init__(self, count: int, names: Sequence[str] | None = None) -> None:
        self.count = count
        self.names = names

    def __getitem__(self, label: int) -> str:
        return str(label) if self.names is None else self.names[label]

    def __iter__(self) -> Any:
        return (self[label] for label in range(self.count))

    def printable(self, label: int) -> str:
        """The name as one line of a table can show it."""
        name = self[label]
        return name if name.isprintable() and name.strip() else repr(name)

    def find(self, name: str) -> int:
        """The label of this name, or of this number where no label has that name.

        Raises ValueError for an unknown name, listing those that are near, and for one that several labels share.
        """
        found = [label for label, other in enumerate(self.names or ()) if other == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"label {name!r} is ambiguous: numbers {', '.join(map(str, found[:8]))} have that name")
        if name.isdecimal() and int(name) < self.count:
            return int(name)
        raise ValueError(f"there is no label {name!r}: {self._near(name)}")

    def _near(self, name: str) -> str:
        if self.names is None:
            return f"they are numbered 0 to {self.count - 1}, and --labels can name them"
        near = get_close_matches(name, self.names, n=5, cutoff=0.5)
        near += [other for other in self.names if other.strip().lower() == name.strip().lower() and other not in near]
        quoted = ", ".join(repr(other) for other in near[:8])
        return f"did you mean {quoted}?" if near else f"none of the {self.count} labels is like it"


def read_labels(path: Path, count: int) -> list[str]:
    """The names of K labels in a file: a line each, or a JSON list or object {name: number}.

    Raises ValueError naming the file if it does not hold K names.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of labels {path}")
    if path.suffix == ".json":
        content = read_json(path)
        names = sorted(content, key=content.__getitem__) if isinstance(content, dict) else content
    else:
        names = path.read_text(encoding="utf-8").splitlines()
    if not isinstance(names, list) or len(names) != count:
        found = len(names) if isinstance(names, list) else "no list of"
        raise ValueError(f"{path} holds {found} labels, but the head has {count}")
    return [str(name) for name in names]


def read_vocabulary(path: Path, count: int) -> list[str] | None:
    """Token strings of a Hugging Face model directory by number, if it says; rows without one get a name too."""
    tokens: dict[str, int] = {}
    if (path / "tokenizer.json").is_file():
        content = read_json(path / "tokenizer.json")
        vocabulary = content.get("model", {}).get("vocab", {})
        if isinstance(vocabulary, list):  # unigram models: token and score
            vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
        tokens = {**vocabulary, **{token["content"]: token["id"] for token in content.get("added_tokens", [])}}
    elif (path / "vocab.json").is_file():
        tokens = read_json(path / "vocab.json")
    if not tokens:
        return None
    labels = [f"<unused {number}>" for number in range(count)]
    for token, number in tokens.items():
        if 0 <= number < count:
            labels[number] = token
    return labels


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises ValueError naming one that is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


# How heads are called in Hugging Face's models, and the embeddings that stand in for them where the two are tied.
HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
TIED = (
    "model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "transformer.wte.weight",
    "wte.weight",
    "gpt_neox.embed_in.weight",
)
SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".npy", ".safetensors")


@dataclass(frozen=True)
class HeadFile:
    """A matrix [K, M] on disk, its bias, and what is known of it."""

    rows: LabelRows
    bias: Tensor | None
    key: str | None
    dtype: str
    tied: bool = False  # the input embeddings serve as the head
    labels: list[str] | None = None


class NumpyRows:
    """The rows of a ``.npy`` matrix that stays on disk."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix

    @property
    def shape(self) -> Sequence[int]:
        return self.matrix.shape

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.is_bfloat16 else str(self.matrix.dtype)

    @property
    def is_bfloat16(self) -> bool:
        """numpy has no bfloat16: libraries that add it write two bytes without a type."""
        return self.matrix.dtype.kind == "V" and self.matrix.dtype.itemsize == 2

    def __getitem__(self, rows: slice) -> Tensor:
        if self.is_bfloat16:
            return torch.from_numpy(self.matrix[rows].view("int16").copy()).view(torch.bfloat16)
        return torch.from_numpy(self.matrix[rows].astype("float64"))


class SafetensorRows:
    """The rows of one tensor of a ``.safetensors`` file that stays on disk."""

    def __init__(self, file: Any, key: str) -> None:
        self.rows = file.get_slice(key)
        self.shape: Sequence[int] = self.rows.get_shape()
        self.dtype = str(self.rows[:1].dtype).removeprefix("torch.")

    def __getitem__(self, rows: slice) -> Tensor:
        block: Tensor = self.rows[rows]
        return block


def read_head(path: Path, key: str | None = None) -> HeadFile:
    """The head in a file of weights or a Hugging Face model directory; ``key`` names it where there are several.

    A ``bias`` beside a key that ends in ``weight`` is read with it. Raises FileNotFoundError, and ValueError naming
    the file, the key and the shape where there is no such matrix, or more than one that it could be.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint or file of weights {path}")
    if path.is_dir():
        head = _read_directory(path, key)
    elif path.suffix == ".npy":
        head = _read_numpy(path)
    elif path.suffix == ".safetensors":
        head = _from_safetensors(path, key)
    elif path.suffix in SUFFIXES:
        head = _from_tensors(_read_state_dict(path), key, path)
    else:
        raise ValueError(f"{path} is none of {', '.join(SUFFIXES)}, nor a model directory")
    shape = list(head.rows.shape)
    if len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
        raise ValueError(f"a head is a matrix of at least two label vectors, but {head.key or path} is {shape}")
    if head.bias is not None and list(head.bias.shape) != shape[:1]:
        raise ValueError(f"the head {head.key} is {shape}, but the bias beside it is {list(head.bias.shape)}")
    return head


def _read_numpy(path: Path) -> HeadFile:
    rows = NumpyRows(read_numpy(path))
    return HeadFile(rows, None, None, rows.dtype)


def read_numpy(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file, left on disk; raises ValueError naming the file if it holds no real numbers."""
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a readable .npy file: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiuV":
        raise ValueError(f"{path} holds {getattr(array, 'dtype', type(array).__name__)}, not real numbers")
    if array.dtype.kind == "V" and array.dtype.itemsize != 2:
        raise ValueError(f"{path} holds {array.dtype}, not real numbers")
    return array


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file, by name; in a Lightning checkpoint those of its state_dict."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = "holds more than tensors and plain values" if "GLOBAL" in str(error) else "is not a PyTorch file"
        raise ValueError(f"{path} {reason}, or is truncated") from error
    if isinstance(content, Tensor):
        return {"": content}
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _from_tensors(tensors: Mapping[str, Tensor], key: str | None, path: Path) -> HeadFile:
    name = _choose(key, {name: list(tensor.shape) for name, tensor in tensors.items()}, path)
    bias = tensors.get(_bias_key(name))
    dtype = str(tensors[name].dtype).removeprefix("torch.")
    return HeadFile(tensors[name], bias, name or None, dtype, tied=name in TIED)


def _from_safetensors(path: Path, key: str | None) -> HeadFile:
    file = open_safetensors(path)
    names = file.keys()
    name = _choose(key, {name: file.get_slice(name).get_shape() for name in names}, path)
    bias = file.get_tensor(_bias_key(name)) if _bias_key(name) in names else None
    rows = SafetensorRows(file, name)
    return HeadFile(rows, bias, name, rows.dtype, tied=name in TIED)


def open_safetensors(path: Path) -> Any:
    """The opened file, of which nothing but the header is read; raises ValueError naming a file that is none."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(f"reading {path} needs the package safetensors: pip install safetensors") from error
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def _read_directory(path: Path, key: str | None) -> HeadFile:
    """The head of a Hugging Face model directory; of sharded weights only the shard that holds it is opened."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        where = read_json(index).get("weight_map", {})
        name = _choose(key, dict.fromkeys(where, None), path)
        file = path / Path(where[name]).name
        if not file.is_file():
            raise FileNotFoundError(f"{index} says that {name} stands in {file.name}, which is missing")
        head = _from_safetensors(file, name)
    else:
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            found = ", ".join(file.name for file in files) or "none"
            raise ValueError(f"{path} should hold one .safetensors file or an index of several, found {found}")
        head = _from_safetensors(files[0], key)
    return HeadFile(head.rows, head.bias, head.key, head.dtype, head.tied, read_vocabulary(path, head.rows.shape[0]))


def _choose(key: str | None, shapes: Mapping[str, Sequence[int] | None], path: Path) -> str:
    """The name of the head among tensors of these shapes, None where unknown."""
    matrices = [name for name, shape in shapes.items() if shape is None or len(shape) == 2]
    if key is not None:
        if key not in shapes:
            raise ValueError(f"{path} has no key {key!r}; its matrices are {_listed(matrices)}")
        return key
    known = [name for name in (*HEADS, *TIED) if name in matrices]
    if known:
        return known[0]
    if len(matrices) != 1:
        raise ValueError(f"name the head in {path} with --key: its matrices are {_listed(matrices)}")
    return matrices[0]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(names[:12]) or "none") + more


def _bias_key(name: str) -> str:
    return name.removesuffix("weight") + "bias" if name.endswith("weight") else "\0"


def write_translated(path: Path, g: LabelRows, translation: Tensor, bias: Tensor | None) -> None:
    """g + v [K, M] in float64, whose rounding is too small to move probabilities; bfloat16's is not.

    A ``.npy`` file is written block by block and holds the matrix alone; a ``.safetensors`` file holds ``weight``
    and, where there is one, ``bias``.
    """
    with replacing(path) as temporary:
        if path.suffix == ".npy":
            _write_numpy(temporary, g, translation.cpu())
        else:
            _write_safetensors(temporary, g, translation.cpu(), bias)


def _write_numpy(path: Path, g: LabelRows, translation: Tensor) -> None:
    import numpy as np

    header = {"descr": "<f8", "fortran_order": False, "shape": tuple(g.shape)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in row_blocks(g.shape):
            (as_float64(g[block]) + translation).numpy().astype("<f8").tofile(file)


def _write_safetensors(path: Path, g: LabelRows, translation: Tensor, bias: Tensor | None) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise ImportError("writing .safetensors needs the package safetensors: pip install safetensors") from error
    tensors = {"weight": torch.cat([as_float64(g[block]) + translation for block in row_blocks(g.shape)])}
    if bias is not None:
        tensors["bias"] = as_float64(bias)
    save_file(tensors, path)
