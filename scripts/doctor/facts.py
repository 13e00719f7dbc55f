"""What the doctor looks at: the software, the machine and the folders, as plain values and without a judgement.

Nothing here raises for what is missing or broken: that is what the doctor is asked about. No key or password is read;
of W&B's login it is asked whether there is one.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import resource
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

IMPORTED = ("torch", "torchvision", "wandb")  # every training needs the first two, and wandb is quick
SHOWN = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "transformers", "sentence-transformers", "timm")
LOGGERS = ("tensorboard", "mlflow", "trackio")
CGROUPS = Path("/sys/fs/cgroup")
WANDB_HOST = "api.wandb.ai"


@dataclass(frozen=True)
class Software:
    """``required``: what likeness's own metadata ask for, None where it is not installed; ``failures`` by module."""

    likeness: str
    python: str
    versions: Mapping[str, str | None]
    required: tuple[str, ...] | None
    failures: Mapping[str, str]


@dataclass(frozen=True)
class Processor:
    """Cores of the machine, those this process may run on, and the cores' worth of time that its cgroup grants."""

    cores: int
    allowed: int
    quota: float | None
    torch_threads: int | None
    omp_num_threads: str | None


@dataclass(frozen=True)
class Memory:
    """In bytes. ``limit`` is the cgroup's; ``shared`` what is free in /dev/shm, None where there is none."""

    total: int
    available: int
    limit: int | None
    shared: int | None


@dataclass(frozen=True)
class Device:
    """A CUDA device: its memory in bytes, whether it computes in bfloat16, whether torch was built for it."""

    name: str
    memory: int
    capability: tuple[int, int]
    bf16: bool
    supported: bool


@dataclass(frozen=True)
class Accelerators:
    """``built_for``: the CUDA or ROCm of this torch, None for a build without; ``present``: a GPU's device file."""

    built_for: str | None
    present: bool
    hidden: bool
    devices: tuple[Device, ...]
    mps: bool


@dataclass(frozen=True)
class Folder:
    """A folder by its purpose, the bytes that are free there, and whether it, or the one above it, can be written."""

    purpose: str
    path: str
    free: int
    writable: bool


@dataclass(frozen=True)
class Wandb:
    """Its mode, and whether a login is kept for its host: in the environment or in netrc."""

    mode: str
    logged_in: bool


@dataclass(frozen=True)
class Facts:
    """All that is looked at; ``open_files`` is the soft limit, and the hard one."""

    software: Software
    processor: Processor
    memory: Memory
    accelerators: Accelerators
    folders: tuple[Folder, ...]
    wandb: Wandb
    open_files: tuple[int, int]


def gather() -> Facts:
    """Look at this process's environment; takes as long as importing torch and torchvision."""
    software = look_at_software()
    torch = None if "torch" in software.failures else importlib.import_module("torch")
    return Facts(
        software,
        look_at_processor(torch),
        look_at_memory(),
        look_at_accelerators(torch),
        tuple(look_at_folder(purpose, path) for purpose, path in places().items()),
        Wandb(os.environ.get("WANDB_MODE") or "online", has_wandb_login(os.environ)),
        resource.getrlimit(resource.RLIMIT_NOFILE),
    )


def look_at_software() -> Software:
    """Versions of what is installed, without importing it; ``IMPORTED`` is imported and tried."""
    from likeness import __version__

    try:
        required: tuple[str, ...] | None = tuple(metadata.requires("likeness") or ())
    except metadata.PackageNotFoundError:
        required = None
    names = [*SHOWN, "wandb", *LOGGERS, *(re.split(r"[^\w.-]", line)[0] for line in required or ())]
    versions = {name: _version(name) for name in dict.fromkeys(names)}
    tried = {name: failure(name) for name in IMPORTED}
    failures = {name: reason for name, reason in tried.items() if reason is not None}
    return Software(__version__, platform.python_version(), versions, required, failures)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def failure(module: str) -> str | None:
    """Why a module cannot be used, in one line; None where it can. Of torchvision a compiled operator is called."""
    try:
        if util.find_spec(module) is None:
            return "it is not installed"
        imported = importlib.import_module(module)
        if module == "torchvision":
            import torch

            imported.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:  # a broken package may raise anything
        return " ".join(without_home(word) for word in f"{type(error).__name__}: {error}".split())
    return None


def look_at_processor(torch: Any) -> Processor:
    """Cores and threads; ``torch`` is None where it cannot be imported."""
    threads = None if torch is None else torch.get_num_threads()
    allowed = len(os.sched_getaffinity(0))
    return Processor(os.cpu_count() or allowed, allowed, cpu_quota(), threads, os.environ.get("OMP_NUM_THREADS"))


def cpu_quota(root: Path = CGROUPS) -> float | None:
    """How many cores' worth of time this process's cgroup, or one above it, grants; None where there is no limit."""
    granted = [*_limits(root, "cpu.max", _of_two), *_limits(root / "cpu", "cpu.cfs_quota_us", _quota_of_version_1)]
    return min(granted, default=None)


def _of_two(file: Path) -> float | None:
    quota, period = file.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_of_version_1(file: Path) -> float | None:
    quota = int(file.read_text())
    return None if quota < 0 else quota / int(file.with_name("cpu.cfs_period_us").read_text())


def memory_limit(root: Path = CGROUPS) -> int | None:
    """The memory in bytes that this process's cgroup, or one above it, may use; None where there is no limit."""
    granted = [*_limits(root, "memory.max", _bytes), *_limits(root / "memory", "memory.limit_in_bytes", _bytes)]
    return min(granted, default=None)


def _bytes(file: Path) -> int | None:
    text = file.read_text().strip()
    return None if text == "max" or int(text) >= 2**60 else int(text)  # version 1 writes "none" as a huge number


def _limits(root: Path, name: str, read: Callable[[Path], Any]) -> list[Any]:
    """The limits of this name from the process's cgroup up to ``root``, as far as they can be read."""
    try:
        own = Path("/proc/self/cgroup").read_text().splitlines()[-1].rpartition(":")[2].strip("/")
    except (OSError, IndexError):
        own = ""
    found = []
    for folder in (root / own, *(root / own).parents):
        if not folder.is_relative_to(root):
            break
        try:
            found.append(read(folder / name))
        except (OSError, ValueError):
            continue
    return [limit for limit in found if limit is not None]


def look_at_memory() -> Memory:
    """The machine's memory, the cgroup's limit and the shared memory that workers exchange batches through."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kilobytes = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    shm = Path("/dev/shm")
    shared = shutil.disk_usage(shm).free if shm.is_dir() else None
    return Memory(kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024, memory_limit(), shared)


def look_at_accelerators(torch: Any) -> Accelerators:
    """The GPUs that torch sees, and whether there is one that it does not see."""
    present = any(Path("/dev", name).exists() for name in ("nvidia0", "kfd"))
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    if torch is None:
        return Accelerators(None, present, hidden, (), False)
    devices = []
    if torch.cuda.is_available():
        built = torch.cuda.get_arch_list()
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            capability = (properties.major, properties.minor)
            with torch.cuda.device(index):
                bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            supported = torch.version.cuda is None or runs_on(built, capability)
            devices.append(Device(properties.name, properties.total_memory, capability, bf16, supported))
    built_for = torch.version.cuda or torch.version.hip
    return Accelerators(built_for, present, hidden, tuple(devices), torch.backends.mps.is_available())


def runs_on(built: list[str], capability: tuple[int, int]) -> bool:
    """Whether kernels built for these architectures (``sm_90``, ``compute_80``) run on a device of this capability.

    Machine code runs on its own major version, from its minor version up; PTX on every later device.
    """
    for kind, digits in (match.groups() for name in built if (match := re.match(r"(sm|compute)_(\d+)", name))):
        version = int(digits[:-1]), int(digits[-1])
        if version <= capability and (kind == "compute" or version[0] == capability[0]):
            return True
    return False


def places() -> dict[str, Path]:
    """The folders that are written into, by purpose: those of the working directory, of temporary files, of caches."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return {
        "runs": Path("runs"),
        "data": Path("data"),
        "temporary files": Path(tempfile.gettempdir()),
        "Hugging Face cache": Path(os.environ.get("HF_HOME") or cache / "huggingface").expanduser(),
        "torch cache": Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser(),
    }


def look_at_folder(purpose: str, path: Path) -> Folder:
    """A folder, or where it is not there yet the nearest one above it, in which it would be made."""
    absolute = Path(os.path.abspath(path))
    there = next(folder for folder in (absolute, *absolute.parents) if folder.exists())
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return Folder(purpose, without_home(path), shutil.disk_usage(there).free, writable)


def without_home(path: Path | str) -> str:
    """The path with ``~`` for the user's home directory, whose name is nobody's business; other texts as they are."""
    home, text = os.path.expanduser("~").rstrip("/"), str(path)
    return "~" + text[len(home) :] if home and (text == home or text.startswith(home + "/")) else text


def has_wandb_login(environment: Mapping[str, str]) -> bool:
    """Whether W&B finds a key: a variable that is set, or a line for its host in netrc. The key itself is not kept."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = re.sub(r"^\w+://|[/:].*$", "", environment.get("WANDB_BASE_URL") or WANDB_HOST)
    named = environment.get("NETRC")
    files = [Path(named)] if named else [Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()]
    try:
        return any(
            re.search(rf"(?m)^\s*machine\s+{re.escape(host)}(\s|$)", file.read_text(errors="replace"))
            for file in files
            if file.is_file()
        )
    except OSError:
        return False
