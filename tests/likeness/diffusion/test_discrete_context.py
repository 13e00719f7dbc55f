"""A context that is k of m: Plackett-Luce by enumeration, and the divergence that would be no bound."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.diffusion import TopKContext
from likeness.diffusion.context import gumbel, log_orders, order_log_probability, ordered_divergence

CASES = [  # logits, k, and the divergences from uniform of the choice, of the order and of the softmax, in nats
    ((2.0, 1.0, 0.0, -1.0), 2, 0.714835, 0.788294, 0.438757),
    ((3.0, 2.0, 1.0, 0.0, -1.0, -2.0), 3, 1.720996, 2.056360, 0.768499),
    ((8.0, 8.0, 8.0, 0.0, 0.0, 0.0), 3, 2.978237, 2.978428, 0.690129),
]


class Given(nn.Module):
    """Logits by the sign of x [B, 1], of one half of the data and the other."""

    def __init__(self, *halves: tuple[float, ...]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(halves, dtype=torch.float64))

    def context(self, k: int) -> TopKContext:
        return TopKContext((1,), size=self.logits.shape[1], k=k, network=lambda input_shape, outputs: self)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.logits[(x[:, 0] > 0).long()]


def orders(m: int, k: int) -> Tensor:
    """All of them, [m! / (m - k)!, k]."""
    return torch.tensor(list(itertools.permutations(range(m), k)))


def by_turns(logits: tuple[float, ...], order: list[int]) -> float:
    """The probability of an order, drawn one after another."""
    weights = [math.exp(logit) for logit in logits]
    taken = [sum(weights[i] for i in order[:turn]) for turn in range(len(order))]
    return math.prod(weights[i] / (sum(weights) - gone) for i, gone in zip(order, taken, strict=True))


@pytest.mark.parametrize(("logits", "k", "choice", "ordered", "softmax"), CASES)
def test_divergences(logits: tuple[float, ...], k: int, choice: float, ordered: float, softmax: float) -> None:
    """L11: the order costs no less than the choice; the softmax costs less and is no bound."""
    every, m = orders(len(logits), k), len(logits)
    values = torch.tensor(logits, dtype=torch.float64).expand(len(every), m)
    log_q = order_log_probability(values, every)
    expected = torch.tensor([by_turns(logits, order) for order in every.tolist()], dtype=torch.float64)
    torch.testing.assert_close(log_q.exp(), expected, rtol=1e-12, atol=0)
    assert len(every) == pytest.approx(math.exp(log_orders(m, k)))
    found = ordered_divergence(values, every)
    assert found.min() >= 0
    for of_each in (found, log_q + math.log(len(every))):  # by turns, and of whole orders
        assert (log_q.exp() @ of_each).item() == pytest.approx(ordered, abs=1e-6)
    chances: dict[frozenset[int], float] = {}
    for order, chance in zip(every.tolist(), log_q.exp().tolist(), strict=True):
        chances[frozenset(order)] = chances.get(frozenset(order), 0.0) + chance
    assert len(chances) == math.comb(m, k)
    of_choices = sum(chance * math.log(chance * len(chances)) for chance in chances.values())
    assert of_choices == pytest.approx(choice, abs=1e-6)
    q = values[0].softmax(0)
    assert (q * (q * m).log()).sum().item() == pytest.approx(softmax, abs=1e-6)
    assert softmax < choice < ordered


def test_draws_are_of_that_distribution() -> None:
    """Counts of the choices of 40,000 draws, by chi squared; their mean divergence is that of the order."""
    logits, k, choice_divergence, ordered, _ = CASES[0]
    noise = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    context = Given(logits, logits).context(k)
    w, divergence, log_ratio = (value.detach() for value in context.draw(torch.zeros(len(noise), 1), noise))
    assert torch.equal(w.sum(1), torch.full((len(noise),), 2.0, dtype=torch.float64))
    counts = torch.unique(w, dim=0, return_counts=True)
    squares = 0.0
    for choice, count in zip(*counts, strict=True):
        pair = choice.nonzero().flatten().tolist()
        expected = len(noise) * (by_turns(logits, pair) + by_turns(logits, pair[::-1]))
        squares += (count.item() - expected) ** 2 / expected
    assert len(counts[0]) == 6
    assert squares < 20.5  # one in a thousand, of 5 degrees of freedom
    for estimate in (divergence, -log_ratio):
        error = estimate.std().item() / math.sqrt(len(noise))
        assert abs(estimate.mean().item() - ordered) < 3 * error
        assert estimate.mean().item() > choice_divergence + 3 * error
    assert log_ratio.exp().mean().item() == pytest.approx(1, abs=0.02)  # weights of the prior's orders


def test_draws_of_the_prior_are_even() -> None:
    noise = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(1))
    w = Given((0.0,) * 4, (0.0,) * 4).context(2).prior(noise)
    _, counts = torch.unique(w, dim=0, return_counts=True)
    assert len(counts) == 6
    assert ((counts - 40_000 / 6) ** 2 / (40_000 / 6)).sum() < 20.5


def test_gumbel_numbers_of_normal_ones() -> None:
    uniform = torch.tensor([1e-6, 0.1, 0.5, 0.9, 1 - 1e-6], dtype=torch.float64)
    torch.testing.assert_close(gumbel(torch.special.ndtri(uniform)), -(-uniform.log()).log(), rtol=1e-8, atol=1e-8)
    assert gumbel(torch.tensor([-6.0, 6.0])).isfinite().all()


def total(logit: float) -> tuple[float, float]:
    """Bits that 16 equally likely levels cost with w of 2 numbers, and what a softmax's divergence would make of it.

    The logits are (logit, -logit) for one half and the other way round for the other. The levels are coded as well as
    w allows, 1 - log2 of its chance to be right. The second total has the choice without noise.
    """
    context = Given((logit, -logit), (-logit, logit)).context(1)
    x = torch.linspace(-15, 15, 16, dtype=torch.float64)[:, None]
    every = torch.tensor([[0], [1]])
    bits, theirs = 0.0, 0.0
    for logits in context.network(x).detach():
        q = order_log_probability(logits.expand(2, 2), every).exp()
        right = q.max()
        divergence = (q @ ordered_divergence(logits.expand(2, 2), every)).item() / math.log(2)
        posterior = torch.where(q == right, right, 1 - right)  # of the half, given w
        bits += divergence - (q @ (posterior / 8).log2()).item()
        theirs += (q * (2 * q).log2()).sum().item() + 3
    return bits / 16, theirs / 16


@pytest.mark.parametrize("logit", [1e-3, 0.1, 1.0, 20.0])
def test_no_context_codes_sixteen_levels_in_less_than_four_bits(logit: float) -> None:
    """L7: which half costs the bit that it saves; a softmax of tiny logits would say 3."""
    bits, theirs = total(logit)
    assert bits >= 4 - 1e-9
    assert theirs == pytest.approx({1e-3: 3.0, 20.0: 4.0}.get(logit, theirs), abs=1e-5)
    assert (theirs < 4 - 1e-5) is (logit < 20)


def test_six_levels_as_pairs_of_four() -> None:
    """Each level is told by a choice of its own: log2 6 bits, where a softmax's divergence would say one."""
    pairs = torch.tensor(list(itertools.combinations(range(4), 2)))
    logits = torch.zeros(6, 4, dtype=torch.float64).scatter(1, pairs, 40.0)
    bits = ordered_divergence(logits, pairs) / math.log(2)
    torch.testing.assert_close(bits, torch.full_like(bits, math.log2(6)))
    q = logits.softmax(1)
    assert (q * (4 * q).log2()).sum(1).tolist() == pytest.approx([1.0] * 6)


@torch.no_grad()
def test_a_choice_without_noise_is_charged_as_a_function_of_x() -> None:
    """L7 again: nearly nothing by the logits, log2 of the number of choices in truth."""
    x = torch.linspace(-15, 15, 16, dtype=torch.float64)[:, None]
    drawn = Given((1e-3, -1e-3), (-1e-3, 1e-3)).context(1).draw(x)
    assert torch.equal(drawn.value[:, 0], (x[:, 0] < 0).double())
    bits = drawn.kl / math.log(2) + 3  # which of the 8 levels of the half it is
    torch.testing.assert_close(bits, torch.full_like(bits, 4.0))
    assert torch.equal(drawn.log_ratio, -drawn.kl)
    fifty = TopKContext((3,)).draw(torch.zeros(1, 3))
    assert fifty.kl.item() == pytest.approx(28.4423, abs=1e-4)


def test_gradients() -> None:
    """Straight through to the centred direction, exactly k-hot in value; of the divergence by finite differences."""
    torch.manual_seed(0)
    noise, weight = torch.randn(1, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    network = Given((2.0, 1.0, 0.0, -1.0), (2.0, 1.0, 0.0, -1.0))
    w, divergence, _ = network.context(2).draw(torch.zeros(1, 1), noise)
    assert set(w.flatten().tolist()) == {0.0, 1.0}
    (found,) = torch.autograd.grad(w @ weight, network.logits, retain_graph=True)
    perturbed = network.logits[0].detach() + gumbel(noise[0])
    centred = perturbed - perturbed.mean()
    length = centred.norm()
    rows = torch.eye(4, dtype=torch.float64) - 0.25
    jacobian = (rows - torch.outer(centred, centred) / length**2) / length
    torch.testing.assert_close(found[0], weight @ jacobian)
    (slope,) = torch.autograd.grad(divergence.sum(), network.logits)
    order, step = perturbed.topk(2).indices[None], 1e-6 * torch.eye(4, dtype=torch.float64)
    values = network.logits[:1].detach()
    sides = [ordered_divergence(values + sign * step, order.expand(4, 2)) for sign in (1, -1)]
    torch.testing.assert_close(slope[0], (sides[0] - sides[1]) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, r"k must lie in 1\.\.3 \(size=4\), got 0"),
        ({"k": 4}, r"k must lie in 1\.\.3 \(size=4\), got 4"),
        ({"k": 2, "divergence": "softmax"}, "divergence must be 'ordered', got 'softmax': .* is no bound"),
    ],
)
def test_refusals(options: dict[str, int | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TopKContext((3,), size=4, **options)  # type: ignore[arg-type]
