"""Jobs in processes of their own, a few at a time, that end together."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import TypeVar

from scripts.cli.entry_point import INTERRUPT_STATUS, report

Job = TypeVar("Job")


class JobFailed(RuntimeError):
    """A job ended with an error, which it has reported itself, or by a signal."""


def side_by_side(work: Callable[[Job], object], jobs: Iterable[Job], processes: int) -> None:
    """``work`` on each job in turn, at most ``processes`` at a time, each in a process of its own.

    Where a job fails or an interrupt comes no other job begins, and those that run are asked to end by SIGTERM, upon
    which a training leaves a checkpoint, and are waited for. Where this process is killed they end at once.

    Raises:
        JobFailed: if a job ended with an error, which is on standard error.
    """
    context = multiprocessing.get_context("spawn")  # a process that was forked from one with threads may wait for ever
    running: list[SpawnProcess] = []
    try:
        for job in jobs:
            if len(running) == processes:
                _wait_for_one(running)
            running.append(context.Process(target=_do, args=(work, job)))
            running[-1].start()
        while running:
            _wait_for_one(running)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join()


def _wait_for_one(running: list[SpawnProcess]) -> None:
    """Until at least one has ended, which is no longer running then."""
    ended = wait([process.sentinel for process in running])
    for process in [process for process in running if process.sentinel in ended]:
        running.remove(process)
        process.join()
        if process.exitcode:
            raise JobFailed(f"a job ended with status {process.exitcode}")


def _do(work: Callable[[Job], object], job: Job) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(job)
    except KeyboardInterrupt:
        sys.exit(INTERRUPT_STATUS)
    except Exception as error:
        report(error)
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
