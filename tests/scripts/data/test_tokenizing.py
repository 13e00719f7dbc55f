"""likeness data tokenize: what it prints is what it wrote, and the configuration that it prints reads just that."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from scripts.cli.entry_point import run_command
from scripts.data import main
from scripts.inputs import load_data
from tests.datamodules.language.toys import TEXTS, ids_of, write_texts


def run(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    with pytest.raises(SystemExit) as end:
        run_command(main, ["tokenize", *words])
    printed = capsys.readouterr()
    assert end.value.code == status, printed.err
    return printed.err if status else printed.out


def test_lines_of_a_file_as_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lines.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    words = (str(tmp_path / "lines.txt"), "--out", str(tmp_path / "out"), "--tokenizer", "bytes", "--documents", "line")
    printed = run(capsys, *words)
    sizes = {part: len(ids_of(tmp_path / "out", part)) for part in ("train", "val", "test")}
    assert sum(sizes.values()) == sum(len(text.encode()) + 1 for text in TEXTS)
    for part, documents in {"train": 36, "val": 2, "test": 2}.items():
        assert f"{part} {documents} {sizes[part]} {sizes[part]} 1.0000" in " ".join(printed.split())
    assert "257 tokens of uint16" in printed
    assert printed.endswith(f"likeness: wrote {tmp_path / 'out'}\n")
    (tmp_path / "data.yaml").write_text(printed[printed.index("data:\n") : printed.index("likeness: wrote")])
    data = load_data(tmp_path / "data.yaml")
    data.prepare_data()
    data.context, data.batch_size = 8, 2
    data.setup()
    found = np.concatenate([batch.y[batch.y >= 0].numpy() for batch in data.test_dataloader()])
    assert sorted(found) == sorted(ids_of(tmp_path / "out", "test")[1:])
    assert "nothing to do, these files are there already in" in run(capsys, *words)


def test_a_folder_by_its_own_byte_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tokenizers")
    texts = write_texts(tmp_path / "texts")
    printed = run(capsys, str(texts), "--out", str(tmp_path / "out"), "--vocab_size", "300", "--test_fraction", "0.1")
    assert "token 0, '<|endoftext|>', ends each document" in printed
    assert yaml.safe_load((tmp_path / "out" / "tokens.json").read_text())["vocab_size"] == 300
    assert "changes texts" not in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{texts}",), "name the texts and the folder"),
        (("{texts}/none.txt", "--out", "{out}"), "none.txt is missing"),
        (("{texts}", "--out", "{out}", "--tokenizer", "{texts}/000.txt"), "000.txt is damaged"),
        (("{texts}", "--out", "{out}", "--tokenizer", "bytes", "--drop", "true"), "drop"),
        (("{texts}", "--out", "{texts}", "--tokenizer", "bytes"), "texts is not empty, and has no tokens.json"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    texts = write_texts(tmp_path / "texts")
    with pytest.raises(SystemExit) as end:
        run_command(main, ["tokenize", *(word.format(texts=texts, out=tmp_path / "out") for word in words)])
    printed = capsys.readouterr().err
    assert end.value.code in (1, 2)
    assert printed.count("\n") == 1
    assert message in printed
    assert not (tmp_path / "out").exists()
