"""Columns of CSV, TSV and Parquet files come out whole, and what is wrong in a file is named."""

import bz2
import csv
import gzip
import lzma
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from likeness.files.errors import DataError
from likeness.files.text_files import TableFormat, label_texts, ordered_labels, read_lines, read_table
from tests.datamodules.text_toys import write_csv, write_lines

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)


@pytest.mark.parametrize("name", ["table.csv", "table.tsv"])
def test_columns_are_found_by_name_in_any_order(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = [["id", "text", "label"], [1, 'a "quoted", line\nand\tanother', "x"], [2, "plain", "y"]]
    write_csv(path, rows, delimiter="\t" if name.endswith("tsv") else ",")
    table = read_table(path, ["label", "text"])
    assert table.columns == {"label": ["x", "y"], "text": ['a "quoted", line\nand\tanother', "plain"]}
    assert table.place(1, "text").endswith(f"{name}, line 4, column 'text'")


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_csv_module_writes_is_read_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / "table.csv"
    write_csv(path, [("a", "b"), *rows], quoting=csv.QUOTE_ALL)
    table = read_table(path, ["b", "a"])
    assert list(zip(table.columns["a"], table.columns["b"], strict=True)) == rows


def test_files_without_a_header_have_their_columns_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_lines(path, "1,first", "", "2,second", "")
    table = read_table(path, ["text"], TableFormat(columns=("class", "text")))
    assert table.columns == {"text": ["first", "second"]}
    assert table.places == [1, 3]


def test_where_nothing_is_quoted_a_quotation_mark_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    write_lines(path, "text\tscore", '"He said\t1.0', 'and left."\t2.0', "the end\t3.0")
    assert read_table(path, ["text"], TableFormat(quoted=False)).columns["text"] == [
        '"He said',
        'and left."',
        "the end",
    ]


def test_a_byte_order_mark_and_other_encodings_are_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("text\r\ncafé\r\n".encode("utf-8-sig"))
    assert read_table(path, ["text"]).columns["text"] == ["café"]
    path.write_bytes("text\ncafé\n".encode("latin-1"))
    assert read_table(path, ["text"], TableFormat(encoding="latin-1")).columns["text"] == ["café"]


def test_parquet_keeps_its_types_and_counts_rows(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    parquet.write_table(pyarrow.table({"text": ["a", None], "label": [3, 1], "other": [0.5, 1.5]}), path)
    table = read_table(path, ["label", "text"])
    assert table.columns == {"label": [3, 1], "text": ["a", None]}
    assert table.texts("text") == ["a", ""]
    assert table.place(0, "label").endswith("table.parquet, row 1, column 'label'")
    with pytest.raises(DataError, match=r"row 1, column 'label': expected a text, got 3"):
        table.texts("label")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "table.csv is empty: it has no line of data"),
        (b"text,label\n", {}, "table.csv is empty: it has no line of data"),
        (b"\n\n", {"columns": ("text",)}, "table.csv is empty: it has no line of data"),
        (b"body,label\na,1\n", {}, "has no column 'text', but: 'body', 'label'; .*file_format.columns"),
        (b"text,text\na,1\n", {}, "has 2 columns 'text', but: 'text', 'text'"),
        (b"label,text\n1,a\n2\n", {}, "line 3, column 'text' is missing: 1 cells, expected 2"),
        (b"text,label\na,1\nb, c,2\n", {}, "line 3: 3 cells, expected 2, so '2' is in no column"),
        (b'text\n"a\n"\n"b\n', {}, "the row that begins in line 4 cannot be read .*quotation mark.*quoted: false"),
        (b'text\na\n"b" c\n', {}, "the row that begins in line 3 cannot be read"),
        (b"text\nabc\nd\xe9f\n", {}, r"not in utf-8-sig: byte 0xe9 in line 3, character 2; .*latin-1 perhaps"),
        (b"\xef\xbb\xbftext\rabc\r\nd\xe9f\n", {}, r"not in utf-8-sig: byte 0xe9 in line 3, character 2"),
        (b"text\nabc\nd\xe9f\n", {"encoding": "ascii"}, "not in ascii: byte 0xe9 in line 3, character 2"),
        (b"text\na\n", {"encoding": "latin-one"}, "there is no encoding 'latin-one'"),
        (b"text\na\n", {"encoding": "hex"}, "there is no encoding 'hex'"),
        (
            "text\na\n".encode("utf-16"),
            {"encoding": "latin-1"},
            "begins with the byte order mark of utf-16, but .*latin-1",
        ),
        ("text\na\n".encode("utf-16-le"), {}, "line 1 holds the character NUL.*UTF-16 without a byte order mark"),
        ("text\na\n\ufefftext\nb\n".encode(), {}, "line 3 begins with a byte order mark: was another file appended"),
        (
            b"text;label\na;1;2\nb;2\n",
            {},
            "line 1 has one column between ',' but several between ';': name file_format",
        ),
        (b"text;a|b\nc;d|e\nf;g|h\n", {}, "but several between ';' or '|': name file_format.delimiter"),
        (b"PK\x03\x04text", {}, "is a zip archive, not the text"),
        (b"\x28\xb5\x2f\xfdtext", {}, "is packed by zstd, not the text"),
        (b"\x93NUMPYtext", {}, "is a numpy array, not the text"),
        (gzip.compress(b"text\na\n" * 99, mtime=0)[:-20], {}, "is damaged and cannot be unpacked"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(
    tmp_path: Path, content: bytes, options: dict[str, Any], message: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_table(path, ["text"], TableFormat(**options))
    assert str(path) in str(error.value)


def test_further_cells_are_left_out_on_request(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    write_lines(path, "1\ta", "2\tb\thttp://a\thttp://b")
    file_format = TableFormat(columns=("score", "text"), ragged=True)
    assert read_table(path, ["text"], file_format).columns["text"] == ["a", "b"]


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    with pytest.raises(DataError, match=f"none.csv is missing: expected at {re.escape(str(path.resolve()))}"):
        read_table(path, ["text"])
    with pytest.raises(DataError, match=f"{re.escape(str(tmp_path))} is a folder: name a file in it"):
        read_table(tmp_path, ["text"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_are_certain_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("text,label\r\ncafé \u2028,日本\r\n".encode(encoding))
    assert read_table(path, ["text", "label"]).columns == {"text": ["café \u2028"], "label": ["日本"]}
    for named in (encoding, "utf-8"):
        assert read_table(path, ["text"], TableFormat(encoding=named)).columns["text"] == ["café \u2028"]
    assert read_lines(path) == ["text,label", "café \u2028,日本"]


@given(st.lists(CELL.filter(lambda text: not {*text} & {*"\r\n"} and not text.startswith("\ufeff")), min_size=1))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_three_line_ends_end_a_line(tmp_path: Path, lines: list[str]) -> None:
    for end in ("\n", "\r", "\r\n"):
        (tmp_path / "lines.txt").write_bytes(end.join([*lines, ""]).encode())
        assert read_lines(tmp_path / "lines.txt") == lines


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_other_separators_are_characters_of_a_text(tmp_path: Path, character: str) -> None:
    text = f"one{character}text"
    (tmp_path / "t.csv").write_bytes(f"text,label\n{text},a\n".encode())
    assert read_table(tmp_path / "t.csv", ["text"]).columns["text"] == [text]
    assert read_lines(tmp_path / "t.csv") == ["text,label", f"{text},a"]


@pytest.mark.parametrize("length", [131_072, 131_073, 1_000_000])
def test_cells_of_any_length(tmp_path: Path, length: int) -> None:
    limit = csv.field_size_limit()
    (tmp_path / "t.csv").write_text(f"text,label\n{'a' * length},b\n")
    assert len(read_table(tmp_path / "t.csv", ["text"]).columns["text"][0]) == length
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt"])
def test_the_character_between_cells_is_found(tmp_path: Path, delimiter: str, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    write_csv(path, [("text", "label"), ("a, or; b|c\td", "x"), ("e", "y")], delimiter=delimiter)
    assert read_table(path, ["text", "label"]).columns == {"text": ["a, or; b|c\td", "e"], "label": ["x", "y"]}


def test_one_column_of_prose_has_no_character_between_cells(tmp_path: Path) -> None:
    write_lines(tmp_path / "t.csv", "text", "one; two", "three; four")
    assert read_table(tmp_path / "t.csv", ["text"]).columns["text"] == ["one; two", "three; four"]


@pytest.mark.parametrize(("module", "suffix"), [(gzip, "gz"), (bz2, "bz2"), (lzma, "xz")])
def test_packed_tables_are_read_whatever_they_are_called(tmp_path: Path, module: Any, suffix: str) -> None:
    for name in (f"t.tsv.{suffix}", "t.tsv"):
        (tmp_path / name).write_bytes(module.compress(b"text\tlabel\na, b\t1\n"))
        assert read_table(tmp_path / name, ["text", "label"]).columns == {"text": ["a, b"], "label": ["1"]}


def test_parquet_is_known_by_its_bytes_and_is_not_unpacked(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "t.csv")
    assert read_table(tmp_path / "t.csv", ["text"]).columns == {"text": ["a"]}
    (tmp_path / "t.parquet").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    with pytest.raises(DataError, match=r"t\.parquet is packed by gzip.*unpack it first"):
        read_table(tmp_path / "t.parquet", ["text"])
    (tmp_path / "p.csv").write_text("PAR1,text\n1,a\n")
    assert read_table(tmp_path / "p.csv", ["text"]).columns == {"text": ["a"]}


@pytest.mark.parametrize("type_", ["string", "large_string", "string_view", "dictionary"])
def test_texts_of_parquet_may_have_any_type_of_text(tmp_path: Path, type_: str) -> None:
    texts = pyarrow.array(["a", "b", "a"])
    texts = texts.dictionary_encode() if type_ == "dictionary" else texts.cast(getattr(pyarrow, type_)())
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", ["text"]).texts("text") == ["a", "b", "a"]


def test_labels_are_written_as_they_are_meant_and_missing_ones_are_named() -> None:
    cells = ["a", " b", 3, 3.0, -2.0, 0.5, True, "1.0", 10**17]
    assert label_texts(cells, str) == ["a", " b", "3", "3", "-2", "0.5", "True", "1.0", "1" + "0" * 17]
    for cell in (None, "", "  ", float("nan"), "nan", "NaN"):
        with pytest.raises(DataError, match=r"^row 1: the label is missing$"):
            label_texts(["a", cell], lambda row: f"row {row}")
    for cell in (float("inf"), [1], b"a", {"a": 1}):
        with pytest.raises(DataError, match=r"^row 0: a label is a text or a finite number, got"):
            label_texts([cell], lambda row: f"row {row}")


@pytest.mark.parametrize(
    ("labels", "ordered"),
    [
        (["10", "2", "2"], ["2", "10"]),
        (["10.5", "-1", "2"], ["-1", "2", "10.5"]),
        (["1.0", "10.0", "2.0"], ["1.0", "2.0", "10.0"]),
        (["10", "2", "b"], ["10", "2", "b"]),
        ([], []),
    ],
)
def test_numbers_are_in_the_order_of_numbers(labels: list[str], ordered: list[str]) -> None:
    assert ordered_labels(labels) == ordered


def test_what_is_wrong_with_a_parquet_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(b"text,label\n")
    with pytest.raises(DataError, match=r"table\.parquet is no Parquet file that can be read"):
        read_table(path, ["text"])
    parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    with pytest.raises(DataError, match=r"table\.parquet is empty: it has no row of data"):
        read_table(path, ["text"])
    with pytest.raises(DataError, match="has no column 'label', but: 'text'"):
        read_table(path, ["label"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r'needs pyarrow to be read: pip install -e "\.\[parquet\]"'):
        read_table(path, ["text"])


@pytest.mark.parametrize("delimiter", ["", ", "])
def test_a_delimiter_is_one_character(delimiter: str) -> None:
    with pytest.raises(ValueError, match=f"delimiter must be one character, got '{delimiter}'"):
        TableFormat(delimiter=delimiter)
