"""Small points with hubs among them, in every kind of file that the hubness command reads."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import make_classification

LABELS = ["cat", "dog", "owl"]
WORDS = ["river", "stone", "cloud", "maple", "tiger", "piano", "salt", "glass", "north", "ember"]


def embeddings(n: int = 90, dim: int = 12) -> np.ndarray:
    """[n, dim] float32, in three overlapping classes."""
    return _classes(n, dim)[0]


def labels(n: int = 90, dim: int = 12) -> list[str]:
    """Their labels."""
    return [LABELS[label] for label in _classes(n, dim)[1]]


def texts(n: int = 90) -> list[str]:
    """n distinct texts of a few words each."""
    random = np.random.default_rng(1)
    return [" ".join([*random.choice(WORDS, 4), f"word{row}"]) for row in range(n)]


def _classes(n: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_classification(n, dim, n_informative=6, n_classes=3, class_sep=1.2, random_state=0)
    return x.astype(np.float32), y


def write_npy(path: Path, x: np.ndarray) -> Path:
    np.save(path, x)
    return path


def write_npz(path: Path, x: np.ndarray) -> Path:
    np.savez(path, vectors=x, extra=np.eye(3), y=np.array(labels(len(x))))
    return path


def write_safetensors(path: Path, x: np.ndarray) -> Path:
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file({"embeddings": x, "other": np.eye(2, dtype=np.float32)}, path)
    return path


def write_parquet(path: Path, x: np.ndarray) -> Path:
    """Lists beside labels and texts."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"text": texts(len(x)), "embedding": list(x), "label": labels(len(x))}
    parquet.write_table(pa.table(columns), path)
    return path


def write_wide_parquet(path: Path, x: np.ndarray) -> Path:
    """A column for each dimension, beside another number that is none."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {f"emb_{dimension}": x[:, dimension] for dimension in range(x.shape[1])}
    parquet.write_table(pa.table({**columns, "row": np.arange(len(x)), "score": np.ones(len(x))}), path)
    return path


def write_table(path: Path, columns: dict[str, list[str]]) -> Path:
    """CSV, or TSV by its suffix, with a first line of names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


FILES: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "points.npy": write_npy,
    "points.npz": write_npz,
    "points.safetensors": write_safetensors,
    "points.parquet": write_parquet,
}


def arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The content of an archive, which is closed."""
    with np.load(path) as file:
        return dict(file)
