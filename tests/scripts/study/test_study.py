"""The study command: constructions against published numbers and closed forms, pairs of runs, and equivalent heads."""

import csv
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import Digits
from lightning_modules import SiblingClassifiers, SoftmaxClassifier
from likeness.label_geometry.equivalent_heads import equivalent_head
from likeness.networks import MLP, LinearHead
from likeness.similarity.predictions import kl, log_probabilities, nll
from likeness.similarity.representations.cca import m_cca
from scripts import study
from scripts.cli.entry_point import run_command
from scripts.study import constructed, cosines, kl_to_zero, loss_difference
from scripts.study.constructed import PERMUTATION, permuted_pair, perturbed_models
from tests.callbacks.toy_siblings import save_checkpoint
from tests.reference import FOLDER

needs_table = pytest.mark.skipif(not (FOLDER / "kl_to_zero.json").exists(), reason=f"no kl_to_zero.json in {FOLDER}")
DIGITS = "data:\n  class_path: datamodules.Digits\n  init_args: {seed: SEED}\n"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(study.main, arguments)
    return int(end.value.code or 0)


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def make_run(name: str, model: SoftmaxClassifier | SiblingClassifiers, seed: int = 0) -> None:
    """A finished run on the digits."""
    save_checkpoint(model, Path("runs", name, "checkpoints", "last.ckpt"))
    Path("runs", name, "config.yaml").write_text(DIGITS.replace("SEED", str(seed)))


def classifier(seed: int = 0, width: int = 8, dim: int = 2) -> SoftmaxClassifier:
    return SoftmaxClassifier((1, 8, 8), 10, dim=dim, embedding=partial(MLP, width=width), seed=seed)


# Table 1


@needs_table
def test_the_table_is_the_one_that_the_authors_code_prints() -> None:
    published = json.loads((FOLDER / "kl_to_zero.json").read_text())
    lengths = (1, 8, 20)
    for row in kl_to_zero.table(lengths):
        theirs = published["authors_float32"][row["length"] - 1]
        exact = published["float64"][row["length"] - 1]
        assert row["kl_12"] == pytest.approx(theirs["KL_div"], rel=1e-4)
        assert row["d_llv"] == pytest.approx(theirs["d_prob"], abs=2e-6)
        assert row["m_cca_f"] == pytest.approx(theirs["mCCA_f"], abs=1e-9)
        assert row["m_cca_g"] == pytest.approx(0, abs=1e-9)
        assert row["max_d_svd_f"] == pytest.approx(theirs["max_d_rep_f"], abs=1e-9)
        assert row["d_svd_g"] == pytest.approx(theirs["max_d_rep_g"], abs=1e-9)
        assert row["kl_12"] == pytest.approx(exact["KL"], rel=1e-12)
        assert row["term_1"] == pytest.approx(exact["t1"], abs=1e-12)
        assert row["term_2"] == pytest.approx(exact["t2_exact"], abs=1e-12)
        assert row["term_2"] <= row["term_2_sampled"]


def test_the_second_model_has_the_first_ones_clusters_in_another_order() -> None:
    f, g, other_f, other_g = permuted_pair(length=3.0, per_class=20)
    radii, other_radii = f.norm(dim=1), other_f.norm(dim=1)
    torch.testing.assert_close(radii, other_radii, rtol=1e-14, atol=0)
    assert radii.min() > 2
    assert radii.max() < 2.1
    torch.testing.assert_close(g.norm(dim=1), torch.full((7,), 3.0).double())
    for label, source in enumerate(PERMUTATION):
        assert torch.equal(other_g[label], g[source])
        cosine = torch.cosine_similarity(other_f[20 * label : 20 * label + 20], g[source].expand(20, 2))
        assert cosine.min() >= math.cos(math.pi / 64)
    own = (f @ g.T).argmax(1)
    assert torch.equal(own, torch.arange(7).repeat_interleave(20))
    assert torch.equal((other_f @ other_g.T).argmax(1), own)


def test_kl_to_zero_writes_its_table_and_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kl_to_zero, "LENGTHS", (2, 12))
    monkeypatch.setattr(kl_to_zero, "permuted_pair", partial(permuted_pair, per_class=60))
    assert run("kl_to_zero", "--out", "out") == 0
    table = rows("out/kl_to_zero.csv")
    assert [row["length"] for row in table] == ["2", "12"]
    assert float(table[1]["kl_12"]) < 0.02 * float(table[0]["kl_12"])
    assert float(table[1]["d_llv"]) == pytest.approx(float(table[0]["d_llv"]), rel=1e-3)
    assert "wrote out/kl_to_zero.png" in capsys.readouterr().out


# Fig 16


def test_constructed_pairs_keep_to_both_bounds() -> None:
    found = constructed.pairs(5, levels=6, per_class=180)
    assert [row["noise"] for row in found] == pytest.approx([0.004 * level for level in range(1, 7)])
    for row in found:
        assert 0 < row["d_fg"] <= row["squared_bound"] == pytest.approx(2 * row["d_llv"] ** 2)
        assert row["paper_bound"] == pytest.approx(4 * row["d_llv"])
        assert row["d_fg"] == max(row["max_d_svd_f"], row["d_svd_g"])
    (summary,) = constructed.summary(found)
    assert 0 < summary["max d_fg / 2M d_llv"] < summary["/ 2 d_llv^2"] <= 1


def test_noise_is_as_large_as_it_says() -> None:
    f, g, (small, large) = perturbed_models(4, [0.01, 0.1], per_class=2000)
    assert g.norm(dim=1).tolist() == pytest.approx([20] * 4)
    assert float(f.norm(dim=1).min()) > 5
    assert float((small - f).std()) == pytest.approx(0.01, rel=0.02)
    assert float((large - f).std()) == pytest.approx(0.1, rel=0.02)


def test_constructed_writes_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constructed, "NOISE", {4: 0.005, 6: 0.004})
    monkeypatch.setattr(constructed, "LEVELS", 2)
    assert run("constructed", "--out", "out") == 0
    assert [row["num_classes"] for row in rows("out/constructed.csv")] == ["4", "4", "6", "6"]
    assert Path("out/constructed.png").stat().st_size > 0


# Fig 5


def test_models_are_grouped_by_all_but_their_seeds() -> None:
    siblings = SiblingClassifiers((1, 8, 8), 10, num_members=3, embedding=partial(MLP, width=16))
    make_run("siblings", siblings)
    for seed in (0, 1):
        make_run(f"alone{seed}", classifier(seed), seed)
    make_run("wide", classifier(width=9))
    groups = loss_difference.find_groups(["runs"], None)
    assert [[name for name, _ in group.models] for group in groups] == [
        ["alone0", "alone1"],
        ["siblings#0", "siblings#1", "siblings#2"],
    ]
    assert [group.name for group in groups] == ["alone0 and 1 more", "siblings"]
    assert {group.panel for group in groups} == {"Digits, K = 10, M = 2"}


def test_pairs_are_those_of_the_pure_functions() -> None:
    models = [classifier(seed).double().eval() for seed in range(3)]
    for seed, model in enumerate(models):
        make_run(f"seed{seed}", model, seed)
    assert run("loss_difference", "runs", "--out", "out") == 0
    data = Digits()
    data.setup("test")
    batch = data.splits["test"][torch.arange(360)]
    with torch.no_grad():
        f, g = [model.embed(batch.x) for model in models], [model.unembeddings() for model in models]
    log_p = log_probabilities(f, g)
    losses = nll(log_p, batch.y).mean(1)
    found = rows("out/pairs.csv")
    for row, (i, j) in zip(found, [(0, 1), (0, 2), (1, 2)], strict=True):
        assert (row["model_a"], row["model_b"]) == (f"seed{i}", f"seed{j}")
        assert float(row["loss_difference"]) == pytest.approx(abs(float(losses[i] - losses[j])), abs=1e-9)
        assert float(row["m_cca_f"]) == pytest.approx(float(m_cca(f[i], f[j])), abs=1e-9)
        assert float(row["kl_ab"]) == pytest.approx(float(kl(log_p[i], log_p[j]).mean()), rel=1e-9)
    x, y = (np.array([float(row[name]) for row in found]) for name in ("loss_difference", "m_cca_f"))
    ranks = [values.argsort().argsort() for values in (x, y)]
    (group,) = rows("out/groups.csv")
    assert float(group["spearman"]) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert Path("out/loss_difference.png").stat().st_size > 0


def test_one_pair_has_no_rank_correlation() -> None:
    row = {"panel": "p", "group": "g", "loss_difference": 0.1, "m_cca_f": 0.5}
    (summary,) = loss_difference.summary([row])
    assert summary["spearman"] is None
    assert loss_difference.draw([row], [summary]).axes[0].get_legend_handles_labels()[1] == ["g"]


# Cosines


def test_the_three_heads_are_equal_and_drawn_at_their_cosines() -> None:
    make_run("siblings", SiblingClassifiers((1, 8, 8), 10, num_members=2, embedding=partial(MLP, width=16)))
    assert run("cosines", "runs/siblings#1", "--pair", "3", "8", "--out", "out") == 0
    found = rows("out/cosines.csv")
    assert [float(row["cosine"]) for row in found[1:]] == pytest.approx([0.8, 1, -1], abs=1e-9)
    assert all(float(row["log p moved"]) < 1e-12 for row in found)
    assert all(float(row["|v|"]) > 1e-3 for row in found[1:])
    assert Path("out/cosines.png").stat().st_size > 0


@pytest.mark.parametrize("bias", [False, True])
def test_regions_stay_and_arrows_turn(bias: bool) -> None:
    head = partial(LinearHead, bias=bias)
    make_run("one", SoftmaxClassifier((1, 8, 8), 10, embedding=partial(MLP, width=16), unembedding=head))
    opened = cosines.open_head("runs/one")
    model = cosines.embed(opened, "runs/one", None, "test")
    assert (model.bias is not None) == bias
    assert model.f.shape == (360, 2)
    heads = [equivalent_head(model.f, model.g, (0, 1), cosine, model.bias) for cosine in (0.8, 1.0, -1.0)]
    panels = cosines.draw(model, (0, 1), heads).axes
    regions = [axes.images[0].get_array() for axes in panels]
    assert len(panels) == 3
    assert (regions[0] == regions[1]).mean() > 0.9999  # a point on a border may fall to either side
    assert (regions[0] == regions[2]).mean() > 0.9999
    for axes, head in zip(panels, heads, strict=True):
        tips = np.array([text.xy for text in axes.texts if text.get_text() == ""])
        assert np.dot(*tips) / np.prod(np.linalg.norm(tips, axis=1)) == pytest.approx(head.cosine, abs=1e-9)


# The command


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["cosines", "runs/cube"], 1, "runs/cube has M = 3: only a model with M = 2 can be drawn"),
        (["cosines", "g.npy"], 1, "g.npy is weights alone: a run or checkpoint of this project is needed"),
        (["cosines", "runs/flat", "--pair", "3", "3"], 1, "--pair takes two labels"),
        (["cosines", "runs/flat", "--pair", "0", "10"], 1, "there is no label '10'"),
        (["cosines", "runs/flat", "--cosines", "2"], 1, "cosine must lie in [-1, 1]"),
        (["loss_difference", "runs/flat"], 1, "no two of these models differ in their seeds only: flat"),
        (["loss_difference", "runs/none"], 1, "there is no checkpoint runs/none"),
        (["width", "--classes", "3"], 1, "classes must be at least M + 2 = 4, got 3"),
        (["width", "--seeds", "4"], 1, "seeds must be at least 5, got 4"),
        (["widths"], 2, "widths"),
        ([], 2, "study"),
    ],
)
def test_one_line_says_what_is_wrong(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("flat", classifier())
    make_run("cube", classifier(dim=3))
    np.save("g.npy", np.eye(4, 2))
    assert run(*arguments, *(["--out", "out"] if arguments else [])) == status
    captured = capsys.readouterr()
    assert captured.err.startswith("likeness: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not Path("out").exists()


@pytest.mark.parametrize("name", study.STUDIES)
def test_every_study_says_what_its_options_mean(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    shown = capsys.readouterr().out
    assert study.STUDIES[name].summary[:30] in " ".join(shown.split())
    assert "Where everything is written." in shown


def test_the_list_of_studies_imports_nothing_heavy(root: Path) -> None:
    code = (
        "import sys; from scripts import study\n"
        "try: study.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'matplotlib', 'sklearn', 'wandb') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
