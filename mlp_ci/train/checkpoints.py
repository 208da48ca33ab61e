"""Keeps ``$MLP_CHECKPOINTS`` where another machine finds it, while the command trains and when it ended.

``train.checkpoints.every`` is how much work may be lost with the machine, provided that the command writes checkpoints
more often than that: a new one is saved as soon as waiting for the one after it would take longer. Saving happens in a
thread of its own; whatever goes wrong in it, training goes on.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import InputError, MlpError
from mlp_ci.train.attempt import say
from mlp_ci.train.checkpoint_stores import Cancelled, InDvc, InMlflow, Store
from mlp_ci.train.snapshot import Snapshot, listing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlp_ci.train.job import Job
    from mlp_ci.train.snapshot import Look

TAG = "mlp.checkpoints"
SHORTEST_LOOK, LONGEST_LOOK = 0.2, 2.0
AFTER_TROUBLE_SECONDS = 30.0
GAPS = 5


def store_of(job: Job, run_id: str, name: str) -> Store:
    """Where ``train.checkpoints.store`` says; ``name`` is the newest set that the run has."""
    scratch = job.folders.root / "saving"
    if job.spec.train.checkpoints.store == "mlflow":
        return InMlflow(job.tracking, run_id, name, scratch)
    from mlp_ci.dvc.folders import Corner

    return InDvc(Corner(job.ctx.repo, f"checkpoints/{job.key.digest[:32]}", scratch, "set"))


# ---------------------------------------------------------------- what lies here, and from which set it came


def noted(job: Job) -> list[str]:
    """The names of the sets that what lies here is as new as, or newer than."""
    try:
        value = json.loads((job.folders.root / "checkpoints.json").read_text(encoding="utf-8"))
        return [str(name) for name in value["sets"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def note(job: Job, names: Sequence[str]) -> None:
    file = job.folders.root / "checkpoints.json"
    scratch = file.with_suffix(".new")
    scratch.write_text(json.dumps({"sets": list(names)}), encoding="utf-8")
    scratch.replace(file)


def bring(job: Job, store: Store, name: str) -> None:
    """Fetch the newest set, unless what lies here is as new: an attempt on another machine may have got further.

    A set that is not whole any more is no reason to stop: what lies here is used, or training starts from the
    beginning, and it is said. Raises OutsideError when the store does not answer.
    """
    here = job.folders.checkpoints
    lies_here = bool(here.is_dir() and listing(here))
    if not name or (lies_here and name in noted(job)):
        return
    say(job.log, "fetching the checkpoints of the attempt before")
    try:
        fetched = store.fetch(name, job.folders.root / "saving")
    except InputError as error:
        instead = "what lies here is used" if lies_here else "training starts from the beginning"
        say(job.log, f"the checkpoints of the attempt before are not whole any more, {instead}: {error.what}")
        return
    here.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(here, ignore_errors=True)
    fetched.replace(here)
    note(job, [name])


# ---------------------------------------------------------------- when to save


@dataclass
class Rhythm:
    """Decides when a set is due, from when the folder came to rest with something new in it.

    Work done since the last saved set is lost with the machine. Saving now is due when the next chance, one gap
    between two checkpoints from now and after the time that saving takes, would come too late.
    """

    every: float
    began: float

    def __post_init__(self) -> None:
        self.saved = self.began  # when what was saved last was written
        self._last = self.began
        self._gaps: list[float] = []
        self._cost = 0.0

    def wrote(self, now: float) -> None:
        """The command has written a new checkpoint."""
        self._gaps = [*self._gaps, now - self._last][-GAPS:]
        self._last = now

    def is_due(self, now: float) -> bool:
        gap = 1.1 * max(self._gaps, default=0.0)  # none is as long as the other, and the first saving is yet to time
        return now - self.saved + gap + self._cost >= self.every

    def done(self, written: float, cost: float) -> None:
        """What was written at ``written`` has been saved in ``cost`` seconds."""
        self.saved = written
        self._cost = cost


class Saver:
    """Saves the checkpoints of one attempt. ``announce`` writes the name of a new set to the run."""

    def __init__(self, job: Job, store: Store, name: str, announce: Callable[[dict[str, str]], None]) -> None:
        self._job = job
        self._store = store
        self._name = name
        self._announce = announce
        self._every = job.spec.train.checkpoints.every.total_seconds()
        folder = job.folders.root / "saving" / "set"
        self._snapshot = Snapshot(job.folders.checkpoints, folder)
        self._stopped = Event()
        self._writers: Callable[[], Sequence[int]] = list
        self._thread = Thread(target=self._loop, name="checkpoints", daemon=True)
        self._saved: dict[str, Look] = {}
        self._told = ""

    def begin(self, writers: Callable[[], Sequence[int]]) -> None:
        """``writers`` gives the processes that may write checkpoints."""
        self._writers = writers
        self._thread.start()

    @property
    def saved_something(self) -> bool:
        return bool(self._saved)

    def forget(self) -> None:
        """Remove the checkpoints from this machine."""
        self._snapshot.drop()
        for folder in (self._job.folders.checkpoints, self._job.folders.root / "saving"):
            shutil.rmtree(folder, ignore_errors=True)
        self._job.folders.checkpoints.mkdir(parents=True)
        (self._job.folders.root / "checkpoints.json").unlink(missing_ok=True)

    def stop(self) -> None:
        """Begin nothing new; what is under way may go on until :meth:`save_last`."""
        self._stopped.set()

    def save_last(self) -> None:
        """Save what the command left behind; raises MlpError when that fails."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()
        if listing(self._job.folders.checkpoints) not in ({}, self._saved):
            self._snapshot.take_for_good(link=self._job.spec.train.checkpoints.store == "mlflow")
            self._keep(lambda: False)
        self._snapshot.drop()

    def _loop(self) -> None:
        pause = min(LONGEST_LOOK, max(SHORTEST_LOOK, self._every / 40))
        rhythm = Rhythm(every=self._every, began=time.monotonic())
        before = rest = listing(self._job.folders.checkpoints)
        due_since = not_before = 0.0
        while not self._stopped.wait(pause):
            now, seen = time.monotonic(), listing(self._job.folders.checkpoints)
            if seen == before and seen != rest:  # two looks alike: the writing is over
                rhythm.wrote(now)
                rest = seen
            before = seen
            if not seen or seen == self._saved or now < not_before or not rhythm.is_due(now):
                due_since = 0.0
                continue
            due_since = due_since or now
            patient = now - due_since < self._every / 2  # a folder that never comes to rest is taken as it is
            if patient and seen != rest:
                continue
            if self._save(at_rest=patient):
                rhythm.done(now, time.monotonic() - now + 2 * pause)
            elif self._told:
                not_before = now + min(AFTER_TROUBLE_SECONDS, self._every)

    def _save(self, *, at_rest: bool) -> bool:
        """Whether the checkpoints are saved now; what went wrong is said once."""
        try:
            if not self._snapshot.take(self._writers(), at_rest=at_rest):
                return False
            self._keep(self._stopped.is_set)
        except Cancelled:
            return False
        except (MlpError, OSError) as error:
            said = error.what if isinstance(error, MlpError) else str(error)
            if not self._told:
                say(self._job.log, f"the checkpoints could not be saved, and training goes on: {said}")
            self._told = said
            return False
        if self._told:
            say(self._job.log, "the checkpoints are saved again")
            self._told = ""
        return True

    def _keep(self, cancelled: Callable[[], bool]) -> None:
        """Store the snapshot, then say so in the run, then drop what is older: a kill in between loses nothing."""
        files = dict(self._snapshot.files)
        name = self._store.save(self._snapshot, cancelled)
        note(self._job, [self._name, name] if self._name else [name])
        megabytes = sum(kept.size for kept in files.values()) / 1e6
        when = clock.now().isoformat(timespec="seconds")
        self._announce({TAG: name, "mlp.checkpoints_at": when, "mlp.checkpoints_mb": f"{megabytes:.1f}"})
        self._name = name
        self._saved = {path: kept.look for path, kept in files.items()}
        with suppress(MlpError):  # what could not be dropped is tried with the next set
            if not cancelled():
                self._store.forget_others()
