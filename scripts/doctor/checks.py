"""What the doctor thinks of the facts: each check is a function of them alone, and has advice for whatever is wrong.

A *problem* stops runs or makes them wrong. A *note* is what makes them slow, or what is missing and might be wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from packaging.requirements import Requirement
from packaging.version import Version

from scripts.doctor.facts import LOGGERS, SHOWN, Accelerators, Device, Facts, Folder, Memory, Processor, Software, Wandb

Mark = Literal["ok", "note", "problem"]
GB = 2**30
LITTLE_DISK, TOO_LITTLE_DISK = 5 * GB, GB // 2
LITTLE_MEMORY, TOO_LITTLE_MEMORY = 4 * GB, GB
LITTLE_SHARED = 256 * 2**20  # what containers get by default is 64 MB
FEW_FILES, TOO_FEW_FILES = 1024, 128
NEEDED_FOLDERS = ("runs", "temporary files")
REINSTALL = "make setup"


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``advice`` says what to do, and is empty where nothing is to be done."""

    mark: Mark
    subject: str
    found: str
    advice: str = ""


def examine(facts: Facts) -> list[Finding]:
    """All findings, subject by subject."""
    cores = granted_cores(facts.processor)
    return [
        *check_packages(facts.software),
        *check_torch(facts.software),
        *check_accelerators(facts.accelerators),
        *check_processor(facts.processor, cores),
        *check_memory(facts.memory),
        *(finding for folder in facts.folders for finding in check_folder(folder)),
        *check_wandb(facts.software, facts.wandb),
        *check_loggers(facts.software),
        *check_open_files(*facts.open_files),
    ]


def worst(findings: Iterable[Finding]) -> Mark:
    """The worst mark of all."""
    marks = {finding.mark for finding in findings}
    return "problem" if "problem" in marks else "note" if "note" in marks else "ok"


def check_packages(software: Software) -> Iterator[Finding]:
    """Versions, and whether they are those that likeness asks for."""
    yield Finding("ok", "likeness", software.likeness)
    old = Version(software.python) < Version("3.11")
    advice = "take Python 3.11 or newer: make setup PYTHON=python3.12" if old else ""
    yield Finding("problem" if old else "ok", "python", software.python, advice)
    if software.required is None:
        yield Finding("note", "packages", "likeness is not installed here", f"use .venv/bin/likeness, from {REINSTALL}")
    for requirement in map(Requirement, software.required or ()):
        version = software.versions.get(requirement.name)
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if version is None:
            if needed:
                yield Finding("problem", requirement.name, "not installed", _install(requirement))
        elif not requirement.specifier.contains(version, prereleases=True):
            mark: Mark = "problem" if needed else "note"
            yield Finding(mark, requirement.name, f"{version}, not {requirement.specifier}", _install(requirement))
    seen = [f"{name} {version}" for name in SHOWN if (version := software.versions.get(name)) is not None]
    yield Finding("ok", "versions", ", ".join(seen))


def _install(requirement: Requirement) -> str:
    return f'{REINSTALL}, or pip install "{requirement.name}{requirement.specifier}"'


def check_torch(software: Software) -> Iterator[Finding]:
    """Whether torch can be imported and torchvision's compiled operators load into it."""
    if (reason := software.failures.get("torch")) is not None:
        yield Finding("problem", "torch", reason, f"remove .venv and run {REINSTALL}")
        return
    pair = " and ".join(f"{name} {software.versions.get(name) or '?'}" for name in ("torch", "torchvision"))
    if (reason := software.failures.get("torchvision")) is not None:
        advice = "install both from one package index (pip config list shows yours): remove .venv and run " + REINSTALL
        yield Finding("problem", "torchvision", f"{pair} do not work together: {reason}", advice)
    else:
        yield Finding("ok", "torchvision", "its operators load")


def check_accelerators(found: Accelerators) -> Iterator[Finding]:
    """The GPUs, and why there is none where there could be one."""
    for device in found.devices:
        yield check_device(device, found.built_for)
    if found.mps:
        yield Finding("note", "GPU", "MPS", "it is not tested here: --trainer.accelerator cpu takes the CPU")
    if found.devices or found.mps:
        return
    if not found.present:
        yield Finding("ok", "GPU", "none: runs take the CPU")
    elif found.hidden:
        yield Finding("note", "GPU", "CUDA_VISIBLE_DEVICES hides it", "unset CUDA_VISIBLE_DEVICES")
    elif found.built_for is None:
        advice = f"install a torch with CUDA, and its torchvision: correct pip's settings, remove .venv, {REINSTALL}"
        yield Finding("problem", "GPU", "there is one, and this torch is built without CUDA", advice)
    else:
        advice = "nvidia-smi must work and show at least this version; else renew the driver, or take an older torch"
        yield Finding("problem", "GPU", f"there is one, and torch for CUDA {found.built_for} cannot use it", advice)


def check_device(device: Device, built_for: str | None) -> Finding:
    """One GPU, with what it can do."""
    version = ".".join(map(str, device.capability))
    text = f"{device.name}, {size(device.memory)}, capability {version}, bf16 {'yes' if device.bf16 else 'no'}"
    if not device.supported:
        advice = "take a torch that is built for it, or hide it with CUDA_VISIBLE_DEVICES="
        return Finding("problem", "GPU", f"{text}: torch for CUDA {built_for} has no kernels for it", advice)
    return Finding("ok", "GPU", text)


def granted_cores(processor: Processor) -> float:
    """As many cores' worth of time as this process can have."""
    return processor.allowed if processor.quota is None else min(processor.allowed, processor.quota)


def check_processor(processor: Processor, cores: float) -> Iterator[Finding]:
    """Cores, and whether torch takes more threads than there are cores for them."""
    text = f"{processor.cores} cores, {cores:g} of them for this process"
    yield Finding("ok", "CPU", text if cores < processor.cores else f"{processor.cores} cores")
    if processor.torch_threads is None:
        return
    said = f"OMP_NUM_THREADS={processor.omp_num_threads}" if processor.omp_num_threads else "OMP_NUM_THREADS is not set"
    threads = f"torch takes {processor.torch_threads} ({said})"
    fitting = max(1, int(cores))
    if processor.torch_threads > fitting:
        yield Finding("note", "threads", f"{threads} for {cores:g} cores: slow", f"export OMP_NUM_THREADS={fitting}")
    else:
        yield Finding("ok", "threads", threads)


def check_memory(memory: Memory) -> Iterator[Finding]:
    """Memory that is left, and the shared memory of data workers."""
    usable = memory.available if memory.limit is None else min(memory.available, memory.limit)
    text = f"{size(usable)} of {size(memory.total)} available" + (
        f", the cgroup's limit is {size(memory.limit)}"
        if memory.limit is not None and memory.limit < memory.total
        else ""
    )
    advice = "end other programs, raise the container's or job's limit, or take a smaller --data.batch_size"
    if usable < LITTLE_MEMORY:
        yield Finding("problem" if usable < TOO_LITTLE_MEMORY else "note", "memory", text, advice)
    else:
        yield Finding("ok", "memory", text)
    if memory.shared is None or memory.shared < LITTLE_SHARED:
        free = "there is none" if memory.shared is None else f"{size(memory.shared)} free"
        advice = "docker run --shm-size 1g; until then --data.num_workers 0, and one process"
        yield Finding("note", "/dev/shm", free, advice)
    else:
        yield Finding("ok", "/dev/shm", f"{size(memory.shared)} free")


def check_folder(folder: Folder) -> Iterator[Finding]:
    """Whether a folder can be written, and what is free there."""
    text, needed = f"{size(folder.free)} free in {folder.path}", folder.purpose in NEEDED_FOLDERS
    if not folder.writable:
        mark: Mark = "problem" if needed else "note"
        yield Finding(mark, folder.purpose, f"{folder.path} cannot be written", ELSEWHERE[folder.purpose])
    elif folder.free < LITTLE_DISK:
        mark = "problem" if folder.free < TOO_LITTLE_DISK and needed else "note"
        yield Finding(mark, folder.purpose, text, f"make room, or {ELSEWHERE[folder.purpose]}")
    else:
        yield Finding("ok", folder.purpose, text)


ELSEWHERE = {
    "runs": "name another folder with --run_dir and --out",
    "data": "name another folder with --data.data_dir",
    "temporary files": "name another folder in TMPDIR",
    "Hugging Face cache": "name another folder in HF_HOME",
    "torch cache": "name another folder in TORCH_HOME",
}
"""How each kind of file goes to another folder."""


def check_wandb(software: Software, wandb: Wandb) -> Iterator[Finding]:
    """W&B, which only runs with configs/logger/wandb.yaml need: that it imports, and that it would know an account."""
    version = software.versions.get("wandb") or "?"
    text = f"{version}, {wandb.mode}, {'logged in' if wandb.logged_in else 'not logged in'}"
    if (reason := software.failures.get("wandb")) is not None:
        yield Finding(
            "note", "wandb", reason, f'runs log to metrics.csv without it; pip install "wandb", or {REINSTALL}'
        )
    elif wandb.mode == "online" and not wandb.logged_in:
        yield Finding("note", "wandb", text, "wandb login, or --config configs/logger/wandb_offline.yaml")
    else:
        yield Finding("ok", "wandb", text)


def check_loggers(software: Software) -> Iterator[Finding]:
    """The other loggers, each of which is an extra."""
    for name in LOGGERS:
        if (version := software.versions.get(name)) is None:
            yield Finding("note", name, "not installed", f'pip install -e ".[{name}]", if runs are to log there')
        else:
            yield Finding("ok", name, version)


def check_open_files(soft: int, hard: int) -> Iterator[Finding]:
    """The limit on open files; each worker and each memory map takes some."""
    if 0 <= soft < FEW_FILES:
        most = hard if hard >= 0 else FEW_FILES
        advice = f"ulimit -n {min(most, 4096)}" if most > soft else "have the hard limit raised (limits.conf)"
        yield Finding("problem" if soft < TOO_FEW_FILES else "note", "open files", f"at most {soft}", advice)
    else:
        yield Finding("ok", "open files", "no limit" if soft < 0 else f"at most {soft}")


def size(count: int) -> str:
    """Bytes in GB (2^30), or MB where these are few.

    >>> size(3 * 2**29), size(2**26)
    ('1.5 GB', '64 MB')
    """
    return f"{count / GB:.1f} GB" if count >= GB // 2 else f"{count / 2**20:.0f} MB"
