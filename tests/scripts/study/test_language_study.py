"""The study of language models: copies that are the same model, errors over seeds, and a small study of siblings."""

import copy
import csv
from pathlib import Path

import pytest
import torch
import yaml

from scripts import study
from scripts.cli.entry_point import UsageError
from scripts.study import language_copies, language_siblings, language_tuning
from scripts.study.language_copies import copied, gauge, matrices, rotate, rounded
from scripts.study.language_siblings import LanguageRun, Setting, means
from tests.likeness.comparisons import toy_language_models

transformers = pytest.importorskip("transformers")


def tiny_llama(tied: bool = True) -> torch.nn.Module:
    """Of random weights, with gains of the norms that are not 1."""
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads, tie_word_embeddings=tied))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 2)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("tied", [True, False])
def test_a_rotated_copy_is_the_same_model_in_other_coordinates(tied: bool) -> None:
    model = tiny_llama(tied).double()
    turned = copy.deepcopy(model)
    rotate(turned)
    x = torch.arange(24).view(2, 12)
    own, other = (m(x, output_hidden_states=True) for m in (model, turned))
    torch.testing.assert_close(own.logits, other.logits, atol=1e-6, rtol=0)  # its norms are computed in float32
    for before, after in zip(own.hidden_states[:-1], other.hidden_states[:-1], strict=True):
        torch.testing.assert_close(before.norm(dim=-1), after.norm(dim=-1), atol=0, rtol=1e-6)
        assert not torch.allclose(before, after, atol=0.1 * float(before.std()))
    assert (turned.lm_head.weight is model.lm_head.weight) is False
    with pytest.raises(ValueError, match="GPT2LMHeadModel"):
        rotate(transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=9)))


def test_a_gauge_keeps_the_probabilities() -> None:
    random = torch.Generator().manual_seed(0)
    f, g = (torch.randn(n, 6, generator=random, dtype=torch.float64) for n in (20, 9))
    moved_f, moved_g = gauge(f, g)
    expected, found = (a.double() @ b.double().T for a, b in ((f, g), (moved_f, moved_g)))
    torch.testing.assert_close(expected.log_softmax(1), found.log_softmax(1), atol=1e-5, rtol=0)
    assert torch.linalg.cond(torch.linalg.lstsq(f, moved_f.double()).solution) == pytest.approx(10, rel=1e-4)


def test_rounding_keeps_the_levels_of_a_row() -> None:
    matrix = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    matrix[2] = 0
    for bits in (4, 8):
        found, largest = rounded(matrix, bits), matrix.abs().amax(1, keepdim=True)
        levels = found[:2] / largest[:2] * (2 ** (bits - 1) - 1)
        torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
        assert bool(((found - matrix).abs() <= largest / (2 ** (bits - 1) - 1) / 2 * 1.0001).all())
        torch.testing.assert_close(found.abs().amax(1, keepdim=True), largest)


def test_copies_change_the_weights_they_name() -> None:
    from likeness.adapters.causal_models import read_causal

    model = read_causal(tiny_llama())
    before = [x.clone() for x in matrices(model.model, embedding=True)]
    assert len(before) == 1 + len(list(matrices(model.model, embedding=False)))
    embedding = model.model.get_input_embeddings().weight
    assert torch.equal(copied(model, "int8").model.get_input_embeddings().weight, embedding)
    noisy = copied(model, "noise").model.get_input_embeddings().weight - embedding
    assert float(noisy.std() / embedding.std()) == pytest.approx(0.05, rel=0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, matrices(model.model, embedding=True), strict=True))


def test_pruned_copies_lose_the_smallest_weights_of_the_layers() -> None:
    from likeness.adapters.causal_models import read_causal

    model = read_causal(tiny_llama())
    pairs = zip(matrices(model.model, embedding=False), matrices(copied(model, "pruned30").model, False), strict=True)
    for matrix, found in pairs:
        zeros = found == 0
        assert int(zeros.sum()) == round(0.3 * found.numel())
        assert torch.equal(found[~zeros], matrix[~zeros])
        assert float(matrix[zeros].abs().max()) <= float(found[~zeros].abs().min())


def test_a_tuned_copy_has_learned_its_texts_in_its_last_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BLOCKS", 1), ("STEPS", 12), ("LENGTH", 8), ("RATE", 1e-2)):
        monkeypatch.setattr(language_tuning, name, value)
    texts = toy_language_models.TEXTS
    ids = torch.tensor([toy_language_models.tokenizer().encode(texts[3:4])[0].tolist()])
    model = toy_language_models.scorer(toy_language_models.network())
    other = toy_language_models.scorer(copy.deepcopy(model.model))
    language_tuning.tune(other, texts * 5)
    changed = [
        name
        for (name, own), tuned in zip(model.model.named_parameters(), other.model.parameters(), strict=True)
        if not torch.equal(own, tuned)
    ]
    assert changed
    assert all(name.startswith("model.layers.1.") for name in changed)
    assert not any(parameter.requires_grad for parameter in other.model.parameters())
    before, after = (float(one.model(input_ids=ids, labels=ids).loss.detach()) for one in (model, other))
    assert after < before - 0.05
    with pytest.raises(ValueError, match=r"the texts have \d+ windows of 8 tokens, and training takes 24"):
        language_tuning.tune(other, texts)


def test_a_study_of_copies_is_read_again_and_not_mixed_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = toy_language_models.network(tie_word_embeddings=True)
    monkeypatch.setattr(
        language_copies,
        "read_causal",
        lambda given, tokenizer=None: toy_language_models.scorer(model if given == "toy" else given),
    )
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(toy_language_models.TEXTS) + "\n")
    arguments = ["language", "--model", "toy", "--texts", str(texts), "--out", str(tmp_path / "study")]
    assert study.main([*arguments, "--positions", "60", "--copies", "int8", "rotated", "gauge"]) == 0
    with (tmp_path / "study" / "copies.csv").open() as file:
        int8, rotated, gauged = csv.DictReader(file)
    assert float(int8["kl_12"]) > 1e-6 > max(float(rotated["kl_12"]), float(gauged["kl_12"]))
    assert float(rotated["m_cca_f"]) > 1 - 1e-6
    for name in ("read_causal", "compare_language_models"):
        monkeypatch.setattr(language_copies, name, pytest.fail)
    assert study.main([*arguments, "--positions", "60", "--copies", "int8", "rotated"]) == 0
    assert "toy and its copies at 60 positions" in capsys.readouterr().out
    with pytest.raises(ValueError, match="is of positions 60, not 50: choose another --out"):
        study.main([*arguments, "--positions", "50", "--copies", "int8"])
    with pytest.raises(UsageError, match="--widths is for siblings, and --model was given"):
        study.main([*arguments, "--widths", "8"])
    with pytest.raises(UsageError, match="--copies is for a --model"):
        study.main(["language", "--copies", "int8"])


def test_the_jackknife_of_means_over_models_is_their_standard_error() -> None:
    nll = torch.tensor([1.0, 1.5, 1.2, 2.0])
    models = [dict.fromkeys(language_siblings.OF_ONE) | {"width": 8, "step": 2, "seed": s} for s in range(4)]
    for row, value in zip(models, nll.tolist(), strict=True):
        row["nll"] = value
    pair = dict.fromkeys(language_siblings.COMPARED) | {"width": 8, "step": 2}
    pairs = [pair | {"seed_a": a, "seed_b": b, "kl": float(a + b)} for a in range(4) for b in range(a + 1, 4)]
    (row,) = means(pairs, models)
    assert row["nll"] == pytest.approx(float(nll.mean()))
    assert row["nll_se"] == pytest.approx(float(nll.std()) / 2)
    # The mean over pairs of s_a + s_b is twice the mean of s.
    assert row["kl"] == pytest.approx(3.0)
    assert row["kl_se"] == pytest.approx(2 * float(torch.arange(4.0).std()) / 2)
    assert row["term_1"] is None


@pytest.mark.long
def test_a_study_of_siblings_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(language_siblings.EXPERIMENT.read_text())
    content["model"]["init_args"]["network"]["init_args"] |= {"depth": 1, "heads": 2}
    content["data"]["init_args"] |= {"vocab_size": 257, "context": 16, "stride": 16, "batch_size": 2}
    content["data"]["init_args"]["data_dir"] = str(tmp_path / "tokens")
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(language_siblings, "EXPERIMENT", tmp_path / "experiment.yaml")
    arguments = ["language", "--out", str(tmp_path / "study"), "--widths", "8", "--seeds", "2", "--positions", "300"]
    assert study.main([*arguments, "--measured", "1", "3"]) == 0
    with (tmp_path / "study" / "pairs.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["step"], second["step"]) == ("1", "3")
    assert float(first["kl"]) > 0
    assert int(first["ranks"]) == 7  # a LayerNorm leaves one dimension less
    monkeypatch.setattr(LanguageRun, "ensure_trained", None)  # nothing is trained or measured again
    monkeypatch.setattr(language_siblings, "measure", pytest.fail)
    assert study.main([*arguments, "--measured", "1", "3"]) == 0
    assert "prediction hubs of 2 siblings" in capsys.readouterr().out
    with pytest.raises(ValueError, match="ascending"):
        Setting([8], 2, [3, 1])
    with pytest.raises(ValueError, match="at least 2"):
        Setting([8], 1, [3])
