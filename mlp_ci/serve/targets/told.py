"""What state.json tells of a place: what has the traffic and had it, what was said of it, how far a rollout is.

No process is asked and none is started; so it is shared by every target that keeps its facts in that file.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from mlp_ci.errors import RolloutAborted
from mlp_ci.serve import state as states
from mlp_ci.serve.state import Arm, Held, Interval, LiveFact, Place, Reversal, State

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mlp_ci.serve.rollout.progress import Progress


class Told:
    """The reading half of a :class:`mlp_ci.serve.targets.Target`, and its notes."""

    def read(self, place: Place) -> State | None:
        """What is known of ``place``; None when nothing ever ran there."""
        return states.read(place)

    def changing(self, place: Place) -> AbstractContextManager[State]:
        """What is known, to be changed: kept when the block ends, all of it or nothing."""
        return states.changing(place)

    def runs(self, place: Place, state: State) -> bool:
        """Whether what has the traffic runs."""
        raise NotImplementedError

    def live(self, place: Place) -> LiveFact | None:
        """The version that has the traffic of ``place``."""
        state = self.read(place)
        if state is None or state.live is None:
            return None
        interval = state.history[-1]
        return LiveFact(
            version=state.live,
            digest=str(interval["digest"]),
            since=datetime.fromisoformat(interval["started"]),
            address=state.address,
            previous=state.previous(),
            running=not state.stopped and self.runs(place, state),
            evidence=state.evidence_of(state.live),
        )

    def history(self, home: Path, model: str) -> list[Interval]:
        """All intervals of all stages of ``model``, by start."""
        intervals = []
        for file in sorted((home / model).glob("*/state.json")):
            state = self.read(Place(home, model, file.parent.name))
            intervals += state.intervals() if state else []
        return sorted(intervals, key=lambda i: (i.started, i.stage))

    def arms(self, place: Place) -> list[Arm]:
        """How the traffic is split now."""
        state = self.read(place)
        return list(state.arms) if state else []

    def progress(self, place: Place) -> Progress | None:
        """How far the newest rollout is."""
        state = self.read(place)
        return state.progress if state else None

    def keep(self, place: Place, progress: Progress | None, expected: Progress | None) -> None:
        """Remember how far it is, if nobody else did meanwhile."""
        with self.changing(place) as state:
            as_kept(place, state.progress, expected)
            state.progress = progress

    def reversal(self, place: Place) -> Reversal | None:
        """The rollback that led to what is live, if one did."""
        state = self.read(place)
        return state.reversal if state else None

    def unfinished(self, place: Place) -> list[Reversal]:
        """The rollbacks whose record is not finished, oldest first."""
        state = self.read(place)
        if state is None:
            return []
        return [*state.overtaken, *([state.reversal] if state.reversal and not state.reversal.finished else [])]

    def note(self, place: Place, reversal: Reversal) -> None:
        """Note how far the record of a rollback is."""
        with self.changing(place) as state:
            state.note(reversal)

    def announced(self, place: Place) -> int | None:
        """The version whose alias and deployment record were made."""
        state = self.read(place)
        return state.announced if state else None

    def announce(self, place: Place, version: int) -> None:
        """Note that they were."""
        with self.changing(place) as state:
            state.announced = version

    def held(self, place: Place) -> list[Held]:
        """Versions that were rolled back here."""
        state = self.read(place)
        return list(state.held) if state else []

    def acknowledge(self, place: Place, digest: str) -> None:
        """Note that git knows of the rollback, so that git alone decides from now on."""
        with self.changing(place) as state:
            state.held = [replace(h, known=True) if h.digest == digest else h for h in state.held]


def as_kept(place: Place, kept: Progress | None, expected: Progress | None) -> None:
    """Raises RolloutAborted when another controller noted something since this one looked."""
    if (kept.to_json() if kept else None) != (expected.to_json() if expected else None):
        msg = f"another command drives the rollout of {place}"
        raise RolloutAborted(msg, why="this one changed nothing more", fix="`mlp-ci rollout status` says how it goes")
