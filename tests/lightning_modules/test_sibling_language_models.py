"""Sibling language models equal those trained alone, and answer for all of them."""

import math
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import callbacks
from lightning_modules import LanguageModel, SiblingLanguageModels
from lightning_modules.checkpoints import load_softmax_models
from lightning_modules.optimization import LanguageAdamW, WarmupThenCosine
from likeness.comparisons.compare import compare
from likeness.networks import GPT2, Llama
from likeness.protocols import Siblings, TokenModel
from likeness.similarity.comparison import compare_softmax_models
from tests.lightning_modules.points import save, trainer
from tests.lightning_modules.test_language_model import batch
from tests.lightning_modules.tiny_tokens import STRIDE, TinyTokens

V, T, SEED, MEMBERS = TinyTokens.vocab_size, 8, 5, 3
SMALL: dict[str, Any] = {"width": 16, "depth": 2, "heads": 4}
SCHEDULE: dict[str, Any] = {
    "optimizer": partial(LanguageAdamW, lr=1e-2),
    "scheduler": partial(WarmupThenCosine, steps=12),
}
NETWORKS = {
    "GPT-2": partial(GPT2, **SMALL, dropout=0.2, head_bias=True),
    "Llama of documents": partial(Llama, **SMALL, kv_heads=2, separator=3),
}


def siblings(network: Any = NETWORKS["GPT-2"], **options: Any) -> SiblingLanguageModels:
    return SiblingLanguageModels(V, T, MEMBERS, network=network, seed=SEED, **SCHEDULE | options)


@pytest.mark.parametrize(("name", "shared_order"), [("GPT-2", False), ("Llama of documents", True)])
def test_each_member_is_the_model_trained_alone(name: str, shared_order: bool) -> None:
    network, orders = NETWORKS[name], [SEED if shared_order else SEED + i for i in range(MEMBERS)]
    together = siblings(network, shared_order=shared_order)
    alone = [
        LanguageModel(V, T, network=network, seed=SEED + i, order_seed=orders[i], **SCHEDULE) for i in range(MEMBERS)
    ]
    fits = []
    for model in (together, *alone):
        fits.append(trainer(precision="64-true", max_steps=12, gradient_clip_val=0.3))
        fits[-1].fit(model, TinyTokens())
    for i, model in enumerate(alone):
        member = together.member(i)
        assert member.hparams == model.hparams
        for (weight, found), expected in zip(member.state_dict().items(), model.state_dict().values(), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-9, msg=lambda m, n=weight: f"{n}: {m}")
        for key in ("val/nll", "val/perplexity", "val/accuracy", "val/bits_per_byte"):
            expected = fits[1 + i].callback_metrics[key]
            torch.testing.assert_close(fits[0].callback_metrics[f"{key}/{i}"], expected, rtol=1e-6, atol=0)
    each = [fits[0].callback_metrics[f"val/nll/{i}"] for i in range(MEMBERS)]
    for key, expected in (("", sum(each) / MEMBERS), ("/min", min(each)), ("/max", max(each))):
        assert float(fits[0].callback_metrics[f"val/nll{key}"]) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # which tracing asks for
@pytest.mark.parametrize("kind", [LanguageModel, partial(SiblingLanguageModels, num_members=MEMBERS)])
def test_compiled_blocks_train_as_they_are_written(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated ahead of time; the machine code is left out, which takes minutes."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=counter))
    weights = []
    for compiled in (False, True):
        model = kind(V, T, network=partial(Llama, width=16, depth=1, heads=4), compiled=compiled, **SCHEDULE)
        trainer(precision="64-true", max_steps=2, gradient_clip_val=0.3, limit_val_batches=0).fit(model, TinyTokens())
        assert (counter.frame_count > 0) == compiled
        weights.append(model.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=1e-9, msg=name)


def test_a_checkpoint_holds_all_members(tmp_path: Path) -> None:
    together = siblings(partial(Llama, **SMALL))
    assert isinstance(together, TokenModel)
    assert isinstance(together, Siblings)
    trainer(max_steps=2, limit_val_batches=0).fit(together, TinyTokens())
    save(together, tmp_path / "model.ckpt")
    loaded, x = load_softmax_models(tmp_path / "model.ckpt"), batch().x
    torch.testing.assert_close(torch.stack([model.embed(x) for _, model in loaded]), together.embed(x))
    assert torch.equal(torch.stack([model.unembeddings() for _, model in loaded]), together.unembeddings())
    found = together.predict_step(batch(), 0)["nll"]
    compared = compare(tmp_path / "model.ckpt", together.member(0), TinyTokens(), measures=["kl"])
    given = batch("test")
    assert compared.samples == len(together.measured(given).rows) < given.x.numel()
    assert compared["kl"][0, -1] == 0 < compared["kl"][1, -1]
    of_first: Any = loaded[0][1]
    torch.testing.assert_close(found[0], of_first.predict_step(batch(), 0)["nll"])


def test_callbacks_look_at_all_members_at_the_same_positions(tmp_path: Path) -> None:
    together, given = siblings(measured_positions=60), batch()
    similarity = callbacks.RepresentationSimilarity(["js", "m_cca"])
    hubs = callbacks.Hubness(["embed", "network.blocks.1"], k=3)
    layers = callbacks.LayerSimilarity(against="siblings", layers=["network.blocks.*"])
    look = [similarity, hubs, layers, callbacks.LabelGeometry()]
    fit = trainer(callbacks=look, default_root_dir=tmp_path)
    fit.validate(together, TinyTokens(), verbose=False)
    ids = torch.cat([together.measured(part).ids for part in fit.val_dataloaders])
    rows = ids // T // STRIDE * T + ids % T
    logged = {name: float(value) for name, value in fit.callback_metrics.items()}
    models: list[Any] = [together.member(i).eval() for i in range(2)]
    pair = [part.detach() for model in models for part in (model.embed(given.x)[rows], model.unembeddings())]
    expected = compare_softmax_models(*pair)
    assert float(similarity.values["js"][0, 1]) == pytest.approx(expected.js, rel=1e-4)
    assert float(similarity.values["m_cca_f"][0, 1]) == pytest.approx(expected.m_cca_f, rel=1e-4)
    assert {report.n for report in hubs.reports.values()} == {len(rows)}
    for name in ("labels/raw", "hubness/network.blocks.1/k_skewness/max", "similarity/js/max"):
        assert math.isfinite(logged[name])
    assert -1 < logged["layers/unbiased_linear_cka/network.blocks.0"] <= 1


def test_what_cannot_be_stacked_is_refused() -> None:
    with pytest.raises(ValueError, match="network Other cannot be stacked: siblings are made of Decoder, GPT2, Llama"):
        siblings(Other)
    with pytest.raises(ValueError, match="there is no member 3"):
        siblings().member(3)
    with pytest.raises(ValueError, match="Adafactor would mix the siblings"):
        siblings(optimizer=torch.optim.Adafactor).configure_optimizers()


class Other(GPT2):
    """May do anything in forward."""
