"""The width study: runs that are made once and continued, the accuracy filter, and what is written."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.run import run_files
from lightning_modules.checkpoints import load_module
from likeness.similarity.d_llv import d_llv
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.representations.cca import m_cca
from scripts import study, train
from scripts.cli.entry_point import Stopped, UsageError
from scripts.study import width
from scripts.study.width import Setting, SiblingRun, Trained, draw

RUN = SiblingRun(num_classes=4, width=6, seeds=5, steps=8, learning_rate=1e-3)
SAMPLED = ComparisonOptions(search="sampled")


def weights(run: SiblingRun, out: Path) -> dict[str, torch.Tensor]:
    return load_module(run.folder(out)).state_dict()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run."""
    out = tmp_path_factory.mktemp("width")
    RUN.ensure_trained(out, "cpu")
    return out


def test_a_finished_run_is_left_alone(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "main", lambda argv: pytest.fail("trained again"))
    RUN.ensure_trained(trained, "cpu")
    config = RUN.folder(trained) / "config.yaml"
    assert "class_path: datamodules.Radial" in config.read_text()


def test_a_run_that_stopped_continues_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    replace(RUN, steps=3).ensure_trained(tmp_path, "cpu")
    RUN.ensure_trained(tmp_path, "cpu")
    whole, continued = weights(RUN, trained), weights(RUN, tmp_path)
    assert all(torch.equal(value, continued[name]) for name, value in whole.items())


def test_a_run_that_left_no_checkpoint_begins_again(tmp_path: Path) -> None:
    folder = RUN.folder(tmp_path)
    folder.mkdir(parents=True)
    run_files.mark(folder)
    run_files.note(folder / "config.yaml").write_text("left behind")
    replace(RUN, steps=1).ensure_trained(tmp_path, "cpu")
    assert (folder / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 6}, "is of seeds 5, not 6: choose another --out"),
        ({"learning_rate": 0.1}, "is of learning_rate 0.001, not 0.1"),
        ({"steps": 4}, "has done 8 steps, more than 4"),
    ],
)
def test_a_run_with_other_settings_is_refused(trained: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RUN, **change).ensure_trained(trained, "cpu")


def test_being_stopped_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(argv: list[str]) -> None:
        raise Stopped("stopped by SIGTERM", 143)

    monkeypatch.setattr(train, "main", stop)
    with pytest.raises(Stopped, match="the same command continues") as stopped:
        RUN.ensure_trained(tmp_path, "cpu")
    assert stopped.value.status == 143


def test_distances_are_those_of_the_pure_functions(trained: Path) -> None:
    found = Trained.of(RUN, trained)
    pairs = found.pairs(0.0, SAMPLED)
    assert [(pair["seed_a"], pair["seed_b"]) for pair in pairs] == [(i, j) for i in range(5) for j in range(i + 1, 5)]
    batch = width.test_split(RUN.folder(trained))
    module = load_module(RUN.folder(trained)).eval()
    with torch.no_grad():
        f = [module.member(seed).embed(batch.x) for seed in (1, 3)]
        g = [module.member(seed).unembeddings() for seed in (1, 3)]
        accuracy = ((f[0] @ g[0].T).argmax(1) == batch.y).double().mean()
    pair = next(pair for pair in pairs if (pair["seed_a"], pair["seed_b"]) == (1, 3))
    assert pair["d_llv"] == pytest.approx(float(d_llv(f[0], g[0], f[1], g[1], SAMPLED).d_llv), rel=1e-6)
    assert pair["m_cca_f"] == pytest.approx(float(m_cca(*f)), abs=1e-5)
    assert pair["d_fg"] <= 2 * pair["d_llv"] ** 2 + 1e-12
    assert found.seeds()[1]["accuracy"] == pytest.approx(float(accuracy))


def test_only_accurate_seeds_count_and_means_take_five_of_them(trained: Path) -> None:
    found = Trained.of(RUN, trained)
    limit = float(found.accuracy.sort().values[1])  # three of the five seeds are above
    kept = (found.accuracy > limit).nonzero().flatten().tolist()
    pairs = found.pairs(limit, SAMPLED)
    assert {pair[name] for pair in pairs for name in ("seed_a", "seed_b")} == set(kept)
    mean = found.mean(pairs, limit)
    assert mean["seeds"] == f"{len(kept)} of 5"
    assert mean["d_llv"] is None
    assert found.pairs(1.0, SAMPLED) == []
    assert width.printed(mean)["d_llv"] == "too few"
    everything = found.pairs(0.0, SAMPLED)
    values = torch.tensor([pair["d_llv"] for pair in everything], dtype=torch.float64)
    mean = found.mean(everything, 0.0)
    assert (mean["d_llv"], mean["d_llv_sd"]) == pytest.approx((float(values.mean()), float(values.std())))


def test_the_command_trains_compares_and_writes(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(width, "SMALL", Setting((4,), (6,), seeds=5, steps=8, learning_rate=1e-3))
    (tmp_path / "out").symlink_to(trained)
    assert study.main(["width", "--small", "--min_accuracy", "0", "--out", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert "run 1 of 1: K = 4, width 6, 5 seeds, 8 steps" in captured.err
    for name in ("seeds.csv", "pairs.csv", "means.csv", "width.png"):
        assert f"wrote {tmp_path / 'out' / name}" in captured.out
    assert (len(rows(trained / "seeds.csv")), len(rows(trained / "pairs.csv"))) == (5, 10)
    (mean,) = rows(trained / "means.csv")
    assert mean["seeds"] == "5 of 5"


def test_other_labelled_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    five = tmp_path / "five.yaml"
    five.write_text(width.RADIAL.read_text().replace("num_classes: 4", "num_classes: 5"))
    sizes = ["--widths", "6", "--seeds", "5", "--steps", "8", "--min_accuracy", "0"]
    options = [*sizes, "--data", str(five), "--out", str(tmp_path / "out")]
    assert study.main(["width", *options]) == 0
    assert "K = 5, width 6, 5 seeds, 8 steps" in capsys.readouterr().err
    (mean,) = rows(tmp_path / "out" / "means.csv")
    assert (mean["num_classes"], mean["seeds"]) == ("5", "5 of 5")
    assert int(width.test_split(tmp_path / "out" / "five_width6").y.max()) == 4
    with pytest.raises(UsageError, match=r"classes \[4\] are for the radial points: .*five.yaml has its own"):
        study.main(["width", *options, "--classes", "4"])


def test_the_full_setting_is_the_papers() -> None:
    runs = width.FULL.runs()
    assert len(runs) == 20
    assert {run.num_classes for run in runs} == {4, 6, 10, 18}
    assert {(run.seeds, run.steps, run.learning_rate) for run in runs} == {(20, 15_000, 1e-4)}


def test_the_figure_has_a_panel_for_each_number_of_labels_and_names_what_is_missing() -> None:
    values = {"d_llv": 0.5, "d_llv_sd": 0.1, "d_fg": 0.2, "d_fg_sd": 0.05}
    nothing = dict.fromkeys(values)
    means = [
        {"num_classes": 4, "width": 16, "seeds": "3 of 8", **nothing},
        {"num_classes": 4, "width": 64, "seeds": "8 of 8", **values},
        {"num_classes": 6, "width": 16, "seeds": "0 of 8", **nothing},
    ]
    pairs = [{"num_classes": 4, "width": w, "d_llv": 0.4, "d_fg": 0.1} for w in (16, 64)]
    figure = draw(means, pairs)
    first, second = figure.axes
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["16\nonly 3 of 8\naccurate", "64"]
    assert [len(dots.get_offsets()) for dots in first.collections[:1]] == [1]
    assert second.get_title() == "K = 6"
    assert figure.legends[0].get_texts()[0].get_text() == "d_LLV"
