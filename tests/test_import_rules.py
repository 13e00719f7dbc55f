"""Imports run one way: scripts -> callbacks, lightning_modules, datamodules -> likeness."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics"}
LOGGERS = {"wandb", "tensorboard"}
UPPER = {"lightning_modules", "datamodules", "callbacks", "scripts"}
HEAVY = {"wandb", "sklearn", "matplotlib", "scipy", "torchvision"}

FORBIDDEN = {
    "likeness": (LIGHTNING - {"torchmetrics"}) | LOGGERS | UPPER,
    "lightning_modules": {"callbacks", "datamodules", "scripts"},
    "datamodules": {"callbacks", "lightning_modules", "scripts"},
    "callbacks": {"datamodules", "scripts"},
}
# A callback knows modules by the protocols of likeness; comparing against checkpoints needs their reader.
FILES = ("checkpoints", "checkpoint_files", "metrics")  # reading and writing what was trained, and its bound
ALLOWED = {("callbacks", f"lightning_modules.{file}") for file in FILES}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    """What a file holds, parsed once for all rules."""
    return ast.parse(path.read_text())


def imported(node: ast.AST) -> list[str]:
    """The modules that one statement names; empty for anything but an import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def at_import_time(module: ast.Module) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported: no function's body, nothing under TYPE_CHECKING."""
    waiting: list[ast.AST] = [module]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def is_of(module: str, packages: set[str]) -> bool:
    return module.split(".")[0] in packages


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} imports {module}"
        for path in sources(package)
        for node in ast.walk(tree(path))
        for module in imported(node)
        if is_of(module, FORBIDDEN[package] | ({"lightning_modules"} if package == "callbacks" else set()))
        and not any(package == who and f"{module}.".startswith(f"{what}.") for who, what in ALLOWED)
    ]
    assert found == []


@pytest.mark.parametrize("package", ["likeness", *sorted(UPPER)])
def test_heavy_libraries_are_imported_only_where_they_are_used(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} imports {module}"
        for path in sources(package)
        for node in at_import_time(tree(path))
        for module in imported(node)
        if is_of(module, HEAVY)
    ]
    assert found == []


@pytest.mark.parametrize("package", ["likeness", *sorted(UPPER)])
def test_imports_are_absolute(package: str) -> None:
    """A checkpoint names its class by one spelling only."""
    relative = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(package)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import scipy.stats", True),
        ("try:\n    import wandb\nexcept ImportError:\n    wandb = None", True),
        ("class Figure:\n    from matplotlib import pyplot", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import matplotlib", False),
        ("def draw():\n    import matplotlib", False),
    ],
)
def test_the_rule_about_heavy_libraries_can_fail(code: str, heavy: bool) -> None:
    names = [name for node in at_import_time(ast.parse(code)) for name in imported(node)]
    assert any(is_of(name, HEAVY) for name in names) == heavy


def modules() -> dict[str, Path]:
    """Every module of the packages by its name."""
    files = [path for package in ["likeness", *sorted(UPPER)] for path in sources(package)]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = modules()
    graph = {
        name: {
            known
            for node in at_import_time(tree(path))
            for module in imported(node)
            if (known := module if module in names else module.rpartition(".")[0]) in names and known != name
        }
        for name, path in names.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


STEP = """
import torch, pytorch_lightning as pl
from lightning_modules import DiffEnc
from tests.lightning_modules.tiny_diffusion import batch, diffenc
loader = torch.utils.data.DataLoader([batch(4)], batch_size=None)
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
pl.Trainer(max_steps=1, accelerator="cpu", **quiet).fit(diffenc(), loader)
"""
TASKS = {
    "from likeness import compare_softmax_models": 17,
    "from likeness import analyse_hubness": 8,
    STEP: 24,
}
COMMANDS = "import scripts.main, scripts.train, scripts.compare, scripts.bench, scripts.evaluate, scripts.sample"
# Each in a fork of one process that has imported pytorch_lightning and nothing of ours.
BRINGS = """
import json, os, pytorch_lightning, sys
before = set(sys.modules)
for code in sys.argv[1:]:
    sys.stdout.flush()
    if (fork := os.fork()) == 0:
        exec(code)
        print(json.dumps(sorted(set(sys.modules) - before)), flush=True)
        os._exit(0)
    assert os.waitpid(fork, 0)[1] == 0, code
"""


@pytest.fixture(scope="module")
def brought() -> dict[str, list[str]]:
    """The modules that each statement brings along, beside pytorch_lightning's."""
    statements = [*TASKS, COMMANDS]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BRINGS, *statements], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return dict(zip(statements, map(json.loads, result.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("code", TASKS, ids=lambda code: code.strip().splitlines()[-1])
def test_what_a_task_has_to_read_stays_little(code: str, brought: dict[str, list[str]]) -> None:
    """The files of ours with content of their own, beside the package faces, that an import brings along."""
    known = modules()
    ours = [name for name in brought[code] if is_of(name, {"likeness", "lightning_modules"})]
    files = [name for name in ours if known[name].name != "__init__.py"]
    assert 0 < len(files) <= TASKS[code], files


def test_no_command_loads_a_heavy_library_by_itself(brought: dict[str, list[str]]) -> None:
    """pytorch_lightning brings matplotlib, scipy and torchvision through torchmetrics; nothing more may come."""
    assert "scripts.sample" in brought[COMMANDS]
    assert [name for name in brought[COMMANDS] if is_of(name, HEAVY)] == []
