"""Options that would say nothing are refused by name, before anything is read."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from scripts.cli.entry_point import UsageError


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("compare a b --lens --positions 9", "--positions and --lens cannot be given without --texts"),
        ("compare a b --texts t.txt --nulls 9", "--nulls cannot be given with --texts"),
        (
            "hubness analyse v.npy --query_key a --query_texts t.txt",
            "--query_key and --query_texts .* without --queries",
        ),
        ("hubness analyse v.npy --split val", "--split cannot be given without a data config"),
        ("hubness reduce v.npy --method f_norm --engine hnsw", "--engine cannot be given without --augment"),
        ("hubness compare v.npy --queries q.npy --split train", "--split cannot be given without a data config"),
        (
            "hubness lm m --texts t.txt --hub_count 9 --hub_multiple 2",
            "--hub_multiple cannot be given with --hub_count",
        ),
        ("compress m x.npy o --ratio one --data d.yaml", "--data cannot be given where neither ratio nor volatility"),
        ("data tokenize t.txt --tokenizer bytes --vocab_size 99", "--vocab_size cannot be given with --tok.* bytes"),
        ("data tokenize t.txt --separator x", "--separator cannot be given with --tokenizer bpe, which has its own"),
        ("inspect_head v.npy --cosine 0", "--cosine cannot be given without --pair"),
        ("inspect_head v.npy --pair 0 1 --top 3", "--top cannot be given without --neighbours"),
        ("inspect_head v.npy --features f.npy --split val", "--split cannot be given without --data"),
    ],
)
def test_without_what_it_says_something_about(line: str, message: str) -> None:
    command, *arguments = line.split()
    with pytest.raises(UsageError, match=message):
        importlib.import_module(f"scripts.{command}").main(arguments)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hubness analyse {} --dim 4", "--dim 4 is of TF-IDF embeddings, but .*v.npy holds no texts"),
        ("hubness compare {} --methods f_norm --bank {}", "--bank: none of the methods f_norm takes a bank"),
        ("inspect_head {} --key head", "--key head: .*v.npy holds one matrix, without a name"),
    ],
)
def test_of_what_the_file_does_not_hold(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "v.npy"
    np.save(file, np.random.default_rng(0).normal(size=(40, 3)))
    command, *arguments = (word.format(file) for word in line.split())
    with pytest.raises(ValueError, match=message):
        importlib.import_module(f"scripts.{command}").main(arguments)
