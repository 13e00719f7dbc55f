"""f-norm as a transform: rows of length 1, fitted on the index, and the transductive form on request."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from likeness.hubness.f_norm import FNorm, NormalScores, Order
from likeness.neighbours.exact import nearest_neighbours

each_order = pytest.mark.parametrize("order", ["deterministic", "random"])


def points(n: int, dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).exp()


@each_order
def test_rows_are_normal_scores_of_length_1(order: Order) -> None:
    index, queries = points(40), points(15, seed=1)
    scores = NormalScores.of(index, order, seed=5)
    vectors = FNorm(order, seed=5).fit(index).transform(queries)
    torch.testing.assert_close(vectors, normalize(scores(queries), dim=1), rtol=0, atol=0)


def test_draws_follow_the_seed() -> None:
    index = points(40)
    one, same, other = (FNorm("random", seed=seed).fit(index).transform(index) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


@each_order
def test_joint_ranks_index_and_queries_as_one_set(order: Order) -> None:
    index, queries = points(40), points(15, seed=1) + 0.5
    both = torch.cat([index, queries])
    vectors = FNorm(order).fit(both).transform(both)
    method = FNorm(order, joint=True).fit(index)
    torch.testing.assert_close(torch.cat(method.transform_jointly(queries)), vectors, rtol=0, atol=0)
    expected = nearest_neighbours(vectors[:40], 5, metric="cosine", queries=vectors[40:])
    assert torch.equal(method.rerank(queries, k=5).ids, expected.ids)
    separate = FNorm(order).fit(index)
    assert not torch.allclose(method.distances(queries), separate.distances(queries))
    assert torch.equal(method.rerank(k=5).ids, separate.rerank(k=5).ids)  # without queries there is nothing to join


def test_joint_has_no_map_of_single_queries() -> None:
    method = FNorm(joint=True).fit(points(10))
    for call in (lambda: method.transform(points(3)), method.augment):
        with pytest.raises(NotImplementedError, match="its index depends on the queries"):
            call()


def test_refuses_another_order() -> None:
    with pytest.raises(ValueError, match="order of f_norm must be one of deterministic, random, but it is 'sorted'"):
        FNorm("sorted")  # type: ignore[arg-type]
