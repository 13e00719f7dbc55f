"""Rules of the repository that no linter knows: what may stand in a file, and what its loads and configurations are."""

import ast
import re
import socket
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["likeness", "lightning_modules", "datamodules", "callbacks", "scripts", "tools", "docs", "tests"]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
PYTHON = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
YAML = [*sorted((ROOT / "configs").rglob("*.yaml")), ROOT / "CITATION.cff"]
TEMPLATES = sorted(path for path in (ROOT / ".github").rglob("*") if path.is_file())
TEXT = [
    *PYTHON,
    *YAML,
    *DOCUMENTS,
    *(ROOT / name for name in ("Makefile", "setup.cfg", "pyproject.toml")),
]
MAX_LINES = 500
MAX_FILES = 20

# Spelt so that this file does not match itself.
MACHINE_PATH = re.compile(
    r"(?<![\w.~$}/-])/(?:" + "|".join(["wor" + "k", "roo" + "t", "hom" + "e", "Use" + "rs"]) + r")/"
)
REGISTRY = re.compile("|".join(["pypi" + r"\.org", "python" + r"hosted\.org", "download" + r"\.pytorch\.org"]))


def places(paths: list[Path], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if pattern.search(line)
    ]


def test_a_folder_of_sources_is_seen_at_a_glance() -> None:
    sizes = Counter(path.parent.relative_to(ROOT) for path in PYTHON if "tests" not in path.relative_to(ROOT).parts)
    assert {str(folder): files for folder, files in sizes.items() if files > MAX_FILES} == {}


def test_files_stay_short_enough_to_be_read_in_one_sitting() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PYTHON}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine paths", "package registries"])
def test_nothing_names_one_machine_or_its_suppliers(pattern: re.Pattern[str]) -> None:
    assert places(TEXT, pattern) == []


def test_the_rule_about_machine_paths_can_fail() -> None:
    home = "/" + "home" + "/someone/data"
    assert MACHINE_PATH.search(f'path = "{home}"')
    assert not MACHINE_PATH.search(f"runs{home}")


def test_every_checkpoint_is_loaded_without_running_its_code() -> None:
    """``torch.load(..., weights_only=True)``, as the literal: a default or a variable could be anything."""
    unsafe = [
        f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}"
        for path in PYTHON
        if "torch.load" in (text := path.read_text())
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.load" and not is_safe(call)
    ]
    assert unsafe == []


def is_safe(call: ast.Call) -> bool:
    values = [word.value for word in call.keywords if word.arg == "weights_only"]
    return len(values) == 1 and isinstance(values[0], ast.Constant) and values[0].value is True


@pytest.mark.parametrize("path", YAML, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_parses_to_a_mapping_without_repeated_keys(path: Path) -> None:
    assert isinstance(yaml.load(path.read_text(), NoRepeats), dict)


class NoRepeats(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"repeated key in line {node.start_mark.line + 1}: {sorted(keys)}"
        return super().construct_mapping(node, deep)


def test_links_in_the_documents_lead_to_files_and_headings() -> None:
    assert [link for document in DOCUMENTS for link in broken_links(document)] == []


def broken_links(document: Path) -> list[str]:
    """Links of a page to files that are not there, or to headings that those do not have."""
    broken = []
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", document.read_text()):
        page = document.parent / target if target else document
        if not page.exists() or (anchor and anchor not in anchors(page)):
            broken.append(f"{document.name}: {target}#{anchor}")
    return broken


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    titles = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    links = "[a](#one-two-three) [b](b.md#four) [c](b.md) [d](c.md) [e](#five)"
    (tmp_path / "a.md").write_text(f"# One `two`, three\n{links}")
    (tmp_path / "b.md").write_text("# Four\n[a](a.md#one)")
    assert broken_links(tmp_path / "a.md") == ["a.md: c.md#", "a.md: #five"]
    assert broken_links(tmp_path / "b.md") == ["b.md: a.md#one"]


def test_paths_named_in_the_documents_exist() -> None:
    """Every `package/...` in backticks is a file or folder; placeholders in capitals are not meant."""
    named = {
        (document.name, path)
        for document in DOCUMENTS
        for path in re.findall(rf"`((?:{'|'.join([*PACKAGES, 'configs'])})/[a-z0-9_./]*)`", document.read_text())
    }
    assert sorted((document, path) for document, path in named if not (ROOT / path).exists()) == []


def test_pages_that_are_named_exist() -> None:
    """In docstrings, messages, comments and the forms of the issue tracker."""
    missing = [
        f"{path.relative_to(ROOT)}: {page}"
        for path in (*PYTHON, *YAML, *TEMPLATES)
        for page in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text())
        if not (ROOT / page).exists()
    ]
    assert missing == []


def test_tests_reach_no_network() -> None:
    with socket.socket() as connection, pytest.raises(OSError, match=r"no network.*192\.0\.2\.1"):
        connection.connect(("192.0.2.1", 80))
