"""The environment's setup: what it reuses, what it repairs, and the one line it ends with when it cannot."""

import ast
import errno
import fcntl
import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools import setup_environment as setup


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the two files that an environment is made from."""
    (tmp_path / "setup.cfg").write_text(
        "[options]\ninstall_requires =\n    torch>=2.8\n    torchvision\n"
        "[options.extras_require]\ndev =\n    pytest>=8\n"
    )
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\n[tool.ruff]\nline-length = 110\n'
    )
    return tmp_path


@pytest.fixture
def fake_python(project: Path):
    """Puts a shell script in the place of the environment's interpreter."""

    def write(script: str) -> Path:
        python = project / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        return project / ".venv"

    return write


def install_package(venv: Path, content: str = "x = 1\n") -> Path:
    """A package as pip leaves it; returns its module."""
    site = venv / "lib" / "python3.11" / "site-packages"
    info = site / "thing-1.0.dist-info"
    info.mkdir(parents=True)
    module = site / "thing.py"
    module.write_text(content)
    (info / "RECORD").write_text(
        f"thing.py,sha256=abc,{len(content)}\n__pycache__/thing.pyc,,\nthing-1.0.dist-info/RECORD,,\n"
    )
    return module


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces every step that would touch the machine by its name in a list."""
    taken: list[str] = []
    monkeypatch.setattr(setup, "create", lambda venv: taken.append("create") or venv.mkdir(exist_ok=True))
    monkeypatch.setattr(setup, "install", lambda *_: taken.append("install"))
    monkeypatch.setattr(setup, "check_torch", lambda _: taken.append("check"))
    return taken


def finish(venv: Path, root: Path) -> None:
    setup.write_stamp(venv, setup.read_recipe(root))


def test_the_recipe_holds_build_runtime_and_development_requirements(project: Path) -> None:
    requirements = setup.read_recipe(project)["requirements"]
    assert requirements == ["setuptools>=77", "torch>=2.8", "torchvision", "pytest>=8"]


def test_torch_and_torchvision_are_asked_for_together(root: Path) -> None:
    requirements = " ".join(setup.read_recipe(root)["requirements"])
    assert "torch>=" in requirements
    assert "torchvision>=" in requirements


def test_a_finished_environment_is_reused_and_nothing_runs(project: Path, fake_python, steps) -> None:
    finish(fake_python("exit 1"), project)
    setup.set_up(project)
    assert steps == []


def test_new_requirements_update_the_environment_and_new_tool_settings_do_not(
    project: Path, fake_python, steps
) -> None:
    finish(fake_python("exit 0"), project)
    settings = project / "pyproject.toml"
    settings.write_text(settings.read_text().replace("110", "80"))
    setup.set_up(project)
    assert steps == []
    requirements = project / "setup.cfg"
    requirements.write_text(requirements.read_text().replace("pytest>=8", "pytest>=9"))
    setup.set_up(project)
    assert steps == ["install", "check"]


def test_a_moved_folder_is_installed_again(project: Path, fake_python, steps) -> None:
    venv = fake_python("exit 0")
    (venv / setup.STAMP).write_text(json.dumps(setup.read_recipe(project) | {"root": "/elsewhere"}))
    setup.set_up(project)
    assert steps == ["install", "check"]


def test_an_environment_made_by_hand_is_kept_when_it_is_whole(project: Path, fake_python, steps) -> None:
    install_package(fake_python("exit 0"))
    setup.set_up(project)
    assert steps == ["install", "check"]
    assert setup.stands(project / ".venv", setup.read_recipe(project))


@pytest.mark.parametrize("damage", ["truncated", "missing", "no record", "python does not run"])
def test_a_half_made_environment_is_made_anew(project: Path, fake_python, steps, damage: str) -> None:
    venv = fake_python("exit 1" if damage == "python does not run" else "exit 0")
    module = install_package(venv)
    if damage == "truncated":
        module.write_text("x =")
    elif damage == "missing":
        module.unlink()
    elif damage == "no record":
        (module.parent / "thing-1.0.dist-info" / "RECORD").unlink()
    setup.set_up(project)
    assert steps == ["create", "install", "check"]


def test_a_failed_or_interrupted_install_never_counts_as_done(
    project: Path, fake_python, steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(fake_python("exit 0"), project)
    (project / "setup.cfg").write_text((project / "setup.cfg").read_text() + "    ruff\n")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(setup, "install", interrupt)
    with pytest.raises(KeyboardInterrupt):
        setup.set_up(project)
    assert not (project / ".venv" / setup.STAMP).exists()


def test_two_setups_at_once_build_once(project: Path, fake_python, steps) -> None:
    """The second waits for the lock; the first finishes meanwhile."""
    venv = fake_python("exit 0")
    script = f"from tools import setup_environment as s; from pathlib import Path; s.set_up(Path({str(project)!r}))"
    with open(project / ".venv.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen([sys.executable, "-c", script], cwd=setup.ROOT, stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert "waiting for another setup" in second.stdout.readline()
        finish(venv, project)
    assert second.wait(timeout=60) == 0
    assert second.stdout.read() == ""
    second.stdout.close()


def test_pip_holds_the_lock_after_its_parent_died(project: Path, fake_python) -> None:
    """Otherwise a second setup would take an orphaned pip's environment apart under it."""
    started, stop = project / "started", project / "stop"
    fake_python(f"touch {started}; while [ ! -e {stop} ]; do sleep 0.05; done")
    script = (
        "from tools import setup_environment as s; from pathlib import Path; import os\n"
        f"root = Path({str(project)!r})\n"
        "with s.locked(root / '.venv.lock') as lock: s.run_pip(root / '.venv', [], lock)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=setup.ROOT)
    while not started.exists():
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    with open(project / ".venv.lock") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stop.touch()
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_too_old_a_python_is_told_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 8, 10, "final", 0))
    with pytest.raises(SystemExit, match=r"^setup: Python 3\.11 or newer is needed, but \S+ is Python .*$"):
        runpy.run_path(setup.__file__)


def test_an_old_python_can_parse_the_script() -> None:
    ast.parse(Path(setup.__file__).read_text(), feature_version=(3, 6))


def test_a_missing_venv_module_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(setup.SetupError, match=r"venv module is missing.*python3-venv"):
        setup.check_machine(project / ".venv")


def test_too_little_disk_is_noticed_before_anything_is_made(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 2**30))
    with pytest.raises(setup.SetupError, match=r"too full.*3\.0 GB are free.*about \d GB are needed"):
        setup.create(project / ".venv")
    assert not (project / ".venv").exists()


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken\n"
            "ERROR: Could not find a version that satisfies the requirement scipy>=1.11 (from versions: none)\n"
            "ERROR: No matching distribution found for scipy>=1.11",
            r"cannot get the package scipy>=1\.11: the package index cannot be reached",
        ),
        (
            "ERROR: No matching distribution found for torch>=99 (from likeness)",
            r"cannot get the package torch>=99 .*: no package index offers it here",
        ),
        (
            "ERROR: Cannot install a and b because of conflicting dependencies.\nThe conflict is\nERROR: see help",
            "pip failed: Cannot install a and b because of conflicting dependencies",
        ),
        ("Killed\n\n", "pip failed: Killed"),
        ("", "pip failed: no message"),
    ],
)
def test_a_failing_pip_is_explained_in_one_line(project: Path, fake_python, output: str, reason: str) -> None:
    script = f"cat <<'END'\n{output}\nEND\nexit 1"
    venv = fake_python(script)
    with open(project / "lock", "w") as lock, pytest.raises(setup.SetupError, match=reason) as caught:
        setup.run_pip(venv, ["something"], lock.fileno())
    assert "\n" not in str(caught.value)
    assert str(venv / setup.LOG) in str(caught.value)
    assert output in (venv / setup.LOG).read_text()


def test_a_pair_that_does_not_match_is_named_with_its_versions(fake_python) -> None:
    venv = fake_python(
        "echo torch 2.13.0+cpu and torchvision 0.29.2\n"
        "echo 'RuntimeError: operator torchvision::nms does not exist' >&2; exit 1"
    )
    with pytest.raises(setup.SetupError, match=r"torch 2\.13\.0\+cpu and torchvision 0\.29\.2 do not .*nms"):
        setup.check_torch(venv)


def test_the_check_passes_in_this_environment(fake_python) -> None:
    setup.check_torch(fake_python(f'exec {sys.executable} "$@"'))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (setup.SetupError("no"), "setup: no\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "setup: the disk is full\n"),
        (PermissionError(errno.EACCES, "Permission denied", ".venv"), "setup: [Errno 13] Permission denied: '.venv'\n"),
        (KeyboardInterrupt(), "setup: interrupted; run the same command again to finish\n"),
    ],
)
def test_every_failure_is_one_line_and_a_non_zero_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, line: str
) -> None:
    def fail(_: Path) -> None:
        raise error

    monkeypatch.setattr(setup, "set_up", fail)
    assert setup.main() == 1
    assert capsys.readouterr() == ("", line)
