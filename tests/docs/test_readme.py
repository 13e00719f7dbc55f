"""README.md: its Python runs and prints what it says."""

import re
from pathlib import Path

import pytest
import torch

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_python_of_the_readme_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = BLOCK.findall((root / "README.md").read_text())
    monkeypatch.chdir(tmp_path)
    printed = []
    for code in blocks:
        torch.manual_seed(0)
        exec(compile(code, "README.md", "exec"), {})
        printed.append(capsys.readouterr().out.splitlines())
    models, arrays = printed
    assert any("linear_cka" in line for line in models)
    assert (tmp_path / "runs" / "two_models" / "comparison.csv").is_file()
    promised = [line.partition("#")[2].strip() for line in blocks[1].splitlines() if line.startswith("print(f")]
    assert arrays[0] == promised[0]
