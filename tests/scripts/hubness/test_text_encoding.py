"""Encoders of texts by name: TF-IDF, a folder of sentence-transformers, a checkpoint of this project."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules import SoftmaxClassifier
from scripts.hubness.encoders import text_encoder, tfidf_embeddings
from scripts.hubness.files import Source
from scripts.hubness.points import Encoding, open_points
from tests.lightning_modules.points import save
from tests.lightning_modules.tiny_sentences import TEXTS, encoder
from tests.scripts.hubness.hubness_files import texts

CPU = torch.device("cpu")


def lines(path: Path, content: list[str]) -> Source:
    path.write_text("\n".join(content) + "\n")
    return Source(str(path))


def test_tfidf_is_of_the_texts_it_is_given() -> None:
    embed = text_encoder("tfidf", texts(), 6, CPU)
    assert torch.equal(embed(texts()[10:20]), tfidf_embeddings(texts(), 6)[10:20])


def test_index_and_queries_share_their_words(tmp_path: Path) -> None:
    index, queries = lines(tmp_path / "a.txt", texts()[:60]), lines(tmp_path / "b.txt", texts()[60:])
    found = open_points([index, queries], Encoding(dim=6))
    assert torch.equal(torch.cat([part.vectors for part in found]), tfidf_embeddings(texts(), 6))


@pytest.mark.parametrize("kind", ["checkpoint", "folder"])
def test_a_sentence_encoder(kind: str, tmp_path: Path) -> None:
    module = encoder(head="c_n").eval()
    if kind == "checkpoint":
        save(module, tmp_path / "model.ckpt")
        name = tmp_path / "model.ckpt"
    else:
        pytest.importorskip("sentence_transformers")
        name = tmp_path / "model"
        module.export(name)
    (points,) = open_points([lines(tmp_path / "t.txt", TEXTS)], Encoding(encoder=str(name)))
    with torch.no_grad():
        torch.testing.assert_close(points.vectors, module.embed(TEXTS), rtol=0, atol=1e-5)


def test_a_classifier_embeds_the_inputs_of_its_data(tmp_path: Path) -> None:
    model = SoftmaxClassifier((2,), 3)
    save(model, tmp_path / "model.ckpt")
    config = tmp_path / "radial.yaml"
    config.write_text("data:\n  class_path: datamodules.Radial\n  init_args: {num_classes: 3}\n")
    (points,) = open_points([Source(str(config))], Encoding(encoder=str(tmp_path / "model.ckpt")))
    assert len(points) == len(points.labels or ()) == 2000
    assert {*(points.labels or ())} == {"0", "1", "2"}
    with pytest.raises(ValueError, match=r"radial\.yaml holds inputs to be embedded: name a run"):
        open_points([Source(str(config))], Encoding())


def test_what_is_no_encoder_of_texts(tmp_path: Path) -> None:
    save(SoftmaxClassifier((2,), 3), tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=r"model\.ckpt takes no texts"):
        text_encoder(str(tmp_path / "model.ckpt"), TEXTS, None, CPU)(TEXTS)
    with pytest.raises(FileNotFoundError, match=r"no encoder \./nowhere: neither tfidf nor a folder"):
        text_encoder("./nowhere", TEXTS, None, CPU)
    with pytest.raises(ValueError, match="--dim is the dimension of TF-IDF"):
        text_encoder("./nowhere", TEXTS, 3, CPU)
    with pytest.raises(ValueError, match="dim must be at least 1 and less than"):
        text_encoder("tfidf", TEXTS, 400, CPU)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="that can be loaded"):
        text_encoder(str(tmp_path / "empty"), TEXTS, None, CPU)


def test_an_encoder_needs_texts(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(4))
    with pytest.raises(ValueError, match=r"--encoder tfidf has nothing to embed: .*x\.npy holds no texts"):
        open_points([Source(str(tmp_path / "x.npy"))], Encoding(encoder="tfidf"))


def test_docstrings_need_no_file() -> None:
    (points,) = open_points([Source("docstrings")], Encoding(dim=16))
    assert points.vectors.shape == (len(points.texts or ()), 16)
    assert len(set(points.labels or ())) == 11
