"""How many processes train together, as torchrun and SLURM say it."""

import pytest

from scripts.cli.entry_point import UsageError, rank
from scripts.cli.launchers import Launch, launch, require_all_used, require_equal_shares

VARIABLES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"),
    *("SLURM_NTASKS", "SLURM_NNODES", "SLURM_PROCID", "SLURM_JOB_NAME"),
)
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5"}
SLURM = {"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_PROCID": "4", "SLURM_JOB_NAME": "likeness"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def started_with(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> Launch | None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return launch()


def test_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch() is None
    assert rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "1")  # one that Lightning started
    assert launch() is None
    assert rank() == 1


def test_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started_with(monkeypatch, TORCHRUN) == Launch("torchrun", 8, 2)
    assert rank() == 5


def test_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    started = started_with(monkeypatch, SLURM)
    assert started == Launch("SLURM", 6, 3)
    assert started.per_node == 2
    assert rank() == 4


def test_torchrun_inside_slurm_is_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started_with(monkeypatch, {**SLURM, **TORCHRUN}) == Launch("torchrun", 8, 2)
    assert rank() == 5


def test_an_interactive_shell_under_slurm_is_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started_with(monkeypatch, {**SLURM, "SLURM_JOB_NAME": "interactive", "SLURM_PROCID": "0"}) is None
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert rank() == 1


def test_unequal_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="6 tasks on 4 nodes"):
        started_with(monkeypatch, {**SLURM, "SLURM_NNODES": "4"})


def test_the_trainer_uses_what_was_started() -> None:
    require_all_used(None, 4)
    require_all_used(Launch("SLURM", 8, 2), 8)
    with pytest.raises(UsageError, match=r"SLURM started 8 processes on 2 nodes, but .*trainer\.num_nodes is 4"):
        require_all_used(Launch("SLURM", 8, 2), 4)


def test_the_global_batch_is_shared_equally_or_refused() -> None:
    require_equal_shares(None, 3)
    require_equal_shares(12, 4)
    with pytest.raises(UsageError, match=r"data\.batch_size 10 .* world size 4: take 8 or 12"):
        require_equal_shares(10, 4)
    with pytest.raises(UsageError, match=r"take 4$"):
        require_equal_shares(3, 4)
