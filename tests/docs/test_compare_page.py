"""docs/compare.md: its Python runs."""

import re
from pathlib import Path

import pytest
import torch

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", [0, 1])
def test_the_python_of_the_page_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    code = BLOCK.findall((root / "docs" / "compare.md").read_text())[number]
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(code, "compare.md", "exec"), {})
