"""Loaders' workers outlive a signal to the whole run, which has to finish its batch with them."""

import signal

import pytest

from tests.integration.commands import Process

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# In a session of its own, as every process is, for the signals go to the whole group.
TRAINER = """
import os, signal, sys
from tests.datamodules.toys import Numbers

signums = [int(argument) for argument in sys.argv[1:]]
heard = []
for signum in signums:
    signal.signal(signum, lambda signum, frame: heard.append(signum))
data = Numbers(batch_size=2, num_workers=2)
data.setup("fit")
batches = iter(data.train_dataloader())
seen = [next(batches), next(batches)]  # one of each worker: both have begun
for signum in signums:
    os.killpg(0, signum)
print(len(seen) + len(list(batches)), heard == signums)
"""


@pytest.mark.long
def test_signals_to_the_run_leave_its_workers_alone() -> None:
    trainer = Process("-c", TRAINER, *(str(int(signum)) for signum in SIGNALS)).end()
    assert (trainer.status, trainer.output) == (0, "11 True\n")
