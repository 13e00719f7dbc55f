"""The evaluate command on diffusion models and classifiers: what it measures, and how it refuses."""

import csv
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint

from datamodules import Digits, Swirl
from lightning_modules.checkpoints import load_module
from lightning_modules.diffusion import DiffEnc
from lightning_modules.sibling_classifiers import SiblingClassifiers
from likeness.diffusion.likelihoods import BOUNDS
from likeness.diffusion.process import evaluation_noise
from likeness.diffusion.times import SignalDensity
from likeness.diffusion.variance_ratio import LearnedRatio
from likeness.diffusion.volatility import LearnedVolatility
from likeness.networks import MLP
from likeness.similarity.predictions import log_probabilities
from scripts import evaluate
from scripts.cli.entry_point import run_command
from scripts.evaluate import bounds as bound_evaluation
from scripts.evaluate.classifiers import evaluate_classifiers
from scripts.evaluate.data import open_split
from tests.lightning_modules.points import save, trainer
from tests.scripts.tiny_diffusion import DIGITS, tiny, tiny_diffenc, trained

TERMS = ("reconstruction", "latent", "diffusion")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny model with averaged weights, and models that are not trained."""
    folder = tmp_path_factory.mktemp("models")
    run = folder / "run"
    callbacks = [EMAWeightAveraging(decay=0.9, use_buffers=False), ModelCheckpoint(run / "checkpoints", save_last=True)]
    trained(callbacks)
    (run / "config.yaml").write_text("seed_everything: 0\n" + DIGITS)
    (folder / "digits.yaml").write_text(DIGITS)
    (folder / "swirl.yaml").write_text("data:\n  class_path: datamodules.Swirl\n")
    save(tiny(input_shape=(2,)), folder / "points.ckpt")
    save(tiny(input_shape=(2,), levels=256), folder / "swirl.ckpt")
    save(tiny(class_conditional=True, num_classes=4), folder / "four.ckpt")
    save(tiny(class_conditional=True, num_classes=10), folder / "ten.ckpt")
    save(tiny(num_steps=4, ratio=LearnedRatio), folder / "ratio.ckpt")
    save(tiny_diffenc(), folder / "diffenc.ckpt")
    save(doubled(), folder / "volatile.ckpt")
    save(tiny(times=SignalDensity), folder / "times.ckpt")
    save(siblings(), folder / "siblings.ckpt")
    return folder


def doubled() -> DiffEnc:
    """With a volatility of 2."""
    model = tiny_diffenc(volatility=LearnedVolatility)
    torch.nn.init.constant_(model.diffusion.volatility.head.bias, math.log(2))
    return model


def siblings() -> SiblingClassifiers:
    return SiblingClassifiers((1, 8, 8), 10, num_members=3, embedding=partial(MLP, width=16))


@pytest.fixture(autouse=True)
def _there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(evaluate.main, [*map(str, arguments), "--out", "out"])
    return int(end.value.code or 0)


def rows(*arguments: object) -> list[dict[str, str]]:
    assert run(*arguments) == 0
    with Path("out", "evaluation.csv").open() as file:
        return list(csv.DictReader(file))


def bound(*arguments: object) -> dict[str, float]:
    row = rows(*arguments)[0]
    return {name: float(row[name]) for name in ("bpd", "bpd_sample_se", "bpd_draw_se", *TERMS)}


def test_the_bound_is_the_mean_over_all_samples_and_draws() -> None:
    model, data = load_module("run").eval(), Digits()
    data.setup("test")
    batch = data.splits["test"][torch.arange(360)]
    like = torch.empty(batch.x.shape)
    draws = []
    for draw in range(5):
        noise = evaluation_noise(like, batch.id, seed=0, draw=draw)
        with torch.no_grad():
            draws.append(torch.stack(model.elbo_terms(batch.x, **noise._asdict())).double())
    samples = torch.stack(draws).sum(1).mean(0) / (64 * math.log(2))
    terms = torch.stack(draws).mean(2) / (64 * math.log(2))
    found = bound("run")
    assert [found[name] for name in TERMS] == pytest.approx(terms.mean(0).tolist(), rel=1e-6)
    assert found["bpd"] == pytest.approx(float(terms.sum(1).mean()), rel=1e-6)
    assert found["bpd_draw_se"] == pytest.approx(float(terms.sum(1).std() / math.sqrt(5)), rel=1e-4)
    assert found["bpd_sample_se"] == pytest.approx(float(samples.std() / math.sqrt(360)), rel=1e-4)


@pytest.mark.parametrize("options", [(), ("--steps", 4, "--ratio", "fitted"), ("--steps", 3, "--importance", 2)])
def test_the_batch_size_changes_nothing(options: tuple[object, ...]) -> None:
    known = [
        [float(row["bpd"]) for row in rows("run", "--limit", 40, "--draws", 2, "--batch_size", size, *options)]
        for size in (1, 7, 40)
    ]
    assert known[0] == pytest.approx(known[2], rel=1e-6)
    assert known[1] == pytest.approx(known[2], rel=1e-6)


def test_it_is_what_the_trainer_says() -> None:
    model = load_module("run")
    (logged,) = trainer().validate(model, datamodule=Digits(eval_batch_size=70), verbose=False)
    row = rows("run", "--split", "val", "--draws", 1)[0]
    for name in ("bpd", *TERMS):
        assert float(row[name]) == pytest.approx(logged[f"val/{name}"], rel=1e-6)
    assert "bpd_draw_se" not in row
    assert float(row["bpd_sample_se"]) == pytest.approx(logged["val/bpd_sample_se"], rel=1e-6)


def test_rows_say_what_they_are_about() -> None:
    elbo, uniform, histogram = rows("run", "--draws", 2, "--split", "train", "--limit", 50, "--seed", 3)
    about = {name: elbo[name] for name in ("model", "weights", "data", "split", "samples", "draws", "seed", "T")}
    assert about == {
        "model": "run",
        "weights": "averaged weights",
        "data": "digits",
        "split": "train",
        "samples": "50",
        "draws": "2",
        "seed": "3",
        "T": "inf",
    }
    assert float(uniform["bpd"]) == pytest.approx(math.log2(17))
    assert float(histogram["bpd"]) < float(uniform["bpd"])


def test_averaged_and_raw_weights() -> None:
    averaged, raw = bound("run", "--limit", 50), bound("run", "--limit", 50, "--weights", "raw")
    assert averaged["bpd"] != pytest.approx(raw["bpd"], rel=1e-3)
    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    content["state_dict"] = content.pop("current_model_state")
    del content["callbacks"]
    torch.save(content, "raw.ckpt")
    alone = rows("raw.ckpt", "--data", "digits.yaml", "--limit", 50)[0]
    assert float(alone["bpd"]) == raw["bpd"]
    assert alone["weights"] == "weights not averaged"


def test_depths_and_the_fitted_ratio() -> None:
    depths = ("--limit", 100, "--split", "val")
    one = [float(row["bpd"]) for row in rows("run", "--steps", "1,4,10,inf", *depths)[:4]]
    assert one == sorted(one, reverse=True)
    fitted = rows("run", "--steps", "1,4,10", "--ratio", "fitted", *depths)
    assert [row["ratio"] for row in fitted[:3]] == ["fitted"] * 3
    assert all(float(row["bpd"]) < bpd for row, bpd in zip(fitted, one[:3], strict=False))


def test_a_learned_ratio_is_used_in_finite_depth_alone() -> None:
    found = rows("ratio.ckpt", "--data", "digits.yaml", "--steps", "4,inf", "--limit", 9)
    assert [row["ratio"] for row in found[:2]] == ["learned", "one"]
    assert rows("ratio.ckpt", "--data", "digits.yaml", "--limit", 9)[0]["T"] == "4"  # its own


@pytest.mark.parametrize("steps", ["inf", "4"])
def test_the_volatility(steps: str) -> None:
    """Fitted it lowers the bound of an encoder and leaves VDM's as it is; a learned one is used unless refused."""
    common = ("--data", "digits.yaml", "--steps", steps, "--limit", 40)
    each = (("one",), ("fitted", "--fit_samples", 100))
    one, fitted = (rows("diffenc.ckpt", *common, "--volatility", *how)[0] for how in each)
    assert fitted["volatility"] == "fitted"
    assert float(fitted["bpd"]) < float(one["bpd"])
    of_vdm = [float(rows("run", *common, "--volatility", *how)[0]["bpd"]) for how in each]
    assert of_vdm[0] == pytest.approx(of_vdm[1], rel=1e-6)
    found = rows("volatile.ckpt", *common)
    assert found[0]["volatility"] == "learned"
    assert rows("volatile.ckpt", *common, "--volatility", "one")[0]["bpd"] != found[0]["bpd"]


def test_uniform_times_beside_those_of_a_density() -> None:
    """Both estimate the same number: within four standard errors over draws, with the smaller error for the density."""
    found = rows("times.ckpt", "--data", "digits.yaml", "--draws", 20, "--limit", 60)
    own, uniform = found[:2]
    assert [row["bound"] for row in found[:2]] == ["ELBO", "ELBO, uniform times"]
    errors = [float(row["bpd_draw_se"]) for row in (own, uniform)]
    assert float(own["bpd"]) == pytest.approx(float(uniform["bpd"]), abs=4 * math.hypot(*errors))
    assert own["bpd"] != uniform["bpd"]


def test_more_weighted_paths_are_tighter() -> None:
    options = ("run", "--limit", 40, "--steps", 2)
    elbo, one = rows(*options, "--importance", 1)[:2]
    many = rows(*options, "--importance", 20)[1]
    error = math.hypot(float(elbo["bpd_draw_se"]), float(one["bpd_draw_se"]))
    assert abs(float(elbo["bpd"]) - float(one["bpd"])) < 4 * error
    assert float(many["bpd"]) < float(one["bpd"])


def test_the_probability_flow() -> None:
    options = ("swirl.ckpt", "--data", "swirl.yaml", "--limit", 20, "--draws", 2)
    exact, drawn = (
        float(rows(*options, "--ode", trace, "--batch_size", size)[1]["bpd"])
        for trace, size in (("exact", 20), ("exact", 7))
    )
    assert exact == pytest.approx(drawn, rel=1e-3)  # the solver's tolerance
    hutchinson, cells = rows(*options, "--ode", "hutchinson", "--ode_samples", 2)[1:3]
    assert hutchinson["bound"] == "ODE, hutchinson trace"
    assert float(hutchinson["bpd"]) == pytest.approx(exact, rel=0.2)
    assert cells["bound"] == "ODE-TN, k = 2, one probe, no strict bound"
    kinds = {row["bound"].partition(",")[0] for row in rows("run", "--steps", 2, "--importance", 2, "--limit", 3)}
    flows = {"ODE", "ODE-TN", "ODE-VD"}
    assert kinds | flows == {*BOUNDS, "uniform", "histogram"}  # which a test holds against entropies
    assert 0 < float(cells["bpd_solver"]) < 0.05


def test_the_cells_of_the_flow() -> None:
    """One row more: near the flow's bound with the decoder, which it replaces, and with no more draws no looser."""
    options = ("swirl.ckpt", "--data", "swirl.yaml", "--limit", 10, "--draws", 2, "--ode", "exact")
    flow, cells = rows(*options)[1:3]
    assert cells["bound"] == "ODE-TN, exact trace"
    assert float(cells["bpd"]) == pytest.approx(float(flow["bpd"]), abs=0.1)
    more = rows(*options, "--ode_samples", 4)[2]
    assert float(more["bpd"]) < float(cells["bpd"]) + 0.01


def test_the_learned_dequantisation() -> None:
    """A row in place of the truncated normal's, of another number that is no looser by more than noise."""
    options = ("swirl.ckpt", "--data", "swirl.yaml", "--limit", 3, "--draws", 1, "--ode", "exact")
    truncated = rows(*options, "--dequantisation", "truncated")[2]
    learned = rows(*options, "--dequantisation", "learned", "--dequantisation_steps", 30)[2]
    assert (truncated["bound"], learned["bound"]) == ("ODE-TN, exact trace", "ODE-VD, exact trace")
    assert learned["bpd"] != truncated["bpd"]
    assert float(learned["bpd"]) < float(truncated["bpd"]) + 0.01


def test_labels_reach_a_class_conditional_model() -> None:
    assert bound("ten.ckpt", "--data", "digits.yaml", "--limit", 9)["bpd"] > 0


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_classifiers(split: str) -> None:
    model, data = siblings().eval(), Digits()
    data.setup()
    batch = data.splits[split][torch.arange(len(data.splits[split]))]
    with torch.no_grad():
        log_p = model(batch.x)
    found = rows("siblings.ckpt", "--data", "digits.yaml", "--split", split, "--batch_size", 7)
    for i, row in enumerate(found):
        assert row["model"] == f"siblings#{i}"
        assert float(row["accuracy"]) == pytest.approx(float((log_p[i].argmax(-1) == batch.y).double().mean()))
        nll = torch.nn.functional.nll_loss(log_p[i].double(), batch.y)
        assert float(row["nll"]) == pytest.approx(float(nll), rel=1e-6)


class TwoLabels:
    """Two labels whose logits are 1 and its next float32, times an embedding so short that log p is -log 2 of both."""

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 1), 1e-12)

    def unembeddings(self) -> torch.Tensor:
        return torch.tensor([[1.0], [1 + torch.finfo(torch.float32).eps]])


def test_the_larger_logit_is_the_answer_where_the_log_probabilities_are_equal() -> None:
    model, data = TwoLabels(), Swirl(size=4)
    log_p = log_probabilities([model.embed(torch.zeros(1, 2))], [model.unembeddings()])
    assert log_p[0, 0, 0] == log_p[0, 0, 1]
    split = open_split(data, "test", torch.device("cpu"))
    data.num_classes = 2
    split.split.y = torch.tensor([1, 0, 1, 1])
    (row,) = evaluate_classifiers([("two", model)], split)
    assert row["accuracy"] == 0.75
    assert row["nll"] == pytest.approx(math.log(2))


def test_one_member_of_siblings() -> None:
    (row,) = rows("siblings.ckpt#2", "--data", "digits.yaml")
    assert row["model"] == "siblings#2"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("missing.ckpt",), 1, "there is no checkpoint missing.ckpt"),
        (("points.ckpt",), 1, "name the data with --data"),
        (("run", "--split", "training"), 2, "training"),
        (("run", "--data", "swirl.yaml"), 1, "run models 17 grey levels, but swirl has 256"),
        (("points.ckpt", "--data", "digits.yaml"), 1, "samples of shape [2], but digits's have [1, 8, 8]"),
        (("four.ckpt", "--data", "digits.yaml"), 1, "four.ckpt has 4 labels, but digits has 10"),
        (("run", "--steps", "0"), 1, "--steps must be at least 1, got 0"),
        (("run", "--steps", "10,ten"), 1, "--steps takes whole numbers and inf, separated by commas, got 'ten'"),
        (("run", "--steps", "10", "--ratio", "learned"), 1, "the model has no ratio"),
        (("run", "--ratio", "fitted"), 1, "at T = inf any variance ratio but 1 costs infinity"),
        (("run", "--ode_samples", "2"), 1, "--ode_samples needs --ode"),
        (("run", "--fit_samples", "9", "--ratio", "one"), 1, "--fit_samples needs something to fit: --ratio fitted or"),
        (("run", "--dequantisation", "learned"), 1, "--dequantisation needs --ode"),
        (("run", "--ode", "exact", "--dequantisation_steps", "2"), 1, "steps needs --dequantisation learned"),
        (("run", "--volatility", "learned"), 1, "the model has none, it was trained with 1; fitted takes no training"),
        (("ratio.ckpt", "--steps", "4,inf", "--ratio", "learned"), 1, "at T = inf"),
        (("run", "--importance", "2"), 1, "--importance needs finite --steps"),
        (("run", "--draws", "0"), 1, "--draws must be at least 1, got 0"),
        (("run", "--limit", "0"), 1, "--limit must be at least 1, got 0"),
        (("run", "--features", "pixels"), 1, "--features says nothing about diffusion models"),
        (("siblings.ckpt", "--draws", "3"), 1, "--draws says nothing about classifiers"),
        (("siblings.ckpt", "--data", "swirl.yaml"), 1, "has 10 labels, but swirl has 1"),
        (("run#1",), 1, "VariationalDiffusion, which is no softmax classifier"),
        (("diffenc.ckpt", "--data", "digits.yaml", "--ode", "exact"), 1, "flow of TrainableEncoder is unknown"),
    ],
)
def test_refusals_are_one_line(
    arguments: tuple[str, ...], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == status
    error = capsys.readouterr().err
    assert error.startswith("likeness: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not Path("out").exists()


def test_an_interrupted_evaluation_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bound_evaluation, "baselines", interrupt)
    assert run("run", "--draws", 1) == 130
    assert capsys.readouterr().err == "likeness: interrupted\n"
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["evaluate", "sample"])
def test_help_imports_nothing_heavy(name: str, root: Path) -> None:
    code = (
        f"import sys; from scripts import {name}\n"
        f"try: {name}.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'matplotlib', 'sklearn', 'wandb') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
