"""What the hubness command reads out of files, and how it says that it cannot."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.hubness.files import Source, open_columns, read_rows
from tests.scripts.hubness.hubness_files import (
    FILES,
    embeddings,
    labels,
    texts,
    write_npz,
    write_table,
    write_wide_parquet,
)


def read(path: Path, **named: str):
    return read_rows(Source(str(path), **named))


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    rows = read(FILES[name](tmp_path / name, embeddings()), **({"key": "vectors"} if name.endswith("npz") else {}))
    assert rows.vectors is not None
    assert rows.vectors.dtype == torch.float32
    assert (rows.vectors.numpy() == embeddings()).all()
    assert rows.labels == (labels() if name.endswith(("npz", "parquet")) else None)
    assert rows.texts == (texts() if name.endswith("parquet") else None)


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4", "int32", "uint8"])
def test_types_of_numbers(dtype: str, tmp_path: Path) -> None:
    x = (embeddings() * 10).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    vectors = read(tmp_path / "x.npy").vectors
    assert vectors is not None
    assert (vectors.double().numpy() == x.astype(np.float64)).all()


def test_bfloat16_of_safetensors(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    x = torch.randn(5, 3).bfloat16()
    save_file({"weight": x}, tmp_path / "x.safetensors")
    vectors = read(tmp_path / "x.safetensors").vectors
    assert vectors is not None
    assert (vectors == x.float()).all()


def test_a_column_for_each_dimension(tmp_path: Path) -> None:
    path = write_wide_parquet(tmp_path / "wide.parquet", embeddings())
    every, some = (read(path, **named).vectors for named in ({}, {"key": "emb_*"}))
    assert every is not None
    assert some is not None
    assert (some.numpy() == embeddings()).all()
    assert every.shape == (90, 13)


def test_labels_and_texts_from_files_beside(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", embeddings())
    (tmp_path / "labels.txt").write_text("\n".join(labels()) + "\n")
    (tmp_path / "texts.json").write_text(json.dumps(texts()))
    rows = read(tmp_path / "x.npy", labels=str(tmp_path / "labels.txt"), texts=str(tmp_path / "texts.json"))
    assert (rows.labels, rows.texts) == (labels(), texts())
    np.save(tmp_path / "labels.npy", np.arange(90) % 3)
    assert read(tmp_path / "x.npy", labels=str(tmp_path / "labels.npy")).labels == [str(i % 3) for i in range(90)]
    table = write_table(tmp_path / "table.csv", {"id": [str(i) for i in range(90)], "label": labels()})
    assert read(tmp_path / "x.npy", labels=str(table)).labels == labels()


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_tables_of_texts(suffix: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / f"t.{suffix}", {"text": texts(), "label": labels(), "topic": labels()[::-1]})
    rows = read(path)
    assert (rows.vectors, rows.texts, rows.labels) == (None, texts(), labels())
    assert read(path, labels="topic").labels == labels()[::-1]


def test_a_quotation_mark_in_a_tsv_file_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('text\tlabel\n"half a quote\ta\nplain\tb\n')
    assert read(tmp_path / "t.tsv").texts == ['"half a quote', "plain"]


def test_lines_of_text(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("first\n\nthird\n")
    assert read(tmp_path / "t.txt").texts == ["first", "", "third"]


def test_texts_are_preferred_for_an_encoder(tmp_path: Path) -> None:
    path = FILES["points.parquet"](tmp_path / "p.parquet", embeddings())
    assert read_rows(Source(str(path)), prefer_texts=True).vectors is None


def test_pickles_are_left_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", embeddings=embeddings(), meta=np.array([{"a": 1}], dtype=object))
    assert read(tmp_path / "x.npz").vectors is not None
    np.savez(tmp_path / "y.npz", meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"y\.npz holds pickled objects alone \(meta\)"):
        open_columns(tmp_path / "y.npz")
    np.save(tmp_path / "z.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"z\.npy .*holds pickled objects"):
        open_columns(tmp_path / "z.npy")


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors", "parquet", "txt", "json", "csv"])
def test_damaged_files_are_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(b"\x93\xff\x00 nothing of the kind")
    with pytest.raises(Exception, match=rf"x\.{suffix}"):
        open_columns(path)
    path.write_bytes(b"")
    with pytest.raises(Exception, match=rf"x\.{suffix}"):
        open_columns(path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*x\.npy"):
        read(tmp_path / "x.npy")
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x\.pt is none of \.npy, \.npz"):
        read(tmp_path / "x.pt")
    path = write_npz(tmp_path / "p.npz", embeddings())
    with pytest.raises(ValueError, match=r"has no 'foo'; its matrices are vectors \[90, 12\], extra \[3, 3\]"):
        read(path, key="foo")
    with pytest.raises(FileNotFoundError, match=r"--labels foo is neither a file nor a name in .*p\.npz, which has y"):
        read(path, key="vectors", labels="foo")


def test_several_matrices_are_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", first=np.eye(3), second=np.eye(4))
    with pytest.raises(ValueError, match=r"p\.npz with --key: it holds first \[3, 3\], second \[4, 4\]"):
        read(tmp_path / "p.npz")
    with pytest.raises(ValueError, match="with --query_key"):
        read_rows(Source(str(tmp_path / "p.npz"), role="query_"))


def test_what_is_no_matrix(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(5.0))
    with pytest.raises(ValueError, match=r"holds no embeddings, and no texts"):
        read(tmp_path / "x.npy")
    np.save(tmp_path / "c.npy", np.ones((4, 2), dtype=complex))
    with pytest.raises(ValueError, match=r"c\.npy holds complex128, neither real numbers nor texts"):
        read(tmp_path / "c.npy")
    np.save(tmp_path / "e.npy", np.ones((0, 2)))
    with pytest.raises(ValueError, match=r"e\.npy is \[0, 2\]"):
        read(tmp_path / "e.npy")


def test_other_numbers_of_labels_and_texts(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", embeddings=embeddings(), labels=np.arange(80), texts=np.array(["a"] * 70))
    with pytest.raises(ValueError, match=r"p\.npz: .*90 embeddings, 80 labels, 70 texts"):
        read(tmp_path / "p.npz")


def test_rows_that_are_not_finite_are_named_with_their_file(tmp_path: Path) -> None:
    x = embeddings()
    x[[4, 17], 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match=r"2 rows of .*x\.npy are not finite: 4, 17"):
        read(tmp_path / "x.npy")


def test_missing_and_ragged_rows_of_parquet_are_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"embedding": [[1.0, 2.0], [3.0], [4.0, 5.0]]}), tmp_path / "r.parquet")
    with pytest.raises(ValueError, match=r"embedding has 2 numbers in row 0 but 1 in row 1"):
        read(tmp_path / "r.parquet")
    parquet.write_table(pa.table({"embedding": [[1.0, 2.0], None]}), tmp_path / "m.parquet")
    with pytest.raises(ValueError, match=r"embedding is missing in 1 rows, the first of them 1"):
        read(tmp_path / "m.parquet")
