"""Who may move the traffic of a place of this machine, or tell of it, just now. A lock ends with its process."""

from __future__ import annotations

import fcntl
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlp_ci.errors import OutsideError
from mlp_ci.serve.state import make

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlp_ci.serve.state import Place


@contextmanager
def one_rollout(place: Place) -> Iterator[None]:
    """Hold the right to move traffic to a new version; the lock ends with the process that holds it."""
    make(place)
    with (place.folder / "rollout.lock").open("a") as lock:
        for left in (2, 1, 0):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if not left:
                    msg = f"another deploy is under way for {place}"
                    raise OutsideError(msg, fix="wait until it is done, then run this again") from error
                time.sleep(0.02)  # it may only have been an audit that looked; see `busy`
        yield


@contextmanager
def one_record(place: Place) -> Iterator[None]:
    """Hold the right to say outside what runs here (git, alias, records); whoever comes later waits.

    Without it the alias of a deploy could come after that of a rollback, and name what was just taken away.
    """
    make(place)
    with (place.folder / "record.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def busy(place: Place) -> bool:
    """Whether another command is moving the traffic, or telling of it, right now."""
    for name in ("rollout.lock", "record.lock"):
        file = place.folder / name
        if not file.exists():
            continue
        with file.open("r") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False
