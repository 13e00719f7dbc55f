"""The loss by blocks of positions against torch's cross-entropy of logits that are all held."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from likeness.language.loss import next_token_loss, token_scores

N, M, V = 23, 5, 7


def drawn(
    dtype: torch.dtype, vocab: int = V, scale: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """f, g, bias and targets, of which some are left out."""
    random = torch.Generator().manual_seed(seed)
    f, g, bias = (scale * torch.randn(*shape, generator=random).to(dtype) for shape in ((N, M), (vocab, M), (vocab,)))
    targets = torch.randint(vocab, (N,), generator=random)
    targets[::4] = -1
    return f.requires_grad_(), g.requires_grad_(), bias.requires_grad_(), targets


def plain(f: Tensor, g: Tensor, targets: Tensor, bias: Tensor | None) -> Tensor:
    return F.cross_entropy(F.linear(f, g, bias), targets, ignore_index=-1)


@pytest.mark.parametrize("rows", [1, 7, N, 64, None])
@pytest.mark.parametrize("biased", [False, True])
def test_any_block_gives_the_loss_and_gradients_of_all_logits(rows: int | None, biased: bool) -> None:
    f, g, bias, targets = drawn(torch.float64)
    given = (f, g, bias) if biased else (f, g)
    expected = plain(f, g, targets, bias if biased else None)
    found = next_token_loss(f, g, targets, bias if biased else None, rows)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(3 * expected, given)
    for own, gradient in zip(torch.autograd.grad(3 * found, given), gradients, strict=True):
        torch.testing.assert_close(own, gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("rows", [8, None])
def test_float32_is_as_exact_as_it_can_be(rows: int | None) -> None:
    f, g, bias, targets = drawn(torch.float32, vocab=301, scale=2)
    wide = [value.detach().double().requires_grad_() for value in (f, g, bias)]
    expected = plain(wide[0], wide[1], targets, wide[2])
    found = next_token_loss(f, g, targets, bias, rows)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    gradients = torch.autograd.grad(expected, wide)
    for own, gradient in zip(torch.autograd.grad(found, (f, g, bias)), gradients, strict=True):
        assert float((own - gradient).norm()) <= 1e-5 * float(gradient.norm())


@pytest.mark.parametrize("rows", [5, N])
def test_gradients_are_those_of_finite_differences(rows: int) -> None:
    f, g, bias, targets = drawn(torch.float64)
    assert torch.autograd.gradcheck(lambda *given: next_token_loss(*given[:2], targets, given[2], rows), (f, g, bias))


def test_a_graph_that_is_kept_gives_its_gradient_again() -> None:
    f, g, bias, targets = drawn(torch.float64)
    loss = next_token_loss(f, g, targets, bias)
    first = torch.autograd.grad(loss, (f, g, bias), retain_graph=True)
    (2 * loss).backward()
    for value, gradient in zip((f, g, bias), first, strict=True):
        torch.testing.assert_close(value.grad, 2 * gradient, rtol=1e-15, atol=0)


def test_what_needs_no_gradient_gets_none() -> None:
    f, g, bias, targets = drawn(torch.float64)
    next_token_loss(f, g.detach(), targets, bias.detach()).backward()
    assert f.grad is not None
    assert g.grad is None


@pytest.mark.parametrize("rows", [3, None])
def test_scores_are_those_of_each_position(rows: int | None) -> None:
    f, g, bias, targets = drawn(torch.float64)
    scores = token_scores(f, g, targets, bias, rows)
    logits = F.linear(f, g, bias)
    expected = F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")
    torch.testing.assert_close(scores.nll, expected, rtol=1e-12, atol=1e-15)
    assert torch.equal(scores.correct, logits.argmax(1) == targets)
    with torch.no_grad():
        found = next_token_loss(f, g, targets, bias, rows)
    torch.testing.assert_close(found, plain(f, g, targets, bias), rtol=1e-12, atol=0)


def test_logits_of_any_size_and_labels_that_are_all_alike() -> None:
    f, g, _, targets = drawn(torch.float32, scale=1e4)
    assert next_token_loss(f, g, targets).item() == pytest.approx(plain(f, g, targets, None).item(), rel=1e-6)
    same = next_token_loss(f, torch.zeros_like(g), targets)
    assert same.item() == pytest.approx(math.log(V), rel=1e-6)


def test_where_nothing_is_predicted_there_is_no_mean() -> None:
    f, g, _, targets = drawn(torch.float32)
    assert next_token_loss(f, g, torch.full_like(targets, -1)).isnan()
    assert next_token_loss(f[:0], g, targets[:0]).isnan()
    assert [len(part) for part in token_scores(f[:0], g, targets[:0])] == [0, 0]


def test_bfloat16_and_autocast_keep_products_in_float32() -> None:
    """Logits that are rounded to bfloat16 would be off by 1e-3 here."""
    f, g, bias, targets = (value.detach() for value in drawn(torch.float32, vocab=301, scale=2))
    f, g = f.bfloat16().requires_grad_(), g.bfloat16().requires_grad_()
    expected = plain(f.double(), g.double(), targets, bias.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = next_token_loss(f, g, targets, bias)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    gradient = torch.autograd.grad(found, f)[0]
    assert gradient.dtype == torch.bfloat16
    assert float((gradient - torch.autograd.grad(expected, f)[0]).norm()) <= 5e-3 * float(gradient.norm())
