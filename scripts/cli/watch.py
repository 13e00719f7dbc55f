"""A thread that ends this process in bounded time when it is asked to stop, or when a rank it depends on is gone.

Python runs a signal's handler in the main thread, between two steps of the interpreter: not while that thread waits
inside a collective operation for a rank that will never answer. The thread here hears every signal at once, looks
after the processes that this one depends on, and leaves the main thread ``GRACE`` seconds to end in good order.
"""

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from scripts.cli import restarts

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
AGAIN = 0.5  # seconds: a terminal and a launcher that pass on the same Ctrl-C are faster than a second one
GRACE = 10.0  # seconds from a signal, or from the loss of a rank, to the end by force
LOOK = 0.25  # seconds between two looks at the other processes
NOTHING = bytes(1)  # wakes the thread, and is the number of no signal
RANK_0 = "LIKENESS_RANK_0"  # for the ranks that rank 0 has started: its process number
LAUNCHER = "LIKENESS_LAUNCHER"  # for the ranks below torchrun.sh: its process number

_current: "Watch | None" = None


class Interrupted(BaseException):
    """A signal came that nothing waited for. No ``except Exception`` on the way up takes it for an error."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.status = 128 + signum


class LostRank(Exception):
    """A rank that this process trains with has ended; ``status`` is the exit status that says how."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Watch:
    """``with Watch(last_words) as watch:`` around a command; outside the main thread it only answers questions.

    A signal raises ``Interrupted`` in the main thread. Where a callback has put its own handler in place, ending the
    run is left to it, and only a second Ctrl-C counts. ``last_words`` takes the reason for an end by force, says it,
    and returns the exit status.
    """

    def __init__(self, last_words: Callable[[BaseException], int], *, until_exit: bool) -> None:
        """``until_exit``: also outlive the ``with`` block, to the end of the process."""
        self.ranks: Sequence[subprocess.Popen[Any]] = ()
        self._last_words = last_words
        self._until_exit = until_exit
        self._in_charge = threading.current_thread() is threading.main_thread()
        self._deadline: float | None = None
        self._reason: BaseException | None = None
        self._decided: SystemExit | None = None  # how the process ends, once that is known
        self._asked: dict[int, float] = {}
        self._settled = False  # signals no longer interrupt the main thread
        self._over = threading.Event()
        self._rank_0 = int(os.environ.get(RANK_0, 0))
        self._elders = _elders()

    def __enter__(self) -> "Watch":
        global _current
        self._outer, _current = _current, self
        if self._in_charge:
            self._ear, self._mouth = os.pipe()
            os.set_blocking(self._mouth, False)
            self._outer_mouth = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
            # nohup asks that a lost terminal be ignored.
            heard = [s for s in SIGNALS if s != signal.SIGHUP or signal.getsignal(s) is not signal.SIG_IGN]
            self._handlers = {signum: signal.signal(signum, self._interrupt) for signum in heard}
            self._thread = threading.Thread(target=self._listen, name="watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        global _current
        self._deadline = None
        if self._until_exit:
            return
        _current = self._outer
        if self._in_charge:
            self._over.set()
            os.write(self._mouth, NOTHING)
            self._thread.join()
            signal.set_wakeup_fd(self._outer_mouth)
            for signum, handler in self._handlers.items():
                signal.signal(signum, handler)
            os.close(self._ear)
            os.close(self._mouth)

    def settle(self) -> None:
        """From now on no signal interrupts the main thread: its end has begun."""
        self._settled = True

    def end_within(self, seconds: float, reason: BaseException) -> None:
        """End by force in so many seconds unless the process ends by itself; the first deadline and reason hold."""
        if self._deadline is None:
            self._deadline, self._reason = time.monotonic() + seconds, reason

    def will_end_with(self, status: int) -> None:
        """Allow three times ``GRACE`` for the rest of the end, whose reason has been said."""
        self._decided = SystemExit(status)
        self._deadline, self._reason = time.monotonic() + 3 * GRACE, self._decided

    def lost_rank(self, within: float = 0.0) -> BaseException | None:
        """The reason to end because a rank is gone; ``within`` seconds it may still go."""
        deadline = time.monotonic() + within
        while (lost := self._lost()) is None and time.monotonic() < deadline:
            time.sleep(LOOK / 10)
        return lost

    def end_ranks(self, *, at_once: bool) -> None:
        """Wait for the ranks that this process started; those that do not end are killed.

        With ``at_once`` they are told to.
        """
        if at_once:
            _signal(self.ranks, signal.SIGTERM)
        deadline = time.monotonic() + GRACE * (0.3 if at_once else 2.5)
        for process in self.ranks:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        _signal(self.ranks, signal.SIGKILL)

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        if not self._settled:
            self._settled = True
            raise Interrupted(signum)

    def _listen(self) -> None:
        while not self._over.is_set():
            if select.select([self._ear], [], [], LOOK)[0]:
                for signum in os.read(self._ear, 4096):
                    self._hear(signum)
            self._look_around()
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._end_by_force()

    def _hear(self, signum: int) -> None:
        """Note a signal, whether or not the main thread can handle it."""
        if signum not in SIGNALS:
            return
        now, ours = time.monotonic(), signal.getsignal(signum) == self._interrupt
        again = now - self._asked.setdefault(signum, now) >= AGAIN and self._asked.keys() == {signal.SIGINT}
        if ours or again:
            self.end_within(GRACE, self._decided or Interrupted(signum))
        if ours and again:
            self._deadline = now

    def _look_around(self) -> None:
        if self._decided is not None:
            return
        if (lost := self._lost()) is not None:
            self.end_within(GRACE / 2, lost)
        if any(gone() for gone in self._elders):
            self._elders = []
            restarts.ask(128 + signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # in the name of a launcher that cannot send it any more

    def _lost(self) -> BaseException | None:
        if self._rank_0 and os.getppid() != self._rank_0:
            return LostRank(f"rank 0 (process {self._rank_0}) is gone")
        ends = [
            _farewell(status, rank, process.pid)
            for rank, process in enumerate(self.ranks, 1)
            if (status := process.poll())
        ]
        return min(ends, key=_causes_first, default=None)

    def _end_by_force(self) -> None:
        assert self._reason is not None
        status = self._last_words(self._reason)
        _signal(self.ranks, signal.SIGKILL)
        os._exit(status)


def look_after(ranks: Sequence[subprocess.Popen[Any]]) -> None:
    """Have the command that runs in this process end when one of the ranks that it has started is gone."""
    if _current is not None:
        _current.ranks = ranks


def _elders() -> list[Callable[[], bool]]:
    """Whether torchrun, which has started this rank, is gone, and whether the script is that has started torchrun."""
    gone: list[Callable[[], bool]] = []
    if "TORCHELASTIC_RUN_ID" in os.environ:
        torchrun = os.getppid()
        gone.append(lambda: os.getppid() != torchrun)
        if launcher := os.environ.get(LAUNCHER):
            gone.append(lambda: not is_alive(launcher))
    return gone


def is_alive(pid: str) -> bool:
    """Whether a process runs, and is not one that is dead and waits for its parent to ask how it ended."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _farewell(status: int, rank: int, pid: int) -> BaseException:
    """Why a rank has ended with another status than 0."""
    signum = -status if status < 0 else status - 128
    if signum in SIGNALS:
        return Interrupted(signum)
    if status < 0:
        return LostRank(f"rank {rank} (process {pid}) was killed by {signal.Signals(signum).name}", 128 + signum)
    return LostRank(f"rank {rank} (process {pid}) ended with status {status}", status)


def _causes_first(reason: BaseException) -> int:
    """Where several ranks have ended, those that lost another one themselves, with status 1, come last."""
    return -getattr(reason, "status", 0)


def _signal(processes: Sequence[subprocess.Popen[Any]], signum: int) -> None:
    for process in processes:
        process.send_signal(signum)  # none to one whose end has been seen


def _hold_signals() -> None:
    """Ahead of a fork: a signal that comes to it at once must not be told to this process by the pipe they share."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS if _in_charge() else ())


def _let_signals_go() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _leave_signals_to_parent() -> None:
    """In a fork, such as a loader's worker: the process that it works for is told as well, and ends it."""
    if _in_charge():
        signal.set_wakeup_fd(-1)  # SIGNALS stay blocked
    else:
        _let_signals_go()


def _in_charge() -> bool:
    return _current is not None and _current._in_charge


_forking = threading.local()
os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals_go, after_in_child=_leave_signals_to_parent)
