"""Diffusion models have representations and no label vectors: what reads representations alone compares them."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from callbacks.representation_similarity import RepresentationSimilarity
from datamodules import Digits
from likeness.similarity.catalogue import REPRESENTATION_MEASURES
from scripts.import_published import save
from tests.lightning_modules.tiny_diffusion import awake, diffenc, vdm

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def trainer(tmp_path: Path, callback: pl.Callback) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=tmp_path, callbacks=[callback], accelerator="cpu", use_distributed_sampler=False, **QUIET
    )


@pytest.fixture
def reference(tmp_path: Path) -> str:
    save(awake(diffenc(), seed=1), tmp_path / "reference.ckpt")
    return str(tmp_path / "reference.ckpt")


def test_a_diffusion_model_against_another(tmp_path: Path, reference: str) -> None:
    names = ("m_cca_f", "linear_cka_f", "linear_cka", "procrustes")
    callback = RepresentationSimilarity(names, references=[reference])
    module, data = awake(vdm()), Digits(batch_size=16)
    trainer(tmp_path, callback).validate(module, data, verbose=False)
    data.setup("validate")
    images = data.splits["val"].x
    with torch.no_grad():
        f, other = (model.double().eval().embed(images) for model in (module, awake(diffenc(), seed=1)))
    for name in ("linear_cka", "procrustes"):
        expected = REPRESENTATION_MEASURES[name](f, other).item()
        assert callback.values[name][0, 1].item() == pytest.approx(expected, rel=1e-4)  # the callback embeds in float32
    stored = callback.values["linear_cka"][0, 1].item()
    assert callback.values["linear_cka_f"][0, 1].item() == pytest.approx(stored, rel=1e-6)
    assert 0 < callback.values["m_cca_f"][0, 1] < 1


def test_measures_of_labels_are_refused_by_name(tmp_path: Path, reference: str) -> None:
    callback = RepresentationSimilarity(("kl", "m_cca", "linear_cka"), references=[reference])
    with pytest.raises(ValueError, match=r"kl, m_cca_g compare softmax models.*VariationalDiffusion is none.*m_cca_f"):
        trainer(tmp_path, callback).validate(vdm(), Digits(batch_size=16), verbose=False)
