"""MuLAN's networks: the authors' numbers, and VDM's network, which they are at one context and one gamma."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.published.flax_weights import states_from_flax
from likeness.networks import ContextUNet, PositionScoreUNet, ScoreUNet
from likeness.networks.dual import Dual
from tests.mulan_reference import EACH, EPSILON, VELOCITY, arrays, needs_mulan, parameters

SMALL: dict[str, Any] = {"width": 8, "depth": 1, "groups": 4}  # two channels a group: one would hide the conditioning


def published(name: str) -> tuple[ContextUNet, ScoreUNet]:
    stored, gaussian = arrays(name), name == EPSILON
    shape, size = stored["images"].shape[1:], stored["c"].shape[1]
    encoder = ContextUNet(shape, size * (1 + gaussian), variances=gaussian, width=32)
    network = (PositionScoreUNet if gaussian else ScoreUNet)(shape, width=32, depth=1, context_size=size)
    modules = {"encoder_model": encoder, "score_model": network}
    params = {path: value for path, value in parameters(name).items() if not path.startswith("gamma/")}
    for scope, state in states_from_flax(params, modules).items():
        modules[scope].load_state_dict(state)
    return encoder.eval(), network.eval()


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@needs_mulan
@EACH
@torch.no_grad()
def test_what_infers_the_context(name: str) -> None:
    stored = arrays(name)
    found = published(name)[0](stored["x_scaled"])
    if name == VELOCITY:
        assert_close(found, stored["latent_logits"])
    else:
        mean, log_variance = found.chunk(2, dim=1)
        assert_close(mean, stored["latent_mean"])
        assert_close(log_variance.exp(), stored["latent_var"])


@needs_mulan
@EACH
@torch.no_grad()
def test_score_network(name: str) -> None:
    stored, network = arrays(name), published(name)[1]
    places = [("score_in_z", "gamma_t", "score_out"), ("score_in_z", "sample_step_gamma_t", "sample_step_score_out")]
    if name == EPSILON:
        places.append(("score_in_z_T", "gamma_t_T", "score_out_T"))
    for z, gamma, expected in places:
        assert_close(network(stored[z], stored[gamma], context=stored["c"]), stored[expected])


@torch.no_grad()
def test_gammas_of_each_position() -> None:
    """A map of one gamma is that gamma, whose waves every channel adds; in another map each position has its own."""
    torch.manual_seed(1)
    network, plain = (
        PositionScoreUNet((2, 4, 4), context_size=3, **SMALL),
        ScoreUNet((2, 4, 4), context_size=3, **SMALL),
    )
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    network, plain = network.double().eval(), plain.double().eval()
    state, first = network.state_dict(), network.time_embedding.dense0
    waves = first.weight.unflatten(1, (2, 8)).sum(1)
    plain.load_state_dict(state | {"time_embedding.dense0.weight": torch.cat([waves, torch.zeros(32, 1)], dim=1)})
    z, w = torch.randn(5, 2, 4, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    gamma = torch.linspace(-13, 5, 5, dtype=torch.float64)
    expected = plain(z, gamma, context=w)
    maps = gamma[:, None, None, None].expand_as(z)
    for told in (gamma, maps):
        torch.testing.assert_close(network(z, told, context=w), expected)
    assert not torch.allclose(network(z, maps, context=0 * w), expected)
    moved = maps.clone()
    moved[:, 1, 2, 3] += 1  # of one channel at one position
    time = network.time_embedding
    change = (time(Dual(moved), context=w).value - time(Dual(maps), context=w).value).abs().sum(-1)
    assert change[:, 2, 3].min() > 0
    change[:, 2, 3] = 0
    assert change.max() == 0
    first.weight[:, 8:] = 0  # the second channel's
    torch.testing.assert_close(network(z, moved, context=w), network(z, maps, context=w), rtol=0, atol=0)


@pytest.mark.parametrize("variances", [False, True])
def test_the_answer_starts_as_the_prior_and_learns(variances: bool) -> None:
    torch.manual_seed(0)
    network = ContextUNet((1, 4, 4), 6, variances, **SMALL)
    answer = network(torch.randn(2, 1, 4, 4))
    torch.testing.assert_close(answer, torch.zeros(2, 6))
    answer[:, 0].sum().backward()
    assert network.conv_out.weight.grad.abs().max() > 0


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"x has shape \[2, 1, 8, 8\], the network takes \[B, 1, 4, 4\]"):
        ContextUNet((1, 4, 4), 6, **SMALL)(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="outputs must be even with variances, got 5"):
        ContextUNet((1, 4, 4), 5, **SMALL)
