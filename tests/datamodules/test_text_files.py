"""Columns of CSV, TSV and Parquet files come out whole, and what is wrong in a file is named."""

import csv
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from datamodules.errors import DataError
from datamodules.text_files import TableFormat, read_table
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
        (b"text\n" + b"a" * 140_000, {}, "the row that begins in line 2 cannot be read .*field larger"),
        (b"text\nabc\nd\xe9f\n", {}, r"not in utf-8-sig.*latin-1 perhaps; byte 0xe9 in line 3, character 2"),
        (b"text\nabc\nd\xe9f\n", {"encoding": "ascii"}, "not in ascii.*byte 0xe9 in line 3, character 2"),
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


def test_missing_files_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match=f"{path.name} is missing: expected at {re.escape(str(path.resolve()))}"):
            read_table(path, ["text"])


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
