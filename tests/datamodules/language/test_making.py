"""Token files of every kind of source hold its texts, in parts that are functions of these texts."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.errors import OptionError
from datamodules.language.documents import Reading, open_documents
from datamodules.language.making import Division, choose_tokenizer, make_token_files
from likeness.files.errors import DataError
from tests.datamodules.language.toys import TEXTS, ids_of, make, write_texts


def texts_of(folder: Path, part: str) -> list[str]:
    """The documents of a part made of bytes, read back without anything of ours."""
    documents = np.split(ids_of(folder, part), np.load(folder / f"{part}_documents.npy")[1:])
    return [bytes(document[:-1].tolist()).decode() for document in documents]


def all_of(folder: Path) -> list[str]:
    return sorted(text for path in folder.glob("*.bin") for text in texts_of(folder, path.stem))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_source(folder: Path, kind: str) -> tuple[Path, Reading]:
    """The same texts in a file or folder of this kind."""
    folder.mkdir()
    if kind == "folder":
        return write_texts(folder), Reading()
    if kind == "lines":
        (folder / "all.txt").write_text("\r\n".join(TEXTS), encoding="utf-8", newline="")
        return folder / "all.txt", Reading(unit="line")
    if kind == "csv":
        (folder / "all.csv").write_text("n,text\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(TEXTS)))
        return folder / "all.csv", Reading()
    columns = {"n": [*range(len(TEXTS))], "Text": TEXTS}
    if kind == "dataset":
        pytest.importorskip("datasets").Dataset.from_dict(columns).save_to_disk(str(folder / "saved"))
        return folder / "saved", Reading()
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    half = len(TEXTS) // 2
    for shard, rows in enumerate((slice(0, half), slice(half, None))):
        table = pyarrow.table({name: column[rows] for name, column in columns.items()})
        parquet.write_table(table, folder / f"{shard}.parquet", row_group_size=7)
    return folder, Reading(column="Text")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The parts of the texts in a folder."""
    folder = tmp_path_factory.mktemp("expected")
    make(write_texts(folder / "texts"), folder / "out", val_fraction=0.2, test_fraction=0.1)
    return {part: texts_of(folder / "out", part) for part in ("train", "val", "test")}


@pytest.mark.parametrize("kind", ["folder", "lines", "csv", "parquet", "dataset"])
def test_every_source_gives_the_same_parts_of_its_texts(tmp_path: Path, expected: Any, kind: str) -> None:
    source, reading = write_source(tmp_path / "source", kind)
    make(source, tmp_path / "out", reading=reading, val_fraction=0.2, test_fraction=0.1)
    assert {part: texts_of(tmp_path / "out", part) for part in ("train", "val", "test")} == expected
    assert {part: len(texts) for part, texts in expected.items()} == {"train": 28, "val": 8, "test": 4}
    assert all_of(tmp_path / "out") == sorted(TEXTS)
    assert all(texts == [text for text in TEXTS if text in texts] for texts in expected.values())  # in their order


def test_parts_are_a_function_of_seed_and_text(tmp_path: Path, expected: Any) -> None:
    make(write_texts(tmp_path / "texts"), tmp_path / "out", val_fraction=0.2, test_fraction=0.1, split_seed=1)
    assert texts_of(tmp_path / "out", "val") != expected["val"]
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join([*reversed(TEXTS), *TEXTS]), encoding="utf-8")
    make(lines, tmp_path / "twice", reading=Reading(unit="line"), val_fraction=0.2, test_fraction=0.1)
    for part, texts in expected.items():  # equal texts stay together
        assert sorted(texts_of(tmp_path / "twice", part)) == sorted(texts * 2)


@pytest.mark.parametrize("parts", [("train", "valid", "test"), ("train", "val"), ("train", "test")])
def test_parts_that_are_there_are_taken(tmp_path: Path, parts: tuple[str, ...]) -> None:
    for number, part in enumerate(parts):
        write_texts(tmp_path / "texts" / part, TEXTS[number * 10 : number * 10 + 10])
    make(tmp_path / "texts", tmp_path / "out", val_fraction=0.2)
    found = {path.stem: texts_of(tmp_path / "out", path.stem) for path in (tmp_path / "out").glob("*.bin")}
    if "test" in parts and len(parts) == 2:
        assert {part: len(texts) for part, texts in found.items()} == {"train": 8, "val": 2, "test": 10}
        assert sorted(found["train"] + found["val"]) == sorted(TEXTS[:10])
    else:
        assert found == {part.removesuffix("id"): TEXTS[n * 10 : n * 10 + 10] for n, part in enumerate(parts)}


def test_a_single_document_is_cut_at_ends_of_lines(tmp_path: Path) -> None:
    text = "".join(f"line {number} of the play\n" for number in range(100))
    (tmp_path / "play.txt").write_text(text)
    make(tmp_path / "play.txt", tmp_path / "out", val_fraction=0.1, test_fraction=0.05)
    found = [texts_of(tmp_path / "out", part) for part in ("train", "val", "test")]
    assert "".join(part[0] for part in found) == text
    assert [part[0].count("\n") for part in found] == [pytest.approx(n, abs=1) for n in (85, 10, 5)]
    (tmp_path / "short.txt").write_text("one line")
    with pytest.raises(OptionError, match="one document of 8 characters leaves no lines for the val part"):
        make(tmp_path / "short.txt", tmp_path / "short")


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_the_same_texts_and_tokenizer_give_the_same_files_once(tmp_path: Path, tokenizer: str) -> None:
    if tokenizer == "bpe":
        pytest.importorskip("tokenizers")
    texts, out = write_texts(tmp_path / "texts"), tmp_path / "out"
    first = make(texts, out, tokenizer)
    assert make(texts, tmp_path / "other", tokenizer) == first
    assert files(out) == files(tmp_path / "other")
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert make(texts, out, tokenizer) == first
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    whole = files(out)
    (out / "train.bin").write_bytes(whole["train.bin"][:-2])  # cut short, it is made again
    assert make(texts, out, tokenizer) == first
    assert files(out) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out", "texts"]


def test_byte_pairs_are_learned_from_the_training_part_alone(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    for name, held_out in (("a", "zebra " * 50), ("b", "yacht " * 50)):
        write_texts(tmp_path / name / "train")
        write_texts(tmp_path / name / "val", [held_out])
        make(tmp_path / name, tmp_path / f"{name}_out", "bpe")
    assert (tmp_path / "a_out/tokenizer.json").read_bytes() == (tmp_path / "b_out/tokenizer.json").read_bytes()
    assert (tmp_path / "a_out/val.bin").read_bytes() != (tmp_path / "b_out/val.bin").read_bytes()


def test_a_given_tokenizer_is_a_folder_and_travels(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    texts = write_texts(tmp_path / "texts")
    learned = make(texts, tmp_path / "bpe", "bpe")
    given = make(texts, tmp_path / "given", str(tmp_path / "bpe"))
    assert (given.tokenizer, given.parts) == (learned.tokenizer, learned.parts)
    assert files(tmp_path / "given")["tokenizer.json"] == files(tmp_path / "bpe")["tokenizer.json"]


def test_other_tokens_in_the_folder_are_kept_unless_they_are_given_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(write_texts(tmp_path / "texts"), out)
    before = files(out)
    other = write_texts(tmp_path / "other", TEXTS[:20])
    with pytest.raises(DataError, match="out holds other tokens: name another folder, or overwrite them"):
        make(other, out)
    assert files(out) == before
    make(other, out, overwrite=True)
    assert all_of(out) == sorted(TEXTS[:20])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out", "texts"]
    with pytest.raises(DataError, match=r"texts is not empty, and has no tokens\.json"):
        make(other, tmp_path / "texts", overwrite=True)


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    make(write_texts(tmp_path / "texts"), out)
    before = files(out)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        make(write_texts(tmp_path / "other", TEXTS[:20]), out, overwrite=True)
    assert files(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out", "texts"]


def test_the_faster_of_two_processes_is_not_disturbed(tmp_path: Path) -> None:
    """Another process writes the same folder while this one learns its tokens."""
    texts, out = write_texts(tmp_path / "texts"), tmp_path / "out"
    choice = choose_tokenizer("bytes")
    source, times = open_documents(str(texts), Reading()), {}

    def meanwhile(train: Any) -> Any:
        make_token_files(out, source, choice, Division())
        times.update({path: path.stat().st_mtime_ns for path in out.iterdir()})
        return choice.make(train)

    summary, there = make_token_files(out, source, choice._replace(make=meanwhile), Division())
    assert not there
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    assert summary.parts["train"].documents == 36


@pytest.mark.parametrize("kind", ["folder", "lines", "csv"])
def test_empty_texts_are_named_or_dropped(tmp_path: Path, kind: str) -> None:
    source, reading = write_source(tmp_path / "source", kind)
    path = {"folder": source / "005.txt", "lines": source, "csv": source}[kind]
    place = {"folder": r"005\.txt", "lines": r"all\.txt, line 41", "csv": r"all\.csv, line 42, column 'text'"}[kind]
    if kind == "folder":
        path.write_text(" \n")
    else:
        path.write_text(path.read_text(encoding="utf-8") + {"lines": "\n \n", "csv": '40," "\n'}[kind])
    with pytest.raises(DataError, match=f"{place}: the text is empty"):
        make(source, tmp_path / "out", reading=reading)
    make(source, tmp_path / "out", reading=reading, drop_empty=True)
    assert all_of(tmp_path / "out") == sorted(text for text in TEXTS if kind != "folder" or text != TEXTS[5])


def test_what_is_no_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt is missing"):
        make(tmp_path / "none.txt", tmp_path / "out")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("x = 1")
    with pytest.raises(DataError, match=r"code has no files \*\.txt or \*\.parquet, but \.py \(1\): name a pattern"):
        make(tmp_path / "code", tmp_path / "out")
    write_texts(tmp_path / "parts" / "train")
    write_texts(tmp_path / "parts" / "extra")
    with pytest.raises(DataError, match=r"extra belongs to none of the parts train that .*parts has"):
        make(tmp_path / "parts", tmp_path / "out")
    write_texts(tmp_path / "no_training" / "val")
    with pytest.raises(DataError, match="has no training part, but val"):
        make(tmp_path / "no_training", tmp_path / "out")
    (tmp_path / "two.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"two\.csv has no column of texts .*, but: a, b; name the column"):
        make(tmp_path / "two.csv", tmp_path / "out")
    with pytest.raises(DataError, match=r"two\.csv has no column 'c', but: a, b"):
        make(tmp_path / "two.csv", tmp_path / "out", reading=Reading(column="c"))
    with pytest.raises(OptionError, match="2 documents cannot be divided into train, val and test"):
        make(write_texts(tmp_path / "two", TEXTS[:2]), tmp_path / "out")
    with pytest.raises(ValueError, match=r"val_fraction 0\.5 and test_fraction 0\.5 leave nothing"):
        Division(0.5, 0.5)
    with pytest.raises(ValueError, match="unit must be one of file, line, but it is 'word'"):
        Reading(unit="word")  # type: ignore[arg-type]


def test_numbers_are_no_texts(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": [1, 2]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet, row 1, column 'text': expected a text, got 1"):
        make(tmp_path / "x.parquet", tmp_path / "out")
