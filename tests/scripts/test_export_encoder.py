"""The command from a run to a folder of sentence-transformers."""

from pathlib import Path

import pytest
import torch

from lightning_modules import SoftmaxClassifier
from scripts import export_encoder
from scripts.cli.entry_point import run_command
from tests.lightning_modules.points import save
from tests.lightning_modules.tiny_sentences import TEXTS, encoder


@pytest.fixture(autouse=True)
def _library() -> None:
    pytest.importorskip("sentence_transformers")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(export_encoder.main, [*map(str, arguments)])
    return int(end.value.code or 0)


def test_a_checkpoint_becomes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sentence_transformers import SentenceTransformer

    module = encoder(head="c_n").eval()
    save(module, tmp_path / "model.ckpt")
    assert run(tmp_path / "model.ckpt", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert printed.out == f"likeness: wrote {tmp_path}/out: SentenceTransformer('{tmp_path}/out') loads it\n"
    assert printed.err == ""
    found = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(TEXTS, convert_to_tensor=True)
    with torch.no_grad():
        torch.testing.assert_close(found, module.embed(TEXTS), rtol=0, atol=1e-6)


def test_what_cannot_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(SoftmaxClassifier((2,), 3), tmp_path / "other.ckpt")
    assert run(tmp_path / "other.ckpt", tmp_path / "out") == 1
    assert "holds a SoftmaxClassifier, which is no SentenceEncoder" in capsys.readouterr().err
    save(encoder(), tmp_path / "model.ckpt")
    assert run(tmp_path / "model.ckpt", tmp_path) == 1
    assert f"{tmp_path} exists already and is not empty" in capsys.readouterr().err
