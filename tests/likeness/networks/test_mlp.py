"""The papers' MLPs, against numpy and against the authors' own checkpoints."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from likeness.networks import MLP, LabelNetwork
from tests.reference import FOLDER, NAME, needs_reference, radial_test_split, representations


def numpy_mlp(state: dict[str, torch.Tensor], x: np.ndarray) -> np.ndarray:
    for i in (1, 2, 3):
        x = x @ state[f"l{i}.weight"].numpy().T + state[f"l{i}.bias"].numpy()
        x = np.where(x > 0, x, 0.01 * x)
    return x @ state["l4.weight"].numpy().T


def test_is_three_leaky_layers_and_a_linear_one() -> None:
    network = MLP((3,), 2, width=5).double()
    x = torch.randn(7, 3, dtype=torch.float64)
    np.testing.assert_allclose(network(x).detach().numpy(), numpy_mlp(network.state_dict(), x.numpy()), rtol=1e-12)


def test_parameters_are_the_papers() -> None:
    shapes = {name: tuple(value.shape) for name, value in MLP((2,), 2, width=16).named_parameters()}
    weights = {"l1.weight": (16, 2), "l2.weight": (16, 16), "l3.weight": (16, 16), "l4.weight": (2, 16)}
    assert shapes == weights | {f"l{i}.bias": (16,) for i in (1, 2, 3)}


@needs_reference
@pytest.mark.parametrize("width", [16, 128])
def test_reads_the_authors_checkpoints(width: int) -> None:
    state = torch.load(FOLDER / "close_dist" / NAME.format(seed=0, width=width), weights_only=True, map_location="cpu")
    f, g = MLP((2,), 2, width=width), LabelNetwork(4, 2, width=width)
    f.load_state_dict({key.removeprefix("f_net."): state[key] for key in state if key.startswith("f_net.")})
    g.mlp.load_state_dict({key.removeprefix("g_net."): state[key] for key in state if key.startswith("g_net.")})
    expected_f, expected_g = representations(width, seed=0)
    torch.testing.assert_close(f(radial_test_split()[0]), expected_f)
    torch.testing.assert_close(g(), expected_g)


@given(
    input_shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    lead=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    hidden_layers=st.integers(0, 3),
)
def test_dimensions_before_the_input_are_batch_dimensions(
    input_shape: list[int], lead: list[int], hidden_layers: int
) -> None:
    network = MLP(input_shape, 3, width=4, hidden_layers=hidden_layers, output_bias=True)
    x = torch.randn(*lead, *input_shape)
    out = network(x)
    assert out.shape == (*lead, 3)
    rows = torch.stack([network(row.unsqueeze(0))[0] for row in x.flatten(0, len(lead) - 1)])
    torch.testing.assert_close(out.flatten(0, -2), rows)


def test_dropout_acts_while_training_only() -> None:
    network, x = MLP((2,), 2, dropout=0.5), torch.randn(50, 2)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_label_network_reads_the_one_hot_label_without_its_last_entry() -> None:
    g = LabelNetwork(4, 3, width=8, output_bias=True)
    assert g.mlp.l1.in_features == 3
    expected = g.mlp(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]))
    assert torch.equal(g(), expected)
    assert "codes" not in g.state_dict()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MLP((2,), 0), "dim must be at least 1, got 0"),
        (lambda: MLP((2,), 2, width=-1), "width must be at least 1, got -1"),
        (lambda: MLP((), 2), "input_shape must hold positive sizes, got []"),
        (lambda: MLP((3, 0), 2), "input_shape must hold positive sizes, got [3, 0]"),
        (lambda: MLP((2,), 2, hidden_layers=-1), "hidden_layers must be at least 0, got -1"),
        (lambda: MLP((2,), 2, dropout=1.0), "dropout must lie in [0, 1), got 1.0"),
        (lambda: LabelNetwork(1, 2), "num_classes must be at least 2, got 1"),
    ],
)
def test_sizes_that_do_not_fit_are_named(build: "type[nn.Module]", message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        build()
    assert str(error.value) == message
