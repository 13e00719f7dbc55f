"""compare(): any models on any data, with the numbers that the arrays give, and nothing left behind."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from likeness.adapters.modules import ModelError
from likeness.comparisons.compare import Comparison, compare
from likeness.similarity.comparison import compare_softmax_models
from likeness.similarity.pairwise import compare_all_pairs

X = torch.randn(150, 6, generator=torch.manual_seed(2))
Y = torch.randint(0, 5, (150,), generator=torch.manual_seed(3))
MEASURES = ("kl", "m_cca", "likelihood", "logit", "linear_cka")


def network(seed: int, dim: int = 3, labels: int = 5) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, dim), nn.Tanh(), nn.Dropout(0.5), nn.Linear(dim, labels))


def arrays(model: nn.Sequential) -> tuple[Tensor, Tensor]:
    """f with a constant coordinate, and g with the bias, by hand."""
    with torch.no_grad():
        f = torch.tanh(model[0](X))
        g = torch.cat([model[3].weight, model[3].bias[:, None]], dim=1)
        return torch.cat([f, torch.ones(len(f), 1)], dim=1), g


def equal(found: Comparison, other: Comparison) -> None:
    assert list(found.values) == list(other.values)
    for name in found.values:
        torch.testing.assert_close(found[name], other[name], rtol=1e-10, atol=1e-12, equal_nan=True)


def test_two_modules_give_the_numbers_of_their_arrays() -> None:
    a, b = network(0), network(1)
    found = compare(a, b, DataLoader(TensorDataset(X, Y), batch_size=32), measures=MEASURES)
    (f1, g1), (f2, g2) = arrays(a), arrays(b)
    expected = compare_softmax_models(f1, g1, f2, g2, labels=Y)
    pairs = {"kl": "kl_12", "d_llv": "d_llv", "term_2": "term_2", "d_fg": "d_fg", "m_cca_f": "m_cca_f"}
    for name, field in {**pairs, "d_logit": "d_logit", "d_rep": "d_rep", "m_cca_g": "m_cca_g"}.items():
        assert getattr(found, name) == pytest.approx(getattr(expected, field), rel=1e-9, abs=1e-12)
    assert found.accuracy is not None
    assert found.accuracy.tolist() == pytest.approx([expected.accuracy_1, expected.accuracy_2])
    assert found.samples == 150
    assert (a.training, b.training) == (True, True)


def test_many_models_and_every_kind_of_source_agree(tmp_path: Path) -> None:
    models = [network(seed) for seed in range(3)]
    found = compare(models, X, measures=MEASURES, names=["a", "b", "c"])
    equal(found, compare([arrays(model) for model in models], measures=MEASURES))
    files = []
    for number, model in enumerate(models):
        f, g = arrays(model)
        files.append(tmp_path / f"{number}.npz")
        np.savez(files[-1], f=f.numpy(), g=g.numpy())
    equal(found, compare([str(file) for file in files], measures=MEASURES))
    equal(found, compare([models[0], arrays(models[1]), files[2]], [X[:70], X[70:]], measures=MEASURES))
    expected = compare_all_pairs(*zip(*map(arrays, models), strict=True))
    torch.testing.assert_close(found["d_llv"], expected["d_llv"])


@pytest.mark.parametrize("batch_size", [1, 7, 150])
def test_the_numbers_do_not_depend_on_the_batches(batch_size: int) -> None:
    a, b = network(0), network(1)
    names = ("kl", "d_llv", "m_cca_f", "linear_cka")
    found = compare(a, b, X, measures=names, batch_size=batch_size)
    equal(found, compare(arrays(a), arrays(b), measures=names))


def test_representations_alone_leave_out_what_reads_label_vectors() -> None:
    body, other = network(0)[:2], network(1, labels=7)
    found = compare(body, other, X)
    assert set(found.values) == {"m_cca_f", "linear_cka", "unbiased_linear_cka", "mutual_knn"}
    assert found.left_out["kl"].startswith("Sequential has no label vectors: no linear layer of it gives its output")
    with pytest.raises(KeyError, match="kl: Sequential has no label vectors"):
        found["kl"]
    with pytest.raises(AttributeError, match="no 'kl': Sequential has no label vectors"):
        _ = found.kl
    assert compare(network(0), network(1, labels=7), X, head=False).samples == 150


def test_nothing_is_left_behind() -> None:
    a, b = network(0), network(1)
    a[1].eval()
    modes = [[layer.training for layer in model.modules()] for model in (a, b)]
    state = torch.get_rng_state()
    weights = [parameter.clone() for parameter in a.parameters()]
    compare(a, b, DataLoader(TensorDataset(X, Y), batch_size=32, shuffle=True), measures=["kl"])
    with pytest.raises(RuntimeError):
        compare(a, b, [X, X[:, :3]], measures=["kl"])
    assert [[layer.training for layer in model.modules()] for model in (a, b)] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, a.parameters(), weights))
    layers = [layer for model in (a, b) for layer in model.modules()]
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)


def test_one_look_at_data_that_can_be_read_once() -> None:
    parts = iter([X[:50], X[50:]])
    found = compare(network(0), network(1), parts, measures=["kl"])
    assert found.samples == 150


def test_the_answer_in_all_its_forms(tmp_path: Path) -> None:
    measures = ("kl", "js", "agreement", "m_cca")
    found = compare([network(0), network(1), network(2)], [(X, Y)], names=["a", "b", "c"], measures=measures)
    content = found.to_dict()
    assert [row["model_b"] for row in content["pairs"]] == ["b", "c", "c"]
    assert content["pairs"][0]["kl_ab"] == float(found["kl"][0, 1])
    assert json.loads(json.dumps(content)) == content
    written = {path.name for path in found.save(tmp_path / "out")}
    assert {"models.csv", "comparison.csv", "comparison.json", "similarity_kl.png", "embeddings.png"} <= written
    assert {"index.html", "comparison-kl.svg", "embeddings.pdf"} <= written
    assert (tmp_path / "out" / "figures" / "embeddings.pdf").read_bytes().startswith(b"%PDF-")
    assert "Each point is an input, coloured by its label" in (tmp_path / "out" / "index.html").read_text()
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == content
    assert [axes.get_title() for axes in found.plot().axes][:3] == ["kl", "js", "agreement"]
    assert "3 pairs" in str(found)
    assert "<pre" in found._repr_html_()
    assert isinstance(found.kl, Tensor)


def test_a_frame_has_a_row_for_each_pair() -> None:
    pandas = pytest.importorskip("pandas")
    frame = compare(network(0), network(1), X, measures=["kl"]).to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns)[:4] == ["model_a", "model_b", "kl_ab", "kl_ba"]


def test_unrelated_representations_stand_beside() -> None:
    found = compare(network(0), network(1), X, measures=["linear_cka"], permutations=19)
    assert found.nulls["linear_cka"].p_value[0, 1] == pytest.approx(0.05)
    assert "if unrelated" in str(found)


@pytest.mark.parametrize(
    ("models", "data", "message"),
    [
        ([network(0), network(1, labels=7)], X, "different numbers of labels K cannot be compared"),
        ([network(0)], X, "two models are needed"),
        ([network(0), (network(1), network(2))], X, "give several models as a list"),
        ([network(0), 3], X, "a model is a torch module, .* got 3"),
        ([network(0), "nowhere"], X, "there is no model nowhere"),
        ([network(0), arrays(network(1))], None, "data are needed"),
        ([arrays(network(0)), (X[:9], Y[:9])], None, "g of arrays must be a matrix"),
        ([arrays(network(0)), X[:9]], None, "the same inputs, but arrays has 150 and array has 9 rows"),
        ([network(0), arrays(network(1))], torch.cat([X, X]), "arrays has 150 rows, but the data have more inputs"),
        ([network(0), network(1)], torch.full((4, 6), torch.nan), "answers values that are not finite"),
    ],
)
def test_what_cannot_be_compared_is_named(models: list[Any], data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(models, data)


def test_a_model_beside_a_list_of_models_is_refused() -> None:
    with pytest.raises(ModelError, match=r"compare\(\[a, b, c\], data\): a Sequential stands beside the list"):
        compare([network(0), network(1)], network(2), X)


def test_the_budget_of_language_models_is_refused_elsewhere() -> None:
    with pytest.raises(ValueError, match="budget cannot be given here: it is of language models"):
        compare(network(0), network(1), X, budget=5)


def test_arrays_of_any_strides_are_models() -> None:
    f, g = (part.numpy() for part in arrays(network(0)))
    backwards = np.ascontiguousarray(f[::-1])[::-1]
    assert compare((f, g), (backwards, g), measures=["kl"]).kl == 0


def test_measures_that_no_model_has_are_an_error() -> None:
    with pytest.raises(ModelError, match="kl read label vectors, but"):
        compare(X, X, measures=["kl"])
