"""docs/how-to/compare.md: its Python runs."""

import re
from pathlib import Path

import pytest
import torch

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_python_of_the_page_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks go on from one another, as a reader types them."""
    blocks = BLOCK.findall((root / "docs" / "how-to" / "compare.md").read_text())
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for code in blocks:
        exec(compile(code, "compare.md", "exec"), names)
    assert names["callbacks"]
