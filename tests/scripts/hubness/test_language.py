"""The prediction hubs of a language model by the command, against what transformers answers."""

import csv
import json
from pathlib import Path

import pytest
import torch

from scripts import hubness
from scripts.cli.entry_point import run_command
from tests.language_reference import LANGUAGE, needs_models

transformers = pytest.importorskip("transformers")
pytestmark = needs_models

LLAMA = LANGUAGE / "hf_llama_untied_padded_sharded"
TEXTS = [  # none begins as another does: of equal prefixes the first is taken, in an order that is drawn
    "Return the number of items in the list.",
    "Close the file if it does not exist.",
    "Open a file, read it and return its text.",
    "A dictionary of the names in the module.",
]


@pytest.fixture(autouse=True)
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("\n".join(TEXTS) + "\n")


def run(command: str) -> dict[str, object]:
    hubness.main(["lm", *command.split(), "--texts", "texts.txt", "--out", "out", "--device", "cpu"])
    return json.loads(Path("out", "report.json").read_text())


def refusal(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        run_command(hubness.main, ["lm", *command.split(), "--out", "out", "--device", "cpu"])
    assert ended.value.code in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_counts_and_likelihoods_are_those_of_the_librarys_logits(capsys: pytest.CaptureFixture[str]) -> None:
    report = run(f"{LLAMA} --k 5 --hub_multiple 3 --among tokens --top 290")
    network = transformers.AutoModelForCausalLM.from_pretrained(LLAMA, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(LLAMA)
    counts, nll, seen = torch.zeros(290, dtype=torch.long), [], set()
    for text in TEXTS:
        ids = [1, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            log_p = network(torch.tensor([ids])).logits[0, :, :290].log_softmax(-1)
        for t in range(1, len(ids) - 1):
            if tuple(ids[: t + 1]) not in seen:
                seen.add(tuple(ids[: t + 1]))
                counts[log_p[t].topk(5).indices] += 1
                nll.append(-float(log_p[t, ids[t + 1]]))
    summary = report["summary"]
    assert isinstance(summary, dict)
    assert summary["cross-entropy, nats a token"] == pytest.approx(sum(nll) / len(nll), rel=1e-5)
    assert summary["hubs"] == int((counts >= 3 * 5 * len(nll) / 290).sum())
    with Path("out", "hubs.csv").open() as file:
        table = {int(row["id"]): int(row["N"]) for row in csv.DictReader(file)}
    assert table == dict(enumerate(counts.tolist()))
    assert report["head"]["rows"] == 320  # type: ignore[index]
    names = {path.name for path in Path("out").iterdir()}
    assert names == {
        *(f"{name}.csv" for name in ("indices", "hubs", "points", "accuracy", "reductions")),
        *(f"{name}.{kind}" for name in ("k_occurrence", "reductions") for kind in ("png", "pdf")),
        "report.json",
    }
    shown = capsys.readouterr().out
    assert "each text after '<eos>' (separator)" in shown
    assert f"has {len(nll)} positions that count, not 8,192" in shown


def test_a_soft_cap_leaves_out_reductions_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    report = run(f"{LANGUAGE / 'hf_gemma2_softcap'} --k 3 --among --corpus texts.txt --positions 20")
    assert report["head"]["soft_cap"] == pytest.approx(4)  # type: ignore[index]
    assert "warning: no reductions: its logits are capped at 4" in capsys.readouterr().out
    assert not Path("out", "reductions.csv").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("absent/model --texts texts.txt", "absent/model cannot be read as a causal language model"),
        (f"{LLAMA} --texts none.txt", "none.txt"),
        (f"{LLAMA} --texts texts.txt --prefix end", "prefix must be one of none, bos, separator"),
        (f"{LLAMA} --texts texts.txt --length 8 --stride 9", "a stride of 9 leaves tokens out"),
        (f"{LLAMA} --texts texts.txt --k 0", "--k must be at least 1"),
        (f"{LLAMA} --texts texts.txt --reductions none_such", "no reduction is called"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refusal(command, capsys)
