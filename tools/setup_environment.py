"""Make the virtual environment in .venv, or reuse the one that stands; with the standard library alone.

An environment stands when its stamp, written last, holds the recipe that setup.cfg and pyproject.toml give
now; then nothing is run and no network is needed. Otherwise a whole environment is brought up to date and a
half-made one is made anew. Every failure is one line.

Older Pythons must be able to parse this file, to say that they are too old: no syntax newer than 3.6.
"""

import configparser
import contextlib
import csv
import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MINIMUM_PYTHON = (3, 11)
if sys.version_info < MINIMUM_PYTHON:
    sys.exit(
        f"setup: Python 3.11 or newer is needed, but {sys.executable} is Python {sys.version.split()[0]}; "
        "name another one: make PYTHON=/path/to/python3.11"
    )

ROOT = Path(__file__).resolve().parent.parent
NEEDED_BYTES = 9 * 2**30  # torch with CUDA: 6 GB installed, and 3 GB of packages while they are unpacked
STAMP = "likeness-environment.json"
LOG = "setup.log"
CHECK_TORCH = """
from importlib.metadata import version
print(f"torch {version('torch')} and torchvision {version('torchvision')}", flush=True)
import torch, torchvision
torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
"""


Recipe = dict[str, Any]


class SetupError(Exception):
    """What went wrong and what to do about it, in one line."""


def read_recipe(root: Path) -> Recipe:
    """What an environment is made from: the folder it serves, the packages required, the project's layout."""
    import tomllib

    metadata = configparser.ConfigParser()
    metadata.read(root / "setup.cfg")
    build = tomllib.loads((root / "pyproject.toml").read_text())["build-system"]
    options = {name: dict(metadata[name]) for name in metadata.sections() if name.startswith("options")}
    lists = [options["options"]["install_requires"], options["options.extras_require"]["dev"]]
    requirements = build["requires"] + [line for text in lists for line in text.split("\n") if line]
    return {"root": str(root), "requirements": requirements, "options": options}


def stands(venv: Path, recipe: Recipe) -> bool:
    """Whether the environment was finished from this very recipe and its interpreter is still there."""
    try:
        stamp = json.loads((venv / STAMP).read_text())
    except (OSError, ValueError):
        return False
    return stamp == recipe and os.access(venv / "bin" / "python", os.X_OK)


def write_stamp(venv: Path, recipe: Recipe) -> None:
    """Declare the environment finished, in one step that cannot be half done."""
    draft = venv / (STAMP + ".part")
    draft.write_text(json.dumps(recipe, indent=1))
    draft.replace(venv / STAMP)


def broken_packages(site_packages: Path) -> list[str]:
    """Names of the installed packages with files missing or cut short, as an interrupted pip leaves them."""
    return [info.name.split("-")[0] for info in site_packages.glob("*.dist-info") if not is_whole(info)]


def is_whole(dist_info: Path) -> bool:
    """Whether every file that the package's RECORD lists has the size it gives; pip writes RECORD last."""
    try:
        with open(dist_info / "RECORD", newline="") as record:
            rows = [row for row in csv.reader(record) if len(row) == 3 and row[2]]
        return bool(rows) and all((dist_info.parent / row[0]).stat().st_size == int(row[2]) for row in rows)
    except (OSError, ValueError):
        return False


def is_sound(venv: Path) -> bool:
    """Whether an environment without a stamp can be kept: a new enough Python, pip, only whole packages."""
    probe = f"import sys, pip; sys.exit(sys.version_info < {MINIMUM_PYTHON})"
    try:
        probed = subprocess.run([venv / "bin" / "python", "-I", "-c", probe], capture_output=True)
    except OSError:
        return False
    return probed.returncode == 0 and not any(
        broken_packages(folder) for folder in venv.glob("lib/python*/site-packages")
    )


def check_machine(venv: Path) -> None:
    """Raise SetupError where a new environment cannot be made: no venv module, or too little disk."""
    try:
        import ensurepip  # noqa: F401  # Debian ships venv without it, in the package python3-venv
        import venv as _  # noqa: F401
    except ImportError:
        raise SetupError(
            "Python's venv module is missing; install it first (Debian, Ubuntu: apt install python3-venv)"
        ) from None
    place = venv if venv.exists() else venv.parent
    free = shutil.disk_usage(place).free
    if free < NEEDED_BYTES:
        raise SetupError(
            f"the disk is too full for the environment: {free / 2**30:.1f} GB are free in {place}, "
            f"about {NEEDED_BYTES / 2**30:.0f} GB are needed"
        )


def create(venv: Path) -> None:
    """Make an empty environment with pip; what stood there before goes."""
    if venv.exists():
        print(f"setup: {venv} is unfinished or damaged; making it anew", flush=True)
    check_machine(venv)
    print("setup: a new environment takes some minutes: 3 GB to download, 6 GB on disk", flush=True)
    command = [sys.executable, "-m", "venv", "--clear", str(venv)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise SetupError("'python -m venv' failed: " + last_line(result.stdout))


def install(venv: Path, recipe: Recipe, lock: int) -> None:
    """Install all requirements in one resolution, so that torch and torchvision match; then the project."""
    run_pip(venv, recipe["requirements"], lock)
    run_pip(venv, ["--no-build-isolation", "--no-deps", "--editable", recipe["root"]], lock)


def run_pip(venv: Path, arguments: list[str], lock: int) -> None:
    """``pip install`` in the environment; pip holds the lock too, as it may outlive this process."""
    log = venv / LOG
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command = [str(venv / "bin" / "python"), "-I", "-u", "-m", "pip", "install", *options, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, pass_fds=[lock])
    output = []
    with process, open(log, "a") as log_file:
        for line in process.stdout or ():
            output.append(line)
            log_file.write(line)
            show_progress(line)
    if process.returncode:
        raise SetupError(f"{explain(''.join(output))}; pip's output is in {log}")


def show_progress(line: str) -> None:
    """Of pip's many lines, show the large downloads and the start of the last, silent step."""
    if re.match(r" *(Downloading|Using cached) .*\(.* [MG]B\)", line):
        print("  " + line.strip().replace(".metadata", ""), flush=True)
    elif line.startswith("Installing collected packages:"):
        print("  Installing the packages", flush=True)


def explain(output: str) -> str:
    """Why pip failed, from its output: disk full, a package that cannot be had, or its last error."""
    if os.strerror(errno.ENOSPC) in output:
        return "the disk is full"
    missing = re.search(r"No matching distribution found for (.+)", output)
    if missing is not None:
        unreachable = "Retrying (" in output
        reason = "the package index cannot be reached" if unreachable else "no package index offers it here"
        return f"cannot get the package {missing.group(1).strip()}: {reason}"
    error = re.search(r"^ERROR: (.+)", output, flags=re.MULTILINE)  # the first is the cause
    return f"pip failed: {last_line(output) if error is None else error.group(1)}"


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def check_torch(venv: Path) -> None:
    """Raise SetupError where torch and torchvision do not match: the compiled operators then fail."""
    command = [str(venv / "bin" / "python"), "-I", "-c", CHECK_TORCH]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise SetupError(
            f"{result.stdout.strip() or 'torch and torchvision'} do not work together "
            f"({last_line(result.stderr)}); both must come from one package index: "
            f"correct pip's settings (pip config list), remove {venv} and run again"
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the lock file, so that two commands never build at once; yields its descriptor."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: waiting for another setup of this folder to finish", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def set_up(root: Path) -> None:
    """Leave a finished environment in ``root/.venv``; raises SetupError."""
    venv = root / ".venv"
    recipe = read_recipe(root)
    if stands(venv, recipe):
        return
    with locked(root / ".venv.lock") as lock:
        if stands(venv, recipe):  # built by another command while this one waited
            return
        print(f"setup: preparing {venv}", flush=True)
        with contextlib.suppress(FileNotFoundError):
            (venv / STAMP).unlink()
        if not is_sound(venv):
            create(venv)
        install(venv, recipe, lock)
        check_torch(venv)
        write_stamp(venv, recipe)
        print("setup: done", flush=True)


def main() -> int:
    """The exit status; says in one line why there is no environment."""
    try:
        set_up(ROOT)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error
        print(f"setup: {reason}", file=sys.stderr)
    except KeyboardInterrupt:
        print("setup: interrupted; run the same command again to finish", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
