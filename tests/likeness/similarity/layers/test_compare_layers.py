"""Layers against layers: each pair is the measure of their outputs, in one pass that leaves no trace."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from likeness.adapters.activations import LayerError
from likeness.adapters.modules import ModelError
from likeness.batch import Batch
from likeness.similarity.layers.compare import compare_layers
from likeness.similarity.layers.matrices import LAYER_MEASURES

torch.manual_seed(0)
IMAGES = torch.randn(40, 3, 8, 8)


def convolutions(width: int = 5, seed: int = 1) -> nn.Sequential:
    torch.manual_seed(seed)
    block = nn.Sequential(nn.Conv2d(width, 4, 3), nn.ReLU(inplace=True))
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True), block)


def outputs(model: nn.Module, names: list[str], x: Tensor) -> dict[str, Tensor]:
    """What layers answer, averaged over positions, by running every prefix of the model alone."""
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for name in names:
            first, _, rest = name.partition(".")
            stop = int(first) + (not rest)
            value = model.eval()[:stop](x)
            value = model[int(first)][: int(rest) + 1](value) if rest else value
            found[name] = value.flatten(2).mean(2).double()
    return found


class Counted(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.model(x)


NAMES = ["0", "1", "2", "3", "3.0", "3.1"]


@pytest.mark.parametrize("measure", LAYER_MEASURES)
def test_every_pair_is_the_measure_of_the_two_outputs(measure: str) -> None:
    a, b = convolutions(), convolutions(7, seed=2)
    found = compare_layers(a, b, IMAGES, measures=[measure], batch_size=17)
    assert found.layers_a == found.layers_b == NAMES
    first, second = outputs(a, NAMES, IMAGES), outputs(b, NAMES, IMAGES)
    for i, one in enumerate(NAMES):
        for j, other in enumerate(NAMES):
            expected = float(LAYER_MEASURES[measure](first[one], second[other]))
            assert float(found[measure][i, j]) == pytest.approx(expected, abs=2e-5)
    assert not found.undefined[measure]


def test_data_are_read_once_and_no_trace_is_left() -> None:
    class Reader:
        def __init__(self) -> None:
            self.reads = 0

        def __iter__(self) -> Iterator[Tensor]:
            self.reads += 1
            return iter(IMAGES.split(10))

    data, a, b = Reader(), Counted(convolutions()), Counted(convolutions(seed=2))
    a.train()
    before = torch.get_rng_state()
    compare_layers(a, b, data)
    assert (data.reads, a.calls, b.calls) == (1, 4 + 2, 4 + 2)  # 4 batches, and two tries on a few samples
    assert a.training
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(layer._forward_hooks for layer in a.modules())
    with pytest.raises(RuntimeError):
        compare_layers(a, b, IMAGES[:, :2])
    assert not any(layer._forward_hooks for layer in a.modules())


def test_one_model_is_compared_with_itself() -> None:
    model = convolutions()
    alone, twice = compare_layers(model, None, IMAGES), compare_layers(model, convolutions(), IMAGES)
    for name in alone.values:
        torch.testing.assert_close(alone[name], twice[name], atol=1e-12, rtol=0)
        torch.testing.assert_close(alone[name], alone[name].T, atol=1e-12, rtol=0)
    again = compare_layers(model, model, IMAGES)
    assert torch.equal(again["unbiased_linear_cka"], alone["unbiased_linear_cka"])


def test_what_is_kept_depends_on_ids_alone() -> None:
    model, others = convolutions(), convolutions(seed=2)
    ids = torch.randperm(len(IMAGES), generator=torch.Generator().manual_seed(3))
    in_order = [Batch(IMAGES[rows], rows, rows) for rows in torch.arange(40).split(7)]
    shuffled = [Batch(IMAGES[rows], rows, rows) for rows in ids.split(11)]
    first, second = (compare_layers(model, others, data, max_stored=15) for data in (in_order, shuffled))
    assert (first.kept, first.samples) == (15, 40)
    torch.testing.assert_close(first["unbiased_linear_cka"], second["unbiased_linear_cka"], atol=1e-6, rtol=0)


def test_positions_are_compared_where_there_are_as_many() -> None:
    a, b = convolutions(), convolutions(seed=2)
    found = compare_layers(a, b, IMAGES, layers=["0", "1", "3.0"], measures=["linear_cka"], pooling="positions")
    with torch.no_grad():
        first, second = (model.eval()[0](IMAGES).flatten(2).mT.flatten(0, 1).double() for model in (a, b))
    expected = float(LAYER_MEASURES["linear_cka"](first, second))
    assert float(found["linear_cka"][0, 0]) == pytest.approx(expected, abs=1e-5)
    assert found["linear_cka"][0, 2].isnan()
    reason = found.undefined["linear_cka"][0, 2]
    assert reason == "'0 of Sequential' and '3.0 of Sequential (2)' have 36 and 16 positions a sample"


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.unused = nn.Linear(2, 2)
        self.mix = nn.Linear(6, 5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.mix(self.table(input_ids))


def tokens() -> dict[str, Tensor]:
    mask = torch.ones(20, 4, dtype=torch.long)
    mask[:, 2:] = torch.arange(20)[:, None] % 2
    return {"input_ids": torch.randint(11, (20, 4), generator=torch.Generator().manual_seed(0)), "attention_mask": mask}


def test_padding_is_pooled_away_and_layers_that_do_not_run_are_named() -> None:
    model, data = Tokens(), tokens()
    found = compare_layers(model, None, [data], measures=["linear_cka"])
    assert found.left_out[0] == {"unused": "it did not run"}
    with torch.no_grad():
        value, mask = model.table(data["input_ids"]), data["attention_mask"][..., None]
        mean = ((value * mask).sum(1) / mask.sum(1)).double()
        mixed = (model.mix(value) * mask).sum(1) / mask.sum(1)
    expected = float(LAYER_MEASURES["linear_cka"](mean, mixed.double()))
    assert float(found["linear_cka"][0, 1]) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(LayerError, match="'unused' of 'Tokens' cannot be compared: it did not run"):
        compare_layers(model, None, [data], layers=["mix", "unused"])
    with pytest.raises(LayerError, match="padded"):
        compare_layers(model, None, [data], layers="mix", pooling="positions")


def test_a_number_among_the_inputs_is_handed_on_as_it_is() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, input_features: Tensor, temperature: Tensor) -> Tensor:
            return self.linear(input_features) / temperature

    data = [{"temperature": torch.tensor(2.0), "input_features": rows} for rows in torch.randn(20, 4).split(7)]
    found = compare_layers(Scaled(), None, data)
    assert (found.samples, found.layers_a) == (20, ["linear"])


def test_layers_are_chosen_by_pattern_and_a_wrong_name_is_named() -> None:
    found = compare_layers(convolutions(), convolutions(), IMAGES, layers=["3.*"], layers_of_second="[02]")
    assert (found.layers_a, found.layers_b) == (["3.0", "3.1"], ["0", "2"])
    with pytest.raises(LayerError, match=r"no layer '4'"):
        compare_layers(convolutions(), None, IMAGES, layers=["4"])


class Odd(nn.Module):
    """One of its layers answers a table of classes, whatever the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.classes = nn.Linear(4, 3), nn.Embedding(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        self.classes(torch.arange(3))
        return self.first(x)


def test_what_is_not_of_samples_is_left_out_with_the_reason() -> None:
    found = compare_layers(Odd(), None, torch.randn(20, 4))
    assert found.layers_a == ["first"]
    assert found.left_out[0]["classes"].startswith("it answers [3, 5] for 2 samples")
    assert "left out of Odd: classes: it answers [3, 5]" in str(found)


@pytest.mark.parametrize("estimator", ["stored", "minibatch"])
def test_a_value_that_is_not_finite_is_named(estimator: Any) -> None:
    places = {"stored": "at sample 27", "minibatch": "in the batch from sample 20"}
    x = torch.randn(40, 4)
    x[27, 1] = torch.inf
    with pytest.raises(ValueError, match=f"layer 'first' of 'Odd' answers .* not finite, {places[estimator]}"):
        compare_layers(Odd(), None, x, batch_size=20, estimator=estimator)


def test_chance_in_a_layer_is_named() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(nn.functional.dropout(x, training=True))

    with pytest.raises(ModelError, match="layer 'layer' of 'Noisy' answers differently when asked twice"):
        compare_layers(Noisy(), None, torch.randn(20, 4))


def test_too_much_to_keep_is_refused_with_the_ways_out() -> None:
    with pytest.raises(ValueError, match=r"keeping the layers of Sequential would take .* GB.*max_stored.*minibatch"):
        compare_layers(convolutions(), None, IMAGES, max_bytes=1000)


def test_arrays_are_models_of_one_layer() -> None:
    f, g = torch.randn(50, 4), torch.randn(50, 6)
    found = compare_layers(f, g, measures=["linear_cka", "m_cca"])
    for name in found.values:
        assert float(found[name]) == pytest.approx(float(LAYER_MEASURES[name](f.double(), g.double())), abs=1e-12)
    with pytest.raises(ModelError, match="data are needed"):
        compare_layers(f, torch.randn(40, 2))


def test_a_constant_layer_is_undefined_and_says_why() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Threshold(1e9, 2.0))
    for estimator in ("stored", "minibatch"):
        found = compare_layers(model, None, torch.randn(20, 4), estimator=estimator)  # type: ignore[arg-type]
        assert found["unbiased_linear_cka"].isnan().tolist() == [[False, True], [True, True]]
        assert "same for" in found.undefined["unbiased_linear_cka"][0, 1]


def test_where_no_pair_has_a_value_there_is_no_null() -> None:
    """Its best pair would be none, at a p-value of 1 / (n + 1) and a threshold that JSON has not."""
    model, data = nn.Threshold(1e9, 2.0), torch.randn(20, 4)
    measures = ["unbiased_linear_cka", "linear_cka"]
    found = compare_layers(nn.Sequential(model), None, data, measures=measures, permutations=19)
    assert found["linear_cka"].isnan().all()
    assert not found.nulls
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["nulls"] == {}
    with pytest.raises(ValueError, match="alpha"):
        compare_layers(nn.Sequential(model), None, data, permutations=19, alpha=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": ["kl"]}, r"layers are compared by one or more of peers, linear_cka.*got kl"),
        ({"estimator": "sums"}, "estimator must be one of stored, minibatch"),
        ({"estimator": "minibatch", "measures": ["rsa"]}, "is for unbiased_linear_cka, linear_cka, got rsa"),
        ({"estimator": "minibatch", "permutations": 9}, "need estimator='stored'"),
        ({"estimator": "minibatch", "pooling": "positions"}, "positions"),
        ({"permutations": 9, "alpha": 2}, "alpha"),
        ({"bootstrap": 9, "confidence": 1}, "confidence"),
        ({"max_stored": 0}, "max_stored must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_layers(convolutions(), None, IMAGES, **options)


def test_tables_and_files_say_what_was_found(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    found = compare_layers(
        convolutions(), convolutions(7, seed=2), IMAGES, layers=["0", "3.1"], permutations=19, bootstrap=10
    )
    written = [path.name for path in found.save(tmp_path)]
    figures = [f"{name}.{kind}" for name in ("layers_unbiased_linear_cka", "layers_trend") for kind in ("png", "pdf")]
    assert written[:7] == ["layers.csv", "layers.json", *figures, "index.html"]
    assert "layers-unbiased_linear_cka.svg" in written
    frame, plain = pandas.read_csv(tmp_path / "layers.csv"), json.loads((tmp_path / "layers.json").read_text())
    values = found["unbiased_linear_cka"]
    assert frame["value"].tolist() == values.flatten().tolist()
    assert [row["value"] for row in plain["pairs"]] == values.flatten().tolist()
    assert plain["nulls"]["unbiased_linear_cka"]["threshold"] == found.nulls["unbiased_linear_cka"].threshold
    assert found.to_frame()["p_value"].tolist() == found.nulls["unbiased_linear_cka"].p_values.flatten().tolist()
    assert found.diagonal("unbiased_linear_cka") == {"0": float(values[0, 0]), "3.1": float(values[1, 1])}
    assert f"{float(values[1, 1]):.3f}" in str(found)
    assert "3.1" in found._repr_html_()
    with pytest.raises(KeyError, match="rsa: measured were unbiased_linear_cka"):
        found["rsa"]
