"""Measures are found by name."""

import pytest

from likeness.similarity.catalogue import MEASURES, select


def test_a_family_stands_for_its_members_in_order() -> None:
    assert list(select(["m_cca", "kl"])) == ["m_cca_f", "m_cca_g", "kl"]
    assert select(["js"]) == {"js": MEASURES["js"]}


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown measure 'cka': the known ones are kl, .*m_cca_f.*, m_cca, "):
        select(["kl", "cka"])
