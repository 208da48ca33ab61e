"""A stand-in for a target that is far away: the state of the local target, and no process behind it.

For tests of what is said and recorded after the traffic; whether traffic really moves is tested on the local target.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlp_ci.serve import state as states
from mlp_ci.serve.measured import Measured
from mlp_ci.serve.state import Arm, Held, LiveFact, Place, Reversal, Server
from mlp_ci.serve.targets import Answer, Release, Settings, Why
from mlp_ci.serve.targets.local import local
from mlp_ci.serve.targets.machine import as_expected, goal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime


@dataclass
class Paper:
    """All that a target must do, at once. ``meanwhile``: what another command does right before a function runs."""

    meanwhile: dict[str, Callable[[], object]] = field(default_factory=dict)
    moves: list[int] = field(default_factory=list)  # every version that was given all traffic

    def __getattr__(self, name: str) -> Any:
        return getattr(local, name)  # what only reads or writes the state

    def live(self, place: Place) -> LiveFact | None:
        state, fact = states.read(place), local.live(place)
        return replace(fact, running=not state.stopped) if fact and state else None

    def prepare(self, place: Place, release: Release, settings: Settings) -> None:
        if happens := self.meanwhile.pop("prepare", None):
            happens()
        with states.changing(place) as state:
            state.log, state.gateway_port, state.stopped = dict(settings.log), 4000, False
            state.serve = settings.serve.model_dump(mode="json")
            if release.version not in state.servers:
                state.servers[release.version] = Server(
                    version=release.version, digest=release.digest, port=5000, artefact="", python=""
                )

    def ask(self, _place: Place, _version: int | None, _body: bytes) -> Answer:
        return Answer(200, b'{"predictions": [1]}')

    def healthy(self, _place: Place, _version: int) -> bool:
        return True

    def measured(self, _place: Place) -> Measured:
        return Measured(boot="one")

    def shift(self, place: Place, arms: Sequence[Arm], expected: Sequence[Arm] | None = None) -> None:
        with states.changing(place) as state:
            as_expected(place, state, expected)
            state.arms = list(arms)

    def settle(self, place: Place, release: Release, now: datetime, expected: Sequence[Arm] | None = None) -> None:
        with states.changing(place) as state:
            as_expected(place, state, expected)
            state.settle(release.version, release.digest, now, release.evidence)
        self.moves.append(release.version)
        self.tidy(place)

    def tidy(self, place: Place) -> None:
        with states.changing(place) as state:
            keep = state.warm()
            state.servers = {v: s for v, s in state.servers.items() if v in keep}

    def withdraw(self, place: Place, version: int) -> None:
        with states.changing(place) as state:
            if all(a.version != version for a in state.arms):
                state.servers.pop(version, None)

    def turn_back(
        self, place: Place, to: int | None, why: Why, expected: Sequence[Arm] | None = None
    ) -> tuple[Reversal, bool]:
        with states.changing(place) as state:
            goal = goal_of(place, state, to)
            digest = state.digest_of(goal) or ""
            if goal == state.live and state.canary() is None and state.reversal and state.reversal.version == goal:
                return state.reversal, False
            as_expected(place, state, expected)
            state.servers.setdefault(goal, Server(version=goal, digest=digest, port=5000, artefact="", python=""))
            taken, bad = state.taken()
            held = Held(version=taken, digest=bad, reason=why.reason, since=why.now.isoformat())
            reversal = state.reverse(goal, held, why.by)
        self.moves.append(goal)
        return reversal, True

    def stop(self, place: Place) -> None:
        with states.changing(place) as state:
            state.stopped = True
