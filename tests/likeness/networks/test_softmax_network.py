"""p(y | x) = softmax_y f(x) . g(y): scaling, lengths, bias, loss, initialisation and refusals."""

import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from likeness.checks import require_labels
from likeness.networks import CNN, MLP, LabelNetwork, LabelTable, LinearHead, SoftmaxNetwork, build_networks
from likeness.protocols import SoftmaxModel


def network(
    unembedding: Any = LabelNetwork, shape: tuple[int, ...] = (2,), dim: int = 3, **kwargs: Any
) -> SoftmaxNetwork:
    f, g = build_networks(functools.partial(MLP, width=8), unembedding, shape, 5, dim, seed=0)
    return SoftmaxNetwork(f, g, shape, 5, dim, **kwargs).double()


@torch.no_grad()
def per_label_nll(model: SoftmaxNetwork, x: Tensor, y: Tensor) -> Tensor:
    """-log p(y | x) from the definition, with f evaluated once for every label of every sample."""
    answers = []
    for x_n, y_n in zip(x, y.tolist(), strict=True):
        terms = [math.exp(float(model.embed(x_n[None])[0] @ g)) for g in model.unembeddings()]
        answers.append(-math.log(terms[y_n] / math.fsum(terms)))
    return torch.tensor(answers, dtype=torch.float64)


@given(seed=st.integers(0, 2**31), size=st.integers(1, 9), head=st.sampled_from([LabelNetwork, LabelTable, LinearHead]))
def test_nll_is_the_loop_over_labels(seed: int, size: int, head: Any) -> None:
    model, generator = network(head), torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(size, 2, generator=generator, dtype=torch.float64)
    y = torch.randint(5, (size,), generator=generator)
    torch.testing.assert_close(model.nll(x, y).detach(), per_label_nll(model, x, y), rtol=1e-12, atol=1e-12)


def test_satisfies_the_protocol() -> None:
    model, x = network(LinearHead), torch.randn(4, 2, dtype=torch.float64)
    assert isinstance(model, SoftmaxModel)
    assert torch.equal(model.embed(x) @ model.unembeddings().T, model(x))


def test_a_bias_is_a_constant_coordinate() -> None:
    model, x = network(LinearHead), torch.randn(4, 2, dtype=torch.float64)
    f, g = model.embed(x), model.unembeddings()
    assert torch.equal(f[:, 3], torch.ones(4, dtype=torch.float64))
    head = model.unembedding
    torch.testing.assert_close(f @ g.T, nn.functional.linear(model.embedding(x), head.weight, head.bias))


@given(norm=st.floats(0.1, 100.0))
def test_lengths_can_be_fixed(norm: float) -> None:
    model = network(LinearHead, embedding_norm=norm, unembedding_norm=2 * norm)
    f, g = model.embed(torch.randn(6, 2, dtype=torch.float64)), model.unembeddings()
    torch.testing.assert_close(f[:, :3].norm(dim=1), torch.full((6,), norm, dtype=torch.float64))
    torch.testing.assert_close(g[:, :3].norm(dim=1), torch.full((5,), 2 * norm, dtype=torch.float64))


def test_images_are_scaled_per_channel() -> None:
    model = network(shape=(2, 3, 3), input_shift=[8.0, 100.0], input_scale=[8.0, 50.0])
    x = torch.randint(0, 256, (4, 2, 3, 3), dtype=torch.uint8)
    scaled = torch.stack([(x[:, 0].double() - 8) / 8, (x[:, 1].double() - 100) / 50], dim=1)
    assert torch.equal(model.embed(x), model.embedding(scaled))


def test_first_weights_depend_on_the_seed_alone() -> None:
    def build(seed: int) -> Tensor:
        f, g = build_networks(CNN, LabelTable, (1, 8, 8), 5, 3, seed)
        return nn.utils.parameters_to_vector([*f.parameters(), *g.parameters()])

    first = build(0)
    torch.manual_seed(1234)
    state = torch.get_rng_state()
    assert torch.equal(build(0), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(build(1), first)


class Fixed(nn.Module):
    """Answers with one shape, whatever it is asked for."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.answer = torch.zeros(shape)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.answer


def test_m_and_k_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"embedding Fixed answers shape \[1, 4\], not \[1, dim=3\]"):
        SoftmaxNetwork(Fixed(1, 4), LabelTable(5, 3), (2,), 5, 3)
    with pytest.raises(ValueError, match=r"LabelTable answers shape \[6, 3\], not \[num_classes=5, dim=3\]"):
        SoftmaxNetwork(MLP((2,), 3), LabelTable(6, 3), (2,), 5, 3)
    with pytest.raises(ValueError, match=r"LabelTable answers shape \[5, 2\], not \[num_classes=5, dim=3\]"):
        SoftmaxNetwork(MLP((2,), 3), LabelTable(5, 2), (2,), 5, 3)


def test_checking_sizes_leaves_modes_and_statistics_alone() -> None:
    embedding = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3))
    embedding[0].eval()
    SoftmaxNetwork(embedding, LabelTable(5, 3), (2,), 5, 3)
    assert embedding.training
    assert not embedding[0].training
    assert embedding[0].num_batches_tracked == 0


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 2), (2,), (4,)])
def test_inputs_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the model takes \[N, 2\]"):
        network().embed(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedding_norm": 0.0}, "embedding_norm must be positive, got 0.0"),
        ({"unembedding_norm": -1.0}, "unembedding_norm must be positive, got -1.0"),
        ({"input_shift": [0.0, 1.0, 2.0]}, "input_shift must hold 1 or 2 numbers"),
        ({"input_scale": [1.0, 0.0]}, "input_scale must not hold zeros"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**arguments)


@pytest.mark.parametrize("label", [-1, -100, 5])
def test_labels_outside_the_classes_are_named(label: int) -> None:
    with pytest.raises(ValueError, match=rf"label {label} lies outside 0..4"):
        require_labels(torch.tensor([0, 4, label, 2]), 5)


def test_labels_of_the_classes_pass() -> None:
    require_labels(torch.arange(5), 5)
    require_labels(torch.arange(0), 5)
