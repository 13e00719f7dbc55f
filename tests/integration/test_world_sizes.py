"""One, two and four ranks with the same global batch: the same training, the same numbers."""

import csv
from pathlib import Path

import pytest

from tests.integration.commands import QUIET, command

EXACT = ("--trainer.precision", "64-true", "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1")
SHORT = ("--trainer.max_steps", "5", "--trainer.val_check_interval", "5", "--trainer.num_sanity_val_steps", "0")
HUBNESS = ("--config", "configs/callbacks/hubness.yaml")
NO_DROPOUT = ("--model.init_args.embedding.init_args.dropout", "0")  # which is a function of the rank
MODELS = {
    "classifier": ("--config", "configs/model/softmax_mlp.yaml", "--config", "configs/data/digits.yaml", *HUBNESS),
    "siblings": ("--config", "tests/integration/siblings.yaml", *NO_DROPOUT, *HUBNESS),
    "diffenc": (
        *("--config", "tests/integration/diffenc.yaml", "--model.init_args.network.init_args.dropout", "0"),
        *("--trainer.limit_val_batches", "1.0"),  # a number would be of each rank
    ),
}
RANKS = {"classifier": (2, 4), "siblings": (4,), "diffenc": (2,)}  # each start costs seconds


@pytest.mark.long
@pytest.mark.parametrize("model", ["classifier", "diffenc", "siblings"])
def test_any_number_of_ranks_trains_and_measures_the_same(model: str, tmp_path: Path) -> None:
    found = {}
    for ranks in (1, *RANKS[model]):
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)) if ranks > 1 else ()
        run_dir = tmp_path / str(ranks)
        options = (*MODELS[model], *EXACT, *SHORT, *QUIET, "--data.init_args.batch_size", "20")
        ended = command("train", "fit", *options, "--run_dir", str(run_dir), launcher=launcher)
        assert ended.status == 0, ended.output
        found[ranks] = logged(run_dir)
    one = found[1]
    losses = [key for key in one if key[0] == "train/loss"]
    assert len(losses) == 5
    kinds = {"classifier": {"val", "hubness"}, "siblings": {"val", "hubness", "similarity"}, "diffenc": {"val"}}
    assert kinds[model] <= {name.split("/")[0] for name, _ in one}
    for ranks in RANKS[model]:
        assert found[ranks].keys() == one.keys()
        for key, value in one.items():
            tolerance = 1e-6 if key[0] == "train/loss" or model == "diffenc" else 1e-9
            assert found[ranks][key] == pytest.approx(value, rel=tolerance, abs=1e-12), (ranks, key)


def logged(run_dir: Path) -> dict[tuple[str, int], float]:
    """Every number of metrics.csv by its name and step, without what measures time."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        return {
            (name, int(row["step"])): float(value)
            for row in csv.DictReader(file)
            for name, value in row.items()
            if "/" in name and value and not name.endswith("/seconds")
        }
