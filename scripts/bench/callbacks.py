"""What the callbacks cost in a training, at their default cadence."""

import tempfile
from pathlib import Path
from typing import Any

from scripts.bench.timing import Shares
from scripts.cli.lightning_cli import LikenessCLI

PREFIX = "[Callback]"
ALLOWED = 0.05


def callbacks(experiment: str = "configs/experiment/demo.yaml") -> Shares:
    """Seconds inside each callback during one training, with checkpoints and figures, as shares of that training.

    Args:
        experiment: What is trained, for once and in full.
    """
    with tempfile.TemporaryDirectory() as directory:
        run_dir = str(Path(directory, "run"))
        quiet = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")
        cli = LikenessCLI(
            ["fit", "--config", experiment, "--run_dir", run_dir, "--trainer.profiler", "SimpleProfiler", *quiet]
        )
    trainer: Any = cli.trainer
    durations: dict[str, list[float]] = trainer.profiler.recorded_durations
    parts: dict[str, float] = {}
    for action, seconds in durations.items():
        if action.startswith(PREFIX):
            name = action.removeprefix(PREFIX).partition(".")[0].partition("{")[0]
            parts[name] = parts.get(name, 0.0) + sum(seconds)
    total = sum(durations["run_training_epoch"]) + sum(
        sum(durations[a]) for a in durations if a.endswith(".on_train_end")
    )
    return Shares(f"callbacks in {experiment}", total, dict(sorted(parts.items(), key=lambda item: -item[1])), ALLOWED)
