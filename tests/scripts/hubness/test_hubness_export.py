"""What the hubness command writes: moved vectors, neighbours, and augmented vectors that FAISS serves."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from likeness.hubness.reduction_base import HubnessReduction
from likeness.hubness.reductions import reduction
from likeness.seeding import generator
from scripts import hubness
from scripts.hubness.methods import build_method
from scripts.hubness.reduction import lifted, write_faiss
from tests.reference import FOLDER
from tests.scripts.hubness.hubness_files import arrays, embeddings

AUGMENTED = [
    "base", "csls", "nnn:alpha=0.7", "local_scaling", "nicdm:metric=cosine", "dissim_local:k=20", "dissim_global",
    "inverted_softmax:beta=5", "dynamic_inverted_softmax", "localised_centring", "centring", "z_score", "f_norm",
    "f_norm+csls", "centring+local_scaling:metric=cosine", "whitening",
]  # fmt: skip
SIMPLE = [  # of which a client of an engine can do the queries' part
    "base", "csls", "nnn:alpha=0.7", "local_scaling", "nicdm:metric=cosine", "dissim_local:k=20", "dissim_global",
    "inverted_softmax:beta=5", "localised_centring", "centring", "centring+local_scaling:metric=cosine",
]  # fmt: skip
AGNEWS = FOLDER / "agnews_minilm.npz"


def run(*arguments: Any, out: Path) -> None:
    hubness.main([*map(str, arguments), "--out", str(out), "--device", "cpu"])


@pytest.fixture
def points(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", embeddings(300))
    np.save(tmp_path / "q.npy", queries().numpy())
    return tmp_path / "x.npy"


def queries(m: int = 40) -> Tensor:
    noise = torch.randn(m, 12, generator=generator(2))
    return torch.as_tensor(embeddings(300))[:m] + 0.3 * noise


def fitted(text: str) -> HubnessReduction:
    return build_method(text, "euclidean").fit(embeddings(300))


@pytest.mark.parametrize("text", AUGMENTED)
def test_faiss_finds_what_rerank_does(text: str, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    method = fitted(text)
    vectors = method.augment()
    expected = method.rerank(queries(), 10).ids.numpy()
    path = write_faiss(tmp_path / "x.faiss", vectors.index, "flat")
    found = faiss.read_index(str(path)).search(vectors.queries(queries()).float().numpy(), 10)[1]
    assert (found == expected).all()


@pytest.mark.parametrize("text", ["csls", "local_scaling", "nicdm", "f_norm+csls"])
def test_a_graph_of_lifted_vectors_finds_nearly_all(text: str, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    method = fitted(text)
    vectors = method.augment()
    index = faiss.read_index(str(write_faiss(tmp_path / "x.faiss", vectors.index, "hnsw")))
    asked = torch.nn.functional.pad(vectors.queries(queries()), (0, 1)).float().numpy()
    found, expected = torch.from_numpy(index.search(asked, 10)[1]), method.rerank(queries(), 10).ids
    assert float((found[:, :, None] == expected[:, None]).any(2).double().mean()) > 0.98


def test_lifting_makes_distances_of_inner_products() -> None:
    index, asked = torch.randn(50, 4, generator=generator(3)), torch.randn(9, 5, generator=generator(4))
    asked[:, 4] = 0
    higher = lifted(index)
    lengths = torch.linalg.vector_norm(higher, dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand(50))
    by_distance = torch.cdist(asked, higher).argsort(dim=1)
    assert torch.equal(by_distance, (asked[:, :4] @ index.T).argsort(dim=1, descending=True))


@pytest.mark.skipif(not AGNEWS.exists(), reason=f"no reference data in {FOLDER}")
def test_faiss_serves_real_sentences(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    x = torch.as_tensor(arrays(AGNEWS)["embeddings"])
    method = build_method("csls", "euclidean").fit(x)
    vectors, expected = method.augment(), method.rerank(x[:1000], 10).ids.numpy()
    index = faiss.read_index(str(write_faiss(tmp_path / "x.faiss", vectors.index, "flat")))
    assert (index.search(vectors.queries(x[:1000]).numpy(), 10)[1] == expected).mean() > 0.9999


@pytest.mark.parametrize("text", SIMPLE)
def test_the_operation_on_queries_is_that_of_augment(text: str) -> None:
    method = fitted(text)
    operations = method.augment().operations
    assert operations
    found = asked = queries()
    for operation in operations:
        head = operation.multiply_by * unit(found) if operation.scale_to_length_1 else operation.multiply_by * found
        head = head if operation.add is None else head + operation.add.float()
        squares = head.square().sum(1)
        tail = [
            squares if value == "squared length" else torch.full((len(asked),), value) for value in operation.append
        ]
        found = torch.cat([head, *(column[:, None] for column in tail)], 1)
    torch.testing.assert_close(found, method.augment().queries(asked), rtol=1e-4, atol=1e-4)


def unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)


@pytest.mark.parametrize("text", [name for name in AUGMENTED if name not in SIMPLE])
def test_what_is_no_simple_operation_is_not_called_one(text: str) -> None:
    assert fitted(text).augment().operations is None


def test_unit_vectors_ask_for_unit_queries() -> None:
    x = torch.nn.functional.normalize(torch.as_tensor(embeddings(300)), dim=1)
    (operation,) = build_method("local_scaling", "euclidean").fit(x).augment().operations or ()
    assert (operation.scale_to_length_1, operation.append) == (True, (1.0,))


def test_the_files_of_a_feature_method(points: Path, tmp_path: Path) -> None:
    run("reduce", points, "--method", "f_norm", "--queries", tmp_path / "q.npy", out=tmp_path / "out")
    method = fitted("f_norm")
    torch.testing.assert_close(
        torch.from_numpy(np.load(tmp_path / "out" / "vectors.npy")), method.transform(torch.as_tensor(embeddings(300)))
    )
    torch.testing.assert_close(
        torch.from_numpy(np.load(tmp_path / "out" / "query_vectors.npy")), method.transform(queries())
    )


def test_the_files_of_a_re_ranking(points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("reduce", points, "--method", "f_norm", "mutual_proximity:variant=gamma", "--k", 7, out=tmp_path / "out")
    found = arrays(tmp_path / "out" / "neighbours.npz")
    expected = fitted("f_norm+mutual_proximity:variant=gamma").rerank(None, 7)
    assert (found["ids"] == expected.ids.numpy()).all()
    assert (found["distances"] == expected.distances.numpy()).all()
    assert not (tmp_path / "out" / "vectors.npy").exists()
    with (tmp_path / "out" / "reduction.csv").open() as file:
        rows = {row["index"]: row for row in csv.DictReader(file)}
    assert float(rows["k_skewness"]["before"]) > float(rows["k_skewness"]["after"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "fallen by, %" in printed


@pytest.mark.parametrize("engine", ["flat", "hnsw"])
def test_the_files_for_engines(engine: str, points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faiss = pytest.importorskip("faiss")
    options = ("--augment", "--engine", engine, "--queries", tmp_path / "q.npy")
    run("reduce", points, "--method", "centring", "csls", *options, out=tmp_path / "out")
    described = json.loads((tmp_path / "out" / "augmented.json").read_text())
    index = faiss.read_index(str(tmp_path / "out" / described["faiss"]["file"]))
    asked = np.load(tmp_path / "out" / "augmented_queries.npy")
    asked = np.hstack([asked, np.zeros((40, len(described["faiss"]["append_to_query"])), np.float32)])
    found = index.search(asked, 10)[1]
    assert (found == arrays(tmp_path / "out" / "neighbours.npz")["ids"]).mean() > 0.98
    assert np.load(tmp_path / "out" / "augmented_index.npy").shape == tuple(described["index"]["shape"]) == (300, 13)
    assert "the FAISS index finds" in capsys.readouterr().out


def test_a_bank_of_queries(points: Path, tmp_path: Path) -> None:
    options = ("--queries", tmp_path / "q.npy", "--bank", tmp_path / "q.npy")
    run("reduce", points, "--method", "csls", *options, out=tmp_path / "out")
    expected = reduction("csls").fit(embeddings(300), queries()).rerank(queries(), 10)
    assert (arrays(tmp_path / "out" / "neighbours.npz")["ids"] == expected.ids.numpy()).all()
