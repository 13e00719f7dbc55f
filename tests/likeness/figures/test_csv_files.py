"""CSV files: whole or not at all, and read back as they were given."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from likeness.figures.output import write_csv


def test_cells_come_back(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "new" / "table.csv", ["name", "value"], [["Zoë, 2", 0.1], ['"quoted"', None]])
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["name", "value"], ["Zoë, 2", "0.1"], ['"quoted"', ""]]


def test_a_table_that_cannot_be_finished_leaves_the_file_alone(tmp_path: Path) -> None:
    def rows() -> Iterator[list[int]]:
        yield [1]
        raise RuntimeError("stopped")

    path = write_csv(tmp_path / "table.csv", ["number"], [[0]])
    with pytest.raises(RuntimeError, match="stopped"):
        write_csv(path, ["number"], rows())
    assert path.read_text().split() == ["number", "0"]
