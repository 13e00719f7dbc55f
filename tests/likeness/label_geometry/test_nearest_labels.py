"""Nearest labels block by block, against the whole matrix."""

import pytest
import torch

from likeness.label_geometry.nearest_labels import nearest_labels
from likeness.label_geometry.similarity import LabelMetric, centred_similarity, logit_correlation, raw_similarity


@pytest.mark.parametrize("rows_at_a_time", [1, 7, 1000])
def test_blocks_find_what_the_whole_matrix_holds(rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likeness.label_geometry.similarity._BLOCK", rows_at_a_time * 6)
    generator = torch.Generator().manual_seed(0)
    g = (torch.randn(40, 6, generator=generator) + 0.5).bfloat16()
    covariance = torch.randn(50, 6, generator=generator).double().T.cov()
    mean = g.double().mean(0)
    metrics = {
        "raw": LabelMetric.raw(),
        "centred": LabelMetric.centred(mean),
        "invariant": LabelMetric.invariant(mean, covariance),
    }
    whole = {
        "raw": raw_similarity(g),
        "centred": centred_similarity(g),
        "invariant": logit_correlation(g, covariance),
    }
    found = nearest_labels(g, [3, 17, 39], metrics, 5)
    for name, similarity in whole.items():
        expected = similarity.fill_diagonal_(-2)[[3, 17, 39]].topk(5)
        torch.testing.assert_close(found[name].cosines, expected.values)
        assert torch.equal(found[name].labels, expected.indices)


def test_labels_without_a_direction_are_nobodys_neighbours() -> None:
    g = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    neighbours = nearest_labels(g, [0, 1], {"raw": LabelMetric.raw()}, 3)["raw"]
    assert neighbours.labels.tolist() == [[2, -1, -1], [-1, -1, -1]]
    assert neighbours.cosines[1].isnan().all()


def test_a_query_that_is_no_label_is_refused() -> None:
    with pytest.raises(ValueError, match="label 3 is none of the labels 0 to 2"):
        nearest_labels(torch.eye(3), [0, 3], {}, 1)
