"""Who trains a key right now: a tag on the run, renewed while training goes on, so that two runners never do both.

Clocks of runners differ, by minutes where nobody looks after them. So the time in a lease is that of the MLflow
server, which all runners ask; and a lease that is not seen to change for long enough is over whatever time it names.
"""

from __future__ import annotations

import secrets
import socket
import time
from threading import Event, Thread
from typing import TYPE_CHECKING

from mlp_ci.errors import MlpError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlp_ci.tracking import RunFact, Tracking

TAG = "mlp.lease"
RENEW_SECONDS = 20.0
LAST_WORD_SECONDS = 15.0  # how long a renewal that is under way may take
LEASE_SECONDS = 75.0  # three renewals may be lost before somebody else takes over
HOLDER_FILE = "holder"


def holder_name(work: Path) -> str:
    """This machine and work folder, told apart from clones of the machine by a word of its own in the folder."""
    file = work / HOLDER_FILE
    try:
        word = file.read_text(encoding="utf-8").strip()
    except OSError:
        word = ""
    if not word:
        word = secrets.token_hex(4)
        work.mkdir(parents=True, exist_ok=True)
        file.write_text(word, encoding="utf-8")
    return f"{socket.gethostname()}:{work}:{word}"


def holder_of(run: RunFact) -> str:
    """Who holds the lease of a run, or held it last; empty when it was given back."""
    return run.tags.get(TAG, "").partition(" ")[2]


class Leases:
    """Leases as ``holder`` sees and writes them."""

    def __init__(self, tracking: Tracking, holder: str) -> None:
        self._tracking = tracking
        self.holder = holder
        self._seen: dict[str, tuple[str, float]] = {}  # run → its lease and since when it reads so

    def text(self) -> str:
        """A lease that begins now: until when (Unix time of the MLflow server), and whose it is."""
        return f"{self._tracking.now() + LEASE_SECONDS:.0f} {self.holder}"

    def held_by_another(self, run: RunFact) -> bool:
        """Whether somebody else says, recently enough, that they are training this run."""
        text = run.tags.get(TAG, "")
        until, _, name = text.partition(" ")
        if not until.isdigit() or name == self.holder or float(until) <= self._tracking.now():
            return False
        before, since = self._seen.get(run.run_id, ("", 0.0))
        if before != text:
            self._seen[run.run_id] = text, time.monotonic()
            return True
        return time.monotonic() - since < LEASE_SECONDS + RENEW_SECONDS


class Heartbeat:
    """Renews the lease from a thread of its own, and calls ``tell`` after that, to write what else there is to say.

    MLflow being away for a while must not stop training: what could not be written is written at the next turn. Once
    the block has ended nothing is renewed any more, so that what is written to the run then stays. ``lost`` says who
    trains the run when somebody took it over while MLflow was out of this machine's reach.
    """

    def __init__(self, tracking: Tracking, run_id: str, leases: Leases, tell: Callable[[], None] | None = None) -> None:
        self._tracking = tracking
        self._run_id = run_id
        self._leases = leases
        self._tell = tell
        self._stopped = Event()
        self._thread = Thread(target=self._beat, name="heartbeat", daemon=True)
        self.missed = 0
        self.lost = ""

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join(LAST_WORD_SECONDS)

    def _beat(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS):
            try:
                self._renew()
            except MlpError:
                self.missed += 1

    def _renew(self) -> None:
        if self.missed:  # long enough away for somebody to have taken over
            run = self._tracking.run(self._run_id)
            if self._leases.held_by_another(run):
                self.lost = holder_of(run)
                return
        self._tracking.log(self._run_id, tags={TAG: self._leases.text()})
        self.missed = 0
        if self._tell and not self._stopped.is_set():
            self._tell()
