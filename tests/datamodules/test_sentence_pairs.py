"""Sentence pairs from the STS benchmark's two releases, and from other tables with other scores."""

import math
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import parquet

from datamodules import DataError, SentencePairs
from likeness.batch import PairBatch
from tests.datamodules.test_sentences import built
from tests.datamodules.text_toys import write_csv, write_lines

ORIGINAL = (
    "main-captions\tMSRvid\t2012test\t0000\t5.000\tA man in a hat dances.\tA man wearing a hat is dancing.",
    'main-forums\tdeft-forum\t2014\t0007\t2.4\tHe said "no.\tThe "answer" was no.\thttp://one.org\thttp://two.org',
    "main-news\theadlines\t2015\t0193\t0\tLAPD officer sought\tFormer officer sentenced",
)
GLUE = (
    "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
    "0\tmain-captions\tMSRvid\t2012test\t0001\tnone\tnone\tA plane takes off.\tAn air plane takes off.\t5.000",
    '1\tmain-captions\tMSRvid\t2012test\t0004\tnone\tnone\t"A man plays a flute.\tA man plays.\t3.800',
)


def ready(data: SentencePairs) -> SentencePairs:
    data.prepare_data()
    data.setup()
    return data


def test_the_benchmark_is_read_as_its_authors_publish_it(tmp_path: Path, root: Path) -> None:
    names = {"train": "sts-train.csv", "val": "sts-dev.csv", "test": "sts-test.csv"}
    files = {f"{part}_file": write_lines(tmp_path / name, *ORIGINAL) for part, name in names.items()}
    data = ready(built("stsb", root, **files, batch_size=3))  # type: ignore[arg-type]
    batch = next(iter(data.test_dataloader()))
    assert isinstance(batch, PairBatch)
    assert batch.first == ["A man in a hat dances.", 'He said "no.', "LAPD officer sought"]
    assert batch.second == ["A man wearing a hat is dancing.", 'The "answer" was no.', "Former officer sentenced"]
    torch.testing.assert_close(batch.score, torch.tensor([5.0, 2.4, 0.0]), rtol=0, atol=0)
    assert batch.id.tolist() == [0, 1, 2]


def test_the_benchmark_is_read_as_glue_publishes_it(tmp_path: Path, root: Path) -> None:
    names = {"train": "train.tsv", "val": "dev.tsv", "test": "dev.tsv"}
    files = {f"{part}_file": write_lines(tmp_path / name, *GLUE) for part, name in names.items()}
    split = ready(built("stsb_glue", root, **files)).splits["train"]  # type: ignore[arg-type]
    assert split.first == ["A plane takes off.", '"A man plays a flute.']
    assert split.second == ["An air plane takes off.", "A man plays."]
    torch.testing.assert_close(split.score, torch.tensor([5.0, 3.8]), rtol=0, atol=0)


def test_the_test_file_of_glue_has_no_scores(tmp_path: Path, root: Path) -> None:
    train = write_lines(tmp_path / "train.tsv", *GLUE)
    header, *rows = (line.rsplit("\t", 1)[0] for line in GLUE)
    test = write_lines(tmp_path / "test.tsv", header, *rows)
    data = built("stsb_glue", root, train_file=train, val_file=train, test_file=test)
    with pytest.raises(DataError, match=r"test\.tsv has no column 'score', but: 'index', 'genre'"):
        data.setup("test")


@pytest.mark.parametrize(
    ("score_range", "written", "expected"),
    [
        ((0, 5), [0, 2.5, 5], [0, 2.5, 5]),
        ((0, 1), [0, 0.48, 1], [0, 2.4, 5]),
        ((1, 5), [1, 2, 5], [0, 1.25, 5]),
        ((-1, 1), [-1, 0, 1], [0, 2.5, 5]),
    ],
)
@pytest.mark.parametrize("name", ["pairs.csv", "pairs.tsv", "pairs.parquet"])
def test_other_tables_and_scores(
    tmp_path: Path, name: str, score_range: tuple[float, float], written: list[float], expected: list[float]
) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        columns = {"a": ["a, b", "c", "d"], "b": ["e", "f", "g"], "likeness": [float(score) for score in written]}
        parquet.write_table(pyarrow.table(columns), path)
    else:
        rows = zip(["a, b", "c", "d"], ["e", "f", "g"], written, strict=True)
        write_csv(path, [("a", "b", "likeness"), *rows], delimiter="\t" if name.endswith("tsv") else ",")
    options: dict[str, Any] = {"sentence_columns": ("a", "b"), "score_column": "likeness", "score_range": score_range}
    split = ready(SentencePairs(str(path), test_file=str(path), **options)).splits["train"]
    assert (split.first, split.second) == (["a, b", "c", "d"], ["e", "f", "g"])
    torch.testing.assert_close(split.score, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)


def test_pairs_are_held_out_where_no_such_part_is_published(tmp_path: Path) -> None:
    rows = [(f"first {i}", f"second {i}", i % 6) for i in range(36)]
    path = write_csv(tmp_path / "pairs.csv", [("sentence1", "sentence2", "score"), *rows])
    splits = ready(SentencePairs(path, val_size=6, test_size=12)).splits
    assert {name: split.score.long().bincount().tolist() for name, split in splits.items()} == {
        "train": [3] * 6,
        "val": [1] * 6,
        "test": [2] * 6,
    }
    first = [int(text.removeprefix("first ")) for split in splits.values() for text in split.first]
    second = [int(text.removeprefix("second ")) for split in splits.values() for text in split.second]
    assert first == second
    assert sorted(first) == list(range(36))


@pytest.mark.parametrize("score", ["5.1", "-0.1", "high", "", "nan", "inf"])
def test_a_score_that_is_none_is_named(tmp_path: Path, score: str) -> None:
    path = write_lines(tmp_path / "pairs.csv", "sentence1,sentence2,score", "a,b,5", f"c,d,{score}")
    message = rf"pairs\.csv, line 3, column 'score': expected a score from 0.0 to 5.0, got '{score}'"
    with pytest.raises(DataError, match=message):
        ready(SentencePairs(path, test_file=path))


def test_a_missing_score_in_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [1.0, None]}
    parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(DataError, match=r"row 2, column 'score': expected a score from 0.0 to 5.0, got None"):
        ready(SentencePairs(str(path), test_file=str(path)))


def test_a_pair_with_an_empty_sentence_is_empty(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "pairs.csv", "sentence1,sentence2,score", "a, ,5", ",b,4", "c,d,3")
    with pytest.raises(DataError, match=r"2 empty texts in .*pairs\.csv, line 2, 3; set empty: drop"):
        ready(SentencePairs(path, test_file=path))
    split = ready(SentencePairs(path, test_file=path, empty="drop")).splits["train"]
    assert (split.first, split.second, split.score.tolist()) == (["c"], ["d"], [3.0])


@pytest.mark.parametrize("score_range", [(5.0, 5.0), (5.0, 0.0), (0.0, math.nan)])
def test_a_range_that_is_none_is_refused(score_range: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="score_range must be two numbers, the lower first"):
        SentencePairs("pairs.csv", test_size=1, score_range=score_range)
