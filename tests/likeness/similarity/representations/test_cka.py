"""CKA and CKNNA against formulas written from the papers on whole Gram matrices, scikit-learn and known values."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import KernelCenterer
from torch import Tensor

from likeness.similarity.catalogue import REPRESENTATION_MEASURES
from likeness.similarity.joint_moments import JointMoments
from likeness.similarity.representations.cka import cknna, linear_cka, linear_cka_f, rbf_cka, unbiased_linear_cka
from tests.likeness.similarity.paired_samples import generator, related, unrelated

SHAPES = [(30, (3, 5)), (30, (40, 2)), (12, (50, 60)), (4, (2, 3))]


def alignment(kernel: np.ndarray, other: np.ndarray) -> float:
    return float((kernel * other).sum() / np.sqrt((kernel**2).sum() * (other**2).sum()))


def hsic_1(kernel: np.ndarray, other: np.ndarray) -> float:
    """Song et al. 2012, eq. 5, term by term."""
    n, one = len(kernel), np.ones(len(kernel))
    a, b = (matrix - np.diag(np.diag(matrix)) for matrix in (kernel, other))
    total = np.trace(a @ b) + (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ a @ b @ one
    return total / (n * (n - 3))


def joint(embeddings: list[Tensor]) -> JointMoments:
    names = [f"m{i}" for i in range(len(embeddings))]
    return JointMoments.of(embeddings, torch.ones(len(embeddings), len(embeddings[0])), names)


@pytest.mark.parametrize(("n", "dims"), SHAPES)
def test_linear_cka_is_the_alignment_of_centred_gram_matrices(n: int, dims: tuple[int, int]) -> None:
    x, y = related(n, dims)
    grams = [KernelCenterer().fit_transform((z @ z.T).numpy()) for z in (x + 7, y - 3)]
    assert float(linear_cka(x + 7, y - 3)) == pytest.approx(alignment(*grams), abs=1e-12)


@pytest.mark.parametrize(("n", "dims"), SHAPES)
def test_unbiased_cka_is_the_ratio_of_hsic_1(n: int, dims: tuple[int, int]) -> None:
    x, y = related(n, dims)
    a, b = ((z @ z.T).numpy() for z in (x + 2, y))
    expected = hsic_1(a, b) / np.sqrt(hsic_1(a, a) * hsic_1(b, b))
    assert float(unbiased_linear_cka(x + 2, y)) == pytest.approx(expected, abs=1e-10)


def test_unbiased_cka_of_unrelated_representations_averages_0_where_the_biased_averages_a_fifth() -> None:
    draws = [unrelated(32, (8, 8), seed) for seed in range(400)]
    biased, unbiased = (torch.stack([measure(x, y) for x, y in draws]) for measure in (linear_cka, unbiased_linear_cka))
    error = float(unbiased.std()) / len(draws) ** 0.5
    assert abs(float(unbiased.mean())) < 3 * error < 0.01
    assert float(biased.mean()) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("samples", [31, 32])  # 465 distances, and 496: an even number
@pytest.mark.parametrize("bandwidth", [0.3, 1.0, 2.5])
def test_rbf_cka_against_scikit_learn(bandwidth: float, samples: int) -> None:
    x, y = related(samples, (3, 5))
    grams = []
    for z in (x.numpy(), y.numpy()):
        sigma = bandwidth * np.median(pdist(z))
        grams.append(KernelCenterer().fit_transform(rbf_kernel(z, gamma=1 / (2 * sigma**2))))
    assert float(rbf_cka(x, y, bandwidth)) == pytest.approx(alignment(*grams), abs=1e-12)


def test_rbf_cka_tends_to_linear_cka_as_the_bandwidth_grows() -> None:
    x, y = related()
    assert float(rbf_cka(x, y, bandwidth=1e3)) == pytest.approx(float(linear_cka(x, y)), abs=1e-5)


@pytest.mark.parametrize("k", [1, 5, 39])
def test_cknna_sums_over_pairs_that_are_neighbours_in_both(k: int) -> None:
    """Huh et al. 2024, appendix A: the sum over i and j, with its indicator."""
    x, y = related(40)
    grams = [KernelCenterer().fit_transform((z @ z.T).numpy()) for z in (x, y)]
    near = []
    for gram in grams:
        others = gram - np.diag(np.full(len(gram), np.inf))
        near.append([set(np.argsort(-row)[:k]) for row in others])

    def align(a: int, b: int) -> float:
        pairs = [(i, j) for i in range(40) for j in near[a][i] & near[b][i]]
        return sum(float(grams[a][i, j] * grams[b][i, j]) for i, j in pairs)

    expected = align(0, 1) / np.sqrt(align(0, 0) * align(1, 1))
    assert float(cknna(x, y, k)) == pytest.approx(expected, abs=1e-12)


def test_linear_cka_of_joint_moments_is_that_of_the_samples() -> None:
    models = [related(50, (3, 4), seed=seed)[1][:, : 2 + seed] + 100 for seed in range(3)]
    expected = REPRESENTATION_MEASURES["linear_cka"].function(models, ["a", "b", "c"]).values
    torch.testing.assert_close(linear_cka_f(joint(models)).values, expected, rtol=0, atol=1e-11)


def test_linear_cka_of_joint_moments_leaves_a_biased_heads_constant_coordinate_out() -> None:
    x, y = related(50)
    constant = torch.ones(50, 1, dtype=torch.float64)
    models = [torch.cat([x, constant], dim=1), y]
    assert float(linear_cka_f(joint(models)).values[0, 1]) == pytest.approx(float(linear_cka(x, y)), abs=1e-12)


def test_linear_cka_of_joint_moments_is_undefined_for_a_constant_embedding_alone() -> None:
    x, y = related(50)
    found = linear_cka_f(joint([x, torch.full((50, 2), 0.1), y]))
    assert found.undefined[0, 1] == "the embeddings of model 'm1' are the same for all of 50 inputs"
    assert float(found.values[0, 2]) == pytest.approx(float(linear_cka(x, y)), abs=1e-12)
    assert found.values[:, 1].isnan().all()


def test_unbiased_cka_refuses_samples_that_are_all_equally_similar() -> None:
    x = torch.eye(5)
    with pytest.raises(ValueError, match="all pairs of the 5 samples of 'x' are equally similar"):
        unbiased_linear_cka(x, x)


def test_rbf_cka_refuses_samples_that_mostly_coincide() -> None:
    x = torch.zeros(9, 2)
    x[0] = 1
    with pytest.raises(ValueError, match="most of the 9 samples of 'y' coincide"):
        rbf_cka(torch.rand(9, 2, generator=generator(0)), x)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, float("nan")])
def test_rbf_cka_refuses_a_bandwidth_that_is_not_positive(bandwidth: float) -> None:
    with pytest.raises(ValueError, match=f"bandwidth must be positive.*{bandwidth}"):
        rbf_cka(*related(), bandwidth=bandwidth)


@pytest.mark.parametrize("k", [0, 40])
def test_cknna_refuses_more_neighbours_than_there_are(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k} and 'x' has 40"):
        cknna(*related(40), k=k)
