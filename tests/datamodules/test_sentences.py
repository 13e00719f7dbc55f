"""Labelled texts from files in the formats of AG News and Yahoo Answers, from tables with a header and Parquet."""

from pathlib import Path
from typing import Any

import pyarrow
import pytest
import yaml
from jsonargparse import ArgumentParser
from pyarrow import parquet

from datamodules import DataError, Sentences
from datamodules.base import ResumableDataModule
from likeness.files.text_files import TableFormat
from tests.datamodules.text_toys import write_csv, write_lines

AG_NEWS = (
    r'"3","Bears Claw Back (Reuters)","Reuters - Short-sellers, Wall Street, dwindling\band of ultra-cynics"',
    '"4","Madden, ""ESPN"" Football","Score in Different Ways"',
    '"1","Canadian troops","to Sudan by ""next"" week"',
    '"2","Giddy Phelps","Touches Gold for First Time"',
)
YAHOO = (
    r'"5","why doesn\'t an optical mouse work on glass?","or some surfaces?","LEDs\nand a sensor\\nsee no pattern."',
    '"10","who votes?","","all of us, ""one"" hopes"',
)
TEN = [f'"{number}","question {number}","",""' for number in range(1, 11)]


def built(config: str, root: Path, **changed: Any) -> Sentences:
    """The datamodule of a file of configs/data with other options."""
    options = yaml.safe_load((root / "configs" / "data" / f"{config}.yaml").read_text())
    options["data"]["init_args"].update(changed)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ResumableDataModule, "data")
    return parser.instantiate(parser.parse_object(options)).data


def ready(data: Sentences, stage: str | None = None) -> Sentences:
    data.prepare_data()
    data.setup(stage)
    return data


def test_ag_news_is_read_as_it_is_published(tmp_path: Path, root: Path) -> None:
    files = {f"{part}_file": write_lines(tmp_path / f"{part}.csv", *AG_NEWS) for part in ("train", "test")}
    data = ready(built("ag_news", root, **files, val_size=0))
    assert data.splits["train"].x == [
        r"Bears Claw Back (Reuters) Reuters - Short-sellers, Wall Street, dwindling band of ultra-cynics",
        'Madden, "ESPN" Football Score in Different Ways',
        'Canadian troops to Sudan by "next" week',
        "Giddy Phelps Touches Gold for First Time",
    ]
    assert [data.class_names[y] for y in data.splits["train"].y] == ["Business", "Sci/Tech", "World", "Sports"]
    assert data.num_classes == 4
    assert data.splits["val"].x == data.splits["test"].x == data.splits["train"].x


def test_yahoo_answers_is_read_as_it_is_published(tmp_path: Path, root: Path) -> None:
    files = {f"{part}_file": write_lines(tmp_path / f"{part}.csv", *YAHOO, *TEN) for part in ("train", "test")}
    split = ready(built("yahoo_answers", root, **files, val_size=0, share=1)).splits["test"]
    assert split.x[:2] == [
        r"why doesn\'t an optical mouse work on glass? or some surfaces? LEDs and a sensor see no pattern.",
        'who votes?  all of us, "one" hopes',
    ]
    assert split.y[:2].tolist() == [4, 9]


def test_a_share_of_each_class_is_kept(tmp_path: Path, root: Path) -> None:
    files = {f"{part}_file": write_lines(tmp_path / f"{part}.csv", *TEN * 30) for part in ("train", "test")}
    data = ready(built("yahoo_answers", root, **files, val_size=20))
    counts = {name: split.y.bincount().tolist() for name, split in data.splits.items()}
    assert counts == {"train": [1] * 10, "val": [2] * 10, "test": [3] * 10}
    again = ready(built("yahoo_answers", root, **files, val_size=20))
    assert again.splits["train"].x == data.splits["train"].x


def labelled(path: Path, labels: list[Any], **options: Any) -> Sentences:
    write_csv(path, [("text", "label"), *((f"text {row}", label) for row, label in enumerate(labels))])
    return Sentences(str(path), **{"test_size": 2} | options)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 9, 2, 9, 10, 2], ("2", "9", "10")),
        (["b", "a", "10", "b", "a", "10"], ("10", "a", "b")),
        ([-1, 1, -1, 1, 1, -1], ("-1", "1")),
    ],
)
def test_labels_become_classes_in_the_order_of_numbers_or_of_the_alphabet(
    tmp_path: Path, labels: list[Any], names: tuple[str, ...]
) -> None:
    data = labelled(tmp_path / "all.csv", labels)
    assert data.num_classes == len(names)
    assert data.class_names == names
    for split in ready(data).splits.values():
        written = [str(labels[int(text.removeprefix("text "))]) for text in split.x]
        assert [names[y] for y in split.y] == written


def test_parts_that_are_not_published_are_held_out_by_class(tmp_path: Path) -> None:
    data = ready(labelled(tmp_path / "all.csv", ["a", "b"] * 20, val_size=6, test_size=10))
    assert {name: split.y.bincount().tolist() for name, split in data.splits.items()} == {
        "train": [12, 12],
        "val": [3, 3],
        "test": [5, 5],
    }


def test_parquet_with_integer_labels_and_several_columns_of_text(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    columns = {"title": ["a", "b", None], "body": ["c", "d", "e"], "class": [7, 3, 7]}
    parquet.write_table(pyarrow.table(columns), path)
    options: dict[str, Any] = {"text_columns": ("title", "body"), "label_column": "class"}
    split = ready(Sentences(str(path), test_file=str(path), **options)).splits["train"]
    assert split.x == ["a c", "b d", "e"]
    assert split.y.tolist() == [1, 0, 1]


def test_data_without_labels(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "all.csv", "text", "a", "b", "c")
    data = ready(Sentences(path, label_column=None, test_size=1))
    assert data.num_classes == 1
    assert data.splits["train"].y.tolist() == [0, 0]


def test_empty_texts_are_named_dropped_or_kept(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "all.csv", "text,label", "a,1", " ,1", '"b\nc",2', ",2")
    both = {"train_file": path, "test_file": path}
    with pytest.raises(DataError, match=r"2 empty texts in .*all\.csv, line 3, 6; set empty: drop"):
        ready(Sentences(**both))
    dropped, kept = (ready(Sentences(**both, empty=empty)).splits["test"] for empty in ("drop", "keep"))
    assert (dropped.x, dropped.y.tolist()) == (["a", "b\nc"], [0, 1])
    assert (kept.x, kept.y.tolist()) == (["a", "", "b\nc", ""], [0, 0, 1, 1])
    all_empty = write_lines(tmp_path / "empty.csv", "text,label", " ,1", ",2")
    with pytest.raises(DataError, match="the train split is empty"):
        ready(Sentences(all_empty, test_file=path, empty="drop"))


@pytest.mark.parametrize(
    ("test_lines", "message"),
    [
        (("text,label", "a,1", "b,"), r"test\.csv, line 3, column 'label': the label is missing"),
        (("text,label", "a,1", "b,3"), r"test\.csv, line 3, column 'label': label '3' is none of the 2 labels of"),
        (("text,class", "a,1"), r"test\.csv has no column 'label', but: 'text', 'class'"),
    ],
)
def test_a_label_that_is_no_class_is_named(tmp_path: Path, test_lines: tuple[str, ...], message: str) -> None:
    train = write_lines(tmp_path / "train.csv", "text,label", "a,1", "b,2")
    with pytest.raises(DataError, match=message):
        ready(Sentences(train, test_file=write_lines(tmp_path / "test.csv", *test_lines)), "test")


def test_class_names_fit_the_labels(tmp_path: Path) -> None:
    data = labelled(tmp_path / "all.csv", [1, 2, 1, 2], class_names=("only",))
    with pytest.raises(DataError, match=r"class_names has 1 names, but .*all\.csv has 2 labels: 1, 2"):
        ready(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_size": 0}, "test_size must be at least 1 where no test part is published, got 0"),
        ({"test_file": "test.csv"}, "test_size must be 0 where a test part is published, got 1"),
        ({"val_file": "val.csv", "val_size": 3}, "val_size must be 0 where a val part is published, got 3"),
        ({"text_columns": ()}, "text_columns must name at least one column, got none"),
        ({"share": 0.0}, "share must be above 0 and at most 1, got 0.0"),
        ({"share": 1.5}, "share must be above 0 and at most 1, got 1.5"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sentences(**{"train_file": "all.csv", "test_size": 1} | options)


def test_a_missing_file_is_named_when_it_is_first_read(tmp_path: Path) -> None:
    data = Sentences(str(tmp_path / "none.tsv"), test_size=1, file_format=TableFormat(quoted=False))
    with pytest.raises(DataError, match=r"none\.tsv is missing"):
        ready(data)
