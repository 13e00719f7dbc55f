"""The files by which a project is kept: they agree with setup.cfg, the Makefile and the version."""

import configparser
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import likeness
from tests.test_repository import MACHINE_PATH, REGISTRY, NoRepeats, places
from tools.setup_environment import read_recipe

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
WORKFLOW = GITHUB / "workflows" / "test.yml"
HOOKS = ROOT / ".pre-commit-config.yaml"
LOCK = ROOT / "requirements.lock"
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
KEPT = [WORKFLOW, HOOKS, LOCK, *FORMS, *(ROOT / name for name in ("Dockerfile", ".dockerignore", "CHANGELOG.md"))]


def read(path: Path) -> Any:
    return yaml.load(path.read_text(), NoRepeats)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.fixture
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine paths", "package registries"])
def test_they_name_no_machine_and_no_registry(pattern: re.Pattern[str]) -> None:
    assert places(KEPT, pattern) == []


def test_the_workflow_tests_the_supported_pythons(setup_cfg: configparser.ConfigParser) -> None:
    matrix = read(WORKFLOW)["jobs"]["test"]["strategy"]["matrix"]
    supported = SpecifierSet(setup_cfg["options"]["python_requires"])
    tested = [f"3.{minor}" for minor in range(30) if f"3.{minor}" in supported][: len(matrix["python"])]
    assert matrix["python"] == tested
    later = [entry["python"] for entry in matrix["include"]]
    assert later == [f"3.{int(tested[-1].split('.')[1]) + 1}"]
    assert all(entry["experimental"] for entry in matrix["include"])
    assert matrix["experimental"] == [False]


def test_the_workflow_runs_make_and_nothing_secret() -> None:
    steps = read(WORKFLOW)["jobs"]["test"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    asked = [words[1] for words in map(str.split, commands) if words[0] == "make"]
    assert "test" in asked
    assert set(asked) <= make_targets()
    assert "secrets." not in WORKFLOW.read_text()
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    assert read(WORKFLOW)["permissions"] == {"contents": "read"}


def test_the_hooks_are_those_of_make_lint() -> None:
    hooks = {hook["id"]: hook for repo in read(HOOKS)["repos"] for hook in repo["hooks"]}
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    for tool in ("ruff check", "ruff format", "mypy"):
        assert tool in lint
        assert any(f"-m {tool}" in hook.get("entry", "") for hook in hooks.values())
    assert {"end-of-file-fixer", "check-added-large-files", "detect-private-key"} <= set(hooks)
    assert all(re.fullmatch(r"v\d+\.\d+\.\d+", repo["rev"]) for repo in read(HOOKS)["repos"] if repo["repo"] != "local")


def test_the_changelog_has_the_version(root: Path) -> None:
    versions = re.findall(r"^## \[(.+?)\] - (?:unreleased|\d{4}-\d\d-\d\d)$", (root / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == likeness.__version__
    assert f"version: {likeness.__version__}\n" in (root / "CITATION.cff").read_text()


def test_a_change_is_of_a_kind_that_the_changelog_knows(root: Path) -> None:
    kinds = re.findall(r"^### (\w+)", (root / "CHANGELOG.md").read_text(), re.M)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_forms_of_issues_ask_for_something(form: Path) -> None:
    content = read(form)
    if form.stem == "config":
        assert content == {"blank_issues_enabled": False}
        return
    assert content["name"]
    assert content["description"]
    ids = [part["id"] for part in content["body"]]
    assert len(ids) == len(set(ids))
    assert any(part.get("validations", {}).get("required") for part in content["body"])


def test_a_report_of_a_bug_has_what_the_doctor_says() -> None:
    assert "likeness doctor --json" in (GITHUB / "ISSUE_TEMPLATE" / "bug.yml").read_text()


def locked() -> dict[str, str]:
    """The versions in the lock, by the normalised name; every line that is no comment is one."""
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [re.fullmatch(r"([\w.-]+)==([\w.+!-]+)", line) for line in lines]
    assert None not in pairs, [line for line, pair in zip(lines, pairs, strict=True) if pair is None]
    return {normalised(pair[1]): pair[2] for pair in pairs if pair is not None}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_has_a_version_that_each_requirement_allows() -> None:
    versions = locked()
    wanted = [r for r in map(Requirement, read_recipe(ROOT)["requirements"]) if r.name != "setuptools"]
    assert [str(r) for r in wanted if not r.specifier.contains(versions.get(normalised(r.name), "0"))] == []


def test_the_lock_has_what_the_requirements_require_in_turn() -> None:
    """Their closure in the environment of this test, which is one that make setup made."""
    versions, waiting, seen = locked(), [Requirement(r) for r in read_recipe(ROOT)["requirements"]], set()
    while waiting:
        requirement = waiting.pop()
        name = normalised(requirement.name)
        if (name, *requirement.extras) in seen:
            continue
        seen.add((name, *requirement.extras))
        for line in metadata.requires(requirement.name) or ():
            needed = Requirement(line)
            extras = ["", *requirement.extras]
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    assert {name for name, *_ in seen} - set(versions) <= {"setuptools", "pip"}  # pip freeze leaves these out


def test_the_container_leaves_out_what_git_does() -> None:
    """And it runs the demo, not as root."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in (ROOT / ".gitignore").read_text().split():
        assert {line.strip("/"), f"**/{line.strip('/')}"} & set(ignored), line
    words = {line.split()[0] for line in lines if line and not line.startswith((" ", "#"))}
    assert words <= {"FROM", "RUN", "USER", "WORKDIR", "COPY", "ENV", "VOLUME", "CMD"}
    assert lines.index("USER likeness") < lines.index('CMD ["make", "demo"]')
    assert "demo" in make_targets()
