"""What the doctor sees of files and packages, and how the command ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import doctor
from scripts.doctor import facts


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_cgroup_with_the_least_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "proc"
    own.write_text("0::/jobs/7\n")
    monkeypatch.setattr(facts, "Path", lambda path: own if path == "/proc/self/cgroup" else Path(path))
    write(tmp_path / "cpu.max", "400000 100000\n")
    write(tmp_path / "jobs" / "cpu.max", "150000 100000\n")
    write(tmp_path / "jobs" / "7" / "cpu.max", "max 100000\n")
    write(tmp_path / "jobs" / "7" / "memory.max", f"{2**31}\n")
    write(tmp_path / "jobs" / "memory.max", "max\n")
    assert facts.cpu_quota(tmp_path) == 1.5
    assert facts.memory_limit(tmp_path) == 2**31


def test_cgroups_of_version_1_are_read(tmp_path: Path) -> None:
    write(tmp_path / "cpu" / "cpu.cfs_quota_us", "50000\n")
    write(tmp_path / "cpu" / "cpu.cfs_period_us", "100000\n")
    write(tmp_path / "memory" / "memory.limit_in_bytes", "9223372036854771712\n")  # the kernel's word for none
    assert facts.cpu_quota(tmp_path) == 0.5
    assert facts.memory_limit(tmp_path) is None
    write(tmp_path / "cpu" / "cpu.cfs_quota_us", "-1\n")
    assert facts.cpu_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("built", "capability", "runs"),
    [
        (["sm_80", "sm_90"], (9, 0), True),
        (["sm_80"], (8, 6), True),
        (["sm_86"], (8, 0), False),
        (["sm_80", "sm_90a"], (10, 0), False),
        (["sm_80", "compute_90"], (12, 0), True),
        (["sm_100"], (10, 3), True),
        ([], (9, 0), False),
    ],
)
def test_kernels_run_where_cuda_says(built: list[str], capability: tuple[int, int], runs: bool) -> None:
    """CUDA's binary compatibility: the same major version, the same minor or a later one; PTX on any later device."""
    assert facts.runs_on(built, capability) is runs


def test_a_login_is_known_without_its_key(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.wandb.ai\n  login user\n  password 0123456789abcdef\n")
    named = {"NETRC": str(netrc)}
    assert facts.has_wandb_login(named)
    assert not facts.has_wandb_login(named | {"WANDB_BASE_URL": "https://wandb.example:8080/x"})
    assert facts.has_wandb_login({"NETRC": str(tmp_path / "none"), "WANDB_API_KEY": "0123456789abcdef"})
    assert not facts.has_wandb_login({"NETRC": str(tmp_path / "none")})


def test_a_folder_that_is_not_there_is_judged_by_the_one_above(tmp_path: Path) -> None:
    assert facts.look_at_folder("runs", tmp_path / "a" / "b").writable
    (tmp_path / "a").write_text("a file")
    assert not facts.look_at_folder("runs", tmp_path / "a" / "b").writable


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of somebody with a key, in a home of their own."""
    for name in ("XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME", "NETRC", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password fedcba9876543210\n")
    return tmp_path


def diagnosis(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    try:
        doctor.main(["--json"])
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    return status, capsys.readouterr().out


def test_the_report_has_no_key_and_no_name_of_the_user(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = diagnosis(capsys)
    content = json.loads(text)
    assert status == (content["mark"] == "problem")
    assert content["facts"]["wandb"] == {"mode": "online", "logged_in": True}
    assert not any(secret in text for secret in ("0123456789abcdef", "fedcba9876543210", str(machine)))
    assert {"subject": "torchvision", "mark": "ok", "found": "its operators load", "advice": ""} in content["findings"]


def test_a_torchvision_that_does_not_match_is_a_problem_with_status_1(
    machine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(machine / "torchvision" / "__init__.py", "raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(machine)
    with pytest.raises(SystemExit) as end:
        doctor.main([])
    assert end.value.code == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "problem torchvision" in shown
    assert "torchvision::nms" in shown  # as much as stays on one line of a table
    assert "1 problem," in shown


def test_the_doctor_needs_neither_torch_nor_wandb(machine: Path, root: Path) -> None:
    for name in ("torch", "wandb"):
        write(machine / name / "__init__.py", f"raise ImportError('{machine}/lib{name}.so: undefined symbol')")
    program = f"import sys; sys.path.insert(0, {str(machine)!r}); from scripts.main import main; main(['doctor'])"
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr == ""
    assert "ImportError: ~/libtorch.so: undefined symbol" in ended.stdout
    assert "1 problem," in ended.stdout
