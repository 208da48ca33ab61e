"""Several processes that answer on one socket, forked before the model is loaded, and brought back when they die."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlp_ci.serve.processes import EXIT_REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_SETTLED = 10.0  # seconds after which a worker's end is no failure to start
_LONGEST_PAUSE = 30.0


@dataclass
class Worker:
    """One place for a process, and who holds it."""

    number: int
    pid: int = 0
    started: float = 0.0
    failures: int = 0
    due: float = 0.0


@dataclass
class Crew:
    """All workers. They end with this process, however it ends."""

    work: Callable[[int], int]
    workers: list[Worker]
    ending: bool = False
    code: int = 0
    parent: int = field(default_factory=os.getpid)

    def start(self, worker: Worker) -> None:
        pid = os.fork()
        if pid:
            worker.pid, worker.started = pid, time.monotonic()
            return
        code = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == self.parent:
                code = self.work(worker.number)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def ended(self, pid: int, status: int) -> None:
        """A worker has ended: its place is filled anew after a pause, unless there is no use in that."""
        worker = next((w for w in self.workers if w.pid == pid), None)
        if worker is None:
            return
        code = os.waitstatus_to_exitcode(status)
        worker.pid = 0
        if self.ending:
            return
        if code == EXIT_REFUSED:
            self.code = code
            self.end(signal.SIGTERM)
            return
        lasted = time.monotonic() - worker.started
        worker.failures = 0 if lasted > _SETTLED else worker.failures + 1
        pause = min(_LONGEST_PAUSE, 0.1 * 2**worker.failures)
        worker.due = time.monotonic() + pause
        print(f"worker {worker.number} ended with {code}; another one starts in {pause:.1f} s", file=sys.stderr)

    def end(self, number: int) -> None:
        self.ending = True
        for worker in self.workers:
            if worker.pid:
                os.kill(worker.pid, number)

    def run(self) -> int:
        """Keep them running until asked to end; the exit code is theirs when the model is refused."""
        signal.signal(signal.SIGTERM, lambda number, _frame: self.end(number))
        signal.signal(signal.SIGINT, lambda number, _frame: self.end(number))
        while True:
            for worker in self.workers:
                if not worker.pid and not self.ending and time.monotonic() >= worker.due:
                    self.start(worker)
            if self.ending and not any(w.pid for w in self.workers):
                return self.code
            self._reap()
            time.sleep(0.05)

    def _reap(self) -> None:
        for worker in self.workers:
            if worker.pid:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid:
                    self.ended(pid, status)


def supervise(count: int, work: Callable[[int], int]) -> int:
    """Run ``work(number)`` in ``count`` processes; returns when all have ended because this one was asked to."""
    return Crew(work, [Worker(number) for number in range(count)]).run()
