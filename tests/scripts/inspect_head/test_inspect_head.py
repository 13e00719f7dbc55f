"""The inspect_head command: what it reads, prints and writes, and how it refuses."""

import csv
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.softmax_classifier import SoftmaxClassifier
from likeness.networks import LinearHead
from scripts import inspect_head
from scripts.cli.entry_point import run_command
from scripts.inspect_head.heads import read_head
from scripts.inspect_head.labels import read_labels, read_vocabulary
from tests.callbacks.toy_siblings import save_checkpoint
from tests.likeness.label_geometry.paper_heads import shortened_head

NAMES = ["cat", "dog", "cow", "owl", "fox", "hen"]


def weights(labels: int = 6, dim: int = 3) -> Tensor:
    return torch.randn(labels, dim, generator=torch.Generator().manual_seed(0)) + 0.7


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    np.save(tmp_path / "w.npy", weights().numpy())
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    features = torch.randn(300, 3, generator=torch.Generator().manual_seed(1)) @ torch.diag(torch.tensor([3.0, 1, 0.3]))
    np.save(tmp_path / "f.npy", features.numpy())
    return tmp_path / "w.npy"


def run(*arguments: Any, out: Path) -> None:
    inspect_head.main([*map(str, arguments), "--out", str(out), "--device", "cpu"])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        run_command(inspect_head.main, [*map(str, arguments), "--device", "cpu"])
    assert ended.value.code in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.removeprefix("likeness: error: ").strip()


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_whole_report(matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    options = ("--labels", tmp_path / "names.txt", "--pair", "cat", "dog", "--features", tmp_path / "f.npy")
    run(matrix, *options, "--neighbours", "owl", "--top", 2, out=folder)
    printed = capsys.readouterr().out
    for text in ("Careful", "lemma 2.2", "lemma 2.3", "derived", "nearest to owl", "rankings of the labels"):
        assert text in printed
    files = {path.name for path in folder.iterdir()}
    tables = {"head.csv", "pairs.csv", "equivalent_heads.csv", "neighbours.csv", "patterns.csv", "labels.csv"}
    assert files == tables | {"similarity.png", "similarity.pdf"}

    g, f = weights().double().numpy(), np.load(tmp_path / "f.npy").astype(np.float64)
    rows = table(folder / "pairs.csv")
    assert len(rows) == 15
    first = rows[0]
    assert (first["label_a"], first["label_b"]) == ("cat", "dog")
    assert float(first["raw"]) == pytest.approx(g[0] @ g[1] / np.linalg.norm(g[0]) / np.linalg.norm(g[1]))
    logits = f @ g.T
    correlation = np.corrcoef(logits - logits.mean(1, keepdims=True), rowvar=False)
    assert [float(row["invariant"]) for row in rows] == pytest.approx(correlation[np.triu_indices(6, 1)])
    assert [row["metric"] for row in table(folder / "neighbours.csv")] == ["raw"] * 2 + ["centred"] * 2 + [
        "invariant"
    ] * 2
    for row in table(folder / "equivalent_heads.csv"):
        assert float(row["max_log_probability_change"]) < 1e-12
    found = {row["quantity"]: row["value"] for row in table(folder / "head.csv")}
    assert found["rank of the centred label vectors"] == "3 of 3"
    assert found["feature covariance"] == f"300 rows of {tmp_path / 'f.npy'}"
    counts = {
        row["patterns"]: (row["of this head"], row["in general position"]) for row in table(folder / "patterns.csv")
    }
    assert counts["sign patterns of the logits"] == ("32", "32")
    assert counts["rankings of the labels"] == ("172", "172")


def test_saved_heads_have_the_cosine_and_the_probabilities(matrix: Path, tmp_path: Path) -> None:
    run(matrix, "--pair", 0, 1, "--cosine", -1, 0.3, "--save_equivalent", tmp_path / "eq.npy", out=tmp_path / "out")
    f, g = np.load(tmp_path / "f.npy").astype(np.float64), weights().double()
    expected = torch.from_numpy(f @ g.numpy().T).log_softmax(1)
    for cosine, name in ((-1, "eq_cos-1.npy"), (0.3, "eq_cos+0.3.npy")):
        head = np.load(tmp_path / name)
        assert head.dtype == np.float64
        a, b = head[:2]
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) == pytest.approx(cosine)
        torch.testing.assert_close(torch.from_numpy(f @ head.T).log_softmax(1), expected, rtol=0, atol=1e-12)
    run(matrix, "--pair", 0, 1, "--cosine", 0.5, "--save_equivalent", tmp_path / "one.npy", out=tmp_path / "out")
    assert (tmp_path / "one.npy").is_file()


def test_cosines_that_differ_in_a_late_digit_are_files_of_their_own(
    matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cosines = (0.30001, 0.300011, 1e-12, 1e-13, -0.5)
    options = ("--pair", 0, 1, "--save_equivalent", tmp_path / "eq.v2.npy")
    run(matrix, *options, "--cosine", *cosines, out=tmp_path / "out")
    for cosine in cosines:
        a, b = np.load(tmp_path / f"eq.v2_cos{cosine:+}.npy")[:2]
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) == pytest.approx(cosine, abs=1e-15)
    assert "--cosine names 0.5 twice" in refusal(capsys, matrix, *options, "--cosine", 0.5, 0.50)


def test_a_soft_cap_is_said_and_no_equivalent_head_is_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"lm_head.weight": weights()}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"final_logit_softcapping": 30.0}')
    run(tmp_path, "--pair", 0, 1, out=tmp_path / "out")
    printed = " ".join(capsys.readouterr().out.split())
    assert "Without the soft cap" in printed
    found = {row["quantity"]: row["value"] for row in table(tmp_path / "out" / "head.csv")}
    assert found["soft cap"].endswith("with c = 30: rankings are those of f . g")
    options = ("--pair", 0, 1, "--save_equivalent", tmp_path / "eq.npy")
    assert "caps its logits" in refusal(capsys, tmp_path, *options)


def test_undefined_similarities_say_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # so that no cell is broken into lines
    g = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    np.save(tmp_path / "w.npy", g)
    run(tmp_path / "w.npy", "--pair", 0, 1, "--neighbours", 0, 1, out=tmp_path / "out")
    printed = capsys.readouterr().out
    assert "undefined: a label stands at zero" in printed
    assert "undefined: a label stands at the mean" in printed
    assert "no label has a direction to compare" in printed
    assert {row["query"] for row in table(tmp_path / "out" / "neighbours.csv")} == {"1"}


@pytest.mark.parametrize("scale", [1e-200, 1e-13, 1e150])
def test_the_report_does_not_depend_on_the_scale(tmp_path: Path, scale: float) -> None:
    np.save(tmp_path / "w.npy", weights().double().numpy())
    np.save(tmp_path / "scaled.npy", scale * weights().double().numpy())
    for name in ("w", "scaled"):
        run(tmp_path / f"{name}.npy", "--pair", 0, 1, "--cosine", 0.5, out=tmp_path / name)
    for file in ("pairs", "labels", "patterns"):
        for one, other in zip(*(table(tmp_path / name / f"{file}.csv") for name in ("w", "scaled")), strict=True):
            for key, value in one.items():
                same = value == other[key] or float(value) == pytest.approx(float(other[key]), abs=1e-12)
                assert same, key
    for row in table(tmp_path / "scaled" / "equivalent_heads.csv"):
        assert float(row["max_log_probability_change"]) < 1e-11


def test_more_dimensions_than_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", weights(4, 9).numpy())
    run(tmp_path / "w.npy", "--pair", 0, 1, "--cosine", 0.5, out=tmp_path / "out")
    assert {row["can_win"] for row in table(tmp_path / "out" / "labels.csv")} == {"yes"}
    found = {row["quantity"]: row["value"] for row in table(tmp_path / "out" / "head.csv")}
    assert found["rank of the centred label vectors"].startswith("3 of 9: the other directions")


def test_labels_that_can_never_win_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "w.npy", shortened_head()[1].numpy())
    run(tmp_path / "w.npy", out=tmp_path / "out")
    answers = {row["label"]: row["can_win"] for row in table(tmp_path / "out" / "labels.csv")}
    assert [label for label, answer in answers.items() if answer == "no"] == ["2"]
    assert "can never be the prediction" in capsys.readouterr().out


def test_without_features_the_invariant_metric_is_said_to_be_missing(matrix: Path, tmp_path: Path) -> None:
    run(matrix, "--pair", 0, 1, out=tmp_path / "out")
    found = {row["quantity"]: row["value"] for row in table(tmp_path / "out" / "head.csv")}
    assert found["feature covariance"] == "not available: give --features or --data"
    assert "invariant" not in table(tmp_path / "out" / "pairs.csv")[0]


def test_many_labels_are_drawn_as_a_histogram_and_pairs_are_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.inspect_head.inspection.MAX_MATRIX", 80)
    monkeypatch.setattr("scripts.inspect_head.inspection.SAMPLED", 40)
    np.save(tmp_path / "w.npy", weights(100, 5).numpy())
    run(tmp_path / "w.npy", "--neighbours", 7, 99, "--winners", 2, out=tmp_path / "out")
    assert [row["label"] for row in table(tmp_path / "out" / "labels.csv")] == ["7", "99"]
    assert not (tmp_path / "out" / "pairs.csv").exists()
    assert (tmp_path / "out" / "similarity.png").stat().st_size > 0


def test_two_labels_and_one_dimension(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.array([[1.0], [3.0]]))
    run(tmp_path / "w.npy", "--pair", 0, 1, out=tmp_path / "out")
    values = [float(row["value"]) for row in table(tmp_path / "out" / "equivalent_heads.csv")]
    assert values == pytest.approx([-1, -1, 1])


@pytest.mark.parametrize("bias", [False, True])
def test_a_checkpoint_of_this_project_with_its_own_data(tmp_path: Path, bias: bool) -> None:
    head = partial(LinearHead, bias=bias)
    model = SoftmaxClassifier((1, 8, 8), 10, dim=2, unembedding=head, input_shift=[8.0], input_scale=[8.0])
    save_checkpoint(model, tmp_path / "run" / "checkpoints" / "last.ckpt")
    config = Path("configs/data/digits.yaml")
    config = config if config.exists() else Path(__file__).parents[3] / config
    run(tmp_path / "run", "--data", config, "--pair", 3, 5, out=tmp_path / "out")
    found = {row["quantity"]: row["value"] for row in table(tmp_path / "out" / "head.csv")}
    assert (found["labels K"], found["dimensions M"]) == ("10", "2")
    assert found["bias"] == ("yes" if bias else "no")
    assert "inputs of the test split" in found["feature covariance"]
    assert -1 <= float(table(tmp_path / "out" / "pairs.csv")[0]["invariant"]) <= 1


def test_a_state_dict_needs_a_key_where_it_holds_several_matrices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"last.weight": weights(), "last.bias": torch.zeros(6), "other.weight": torch.zeros(4, 4)}
    torch.save(state, tmp_path / "w.pt")
    assert refusal(capsys, tmp_path / "w.pt") == (
        f"name the head in {tmp_path / 'w.pt'} with --key: its matrices are last.weight, other.weight"
    )
    assert "no key 'head'; its matrices are last.weight" in refusal(capsys, tmp_path / "w.pt", "--key", "head")
    head = read_head(tmp_path / "w.pt", "last.weight")
    torch.testing.assert_close(head.rows[:], weights())
    assert head.bias is not None
    torch.save({"state_dict": state}, tmp_path / "lightning.pt")
    torch.testing.assert_close(read_head(tmp_path / "lightning.pt", "last.weight").rows[2:4], weights()[2:4])


def test_a_bias_that_does_not_fit_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"fc.weight": weights(), "fc.bias": torch.zeros(5)}, tmp_path / "w.pt")
    assert "fc.weight is [6, 3], but the bias beside it is [5]" in refusal(capsys, tmp_path / "w.pt")


def test_safetensors_and_bfloat16(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({"head.weight": weights().bfloat16(), "head.bias": torch.arange(6.0)}, tmp_path / "w.safetensors")
    head = read_head(tmp_path / "w.safetensors")
    assert (head.key, head.dtype, list(head.rows.shape)) == ("head.weight", "bfloat16", [6, 3])
    assert torch.equal(head.rows[1:3], weights().bfloat16()[1:3])
    assert torch.equal(head.bias, torch.arange(6.0))
    saved = tmp_path / "eq.safetensors"
    run(tmp_path / "w.safetensors", "--pair", 0, 1, "--cosine", 0, "--save_equivalent", saved, out=tmp_path / "out")
    again = read_head(saved)
    a, b = again.rows[:2]
    assert float(a @ b) == pytest.approx(0, abs=1e-12)
    assert torch.equal(again.bias, torch.arange(6.0).double())


def test_bfloat16_in_numpys_disguise(tmp_path: Path) -> None:
    raw = weights().bfloat16().view(torch.int16).numpy().view("V2")
    np.save(tmp_path / "w.npy", raw)
    head = read_head(tmp_path / "w.npy")
    assert head.dtype == "bfloat16"
    assert torch.equal(head.rows[:], weights().bfloat16())


@pytest.mark.parametrize(("key", "tied"), [("lm_head.weight", False), ("model.embed_tokens.weight", True)])
def test_a_hugging_face_directory_opens_one_shard(tmp_path: Path, key: str, tied: bool) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({key: weights()}, tmp_path / "model-00002-of-00002.safetensors")
    where = {key: "model-00002-of-00002.safetensors", "model.layers.0.weight": "model-00001-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    vocabulary = {"vocab": {"a": 0, "b": 1, "Ġc": 2}}
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"model": vocabulary, "added_tokens": [{"id": 4, "content": "<end>"}]})
    )
    head = read_head(tmp_path)
    assert (head.key, head.tied) == (key, tied)
    assert list(head.labels) == ["a", "b", "Ġc", "<unused 3>", "<end>", "<unused 5>"]
    run(tmp_path, "--neighbours", "Ġc", "<end>", "--top", 1, out=tmp_path / "out")
    assert [row["query"] for row in table(tmp_path / "out" / "neighbours.csv")[:2]] == ["Ġc", "<end>"]


def test_only_ends_of_lines_end_a_name(tmp_path: Path) -> None:
    names = ["a\u2028b", "c\x0bd", "e\x85f", "g", "h", "i"]
    (tmp_path / "names.txt").write_bytes("\r\n".join(names).encode())
    (tmp_path / "vocab.txt").write_bytes("\n".join(names).encode())
    assert read_labels(tmp_path / "names.txt", 6) == names
    assert read_vocabulary(tmp_path, 6) == names


def test_a_missing_shard_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = {"lm_head.weight": "model-00001-of-00001.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert "lm_head.weight stands in model-00001-of-00001.safetensors, which is missing" in refusal(capsys, tmp_path)


def test_unknown_labels_list_what_is_near(matrix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ("--labels", matrix.parent / "names.txt")
    message = "there is no label 'dgo': did you mean 'dog'?"
    assert refusal(capsys, matrix, *labels, "--pair", "cat", "dgo") == message
    assert refusal(capsys, matrix, *labels, "--neighbours", "CAT") == "there is no label 'CAT': did you mean 'cat'?"
    assert "numbered 0 to 5" in refusal(capsys, matrix, "--pair", 0, 6)
    assert "'1' and '1' are the same" in refusal(capsys, matrix, "--pair", 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cosine", "1.5"], "--cosine must lie in [-1, 1], got 1.5"),
        (["--cosine", "nan"], "Got value: nan"),
        (["--top", "0"], "--top must be at least 1, got 0"),
        (["--winners", "-1"], "--winners must be at least 0, got -1"),
        (["--save_equivalent", "x.npy"], "--save_equivalent cannot be given without --pair"),
        (["--save_equivalent", "x.txt", "--pair", "0", "1"], "writes .npy or .safetensors, got x.txt"),
        (["--features", "missing.npy"], "there is no file of features missing.npy"),
        (["--labels", "missing.txt"], "there is no file of labels missing.txt"),
        (["--data", "missing.yaml"], "needs a model that embeds inputs"),
        (["--pari", "0"], "unrecognized arguments: --pari 0"),
    ],
)
def test_wrong_arguments_are_one_line(
    matrix: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refusal(capsys, matrix, *arguments)


def test_wrong_files_are_one_line(matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no checkpoint or file of weights" in refusal(capsys, tmp_path / "nothing.npy")
    assert "is none of .ckpt" in refusal(capsys, tmp_path / "names.txt")
    np.save(tmp_path / "wide.npy", np.zeros((4, 5)))
    wide = tmp_path / "wide.npy"
    assert "features for this head are [N, 3]" in refusal(capsys, matrix, "--features", wide)
    assert "holds 6 labels, but the head has 4" in refusal(capsys, wide, "--labels", tmp_path / "names.txt")
    np.save(tmp_path / "vector.npy", np.zeros(5))
    assert "is [5]" in refusal(capsys, tmp_path / "vector.npy")
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    assert "holds <U1, not real numbers" in refusal(capsys, tmp_path / "words.npy")
    (tmp_path / "broken.npy").write_bytes(b"nothing")
    assert "is not a readable .npy file" in refusal(capsys, tmp_path / "broken.npy")
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    assert "broken.pt is not a PyTorch file" in refusal(capsys, tmp_path / "broken.pt")
    broken = weights().numpy()
    broken[4, 0] = math.nan
    np.save(tmp_path / "nan.npy", broken)
    assert "the vector of label 4 is not finite: nan" in refusal(capsys, tmp_path / "nan.npy")
    np.save(tmp_path / "nan_features.npy", broken)
    assert "not finite at 4 of the rows of" in refusal(capsys, matrix, "--features", tmp_path / "nan_features.npy")
    np.save(tmp_path / "equal.npy", np.ones((3, 2)))
    assert "the same vector" in refusal(capsys, tmp_path / "equal.npy", "--pair", 0, 1)


def test_names_are_not_taken_for_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "w.npy", weights(3).numpy())
    (tmp_path / "names.json").write_text(json.dumps(["[red]", "\n", "c"]))
    run(tmp_path / "w.npy", "--labels", tmp_path / "names.json", "--pair", "[red]", "\n", out=tmp_path / "out")
    printed = capsys.readouterr().out
    assert "[red] and '\\n'" in printed
