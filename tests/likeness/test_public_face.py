"""What ``from likeness import ...`` gives: every name has an example that runs, and importing it costs little."""

import doctest
import json
import subprocess
import sys
from pathlib import Path

import pytest

import likeness


@pytest.mark.parametrize("name", likeness.__all__)
def test_every_public_name_has_an_example_that_runs(name: str) -> None:
    exported = getattr(likeness, name)
    module = sys.modules[exported.__module__]
    tests = [test for test in doctest.DocTestFinder(recurse=False).find(exported, name, module) if test.examples]
    assert tests, f"{exported.__module__}.{name} has no example"
    for test in tests:
        failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
        assert tried
        assert not failed


def loaded_after(code: str, root: Path) -> set[str]:
    """The modules that a fresh process has imported after ``code``."""
    code = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_the_library_imports_nothing_else(root: Path) -> None:
    loaded = loaded_after("import likeness", root)
    assert "likeness" in loaded
    assert {"torch", "pytorch_lightning", "torchmetrics", "wandb", "sklearn", "matplotlib", "scipy"}.isdisjoint(loaded)


def test_comparing_models_imports_no_hubness_and_no_lightning(root: Path) -> None:
    code = "import torch\nfrom likeness import compare_softmax_models\nf, g = torch.randn(50, 2), torch.randn(5, 2)\n"
    loaded = loaded_after(code + "compare_softmax_models(f, g, f, g)", root)
    ours = {name for name in loaded if name.split(".")[0] == "likeness"}
    assert "likeness.similarity.comparison" in ours
    assert not {name for name in ours if name.split(".")[1:2] in (["hubness"], ["neighbours"], ["diffusion"])}
    assert {"pytorch_lightning", "torchmetrics"}.isdisjoint(loaded)
