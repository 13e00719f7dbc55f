"""What sampling draws, against the probabilities it draws from."""

import pytest
import torch
from torch import Tensor

from likeness.language.sampling import sample_tokens

LOGITS = torch.tensor([2.0, 0.5, 1.0, -1.0])


def constant(ids: Tensor) -> Tensor:
    return LOGITS.expand(len(ids), -1)


def frequencies(**options: float) -> Tensor:
    ids = sample_tokens(constant, torch.zeros(4000, 1, dtype=torch.long), 2, max_context=4, **options)
    return ids[:, 1:].flatten().bincount(minlength=4) / (2 * 4000)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_follow_the_softmax(temperature: float) -> None:
    p = (LOGITS / temperature).softmax(0)
    assert torch.all((frequencies(temperature=temperature) - p).abs() < 4 * (p * (1 - p) / 8000).sqrt())


def test_of_the_likeliest_two_nothing_else_is_drawn() -> None:
    found, p = frequencies(top_k=2), LOGITS[[0, 2]].softmax(0)
    assert found[1] == found[3] == 0
    assert torch.all((found[[0, 2]] - p).abs() < 4 * (p * (1 - p) / 8000).sqrt())


def test_what_is_drawn_is_a_function_of_the_seed() -> None:
    prompt = torch.zeros(3, 1, dtype=torch.long)
    first, again, other = (sample_tokens(constant, prompt, 20, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_contexts_are_no_longer_than_they_may_be() -> None:
    lengths: list[int] = []

    def noted(ids: Tensor) -> Tensor:
        lengths.append(ids.shape[1])
        return constant(ids)

    ids = sample_tokens(noted, torch.zeros(2, 3, dtype=torch.long), 4, max_context=5, temperature=0)
    assert lengths == [3, 4, 5, 5]
    assert ids.shape == (2, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must be 0 or more, got -1"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"prompt": torch.zeros(2, 0, dtype=torch.long)}, r"at least one token, \[B, T\], got shape \[2, 0\]"),
    ],
)
def test_values_that_cannot_be(options: dict[str, object], message: str) -> None:
    given = {"prompt": torch.zeros(1, 1, dtype=torch.long), "length": 1, "max_context": 2} | options
    with pytest.raises(ValueError, match=message):
        sample_tokens(constant, **given)  # type: ignore[arg-type]
