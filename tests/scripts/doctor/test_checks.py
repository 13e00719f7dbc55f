"""Each problem that the doctor knows, made to happen, with its advice; and facts in which there is none."""

from dataclasses import replace
from typing import Any

import pytest

from scripts.doctor.checks import GB, Finding, examine, worst
from scripts.doctor.facts import Accelerators, Device, Facts, Folder, Memory, Processor, Software, Wandb

H200 = Device("NVIDIA H200", 139 * GB, (9, 0), bf16=True, supported=True)
VERSIONS = {"torch": "2.9.0+cu130", "torchvision": "0.24.0", "wandb": "0.31.0", "timm": "1.0.1"}
LOGGERS = {"tensorboard": "2.20", "mlflow": "3.1", "trackio": "0.40"}
REQUIRED = ("torch>=2.8", "torchvision>=0.23", "wandb>=0.31", 'timm>=1.0; extra == "vision"')
HEALTHY = Facts(
    Software("0.1.0", "3.12.1", VERSIONS | LOGGERS, REQUIRED, {}),
    Processor(16, 16, None, 16, None),
    Memory(64 * GB, 32 * GB, None, 32 * GB),
    Accelerators("13.0", True, False, (H200,), False),
    tuple(Folder(purpose, purpose, 100 * GB, True) for purpose in ("runs", "data", "temporary files", "torch cache")),
    Wandb("online", True),
    (1024, 4096),
)


def changed(part: str, **values: Any) -> Facts:
    """The healthy facts with other values in one part."""
    return replace(HEALTHY, **{part: replace(getattr(HEALTHY, part), **values)})


def in_folder(purpose: str, **values: Any) -> Facts:
    folders = [replace(f, **values) if f.purpose == purpose else f for f in HEALTHY.folders]
    return replace(HEALTHY, folders=tuple(folders))


def without(*names: str) -> Facts:
    return changed("software", versions={n: v for n, v in HEALTHY.software.versions.items() if n not in names})


def test_a_healthy_environment_has_neither_problems_nor_notes() -> None:
    findings = examine(HEALTHY)
    assert [finding for finding in findings if finding.mark != "ok" or finding.advice] == []
    assert worst(findings) == "ok"
    gpu = next(finding.found for finding in findings if finding.subject == "GPU")
    assert gpu == "NVIDIA H200, 139.0 GB, capability 9.0, bf16 yes"


def old(name: str, version: str) -> Facts:
    return changed("software", versions=HEALTHY.software.versions | {name: version})


def fails(name: str, reason: str) -> Facts:
    return changed("software", failures={name: reason})


NMS = "RuntimeError: operator torchvision::nms does not exist"
NO_GPU = {"devices": ()}
CASES = {
    "old python": (changed("software", python="3.9.1"), "problem", "python", "3.9.1", "Python 3.11"),
    "not installed": (changed("software", required=None), "note", "packages", "not installed", "make setup"),
    "missing package": (without("wandb"), "problem", "wandb", "not installed", 'pip install "wandb>=0.31"'),
    "old package": (old("torch", "2.7.1"), "problem", "torch", "2.7.1, not >=2.8", 'pip install "torch>=2.8"'),
    "old extra": (old("timm", "0.9"), "note", "timm", "0.9, not >=1.0", 'pip install "timm>=1.0"'),
    "broken torch": (fails("torch", "OSError: libcudart"), "problem", "torch", "libcudart", "remove .venv"),
    "mismatch": (fails("torchvision", NMS), "problem", "torchvision", "torchvision 0.24.0 do not work", "one package"),
    "torch without CUDA": (
        changed("accelerators", built_for=None, **NO_GPU),
        "problem",
        "GPU",
        "without CUDA",
        "pip's",
    ),
    "old driver": (changed("accelerators", **NO_GPU), "problem", "GPU", "CUDA 13.0 cannot use it", "driver"),
    "hidden": (changed("accelerators", hidden=True, **NO_GPU), "note", "GPU", "hides", "unset CUDA_VISIBLE_DEVICES"),
    "no kernels": (
        changed("accelerators", devices=(replace(H200, name="K80", capability=(3, 7), bf16=False, supported=False),)),
        *("problem", "GPU", "capability 3.7, bf16 no: torch for CUDA 13.0 has no kernels", "built for it"),
    ),
    "MPS": (changed("accelerators", mps=True, **NO_GPU), "note", "GPU", "MPS", "cpu"),
    "cgroup": (changed("processor", quota=2.5), "note", "threads", "16 (OMP_NUM_THREADS is not set) for 2.5", "=2"),
    "affinity": (changed("processor", allowed=4), "note", "threads", "16", "export OMP_NUM_THREADS=4"),
    "half a core": (changed("processor", quota=0.5), "note", "threads", "for 0.5 cores", "OMP_NUM_THREADS=1"),
    "asked for": (changed("processor", allowed=4, omp_num_threads="16"), "note", "threads", "OMP_NUM_THREADS=16", "=4"),
    "little memory": (changed("memory", available=2 * GB), "note", "memory", "2.0 GB of 64.0 GB", "batch_size"),
    "no memory": (changed("memory", available=GB // 4), "problem", "memory", "256 MB of 64.0 GB", "batch_size"),
    "memory limit": (changed("memory", limit=GB // 2), "problem", "memory", "limit is 0.5 GB", "limit"),
    "a container's": (changed("memory", shared=64 * 2**20), "note", "/dev/shm", "64 MB free", "--shm-size"),
    "no shared": (changed("memory", shared=None), "note", "/dev/shm", "there is none", "--shm-size"),
    "read-only runs": (in_folder("runs", writable=False), "problem", "runs", "cannot be written", "--run_dir"),
    "read-only data": (in_folder("data", writable=False), "note", "data", "cannot be written", "--data.data_dir"),
    "full": (in_folder("runs", free=GB // 4), "problem", "runs", "256 MB free in runs", "make room"),
    "nearly full": (in_folder("torch cache", free=GB), "note", "torch cache", "1.0 GB free", "TORCH_HOME"),
    "logged out": (changed("wandb", logged_in=False), "note", "wandb", "online, not logged in", "wandb login"),
    "broken wandb": (fails("wandb", "ImportError: x"), "note", "wandb", "ImportError: x", "metrics.csv"),
    "no mlflow": (without("mlflow"), "note", "mlflow", "not installed", ".[mlflow]"),
    "few files": (replace(HEALTHY, open_files=(256, 8192)), "note", "open files", "at most 256", "ulimit -n 4096"),
    "hard limit": (replace(HEALTHY, open_files=(64, 64)), "problem", "open files", "at most 64", "limits.conf"),
}


@pytest.mark.parametrize(("facts", "mark", "subject", "found", "advice"), CASES.values(), ids=CASES)
def test_what_is_wrong_is_found_alone_and_with_advice(
    facts: Facts, mark: str, subject: str, found: str, advice: str
) -> None:
    findings = examine(facts)
    wrong = [finding for finding in findings if finding.mark != "ok"]
    assert [(finding.mark, finding.subject) for finding in wrong] == [(mark, subject)]
    assert found in wrong[0].found
    assert advice in wrong[0].advice
    assert worst(findings) == mark


@pytest.mark.parametrize(
    "facts",
    [
        changed("accelerators", present=False, **NO_GPU),
        changed("wandb", mode="offline", logged_in=False),
        changed("processor", quota=2.0, torch_threads=2),
        replace(HEALTHY, open_files=(-1, -1)),
    ],
    ids=["no GPU", "offline", "as many threads as are granted", "no limit"],
)
def test_what_is_as_it_should_be_is_no_note(facts: Facts) -> None:
    assert worst(examine(facts)) == "ok"


def test_a_problem_outweighs_a_note() -> None:
    assert worst([Finding("note", "a", ""), Finding("problem", "b", "", "do"), Finding("ok", "c", "")]) == "problem"
