"""Python processes that a command starts, without their imports: forks made ahead of it, which wait to be needed.

Lightning and torchrun start ranks with ``subprocess.Popen``. In a command that has called ``keep``, a line
``python -m MODULE ...`` is handed to a fork in reserve: a child of that command as any other, with the environment,
folder and session that it was given, which has imported already what the command has.
"""

import atexit
import inspect
import multiprocessing
import os
import pickle
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

_execute = subprocess.Popen._execute_child  # type: ignore[attr-defined]
_signature = inspect.signature(_execute)
_reserves: list[tuple[int, socket.socket]] = []
_STREAMS = ("p2cread", "c2pwrite", "errwrite")  # as subprocess calls those of a child


def needed_by(line: Sequence[str]) -> int:
    """How many Python processes a command line starts: torchrun's ranks, or those of Lightning but the first."""
    for option, alone in (("--nproc_per_node", 0), ("--nproc-per-node", 0), ("--trainer.devices", 1)):
        if option in line:
            count = line[line.index(option) + 1]
            return int(count) - alone if count.isdigit() else 0
    return 0


def keep(count: int) -> None:
    """Fork ``count`` processes and let ``subprocess.Popen`` take them; those not taken end with this process."""
    for _ in range(count):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _wait(theirs)
        theirs.close()
        _reserves.append((pid, ours))
    subprocess.Popen._execute_child = _take  # type: ignore[attr-defined]


def become(line: Sequence[str], surroundings: dict[str, str]) -> None:
    """Be the process that ``python`` with these arguments is, which begin with ``-m`` or ``-c``; does not return."""
    os.environ.clear()
    os.environ.update(surroundings)
    for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method(None, force=True)  # the system's, and not how this fork came to be
    _forget_random_numbers()
    _set_rank()
    sys.argv = [line[0], *line[2:]]
    status = _status_of(partial(_run_module if line[0] == "-m" else _run_code, line[1]))
    # As at the end of the interpreter, which a fork leaves out.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _take(self: Any, *values: Any) -> None:
    """In place of ``subprocess.Popen._execute_child``."""
    asked = _signature.bind(self, *values).arguments
    line = [argument for argument in asked["args"] if argument != "-u"] if isinstance(asked["args"], Sequence) else []
    if not _reserves or line[:2] != [sys.executable, "-m"] or any(asked[stream] != -1 for stream in _STREAMS):
        _execute(self, *values)
        return
    self.pid, reserve = _reserves.pop(0)
    environment = dict(os.environ if asked["env"] is None else asked["env"])
    with reserve, reserve.makefile("rwb") as file:
        pickle.dump((line[1:], environment, asked["cwd"], asked["start_new_session"]), file)
        file.flush()
        file.read(1)  # it has its session
    self._child_created = True


def _wait(parent: socket.socket) -> None:
    """Wait in a fork to be needed; this does not return."""
    try:
        for _, other in _reserves:
            other.close()
        _reserves.clear()
        with parent, parent.makefile("rwb") as file:
            line, surroundings, folder, new_session = pickle.load(file)
            if new_session:
                os.setsid()
            if folder is not None:
                os.chdir(folder)
            file.write(b".")
    except BaseException:  # a signal, or the end of the command
        os._exit(1)
    become(line, surroundings)


def _run_module(name: str) -> None:
    sys.modules.pop(name, None)  # of which runpy would warn
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_code(code: str) -> None:
    sys.modules["__main__"] = main = ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), vars(main))


def _status_of(run: Callable[[], Any]) -> int:
    try:
        run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _forget_random_numbers() -> None:
    """No two processes start from the same random state, as forks of one server would."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    random.seed()
    np.random.seed()  # noqa: NPY002
    torch.seed()


def _set_rank() -> None:
    """As Lightning reads its rank from the environment when it is imported."""
    from lightning_fabric.utilities import rank_zero

    rank_zero.rank_zero_only.rank = rank_zero._get_rank() or 0
