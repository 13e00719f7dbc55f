"""The torchmetrics classes in other people's code: a plain LightningModule, and a plain loop."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from likeness import HubnessMetric, LabelSimilarity, PairwiseSimilarity, analyse_hubness, compare, label_similarities
from likeness.similarity.catalogue import select

X = torch.randn(96, 6, generator=torch.manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
DATA = DataLoader(TensorDataset(X, Y), batch_size=32)


class TwoModels(pl.LightningModule):
    """Two linear softmax models that are watched by metrics as attributes, as torchmetrics wants it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bodies = nn.ModuleList(nn.Linear(6, 2) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(2, 4, bias=False) for _ in range(2))
        self.similarity = PairwiseSimilarity(select(["kl", "m_cca_f"]), [2, 2], ["a", "b"])
        self.hubness, self.labels = HubnessMetric(k=5), LabelSimilarity(1, 4, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        scores = [head(body(batch[0])) for head, body in zip(self.heads, self.bodies, strict=True)]
        return torch.stack([nn.functional.cross_entropy(score, batch[1]) for score in scores]).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        f, g = [body(batch[0]) for body in self.bodies], [head.weight for head in self.heads]
        ids = batch_idx * 32 + torch.arange(len(batch[0]))
        self.similarity.update(f, g)
        self.hubness.update(f[0], ids)
        self.labels.update(f[0][None], g[0][None])

    def on_validation_epoch_end(self) -> None:
        self.log("kl", self.similarity.compute()["kl"][0, 1].float())
        self.log("robin_hood", self.hubness.compute()["robin_hood"].float())
        self.log("raw", self.labels.compute()["raw"][0, 0, 1].float())
        for metric in (self.similarity, self.hubness, self.labels):
            metric.reset()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("validated_before", [False, True])
def test_in_a_plain_lightning_module(validated_before: bool, tmp_path: Any) -> None:
    """Lightning validates in inference mode outside of training; the states that it leaves serve a training too."""
    model = TwoModels()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(default_root_dir=tmp_path, max_epochs=2, enable_checkpointing=False, **quiet)
    if validated_before:
        trainer.validate(model, DATA, verbose=False)
    trainer.fit(model, DATA, DATA)
    with torch.no_grad():
        f, g = [body(X) for body in model.bodies], [head.weight for head in model.heads]
    expected = compare((f[0], g[0]), (f[1], g[1]), measures=["kl"])
    assert trainer.callback_metrics["kl"].item() == pytest.approx(expected.kl, rel=1e-5)
    assert trainer.callback_metrics["robin_hood"].item() == pytest.approx(analyse_hubness(f[0], 5).robin_hood, rel=1e-5)
    assert trainer.callback_metrics["raw"].item() == pytest.approx(label_similarities(f[0], g[0]).raw[0, 1].item())


def test_in_a_plain_loop() -> None:
    model = TwoModels()
    for step, batch in enumerate(DATA):
        with torch.no_grad():
            model.validation_step(batch, step)
    with torch.no_grad():
        f, g = [body(X) for body in model.bodies], [head.weight for head in model.heads]
    expected = compare((f[0], g[0]), (f[1], g[1]), measures=["kl", "m_cca_f"])
    found = model.similarity.compute()
    torch.testing.assert_close(found["kl"], expected["kl"])
    torch.testing.assert_close(found["m_cca_f"], expected["m_cca_f"])
    assert model.hubness.compute()["k_skewness"].item() == pytest.approx(analyse_hubness(f[0], 5).k_skewness)


def test_counts_of_an_index_made_in_inference_mode_go_on_outside() -> None:
    metric = HubnessMetric(k=5, index=X)
    with torch.inference_mode():
        metric.reset()
    metric.update(X[:32] + 0.1)
    assert metric.queries == 32
    assert metric.counts.sum() == 160
