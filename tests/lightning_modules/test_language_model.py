"""Language models as Lightning trains them: what they log, keep, answer, and show to callbacks."""

import copy
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import Tensor
from torch.nn import functional as F

import callbacks
from lightning_modules import LanguageModel
from lightning_modules.checkpoints import load_module, load_softmax_models
from lightning_modules.optimization import LanguageAdamW, WarmupThenCosine
from likeness.batch import Batch
from likeness.networks import GPT2, Llama
from likeness.protocols import SoftmaxModel, TokenModel
from likeness.similarity.comparison import compare_softmax_models
from tests.lightning_modules.points import save, trainer
from tests.lightning_modules.tiny_tokens import STRIDE, TinyTokens
from tests.likeness.networks.nanogpt import NAMES, answers, needs_nanogpt, network

V, T = TinyTokens.vocab_size, 8
SMALL: dict[str, Any] = {"width": 16, "depth": 2, "heads": 2}
FAST = {"optimizer": partial(LanguageAdamW, lr=1e-2)}


def model(kind: Any = GPT2, **options: Any) -> LanguageModel:
    network_options = {name: options.pop(name) for name in ("dropout", "tied", "head_bias") if name in options}
    return LanguageModel(V, T, network=partial(kind, **SMALL, **network_options), **FAST | options)


def batch(split: str = "val") -> Batch:
    windows = TinyTokens().load(split)  # type: ignore[arg-type]
    return windows[torch.arange(len(windows))]


def logits(module: LanguageModel, x: Tensor) -> Tensor:
    return (module.embed(x) @ module.unembeddings().mT).detach()


@pytest.fixture(scope="module")
def trained() -> tuple[LanguageModel, dict[str, float]]:
    """A model after 40 steps, and what it logged."""
    module, fit = model(), trainer(max_steps=40)
    fit.fit(module, TinyTokens())
    return module, {name: float(value) for name, value in fit.callback_metrics.items()}


def test_it_is_a_softmax_model_of_every_position(trained: tuple[LanguageModel, dict[str, float]]) -> None:
    module, given = trained[0], batch()
    assert isinstance(module, SoftmaxModel)
    assert isinstance(module, TokenModel)
    f = module.embed(given.x)
    assert f.shape == (21 * T, 16)
    torch.testing.assert_close(f.view(21, T, 16)[3:5], module.embed(given.x[3:5]).view(2, T, 16))
    expected = (f @ module.unembeddings().mT).log_softmax(-1).view(21, T, V)
    torch.testing.assert_close(module(given.x), expected)


def test_what_is_logged_is_of_all_tokens_at_once(trained: tuple[LanguageModel, dict[str, float]]) -> None:
    """Windows whose first predictions do not count make batches of unequal weight."""
    module, logged = trained
    x, y, _ = batch()
    scores = logits(module, x).double()
    nll = F.cross_entropy(scores, y.flatten(), ignore_index=-1, reduction="sum").item()
    counted = y[y != -1]
    assert logged["val/nll"] == pytest.approx(nll / len(counted), rel=1e-6)
    assert logged["val/perplexity"] == pytest.approx(math.exp(nll / len(counted)), rel=1e-6)
    right = scores.argmax(1)[y.flatten() != -1] == counted
    assert logged["val/accuracy"] == pytest.approx(right.double().mean().item(), rel=1e-6)
    num_bytes = TinyTokens.byte_counts[counted].sum().item()
    assert logged["val/bits_per_byte"] == pytest.approx(nll / math.log(2) / num_bytes, rel=1e-6)


def test_it_learns_what_the_data_have(trained: tuple[LanguageModel, dict[str, float]]) -> None:
    module, logged = trained
    assert logged["val/accuracy"] > 0.6  # 0.05 by chance, about 0.8 at best
    ids = module.sample(torch.tensor([[3], [11]]), 6, temperature=0)
    assert ids[:, :7].tolist() == [list(range(3, 10)), list(range(11, 18))]
    drawn = [module.sample(torch.tensor([[3]]), 12, top_k=2, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].shape == (1, 13)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_bytes_that_nobody_knows_are_left_out() -> None:
    data = TinyTokens()
    data.byte_counts = None  # type: ignore[assignment]
    assert trainer().validate(model(), data, verbose=False)[0].keys() == {"val/nll", "val/perplexity", "val/accuracy"}


def test_without_any_knowledge_all_tokens_are_alike() -> None:
    module = model(tied=False)
    module.network.unembedding.data.zero_()
    found = trainer().test(module, TinyTokens(), verbose=False)[0]
    assert found["test/nll"] == pytest.approx(math.log(V), rel=1e-6)
    assert found["test/perplexity"] == pytest.approx(V, rel=1e-6)


def test_one_dimension_is_enough_for_the_unigrams() -> None:
    """f is 1 everywhere, and g the logarithms of the frequencies."""
    module = LanguageModel(V, T, network=partial(GPT2, width=1, depth=1, heads=1, tied=False))
    y = batch("test").y
    p = torch.bincount(y[y != -1], minlength=V).double() / (y != -1).sum()
    with torch.no_grad():
        module.network.norm.weight.zero_()
        module.network.norm.bias.fill_(1)
        module.network.unembedding.copy_(p.log().unsqueeze(1))
    found = trainer().test(module, TinyTokens(), verbose=False)[0]
    assert found["test/nll"] == pytest.approx(-(p * p.log()).sum().item(), rel=1e-6)


def test_a_bias_of_labels_is_a_constant_coordinate() -> None:
    module, plain = model(head_bias=True), model()
    bias = torch.randn(V, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        module.network.head_bias.copy_(bias)
    x = batch().x
    torch.testing.assert_close(logits(module, x), logits(plain, x) + bias)
    assert module.unembeddings().shape == (V, 17)
    expected = F.cross_entropy(logits(module, x), x.flatten())
    torch.testing.assert_close(module.network.loss(x, x).detach(), expected)


def parameters(module: LanguageModel) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize("kind", [GPT2, Llama])
def test_first_weights_and_training_are_functions_of_the_seeds(kind: Any) -> None:
    runs = []
    for seed, order in ((0, 5), (0, 5), (1, 5), (0, 6)):
        torch.rand(seed + 1)
        module = model(kind, seed=seed, order_seed=order, dropout=0.1)
        first = parameters(module)
        trainer(max_steps=3, limit_val_batches=0).fit(module, TinyTokens())
        runs.append((first, parameters(module)))
    same = [[all(map(torch.equal, runs[0][part], run[part])) for part in (0, 1)] for run in runs]
    assert same == [[True, True], [True, True], [False, False], [True, False]]


@pytest.mark.parametrize("kind", [GPT2, Llama])
def test_a_checkpoint_is_the_model(kind: Any, tmp_path: Path) -> None:
    module = model(kind)
    trainer(max_steps=2, limit_val_batches=0).fit(module, TinyTokens())
    save(module, tmp_path / "model.ckpt")
    (_, loaded), x = load_softmax_models(tmp_path / "model.ckpt")[0], batch().x
    assert torch.equal(loaded.embed(x), module.embed(x))
    assert torch.equal(loaded.unembeddings(), module.unembeddings())


def test_tied_weights_are_one_parameter_wherever_they_go(tmp_path: Path) -> None:
    module, average = model(), EMAWeightAveraging(decay=0.5)
    fit = trainer(max_steps=2, limit_val_batches=0, callbacks=[average])
    fit.fit(module, TinyTokens())
    fit.save_checkpoint(tmp_path / "model.ckpt")
    loaded: Any = load_module(tmp_path / "model.ckpt")
    for other in (loaded, copy.deepcopy(module), average._average_model.module):
        assert other.network.label_vectors() is other.network.tokens.weight
        assert len(list(other.parameters())) == len(list(module.parameters()))
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)["state_dict"]
    assert [name for name, value in content.items() if value.shape == (V, 16)] == ["network.tokens.weight"]


def test_decay_is_of_matrices_alone_and_the_rate_goes_up_and_down() -> None:
    scheduler = partial(WarmupThenCosine, steps=20, warmup=0.2)
    module = model(scheduler=scheduler)
    fit = trainer(max_steps=6, limit_val_batches=0)
    fit.fit(module, TinyTokens())
    (optimizer,) = fit.optimizers
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in module.parameters()] == [0.1 if p.ndim > 1 else 0.0 for p in module.parameters()]
    assert optimizer.defaults["betas"] == (0.9, 0.95)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 * (0.1 + 0.9 * (1 + math.cos(math.pi / 8)) / 2))


def test_training_in_bfloat16_is_close_to_that_in_float32() -> None:
    nll = []
    for precision in ("32-true", "bf16-mixed"):
        fit = trainer(max_steps=4, precision=precision)
        fit.fit(model(Llama), TinyTokens())
        nll.append(float(fit.callback_metrics["val/nll"]))
    assert nll[0] != nll[1]
    assert nll[1] == pytest.approx(nll[0], rel=2e-3)


def test_wrong_tokens_are_named() -> None:
    module, given = model(), batch()
    for wrong, message in (
        (given._replace(x=given.x + 1), "label 19 lies outside 0..18"),
        (given._replace(y=given.y - 1), "label -2 lies outside 0..18"),
        (given._replace(y=given.y[:, 0]), r"contexts have shape \[21, 8\], what follows them \[21\]"),
    ):
        with pytest.raises(ValueError, match=message):
            module.on_train_batch_start(wrong, 0)


@needs_nanogpt
def test_greedy_texts_are_those_of_nanogpt() -> None:
    meta, arrays = answers(NAMES[0])
    module = LanguageModel(meta["vocab_size"], meta["block_size"])
    module.network = network(NAMES[0])
    greedy = module.sample(arrays["tokens"][:1, :4], 8, temperature=0)
    assert torch.equal(greedy, arrays["greedy"])


def test_a_folder_of_another_library_is_trained_on(tmp_path: Path) -> None:
    source = model(Llama)
    source.export(tmp_path)
    module = LanguageModel.from_folder(tmp_path, seed=7)
    x = batch().x
    assert torch.equal(module.embed(x), source.embed(x))
    trainer(max_steps=1, limit_val_batches=0).fit(module, TinyTokens())
    save(module, tmp_path / "model.ckpt")
    loaded: Any = load_module(tmp_path / "model.ckpt")
    assert torch.equal(loaded.embed(x), module.embed(x))


def test_predictions_are_what_each_token_costs() -> None:
    module, given = model(), batch()
    found = module.predict_step(given, 0)
    expected = F.cross_entropy(logits(module, given.x), given.y.flatten(), ignore_index=-1, reduction="none")
    torch.testing.assert_close(found["nll"], expected.view(21, T))
    assert torch.equal(found["id"], given.id)


def watched(module: LanguageModel, *looks: pl.Callback, folder: Path) -> dict[str, float]:
    fit = trainer(callbacks=list(looks), default_root_dir=folder)
    fit.validate(module, TinyTokens(), verbose=False)
    return {name: float(value) for name, value in fit.callback_metrics.items()}


def test_positions_that_are_measured_are_the_same_in_batches_of_any_size(tmp_path: Path) -> None:
    module = model(measured_positions=60)
    chosen: list[list[int]] = []
    for size in (5, 21):
        fit = trainer()
        fit.validate(module, TinyTokens(eval_batch_size=size), verbose=False)
        found = [module.measured(part) for part in fit.val_dataloaders]
        chosen.append(torch.cat([part.ids for part in found]).tolist())
    assert chosen[0] == chosen[1]
    assert 35 < len(chosen[0]) < 70
    given = batch()
    windows, places = torch.tensor(chosen[0]) // T // STRIDE, torch.tensor(chosen[0]) % T
    assert torch.all(given.y[windows, places] != -1)
    assert torch.all(places > 0)
    everything = model().measured(given)
    assert len(everything.rows) == int((given.y[:, 1:] != -1).sum())


def test_similarity_of_two_models_is_that_of_their_measured_positions(tmp_path: Path) -> None:
    module, other, given = model(Llama), model(Llama, seed=1), batch()
    save(other, tmp_path / "other.ckpt")
    look = callbacks.RepresentationSimilarity(["js", "m_cca"], [str(tmp_path / "other.ckpt")])
    logged = watched(module, look, folder=tmp_path)
    rows = module.measured(given).rows
    pair = (module.embed(given.x)[rows], module.unembeddings(), other.embed(given.x)[rows], other.unembeddings())
    expected = compare_softmax_models(*(part.detach() for part in pair))
    for name in ("js", "m_cca_f", "m_cca_g"):
        assert logged[f"similarity/{name}/mean"] == pytest.approx(getattr(expected, name), rel=1e-4)


def test_callbacks_of_classifiers_look_at_positions(tmp_path: Path) -> None:
    hubs = callbacks.Hubness(["embed", "network.blocks.1"], k=3)
    labels = callbacks.LabelGeometry()
    module, given = model(), batch()
    logged = watched(module, hubs, labels, folder=tmp_path)
    rows = module.measured(given).rows
    assert {report.n for report in hubs.reports.values()} == {len(rows)}
    assert math.isfinite(logged["labels/raw"])
    assert math.isfinite(logged["hubness/network.blocks.1/k_skewness"])
