"""Several processes started by torchrun: one run, and the same numbers as one process."""

import csv
from pathlib import Path

import pytest

from tests.integration.commands import QUIET, command

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
MANY = 3  # one in a few validations ended badly while a process group was left to the end of the interpreter
BASE = (*QUIET, "--config", "tests/integration/siblings.yaml", "--trainer.accelerator", "cpu")


def validated(run_dir: Path) -> dict[str, float]:
    with (run_dir / "validate_metrics.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    return {key: float(value) for key, value in row.items() if "/" in key and not key.endswith("/seconds")}


@pytest.mark.parametrize("validations", [1, pytest.param(MANY, marks=pytest.mark.long)])
def test_two_ranks_measure_what_one_measures(validations: int, tmp_path: Path) -> None:
    run_dir = ("--run_dir", str(tmp_path))
    fitted = command("train", "fit", *BASE, *run_dir, "--trainer.max_epochs", "2", launcher=TWO)
    assert fitted.status == 0, fitted.output
    assert fitted.output.count("likeness: run directory") == 1

    one = command("train", "validate", *BASE, *run_dir)
    assert one.status == 0, one.output
    alone = validated(tmp_path)
    for _ in range(validations):
        two = command("train", "validate", *BASE, *run_dir, "--data.eval_batch_size", "7", launcher=TWO)
        assert two.status == 0, two.output
        assert "terminate called" not in two.output
    together = validated(tmp_path)
    assert {"val/nll", "val/accuracy/1", "similarity/kl/mean", "similarity/m_cca_f/min"} <= alone.keys()
    assert together == pytest.approx(alone, rel=1e-6)  # float32 forward passes of other batch sizes round otherwise


def test_independent_copies_are_refused(tmp_path: Path) -> None:
    run_dir = ("--run_dir", str(tmp_path), "--trainer.max_epochs", "1")
    ended = command("train", "fit", *BASE, *run_dir, "--trainer.devices", "1", launcher=TWO)
    assert ended.status != 0
    assert "trainer.devices x trainer.num_nodes is 1" in ended.output
    assert not (tmp_path / "checkpoints").exists()


def test_the_bound_is_the_same_on_two_ranks(tmp_path: Path) -> None:
    options = ("--config", "tests/integration/diffenc.yaml", "--run_dir", str(tmp_path), *QUIET)
    options += ("--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "1.0")
    fitted = command("train", "fit", *options, "--trainer.max_steps", "2")
    assert fitted.status == 0, fitted.output
    found = []
    for more, launcher in (((), ()), (("--data.eval_batch_size", "7"), TWO)):
        ended = command("train", "validate", *options, *more, launcher=launcher)
        assert ended.status == 0, ended.output
        assert "terminate called" not in ended.output
        found.append({name: value for name, value in validated(tmp_path).items() if name.startswith("val/")})
    names = ("bpd", "bpd_sample_se", "bpd_draw_se", "reconstruction", "latent", "diffusion")
    assert found[0].keys() == {f"val/{name}" for name in names}
    assert found[1] == pytest.approx(found[0], rel=1e-6)
