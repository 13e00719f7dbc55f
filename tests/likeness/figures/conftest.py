"""Figures as readers have them."""

from collections.abc import Mapping
from typing import Any

import pytest

from likeness.figures.style import STYLE


@pytest.fixture(autouse=True)
def _as_readers_see_them(look: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in look.items():
        monkeypatch.setitem(STYLE, name, value)
