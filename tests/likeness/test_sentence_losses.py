"""Losses of sentence pairs: closed forms, sentence-transformers' own, and two ranks against one."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from likeness.losses import cosine_loss, euclidean_loss, ranking_loss, sentence_loss
from tests.callbacks.two_ranks import on_two_ranks


def embeddings(count: int = 6, dim: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    u, v = torch.randn(2, count, dim, generator=source, dtype=torch.float64)
    return u, v, 5 * torch.rand(count, generator=source, dtype=torch.float64)


def test_scores_of_unit_vectors_at_known_angles() -> None:
    angles = torch.tensor([0.0, 60.0, 90.0], dtype=torch.float64).deg2rad()
    u = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(3, 2)
    v = torch.stack([angles.cos(), angles.sin()], 1)
    score = torch.tensor([5.0, 2.5, 0.0], dtype=torch.float64)
    assert cosine_loss(3 * u, 7 * v, score).item() == pytest.approx(0, abs=1e-30)
    assert euclidean_loss(u, v, score).item() == pytest.approx(0, abs=1e-30)
    assert cosine_loss(u, v, torch.zeros(3)).item() == pytest.approx((1 + 0.25) / 3)
    assert euclidean_loss(u, v, torch.zeros(3)).item() == pytest.approx((2 + (math.sqrt(2) - 1) ** 2) / 3)


def test_the_euclidean_target_is_the_papers() -> None:
    u, v, score = embeddings()
    target = (1 - (score - 2.5) / 2.5).sqrt()
    torch.testing.assert_close(euclidean_loss(u, v, score), ((u - v).norm(dim=1) - target).square().mean())


def test_the_cosine_loss_is_the_loss_of_distances() -> None:
    u, v, score = embeddings()
    distances = F.mse_loss(1 - F.cosine_similarity(u, v), 1 - score / 5)
    torch.testing.assert_close(cosine_loss(u, v, score), distances)


def test_equal_embeddings_have_a_finite_gradient() -> None:
    u = torch.ones(2, 3, requires_grad=True)
    euclidean_loss(u, u.detach(), torch.tensor([5.0, 1.0])).backward()
    assert torch.equal(u.grad, torch.zeros(2, 3))


def test_ranking_by_brute_force() -> None:
    u, v, _ = embeddings()
    score = torch.tensor([5.0, 4.0, 3.9, 0.0, 4.5, 5.0])
    losses = []
    for i in (0, 1, 4, 5):
        logits = [3.0 * float(F.cosine_similarity(u[i], v[j], dim=0)) for j in range(6)]
        losses.append(math.log(sum(map(math.exp, logits))) - logits[i])
    assert ranking_loss(u, v, score, scale=3.0).item() == pytest.approx(sum(losses) / 4)
    assert ranking_loss(u, v, score, positive_score=6.0).item() == 0


class Given(torch.nn.Module):
    """In the place of a model: embeddings that are given already."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["x"]}


@pytest.mark.parametrize(
    ("name", "their_name"), [("cosine", "CosineSimilarityLoss"), ("ranking", "MultipleNegativesRankingLoss")]
)
def test_sentence_transformers_has_the_same_losses(name: Any, their_name: str) -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    u, v, score = (x.float() for x in embeddings(8))
    theirs = getattr(losses, their_name)(Given())([{"x": u}, {"x": v}], score / 5)
    torch.testing.assert_close(sentence_loss(name, positive_score=0.0)(u, v, score), theirs, rtol=1e-5, atol=1e-6)


def on_half(rank: int) -> dict[str, Tensor]:
    """The loss of every second pair, and its gradient."""
    u, v, score = (x[rank::2].clone().requires_grad_() for x in embeddings(8))
    loss = ranking_loss(u, v, score, positive_score=2.0)
    loss.backward()
    return {"loss": loss.detach(), "u": u.grad, "v": v.grad}


def test_two_ranks_have_the_loss_and_the_gradients_of_one(tmp_path: Path) -> None:
    u, v, score = (x.requires_grad_() for x in embeddings(8))
    loss = ranking_loss(u, v, score, positive_score=2.0)
    loss.backward()
    assert 2 < int((score >= 2.0).sum()) < 8
    assert int((score[::2] >= 2.0).sum()) != int((score[1::2] >= 2.0).sum())
    halves = on_two_ranks(on_half, tmp_path)
    torch.testing.assert_close(sum(half["loss"] for half in halves) / 2, loss.detach())
    for rank, half in enumerate(halves):  # gradients are averaged over ranks, so each has twice the whole batch's
        torch.testing.assert_close(half["u"] / 2, u.grad[rank::2])
        torch.testing.assert_close(half["v"] / 2, v.grad[rank::2])


@pytest.mark.parametrize("name", ["cosine", "euclidean", "ranking"])
def test_half_precision_is_widened_first(name: Any) -> None:
    u, v, score = (x.bfloat16() for x in embeddings())
    loss = sentence_loss(name)
    assert loss(u, v, score).dtype == torch.float32
    torch.testing.assert_close(loss(u, v, score), loss(u.float(), v.float(), score.float()))


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(ValueError, match="loss must be one of cosine, euclidean, ranking, got 'triplet'"):
        sentence_loss("triplet")  # type: ignore[arg-type]
