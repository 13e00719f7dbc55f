"""What callbacks that measure at validation share, in real trainings of a tiny model."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LambdaCallback

from callbacks.label_geometry import LabelGeometry
from callbacks.measure_at_validation import MeasureAtValidation
from callbacks.representation_similarity import RepresentationSimilarity
from tests.callbacks.toy_siblings import ToyData, ToySiblings, fit, trainer

CALLBACKS = pytest.mark.parametrize("callback", [RepresentationSimilarity, LabelGeometry])


@CALLBACKS
def test_training_does_not_notice(callback: type[MeasureAtValidation], tmp_path: Path) -> None:
    watched, alone = ToySiblings(), ToySiblings()
    fit(tmp_path, callback(), model=watched)
    fit(tmp_path, model=alone)
    for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)
    assert watched.training == alone.training


@CALLBACKS
def test_the_cadence_counts_validations_and_survives_a_restart(
    callback: type[MeasureAtValidation], tmp_path: Path
) -> None:
    first = callback(every_n_validations=3)
    fit(tmp_path, first, max_epochs=2)
    assert not first.values
    second = callback(every_n_validations=3)
    second.load_state_dict(first.state_dict())
    fit(tmp_path, second, max_epochs=1)
    assert second.values


@CALLBACKS
def test_the_sanity_check_of_a_later_training_is_not_measured(
    callback: type[MeasureAtValidation], tmp_path: Path
) -> None:
    measured = callback()
    run = trainer(tmp_path, measured, max_epochs=1, num_sanity_val_steps=1)
    model, data = ToySiblings(), ToyData()
    run.validate(model, data, verbose=False)
    earlier = measured.values
    starts = []
    run.callbacks.append(LambdaCallback(on_train_start=lambda *_: starts.append(measured.values)))
    run.fit(model, datamodule=data)
    assert starts == [earlier]
    assert measured.values is not earlier


@CALLBACKS
def test_the_cost_is_logged(callback: type[MeasureAtValidation], tmp_path: Path) -> None:
    run = fit(tmp_path, callback(), max_epochs=1)
    assert 0 < run.callback_metrics[f"{callback.prefix}/seconds"] < 60


@CALLBACKS
def test_a_run_without_validation_is_told_so(callback: type[MeasureAtValidation], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=f"{callback.__name__} measures at validation, but this training has none"):
        fit(tmp_path, callback(), limit_val_batches=0)


@CALLBACKS
def test_what_is_no_softmax_model_is_refused(callback: type[MeasureAtValidation]) -> None:
    with pytest.raises(ValueError, match=r"BoringModel is none"):
        callback().setup(SimpleNamespace(), type("BoringModel", (pl.LightningModule,), {})(), "fit")


@CALLBACKS
def test_a_cadence_below_one_is_refused(callback: type[MeasureAtValidation]) -> None:
    with pytest.raises(ValueError, match="every_n_validations must be at least 1, got 0"):
        callback(every_n_validations=0)
