"""The command that imports published weights: what it writes, how it refuses, and what comparing the result answers."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.checkpoints import load_softmax_models
from scripts import compare, import_published
from scripts.cli.entry_point import run_command
from tests.lightning_modules.test_published_close_dist import output, weights
from tests.reference import FOLDER, NAME, needs_reference, published

LONG = "2025-04-22{}_radial_classification_SmallMLP_classes4_seed{}_features8_fd2_data20000_lr0_0001_steps15000"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(import_published.main, ["close-dist", *arguments])
    return int(end.value.code or 0)


def save(name: str, state: Any) -> str:
    torch.save(state, name)
    return name


def test_a_file_becomes_a_checkpoint_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    state = weights(num_classes=6)
    assert run(save("weights", state), "--out", "models/six.ckpt") == 0
    assert "wrote models/six.ckpt: K = 6, M = 2, width 8" in capsys.readouterr().out
    ((name, model),) = load_softmax_models("models/six.ckpt")
    assert name == "models/six.ckpt"
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    torch.testing.assert_close(model.embed(x), output(state, "f_net", x))
    torch.testing.assert_close(model.unembeddings(), output(state, "g_net", torch.eye(6)[:, :-1]))


def test_several_files_get_short_names_in_a_folder() -> None:
    files = [save(LONG.format(kind, seed), weights()) for kind in ("trained", "untrained") for seed in (0, 1)]
    assert run(*files, save("other.pt", weights(g_width=5)), "--out", "models") == 0
    names = {path.name for path in Path("models").iterdir()}
    assert names == {
        "K4_width8_seed0.ckpt",
        "K4_width8_seed1.ckpt",
        "untrained_K4_width8_seed0.ckpt",
        "untrained_K4_width8_seed1.ckpt",
        "other.ckpt",
    }


def test_nothing_is_overwritten_unasked() -> None:
    assert run(save("a", weights()), "--out", "a.ckpt") == 0
    before = Path("a.ckpt").read_bytes()
    save("a", weights(num_classes=5))
    assert run("a", "--out", "a.ckpt") == 1
    assert Path("a.ckpt").read_bytes() == before
    assert run("a", "--out", "a.ckpt", "--overwrite", "true") == 0
    assert load_softmax_models("a.ckpt")[0][1].unembeddings().shape == (5, 2)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["none", "--out", "a.ckpt"], 1, "there is no file none"),
        (["good", "text", "--out", "models"], 1, "text: it is truncated, no state dict"),
        (["good", "cut", "--out", "models"], 1, "cut: it is truncated, no state dict"),
        (["good", "list", "--out", "models"], 1, "list: it holds a list, not a state dict"),
        (["good", "code", "--out", "models"], 1, "code: it is truncated, no state dict, or holds more than tensors"),
        (["good", "lacking", "--out", "models"], 1, "lacking: these are not the weights of a published classifier"),
        (["good", "list", "--out", "a.ckpt"], 1, "--out a.ckpt is one checkpoint, but there are 2 files"),
        (["good", "good", "--out", "models"], 1, "good and good would both become models/good.ckpt"),
        (["good"], 2, "out"),
        ([], 2, "files"),
    ],
)
def test_one_line_says_what_is_wrong_and_nothing_is_written(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save("good", weights())
    Path("cut").write_bytes(Path("good").read_bytes()[:300])
    Path("text").write_text("no weights")
    save("list", [1, 2])
    save("code", {"f_net.l1.weight": torch.nn.Linear(1, 1)})
    save("lacking", {name: value for name, value in weights().items() if name != "g_net.l1.weight"})
    assert run(*arguments) == status
    captured = capsys.readouterr()
    assert captured.err.startswith("likeness: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not list(Path().glob("**/*.ckpt"))


@needs_reference
@pytest.mark.parametrize("width", [16, *(pytest.param(width, marks=pytest.mark.long) for width in (32, 64)), 128])
def test_comparing_them_answers_what_the_authors_code_answers(width: int, root: Path) -> None:
    """All 20 checkpoints and 40 pairs, over the four widths: the outer two always, the others by `make evidence`."""
    files = [str(FOLDER / "close_dist" / NAME.format(seed=seed, width=width)) for seed in range(5)]
    assert run(*files, "--out", "models") == 0
    models = [f"models/K4_width{width}_seed{seed}.ckpt" for seed in range(5)]
    measures = ("--measures", "kl", "m_cca", "d_llv", "max_d_svd_f")
    data = ("--data", str(root / "configs/data/radial.yaml"))
    assert compare.main([*models, *data, *measures, "--out", "compared"]) == 0
    scores = {row["model"]: row for row in rows("compared/models.csv")}
    for model in published()["models"]:
        if model["width"] == width:
            own = scores[f"K4_width{width}_seed{model['seed']}"]
            assert float(own["accuracy"]) == pytest.approx(model["test_acc"], abs=1e-7)
            assert float(own["nll"]) == pytest.approx(model["test_nll"], rel=1e-5)
    found = {(row["model_a"], row["model_b"]): row for row in rows("compared/comparison.csv")}
    assert len(found) == 10
    for pair in published()["pairs"]:
        if pair["width"] == width:
            row = found[f"K4_width{width}_seed{pair['seed1']}", f"K4_width{width}_seed{pair['seed2']}"]
            assert float(row["kl_ab"]) == pytest.approx(pair["KL_12"], rel=1e-4)
            assert float(row["kl_ba"]) == pytest.approx(pair["KL_21"], rel=1e-4)
            assert float(row["m_cca_f"]) == pytest.approx(pair["m_CCA_f"], abs=5e-6)
            assert float(row["m_cca_g"]) == pytest.approx(pair["m_CCA_g"], abs=5e-6)
            assert float(row["d_llv"]) == pytest.approx(pair["d_LLV"], abs=2e-6)
            tied = pair["float64"]["max_d_SVD_f_per_tie"]  # the choice of labels is not unique
            assert min(abs(float(row["max_d_svd_f"]) - value) for value in tied) < 1e-5


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_help_imports_nothing_heavy(root: Path) -> None:
    code = (
        "import sys; from scripts import import_published\n"
        "try: import_published.main(['close-dist', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'matplotlib', 'sklearn', 'wandb') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
