"""``python -m tests.integration.srun``: SLURM's srun on one machine, with the job's tasks as its environment has them.

Its tasks are forks that have imported what a training imports; it ends with the highest of their statuses.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import dropwhile, takewhile

from tests.integration import reserves
from tests.integration.commands import PRELOADED


def task_variables(task: int) -> dict[str, str]:
    """The number of a task, as SLURM numbers them."""
    per_node = int(os.environ["SLURM_NTASKS_PER_NODE"])
    return {
        "SLURM_STEP_NUM_TASKS": os.environ["SLURM_NTASKS"],
        "SLURM_PROCID": str(task),
        "SLURM_LOCALID": str(task % per_node),
        "SLURM_NODEID": str(task // per_node),
    }


def run(line: Sequence[str]) -> int:
    """``srun --option ... env NAME=VALUE ... python -m MODULE ...``."""
    env, *words = dropwhile(lambda word: word.startswith("--"), line)
    assert env == "env"
    variables = dict(word.split("=", 1) for word in takewhile(lambda word: "=" in word, words))
    command = [sys.executable, *words[len(variables) + 1 :]]
    count = int(os.environ["SLURM_NTASKS"])
    reserves.keep(count)
    tasks = [
        subprocess.Popen(command, env={**os.environ, **variables, **task_variables(task)}) for task in range(count)
    ]
    return max(task.wait() % 256 for task in tasks)


if __name__ == "__main__":
    for module in PRELOADED:
        importlib.import_module(module)
    sys.exit(run(sys.argv[1:]))
