"""Modules of others as softmax models: the head is found, and it is checked that it is the head."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.adapters.activations import LayerError
from likeness.adapters.batches import Inputs, as_inputs
from likeness.adapters.modules import ModelError, ModuleModel
from likeness.adapters.unnoticed import unnoticed

X = torch.randn(12, 6, generator=torch.manual_seed(1))
BATCH = as_inputs(X)


def network(*last: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(5, 4), *last)


def prepared(module: nn.Module, head: str | bool = True, batch: Inputs = BATCH) -> ModuleModel:
    model = ModuleModel(module, "a", head)
    with unnoticed(model.modules):
        model.prepare(batch)
    return model


@pytest.mark.parametrize("last", [[], [nn.LogSoftmax(-1)], [nn.Softmax(-1)], [nn.Identity()]])
@pytest.mark.parametrize("head", [True, "3"])
def test_the_last_linear_layer_is_the_head(last: list[nn.Module], head: str | bool) -> None:
    module = network(*last)
    model = prepared(module, head)
    with unnoticed(model.modules):
        f, g = model.embed(BATCH), model.unembeddings()
        expected = module(X)
    assert f.shape == (12, 6)
    assert g is not None
    assert torch.equal(f[:, -1], torch.ones(12))
    torch.testing.assert_close((f @ g.T).log_softmax(1), network().eval()(X).log_softmax(1))
    assert module.training
    assert expected.shape == (12, 4)


def test_a_head_without_bias_has_no_constant_coordinate() -> None:
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4, bias=False))
    model = prepared(module)
    g = model.unembeddings()
    assert g is not None
    assert torch.equal(g, module[2].weight)


def test_the_head_is_the_layer_that_answers_not_the_one_that_is_registered_last() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.auxiliary = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            answer = self.head(x)
            self.auxiliary(x)
            return answer  # type: ignore[no-any-return]

    model = prepared(TwoHeads())
    assert model.head is not None
    assert model.head.name == "head"
    with pytest.raises(ModelError, match=r"a is no softmax of f\(x\) . g\(y\) with the head 'auxiliary'"):
        prepared(TwoHeads(), "auxiliary")


class Function(nn.Module):
    """A linear layer and what is made of it."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fc, self.function = nn.Linear(6, 4), function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.fc(x))


@pytest.mark.parametrize(
    "function",
    [lambda z: 30 * torch.tanh(z / 30), lambda z: F.normalize(z, dim=1), lambda z: 2 * z, lambda z: z.sigmoid()],
)
def test_what_is_no_softmax_of_an_inner_product_has_no_head(function: Callable[[Tensor], Tensor]) -> None:
    model = prepared(Function(function))
    assert model.unembeddings() is None
    assert model.why_no_head == "no linear layer of it gives its output"
    with pytest.raises(ModelError, match="is no softmax of"):
        prepared(Function(function), "fc")


@pytest.mark.parametrize(
    "function", [lambda z: {"logits": z}, lambda z: (z, None), lambda z: type("Output", (), {"logits": z})()]
)
def test_logits_are_found_in_what_libraries_answer(function: Callable[[Tensor], Any]) -> None:
    assert prepared(Function(function)).head is not None


def test_dropout_that_is_left_on_is_named() -> None:
    model = Function(lambda z: F.dropout(z, 0.5, training=True))
    with pytest.raises(ModelError, match="'a' answers differently when asked twice: dropout"):
        prepared(model)


def test_values_that_are_not_finite_are_named() -> None:
    with pytest.raises(ModelError, match="model 'a' answers values that are not finite"):
        prepared(Function(lambda z: z / 0))


def test_an_unknown_head_names_what_is_near() -> None:
    with pytest.raises(LayerError, match="Function has no layer 'fd': did you mean fc"):
        ModuleModel(Function(lambda z: z), "a", "fd")
    with pytest.raises(ModelError, match="the head '1' of a is a ReLU, not a Linear layer"):
        ModuleModel(network(), "a", "1")


def test_without_a_head_the_output_is_the_representation() -> None:
    module = network()
    model = prepared(module, head=False)
    with unnoticed(model.modules):
        assert torch.equal(model.embed(BATCH), module(X))
    assert model.unembeddings() is None


def test_a_head_of_sequences_gives_a_row_for_each_position_that_counts() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.lm_head = nn.Embedding(9, 5), nn.Linear(5, 9, bias=False)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            return {"logits": self.lm_head(self.embedding(input_ids))}

    tokens, mask = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    batch = as_inputs({"input_ids": tokens, "attention_mask": mask})
    module = Decoder()
    model = prepared(module, batch=batch)
    with unnoticed(model.modules):
        f = model.embed(batch)
    assert torch.equal(f, module.embedding(torch.tensor([1, 2, 3, 4, 5])).detach())


def test_under_autocast_the_head_is_found_too() -> None:
    model = ModuleModel(network(), "a")
    with unnoticed(model.modules), torch.autocast("cpu", torch.bfloat16):
        model.prepare(BATCH)
        assert model.head is not None
        assert model.embed(BATCH).dtype == torch.bfloat16


def test_nothing_is_left_behind() -> None:
    module = network()
    module[2].eval()
    before, generator = [layer.training for layer in module.modules()], torch.get_rng_state()

    def look() -> None:
        with unnoticed([module]):
            torch.rand(3)
            assert not any(layer.training for layer in module.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        look()
    assert [layer.training for layer in module.modules()] == before
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.requires_grad for parameter in module.parameters())
