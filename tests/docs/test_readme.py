"""README.md: its Python runs and prints what it says."""

import re
from pathlib import Path

import pytest
import torch

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_python_of_the_readme_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = BLOCK.findall((root / "README.md").read_text())
    assert blocks
    torch.manual_seed(0)
    for code in blocks:
        exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    promised = [line.partition("#")[2].strip() for line in blocks[0].splitlines() if line.startswith("print(f")]
    assert printed[0] == promised[0]
