"""Networks evaluated together answer, learn and draw as each does alone."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from likeness.networks import CNN, MLP, LabelNetwork, LabelTable, LinearHead
from likeness.networks.siblings import MemberList, clip_member_gradients, member_state, stack
from likeness.networks.stacked_layers import MemberStreams, StackedLinear

MLP_ = functools.partial(MLP, (3,), 2, width=5)
EMBEDDINGS = [MLP_, functools.partial(MLP_, output_bias=True, hidden_layers=1), functools.partial(CNN, (3, 4, 4), 2)]
UNEMBEDDINGS = [functools.partial(g, 6, 2) for g in (LabelNetwork, LabelTable, LinearHead)]


def members(build: Callable[[], nn.Module], count: int = 4) -> list[nn.Module]:
    return [build().double() for _ in range(count)]


def stacked(networks: list[nn.Module], streams: MemberStreams | None = None) -> nn.Module:
    input_dims = 3 if isinstance(networks[0], CNN) else 1
    return stack(copy.deepcopy(networks), input_dims, streams or MemberStreams())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("build", EMBEDDINGS)
def test_embeddings_answer_and_learn_as_each_alone(build: Callable[[], nn.Module], shared: bool) -> None:
    alone = members(build)
    together = stacked(alone)
    shape = (3, 4, 4) if isinstance(alone[0], CNN) else (3,)
    x = torch.randn(*(() if shared else (4,)), 7, *shape, dtype=torch.float64)
    weight = torch.randn(4, 7, 2, dtype=torch.float64)
    (together(x) * weight).sum().backward()
    for i, member in enumerate(alone):
        own = member(x if shared else x[i])
        torch.testing.assert_close(together(x)[i], own, rtol=1e-12, atol=1e-12)
        (own * weight[i]).sum().backward()
        for (name, parameter), joint in zip(member.named_parameters(), gradients(together, i), strict=True):
            torch.testing.assert_close(joint, parameter.grad, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("build", UNEMBEDDINGS)
def test_unembeddings_answer_as_each_alone(build: Callable[[], nn.Module]) -> None:
    alone = members(build)
    torch.testing.assert_close(stacked(alone)(), torch.stack([member() for member in alone]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("build", [*EMBEDDINGS, *UNEMBEDDINGS])
def test_a_member_can_be_taken_out(build: Callable[[], nn.Module]) -> None:
    alone = members(build)
    together = stacked(alone)
    fresh = build().double()
    fresh.load_state_dict(member_state(together, 2))
    for value, expected in zip(fresh.state_dict().values(), alone[2].state_dict().values(), strict=True):
        assert torch.equal(value, expected)


def test_what_cannot_be_stacked_becomes_a_list() -> None:
    class Other(MLP):
        """May do anything in forward."""

    assert isinstance(stacked(members(functools.partial(Other, (3,), 2))), MemberList)
    assert isinstance(stacked(members(functools.partial(CNN, (3, 4, 4), 2))), MemberList)
    assert isinstance(stacked(members(MLP_)), MLP)
    with pytest.raises(ValueError, match="at least one network"):
        stack([], 1, MemberStreams())


def test_a_list_of_heads_keeps_their_biases() -> None:
    class Other(LinearHead):
        """Not known to be stackable."""

    alone = members(functools.partial(Other, 6, 2))
    assert torch.equal(stacked(alone).bias, torch.stack([head.bias for head in alone]))
    assert stacked(members(functools.partial(Other, 6, 2, bias=False))).bias is None


def test_batched_linear_has_the_right_gradients() -> None:
    layers = members(functools.partial(nn.Linear, 3, 2), 4)
    together, x = StackedLinear(layers), torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(together, (x,))
    names = [name for name, _ in together.named_parameters()]

    def of_parameters(*values: Tensor) -> Tensor:
        return torch.func.functional_call(together, dict(zip(names, values, strict=True)), (x.detach(),))

    assert torch.autograd.gradcheck(of_parameters, tuple(together.parameters()))
    assert torch.autograd.gradgradcheck(together, (x,))


def test_stacked_layers_run_under_autocast() -> None:
    together, x = stack([MLP_() for _ in range(3)], 1, MemberStreams()), torch.randn(7, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out = together(x)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    exact = torch.autograd.grad(together(x).sum(), list(together.parameters()))
    for parameter, expected in zip(together.parameters(), exact, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("listed", [True, False])
def test_dropout_draws_what_each_alone_would(listed: bool) -> None:
    class Other(MLP):
        """Not known to be stackable, so its members run one after another."""

    f = functools.partial(Other if listed else MLP, (3,), 2, width=5, dropout=0.4)
    g = functools.partial(LabelNetwork, 6, 2, width=5, dropout=0.3)
    alone_f, alone_g, streams = members(f), members(g), MemberStreams()
    together_f, together_g = stacked(alone_f, streams), stacked(alone_g, streams)
    x, seeds = torch.randn(7, 3, dtype=torch.float64), [11, 5, 7, 3]
    before = torch.get_rng_state()
    streams.reseed(seeds)
    first, label_vectors, second = together_f(x), together_g(), together_f(x)
    assert torch.equal(torch.get_rng_state(), before)
    for i, seed in enumerate(seeds):
        torch.manual_seed(seed)
        for joint, own in ((first[i], alone_f[i](x)), (label_vectors[i], alone_g[i]()), (second[i], alone_f[i](x))):
            torch.testing.assert_close(joint, own, rtol=1e-12, atol=1e-12)


def test_dropout_of_siblings_is_off_in_evaluation() -> None:
    together, x = stacked(members(functools.partial(MLP_, dropout=0.5))).eval(), torch.randn(7, 3, dtype=torch.float64)
    assert torch.equal(together(x), together(x))


@pytest.mark.parametrize("build", [MLP_, functools.partial(CNN, (3, 4, 4), 2)])
@pytest.mark.parametrize("max_norm", [1e-3, 0.5, 1e6])
def test_clipping_is_that_of_each_alone(build: Callable[[], nn.Module], max_norm: float) -> None:
    alone_f, alone_g = members(build), members(UNEMBEDDINGS[0])
    together = [stacked(alone_f), stacked(alone_g)]
    norms = []
    for i, (f, g) in enumerate(zip(alone_f, alone_g, strict=True)):
        pairs: list[Any] = [*zip(f.parameters(), gradients_to_be(together[0], i), strict=True)]
        pairs += zip(g.parameters(), gradients_to_be(together[1], i), strict=True)
        for parameter, joint in pairs:
            parameter.grad = torch.randn_like(parameter) * 10.0 ** (i - 2)
            joint.copy_(parameter.grad)
        norms.append(nn.utils.clip_grad_norm_([*f.parameters(), *g.parameters()], max_norm))
    assert torch.equal(clip_member_gradients(together, 4, max_norm), torch.stack(norms))
    for i, (f, g) in enumerate(zip(alone_f, alone_g, strict=True)):
        for network, joint in zip((f, g), together, strict=True):
            for parameter, gradient in zip(network.parameters(), gradients(joint, i), strict=True):
                assert torch.equal(parameter.grad, gradient)


def gradients(together: nn.Module, index: int) -> list[Tensor]:
    """Views of member ``index``'s gradients."""
    if isinstance(together, MemberList):
        return [parameter.grad for parameter in together.members[index].parameters()]
    return [parameter.grad[index] for parameter in together.parameters()]


def gradients_to_be(together: nn.Module, index: int) -> list[Tensor]:
    for parameter in together.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return gradients(together, index)
