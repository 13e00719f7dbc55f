"""The compare command: what it prints, what it writes, and how it refuses."""

import csv
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules import checkpoints
from lightning_modules.checkpoints import short_names
from lightning_modules.sibling_classifiers import SiblingClassifiers
from lightning_modules.softmax_classifier import SoftmaxClassifier
from likeness.networks import MLP
from likeness.similarity.catalogue import REPRESENTATION_MEASURES
from likeness.similarity.comparison import compare_softmax_models
from likeness.similarity.predictions import kl, log_probabilities
from likeness.similarity.representations.cca import m_cca
from likeness.similarity.representations.permutation_null import null_distribution
from scripts import compare
from scripts.cli.entry_point import run_command
from tests.callbacks.toy_siblings import ToySiblings, save_checkpoint


class Linear(torch.nn.Module):
    """A linear softmax model of images [1, 8, 8]."""

    def __init__(self, seed: int, dim: int = 2, num_classes: int = 10, size: int = 64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.f = torch.nn.Parameter(torch.randn(size, dim, generator=generator) / 8)
        self.g = torch.nn.Parameter(torch.randn(num_classes, dim, generator=generator))

    def embed(self, x: Tensor) -> Tensor:
        x = x.flatten(1).float() / 16
        if x.shape[1] != len(self.f):
            raise ValueError(f"x has {x.shape[1]} pixels, the model takes {len(self.f)}")
        return x @ self.f

    def unembeddings(self) -> Tensor:
        return self.g


MODELS = {
    "one": [Linear(0), Linear(1)],
    "two": [Linear(2, dim=3)],
    "small": [Linear(3, size=9)],
    "four": [Linear(4, num_classes=4)],
    "wide": [Linear(5, dim=12)],
    "flat": [Linear(6)],
    "collapsed": [Linear(6)],
}
with torch.no_grad():
    MODELS["flat"][0].f[:, 1] = 2 * MODELS["flat"][0].f[:, 0]
    MODELS["collapsed"][0].f.zero_()


@pytest.fixture(autouse=True)
def _runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run directories that hold the models of their name."""

    def load_softmax_models(path: str) -> list[tuple[str, Any]]:
        models = MODELS.get(path.partition("/")[0])
        if models is None:
            return checkpoints.load_softmax_models(path)
        return [(f"{path}#{i}" if len(models) > 1 else path, model) for i, model in enumerate(models)]

    fake = ModuleType("lightning_modules.checkpoints")
    fake.load_softmax_models = load_softmax_models  # type: ignore[attr-defined]
    fake.short_names = short_names  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lightning_modules.checkpoints", fake)
    (tmp_path / "one").mkdir()
    data = "data:\n  class_path: datamodules.Digits\n  init_args: {eval_batch_size: 100}\n"
    (tmp_path / "digits.yaml").write_text(data)
    (tmp_path / "one" / "config.yaml").write_text("seed_everything: 0\n" + data)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(compare.main, [*arguments, "--out", "out"])
    return int(end.value.code or 0)


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_tables_files_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("one", "two/checkpoints/last.ckpt", "--data", "digits.yaml") == 0
    printed = capsys.readouterr().out
    assert "360 samples of the test split" in printed
    assert "over 3 pairs" in printed
    files = ["models.csv", "comparison.csv", "similarity_kl.png", "similarity_m_cca_f.png", "embeddings.png"]
    for file in files:
        assert f"wrote out/{file}" in printed
        assert Path("out", file).stat().st_size > 0
    assert [row["model"] for row in rows("out/models.csv")] == ["one#0", "one#1", "two"]


def test_values_are_those_of_the_pure_functions() -> None:
    from datamodules import Digits

    assert run("one", "two", "--data", "digits.yaml", "--split", "val") == 0
    data = Digits()
    data.setup("validate")
    batch = data.splits["val"][torch.arange(180)]
    models = MODELS["one"] + MODELS["two"]
    with torch.no_grad():
        embeddings = [model.embed(batch.x) for model in models]
        log_p = log_probabilities(embeddings, [model.g for model in models])
    for row, log_q in zip(rows("out/models.csv"), log_p, strict=True):
        assert float(row["accuracy"]) == float((log_q.argmax(-1) == batch.y).double().mean())
        assert float(row["nll"]) == pytest.approx(float(-log_q[torch.arange(180), batch.y].mean()), rel=1e-9)
    pairs = rows("out/comparison.csv")
    assert [(row["model_a"], row["model_b"]) for row in pairs] == [
        ("one#0", "one#1"),
        ("one#0", "two"),
        ("one#1", "two"),
    ]
    assert list(pairs[0]) == ["model_a", "model_b", "kl_ab", "kl_ba", "m_cca_f", "m_cca_g", "undefined"]
    assert {pair["undefined"] for pair in pairs} == {""}
    for row, (i, j) in zip(pairs, [(0, 1), (0, 2), (1, 2)], strict=True):
        assert float(row["kl_ab"]) == pytest.approx(float(kl(log_p[i], log_p[j]).mean()), rel=1e-9)
        assert float(row["kl_ba"]) == pytest.approx(float(kl(log_p[j], log_p[i]).mean()), rel=1e-9)
        assert float(row["m_cca_f"]) == pytest.approx(float(m_cca(embeddings[i], embeddings[j])), abs=1e-9)


def test_bounds_stand_beside_what_they_bound(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("one", "two", "--data", "digits.yaml", "--measures", "d_fg", "max_d_svd_f") == 0
    columns = ["d_fg", "paper_bound", "paper_bound_informative", "squared_bound", "squared_bound_informative"]
    columns += ["max_d_svd_f", "certificate", "certificate_informative"]
    found, *others = rows("out/comparison.csv")
    searches = ["d_fg_search", "max_d_svd_f_search"]
    assert {*found} == {"model_a", "model_b", *columns, *searches, "kept_inputs", "undefined"}
    assert [found[name] for name in searches] == ["exact", "exact"]
    assert found["kept_inputs"] == "360"
    f, g = embeddings_of("one")
    expected = compare_softmax_models(f[0], g[0], f[1], g[1])
    for name in ("d_fg", "max_d_svd_f"):
        assert float(found[name]) == pytest.approx(getattr(expected, name), rel=1e-9)
    for name in ("paper_bound", "squared_bound", "certificate"):
        bound = getattr(expected, name)
        assert float(found[name]) == pytest.approx(bound.value, rel=1e-9)
        assert found[f"{name}_informative"] == ("yes" if bound.informative else "no")
    for row in others:  # of models whose M differ
        assert {row[name] for name in columns} == {"nan", "no"}
        assert {row[name] for name in searches} == {"none"}
        assert "d_fg: the models have different M: 2 and 3; max_d_svd_f: the models" in row["undefined"]
    printed = capsys.readouterr().out
    for label in ("2 M d_LLV", "2 d_LLV^2", "certificate"):
        assert f"at most {label}" in printed
    assert "informative:" in printed
    assert "* derived, not in the paper" in printed


def test_what_unrelated_models_would_score(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("one", "--measures", "kl", "linear_cka", "pwcca", "--nulls", "20") == 0
    (found,) = rows("out/comparison.csv")
    of_pwcca = ["pwcca_ab", "pwcca_ba", "pwcca_null_ab", "pwcca_null_ba", "pwcca_p_ab", "pwcca_p_ba"]
    assert list(found)[4:] == ["linear_cka", "linear_cka_null", "linear_cka_p", *of_pwcca, "kept_inputs", "undefined"]
    f, _ = embeddings_of("one")
    null = null_distribution(REPRESENTATION_MEASURES["linear_cka"], f[0], f[1], n=20)
    assert float(found["linear_cka"]) == pytest.approx(null.observed, rel=1e-9)
    assert float(found["linear_cka_null"]) == pytest.approx(null.mean, rel=1e-9)
    assert float(found["linear_cka_p"]) == pytest.approx(null.p_value)
    printed = capsys.readouterr().out
    assert printed.count("│   if unrelated") == 2
    assert "mean of 20 permutations" in printed


def embeddings_of(run: str) -> tuple[list[Tensor], list[Tensor]]:
    """f [N, M] and g [K, M] of a run's models on the test split."""
    from datamodules import Digits

    data = Digits()
    data.setup("test")
    batch = data.splits["test"][torch.arange(360)]
    with torch.no_grad():
        return [model.embed(batch.x) for model in MODELS[run]], [model.g.detach() for model in MODELS[run]]


def test_the_first_run_tells_the_data_and_measures_are_chosen_by_name() -> None:
    assert run("one", "--measures", "js", "tv") == 0
    assert list(rows("out/comparison.csv")[0]) == ["model_a", "model_b", "js", "tv", "undefined"]


def test_a_collapsed_model_is_reported_and_the_rest_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("one", "collapsed") == 0
    reason = "the embeddings of model 'collapsed', [360, 2], span 0 of 2 dimensions"
    printed = capsys.readouterr()
    assert f"likeness: warning: m_cca_f is NaN for 2 of 3 pairs: {reason}" in printed.err
    assert "undefined: 2 of 3" in printed.out
    healthy, *others = rows("out/comparison.csv")
    assert 0 < float(healthy["m_cca_f"]) < 1
    assert healthy["undefined"] == ""
    for row in others:
        assert row["m_cca_f"] == "nan"
        assert row["undefined"] == f"m_cca_f: {reason}"
        assert float(row["kl_ab"]) > 0


def test_a_model_on_a_line_is_measured_in_what_it_spans_and_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("one", "flat") == 0
    assert "f of flat spans 1 of 2 dimensions" in " ".join(capsys.readouterr().out.split())
    for row in rows("out/comparison.csv"):
        assert 0 < float(row["m_cca_f"]) <= 1
        assert float(row["kl_ab"]) > 0


def test_more_dimensions_than_labels(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("one", "wide", "--measures", "kl", "m_cca", "likelihood", "max_d_svd_f_of_ties") == 0
    pair = rows("out/comparison.csv")[-1]
    assert float(pair["kl_ab"]) > 0
    assert 0 < float(pair["m_cca_f"]) <= 1
    assert "m_cca_g: the unembeddings of model 'wide' less their mean, [10, 12], span 9 of 12" in pair["undefined"]
    first = rows("out/comparison.csv")[0]
    f, g = embeddings_of("one")
    expected = compare_softmax_models(f[0], g[0], f[1], g[1])
    assert float(first["max_d_svd_f_of_ties"]) == pytest.approx(expected.max_d_svd_f_of_ties, rel=1e-9)


def test_what_was_sampled_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likeness.similarity.options.MAX_EXACT_INPUTS", 100)
    assert run("one", "--measures", "term_1", "term_2", "--max_stored", "200") == 0
    (pair,) = rows("out/comparison.csv")
    assert list(pair) == ["model_a", "model_b", "term_1", "term_2", "term_2_search", "kept_inputs", "undefined"]
    assert (pair["term_2_search"], pair["kept_inputs"]) == ("sampled", "200")
    printed = " ".join(capsys.readouterr().out.split())
    assert "sampled: 1 of 1" in printed
    assert "term_2: of 200 kept inputs" in printed


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["missing"], 1, "there is no checkpoint missing"),
        (["two", "--data", "digits.yaml"], 1, "at least two models, and two is one"),
        (["two", "one"], 1, "name the data with --data: there is no"),
        (["one", "--data", "none.yaml"], 2, "there is no configuration none.yaml"),
        (["one", "--data", "list.yaml"], 2, "the configuration list.yaml holds a list, and no keys"),
        (["one", "--data", "broken.yaml"], 2, "the configuration broken.yaml, line 1, column 8: "),
        (["one", "--data", "model.yaml"], 2, "data config model.yaml has no key 'data'"),
        (["one", "--data", "typo.yaml"], 2, "eval_batchsize"),
        (["one", "--data", "class.yaml"], 2, "datamodules.Digitz"),
        (["one", "--data", "size.yaml"], 2, "data config size.yaml: batch_size must be at least 1, got 0"),
        (["one", "small"], 1, "model 'small' does not take inputs [100, 1, 8, 8]: x has 64 pixels"),
        (["one", "four"], 1, "one#0 has 10, one#1 has 10, four has 4"),
        (["one", "--data", "radial.yaml"], 1, "model 'one#0' has 10 labels, but Radial has 4"),
        (["one", "--measures", "cka"], 1, "unknown measure 'cka': the known ones are kl, js"),
        (["one", "--nulls", "9"], 1, "--nulls needs measures of samples, such as --measures linear_cka"),
        (["one", "--measures", "rsa", "--nulls", "-1"], 1, "--nulls takes a number of permutations, got -1"),
        (["one", "--device", "gpu"], 2, "device"),
        (["one", "--meas", "kl"], 2, "--meas"),
        ([], 2, "models"),
    ],
)
def test_one_line_says_what_is_wrong(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("list.yaml").write_text("- 1\n")
    Path("broken.yaml").write_text("data: [")
    Path("model.yaml").write_text("model: {}")
    Path("size.yaml").write_text("data:\n  class_path: datamodules.Digits\n  init_args: {batch_size: 0}\n")
    Path("typo.yaml").write_text("data:\n  class_path: datamodules.Digits\n  init_args: {eval_batchsize: 100}\n")
    Path("class.yaml").write_text("data:\n  class_path: datamodules.Digitz\n")
    Path("radial.yaml").write_text("data:\n  class_path: datamodules.Radial\n  init_args: {num_classes: 4}\n")
    assert run(*arguments) == status
    captured = capsys.readouterr()
    assert captured.err.startswith("likeness: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not Path("out").exists()


SHAPE = {"input_shape": (1, 8, 8), "num_classes": 10, "embedding": partial(MLP, width=16)}


def test_finished_runs_and_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    siblings = SiblingClassifiers(num_members=3, **SHAPE)
    save_checkpoint(siblings, tmp_path / "runs" / "siblings" / "checkpoints" / "last.ckpt")
    save_checkpoint(SoftmaxClassifier(seed=1, **SHAPE), tmp_path / "alone.ckpt")
    assert run("runs/siblings", "alone.ckpt", "--data", "digits.yaml") == 0
    assert [row["model"] for row in rows("out/models.csv")] == ["siblings#0", "siblings#1", "siblings#2", "alone"]
    pairs = {(row["model_a"], row["model_b"]): row for row in rows("out/comparison.csv")}
    twins = pairs["siblings#1", "alone"]  # of one seed
    assert abs(float(twins["kl_ab"])) < 1e-10
    assert float(twins["m_cca_f"]) == pytest.approx(1, abs=1e-9)


def test_files_that_are_no_classifiers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(SoftmaxClassifier(**SHAPE), tmp_path / "whole.ckpt")
    whole = Path("whole.ckpt").read_bytes()
    Path("cut.ckpt").write_bytes(whole[: len(whole) // 2])
    Path("text.ckpt").write_text("no checkpoint")
    save_checkpoint(ToySiblings(), tmp_path / "toy.ckpt")
    for file in ("cut.ckpt", "text.ckpt", "toy.ckpt"):
        assert run("whole.ckpt", file, "--data", "digits.yaml") == 1
        error = capsys.readouterr().err
        assert error.startswith("likeness: error: checkpoint ")
        assert file in error
        assert error.count("\n") == 1


def test_names_tell_runs_apart() -> None:
    names = ["runs/a#0", "runs/a#10", "runs/b/checkpoints/last.ckpt", "runs/b/checkpoints/best.ckpt", "c.ckpt"]
    assert short_names(names) == ["a#0", "a#10", "b", "b/best", "c"]
    assert short_names(["x/a#0", "y/a#0", "b"]) == ["x/a#0", "y/a#0", "b"]
    assert short_names(["a#0", "a#0"]) == ["a#0", "a#0 (2)"]


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("missing", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("one", "--device", "cuda") == 1
    assert "torch sees no CUDA device" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").write_text("a file in the way")
    assert run("one") == 1
    assert "out" in capsys.readouterr().err


def test_help_imports_nothing_heavy(root: Path) -> None:
    code = (
        "import sys; from scripts import compare\n"
        "try: compare.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'matplotlib', 'sklearn', 'wandb') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
