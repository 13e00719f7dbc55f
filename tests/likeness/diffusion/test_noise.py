"""Noise that depends on where it is used and on nothing else."""

import pytest
import torch

from likeness.diffusion.process import evaluation_noise, training_noise

SHAPE = (3, 4, 4)


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_sample_of_the_global_batch_gets_the_same_noise_at_any_number_of_ranks(world_size: int) -> None:
    alone = training_noise(torch.empty(8, *SHAPE), seed=3, step=5, rank=0, world_size=1)
    for rank in range(world_size):
        part = training_noise(torch.empty(8 // world_size, *SHAPE), seed=3, step=5, rank=rank, world_size=world_size)
        for mine, all_of_them in zip(part[:3], alone[:3], strict=True):
            assert torch.equal(mine, all_of_them[rank::world_size])


def test_times_are_stratified_over_the_global_batch() -> None:
    parts = [training_noise(torch.empty(4, *SHAPE), 0, 0, rank, 3).t for rank in range(3)]
    times = torch.cat(parts).sort().values
    torch.testing.assert_close(times.diff(), torch.full((11,), 1 / 12), rtol=0, atol=1e-6)


def test_noise_differs_between_steps_seeds_and_ranks() -> None:
    draws = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    noises = [training_noise(torch.empty(2, *SHAPE), seed, step, rank, 2).eps for seed, step, rank in draws]
    for i, first in enumerate(noises):
        assert not any(torch.isclose(first, second).any() for second in noises[:i])


def test_evaluation_noise_belongs_to_the_sample_and_not_to_the_batch() -> None:
    ids = torch.tensor([7, 2, 900_000, 3])
    together = evaluation_noise(torch.empty(4, *SHAPE), ids, seed=1, draw=2)
    for row in range(4):
        alone = evaluation_noise(torch.empty(1, *SHAPE), ids[row : row + 1], seed=1, draw=2)
        for a, b in zip(alone[:3], together[:3], strict=True):
            assert torch.equal(a[0], b[row])


def test_evaluation_noise_is_standard_normal_and_its_times_cover_the_interval() -> None:
    size = 4000
    noise = evaluation_noise(torch.empty(size, 2), torch.arange(size), seed=0, draw=0)
    for eps in (noise.eps_0, noise.eps):
        assert abs(eps.mean()) < 4 / (2 * size) ** 0.5
        assert abs(eps.std() - 1) < 4 / (4 * size) ** 0.5
    gaps = noise.t.sort().values.diff()
    assert gaps.max() < 3 / size  # independent times would leave gaps of about log(size) / size = 8 / size
    other = evaluation_noise(torch.empty(size, 2), torch.arange(size), seed=0, draw=1)
    assert not torch.isclose(noise.t, other.t).any()
    assert abs(torch.corrcoef(torch.stack([noise.eps.flatten(), other.eps.flatten()]))[0, 1]) < 4 / (2 * size) ** 0.5
