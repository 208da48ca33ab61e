"""Who trains a key right now: a tag on the run, renewed while training goes on, so that two runners never do both."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING

from mlp_ci.errors import MlpError

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.tracking import RunFact, Tracking

TAG = "mlp.lease"
RENEW_SECONDS = 20.0
LAST_WORD_SECONDS = 15.0  # how long a renewal that is under way may take
LEASE_SECONDS = 75.0  # three renewals may be lost before somebody else takes over


@dataclass(frozen=True, kw_only=True)
class Lease:
    """``holder`` is a machine and a work folder; ``until`` a Unix time in seconds."""

    holder: str
    until: float

    def text(self) -> str:
        return f"{self.until:.0f} {self.holder}"


def holder_name(work: Path) -> str:
    return f"{socket.gethostname()}:{work}"


def held_by_another(run: RunFact, holder: str) -> bool:
    """Whether somebody else says, recently enough, that they are training this run."""
    until, _, name = run.tags.get(TAG, "").partition(" ")
    return until.isdigit() and float(until) > time.time() and name != holder


class Heartbeat:
    """Renews the lease, and the seconds used so far (unless ``seconds_before`` is None), from a thread of its own.

    MLflow being away for a while must not stop training: what could not be written is written at the next turn. Once
    the block has ended nothing is renewed any more, so that what is written to the run then stays.
    """

    def __init__(self, tracking: Tracking, run_id: str, holder: str, seconds_before: float | None) -> None:
        self._tracking = tracking
        self._run_id = run_id
        self._holder = holder
        self._before = seconds_before
        self._started = time.monotonic()
        self._stopped = Event()
        self._thread = Thread(target=self._renew, name="heartbeat", daemon=True)
        self.missed = 0

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join(LAST_WORD_SECONDS)

    def _renew(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS):
            lease = Lease(holder=self._holder, until=time.time() + LEASE_SECONDS)
            tags = {TAG: lease.text()}
            if self._before is not None:
                tags["mlp.train_seconds"] = f"{self._before + time.monotonic() - self._started:.3f}"
            try:
                self._tracking.log(self._run_id, tags=tags)
            except MlpError:
                self.missed += 1


def first_lease(holder: str) -> str:
    """The tag's text for a run that begins now."""
    return Lease(holder=holder, until=time.time() + LEASE_SECONDS).text()
