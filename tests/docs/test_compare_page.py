"""docs/how-to/compare.md: its Python runs."""

from pathlib import Path

import pytest
import torch

from tests.docs.reader import blocks, run_python


def test_the_python_of_the_page_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks go on from one another, as a reader types them."""
    page = root / "docs" / "how-to" / "compare.md"
    codes = [content for language, content in blocks(page) if language == "python" and "Texts" not in content]
    assert len(codes) == 3
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for code in codes:
        run_python(code, names, page.name)
    assert names["callbacks"]
