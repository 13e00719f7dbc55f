"""What the hubness command reads out of files, and how it says that it cannot."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from likeness.files.columns import open_columns
from scripts.hubness.files import Source, read_rows
from tests.scripts.hubness.hubness_files import (
    FILES,
    embeddings,
    labels,
    texts,
    write_npz,
    write_table,
    write_wide_parquet,
)

PICKLED = "pickled objects, which are not read: store it as plain numbers or texts (astype(str), perhaps)"


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
    with pytest.raises(ValueError, match=r"y\.npz holds no array .*: meta is pickled objects, which are not read"):
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
    with pytest.raises(FileNotFoundError, match=r"x\.npy is missing"):
        read(tmp_path / "x.npy")
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x\.pt is none of \.npy, \.npz"):
        read(tmp_path / "x.pt")
    path = write_npz(tmp_path / "p.npz", embeddings())
    with pytest.raises(
        ValueError, match=r"there is no 'foo' in it; its matrices are vectors \[90, 12\], extra \[3, 3\]"
    ):
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
    with pytest.raises(ValueError, match=r"2 rows of .*x\.npy are not finite; row 5 has nan in dimension 4"):
        read(tmp_path / "x.npy")


def test_missing_and_ragged_rows_of_parquet_are_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"embedding": [[1.0, 2.0], [3.0], [4.0, 5.0]]}), tmp_path / "r.parquet")
    with pytest.raises(ValueError, match=r"r\.parquet, row 2, column 'embedding': 1 numbers, but 2 in row 1"):
        read(tmp_path / "r.parquet")
    parquet.write_table(pa.table({"embedding": [[1.0, 2.0], None]}), tmp_path / "m.parquet")
    with pytest.raises(ValueError, match=r"m\.parquet, row 2, column 'embedding': the embedding is missing"):
        read(tmp_path / "m.parquet")
    parquet.write_table(pa.table({"embedding": [[1.0, 2.0], [3.0, None]]}), tmp_path / "n.parquet")
    with pytest.raises(
        ValueError, match=r"n\.parquet, row 2, column 'embedding': a number of the embedding is missing"
    ):
        read(tmp_path / "n.parquet")
    parquet.write_table(pa.table({"a": [1.0, None], "b": [1.0, 2.0]}), tmp_path / "w.parquet")
    with pytest.raises(ValueError, match=r"w\.parquet, row 2, column 'a': the number is missing"):
        read(tmp_path / "w.parquet")


def parquet_of(path: Path, **columns: object) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path)
    return path


def test_numbers_that_are_labels_are_no_embeddings(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "t.parquet", text=texts(), label=[float(row % 12) for row in range(90)])
    rows = read(path, texts="text")
    assert rows.vectors is None
    assert rows.texts == texts()
    assert rows.labels == [str(row % 12) for row in range(90)]


def test_an_index_of_pandas_is_no_dimension_and_no_text(tmp_path: Path) -> None:
    index = np.arange(90.0)
    path = parquet_of(tmp_path / "t.parquet", __index_level_0__=index, a=index + 1, b=index + 2)
    vectors = read(path).vectors
    assert vectors is not None
    assert vectors.shape == (90, 2)
    for name in ("", "Unnamed: 0"):
        table = write_table(tmp_path / "t.csv", {name: [str(row) for row in range(90)], "text": texts()})
        assert read(table).texts == texts()
        assert open_columns(table).lists() == ["text"]


def test_columns_of_numbers_beside_texts_are_not_taken_for_embeddings(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "t.parquet", text=texts(), a=np.arange(90.0), b=np.arange(90.0))
    with pytest.raises(ValueError, match=r"holds texts and 2 columns of numbers: take these with --key '\*', or"):
        read(path)
    assert read(path, key="*").vectors is not None
    assert read_rows(Source(str(path)), prefer_texts=True).vectors is None


@pytest.mark.parametrize("dtype", ["bool", "int8", ">i2", "uint16", "uint32", "uint64", "float16", ">f8", "longdouble"])
def test_numbers_of_every_type_are_what_they_were(dtype: str, tmp_path: Path) -> None:
    x = (embeddings() * 10).clip(0, 100).astype(dtype)
    np.savez(tmp_path / "x.npz", embeddings=x, label=x[:, 0])
    rows = read(tmp_path / "x.npz")
    assert rows.vectors is not None
    assert (rows.vectors.double().numpy() == x.astype(np.float64)).all()
    assert rows.labels is not None
    assert len(rows.labels) == 90


def test_bfloat16_of_numpy(tmp_path: Path) -> None:
    x = torch.randn(5, 3).bfloat16()
    np.save(tmp_path / "x.npy", x.view(torch.int16).numpy().view("V2"))
    vectors = read(tmp_path / "x.npy").vectors
    assert vectors is not None
    assert (vectors == x.float()).all()


def test_labels_are_written_in_one_way_in_every_format(tmp_path: Path) -> None:
    expected = [str(row % 12) for row in range(90)]
    for label in (np.arange(90) % 12, np.arange(90.0) % 12, (np.arange(90) % 12)[:, None], np.array(expected, "S2")):
        np.savez(tmp_path / "x.npz", embeddings=embeddings(), label=label)
        assert read(tmp_path / "x.npz").labels == expected
    large = 2**63 + np.arange(90, dtype="uint64")
    np.savez(tmp_path / "x.npz", embeddings=embeddings(), Label=large)
    assert read(tmp_path / "x.npz").labels == [str(2**63 + row) for row in range(90)]


@pytest.mark.parametrize("missing", [None, float("nan"), "", "nan"])
@pytest.mark.parametrize("suffix", ["npz", "parquet", "csv", "txt", "json"])
def test_a_missing_label_is_named_with_its_row(suffix: str, missing: object, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    text = "" if missing is None else str(missing)
    names = ["a", text, "c"]
    if suffix == "npz":
        np.savez(path, label=np.array([1.0, missing, 2.0]) if isinstance(missing, float) else np.array(names))
    elif suffix == "parquet":
        parquet_of(path, label=[1.0, missing, 2.0] if isinstance(missing, float) else ["a", missing, "c"])
    elif suffix == "csv":
        write_table(path, {"text": ["t", "u", "v"], "label": names})
    elif suffix == "txt":
        path.write_text("\n".join(names))
    else:
        path.write_text(json.dumps(["a", missing, "c"]))
    np.save(tmp_path / "e.npy", embeddings()[:3])
    with pytest.raises(ValueError, match=r"x\.\w+, (row|line|entry) [23].*: the label is missing"):
        read(tmp_path / "e.npy", labels=str(path))


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    labels_of_objects = np.array(labels(), dtype=object)
    np.savez(tmp_path / "x.npz", embeddings=embeddings(), labels=labels_of_objects)
    rows = read(tmp_path / "x.npz")
    assert rows.labels is None
    assert rows.warnings == (f"labels of {tmp_path}/x.npz is left out: {PICKLED}",)
    with pytest.raises(ValueError, match=r"--labels labels: in .*x\.npz it is pickled objects, which are not read"):
        read(tmp_path / "x.npz", labels="labels")
    np.savez(tmp_path / "x.npz", embeddings=embeddings().astype(object))
    with pytest.raises(ValueError, match="embeddings is pickled objects"):
        read(tmp_path / "x.npz")


@pytest.mark.parametrize("kind", ["dates", "lists of texts", "lists of lists", "structures", "complex", "records"])
def test_what_is_neither_number_nor_text_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    numpy = {
        "dates": np.zeros(3, "datetime64[s]"),
        "complex": np.zeros((3, 2), complex),
        "records": np.zeros(3, [("a", "f4"), ("b", "i4")]),
    }
    columns = {
        "lists of texts": [["a"], ["b"], ["c"]],
        "lists of lists": [[[1.0]], [[2.0]], [[3.0]]],
        "structures": [{"a": 1}, {"a": 2}, {"a": 3}],
    }
    if kind in numpy:
        path = tmp_path / "x.npz"
        np.savez(path, label=numpy[kind])
    else:
        path = parquet_of(tmp_path / "x.parquet", label=columns[kind])
    with pytest.raises(ValueError, match=r"x\.\w+ holds no array .*: label is .*neither real numbers nor texts"):
        read(path)


@pytest.mark.parametrize("list_", ["list", "large_list", "fixed"])
def test_lists_of_every_kind_are_embeddings(list_: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    x = embeddings().astype("float16")
    type_ = {
        "list": pa.list_(pa.float16()),
        "large_list": pa.large_list(pa.float16()),
        "fixed": pa.list_(pa.float16(), 12),
    }
    path = parquet_of(
        tmp_path / "x.parquet", vector=pa.array(list(x), type_[list_]), label=pa.array(labels()).dictionary_encode()
    )
    rows = read(path)
    assert rows.vectors is not None
    assert (rows.vectors.numpy() == x.astype("float32")).all()
    assert rows.labels == labels()


def test_two_columns_of_one_name_are_refused_when_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label,label\na,1,2\nb,3,4\n")
    rows = read(tmp_path / "t.csv")
    assert rows.labels is None
    assert "label of" in rows.warnings[0]
    with pytest.raises(ValueError, match=r"--labels label: in .*t\.csv it is the name of 2 columns"):
        read(tmp_path / "t.csv", labels="label")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_that_is_called_a_text_is_a_table(delimiter: str, tmp_path: Path) -> None:
    lines = [f"{text}{delimiter}{label}" for text, label in zip(["text", *texts()], ["label", *labels()], strict=True)]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    rows = read(tmp_path / "t.txt")
    assert (rows.texts, rows.labels) == (texts(), labels())


def test_cells_between_tabs_are_no_lines_of_text(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a\tone text\nb\tanother text\n")
    with pytest.raises(
        ValueError, match=r"t\.txt: each line has 2 cells between tabs, but a \.txt file is a text a line"
    ):
        read(tmp_path / "t.txt")


def test_one_column_without_a_usual_name_may_have_no_name(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", {"first text": ["second text", "third text"]})
    with pytest.raises(ValueError, match="no texts that --texts names: first text"):
        read(tmp_path / "t.csv")
    assert read(tmp_path / "t.csv", texts="first text").texts == ["second text", "third text"]


def test_files_are_what_their_bytes_say(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", embeddings())
    (tmp_path / "x.npy").rename(tmp_path / "y.npz")
    assert read(tmp_path / "y.npz").vectors is not None
    write_npz(tmp_path / "z.npz", embeddings()).rename(tmp_path / "z.npy")
    assert read(tmp_path / "z.npy", key="vectors").labels == labels()
    parquet_of(tmp_path / "p.parquet", text=texts()).rename(tmp_path / "p.csv")
    assert read(tmp_path / "p.csv").texts == texts()
    (tmp_path / "n.npy").write_text("1,2\n3,4\n")
    with pytest.raises(ValueError, match=r"n\.npy is not a readable \.npy file: it does not begin like one"):
        read(tmp_path / "n.npy")


def test_packed_files_are_read_or_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"text,label\na b,1\nc d,2\n"))
    assert read(tmp_path / "t.csv.gz").texts == ["a b", "c d"]
    np.save(tmp_path / "x.npy", embeddings())
    (tmp_path / "x.npy.gz").write_bytes(gzip.compress((tmp_path / "x.npy").read_bytes()))
    with pytest.raises(ValueError, match=r"x\.npy\.gz is packed by gzip"):
        read(tmp_path / "x.npy.gz")


def test_paths_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "x.npy", embeddings())
    (tmp_path / "l.txt").write_text("\n".join(labels()))
    assert read_rows(Source("~/x.npy", labels="~/l.txt")).labels == labels()


def test_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder: name a file in it"):
        read(tmp_path)
