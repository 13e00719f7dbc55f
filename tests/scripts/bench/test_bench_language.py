"""That the contestants of the language bench do the same work and what is asked is judged; never how fast they are."""

import copy

import pytest
import torch

from likeness.language.loss import next_token_loss
from likeness.networks.decoder import GPT2
from scripts.bench import language as bench
from scripts.bench.timing import Contestant, Ratios


def test_the_plain_model_and_the_plain_loss_are_the_same() -> None:
    torch.manual_seed(0)
    decoder = GPT2(17, 6, width=8, depth=2, heads=2, bias=False).double()
    plain = bench.PlainGPT.of(decoder).double()
    x, y = torch.randint(17, (2, 3, 6))
    losses = decoder.loss(x, y), plain.loss(x, y)
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)  # the weights were copied through float32
    f, g, targets = bench._inputs(7, 4, 9, "cpu")
    torch.testing.assert_close(bench.plain_loss(f, g, targets), next_token_loss(f, g, targets))


def test_all_parts_run_and_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("POSITIONS", 12), ("WIDTH", 18), ("LABELS", 40), ("USUAL", (2, 8))):
        monkeypatch.setattr(bench, name, value)
    report = bench.language(repeats=1, memory=False)
    assert len(report.ratios.comparisons) == 5
    assert set(report.ratios.at_most) == {bench.LOSS, bench.STEP, bench.VISIT}
    assert list(report.ratios.required) == [bench.LOCK_STEP.format("4 x 32")]
    assert len(report.verdicts()) == 4
    assert copy.deepcopy(report).as_dict()["memory"] == {}


def test_limits_and_memory_are_judged() -> None:
    pair = Contestant("all logits", [2.0]), Contestant("by blocks", [1.0])
    report = bench.LanguageReport(Ratios("", {"a": pair}, at_most={"a": 0.4}), {"all logits": 100, "by blocks": 10})
    assert report.verdicts() == [
        "a: at most 0.4 times the time of all logits is asked for: NO (0.50)",
        "memory of the loss: at most 0.15 times that of all logits is asked for: yes (0.10: 0 MB of 0 MB)",
    ]
