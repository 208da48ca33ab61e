"""How far a rollout is: what the target keeps of it, so that a controller that is killed anywhere goes on.

Small enough for an annotation of Kubernetes. Times are ISO 8601 in UTC, by the project's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.kept import known
from mlp_ci.serve.measured import Seen

if TYPE_CHECKING:
    from collections.abc import Mapping

POINTS = 60  # looks that are remembered per step, for the picture of intervals that narrow


class Phase(StrEnum):
    """Where a rollout stands."""

    RUNNING = "running"
    PAUSED = "paused"  # by a person, or because a step could not be decided
    ABORTED = "aborted"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """What both versions answered while the new one had ``weight`` per cent of the traffic.

    ``undecided``: the step was left although it could not be told, since the team wants that after its wait.
    """

    weight: int
    started: str
    undecided: bool = False
    stable: Seen = Seen()  # noqa: RUF009 - frozen
    canary: Seen = Seen()  # noqa: RUF009 - frozen

    def to_json(self) -> dict[str, Any]:
        said = {**vars(self), "stable": self.stable.to_json(), "canary": self.canary.to_json()}
        if not self.undecided:  # a supervisor that was started by an older mlp-ci has to read the rest
            del said["undecided"]
        return said

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Stratum:
        """Raises KeyError, TypeError or ValueError where something lacks that :meth:`to_json` writes."""
        return cls(
            **{**known(cls, raw), "stable": Seen.from_json(raw["stable"]), "canary": Seen.from_json(raw["canary"])}
        )


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at one metric of a step: the interval of the effect, and what was decided. For people."""

    at: str
    metric: str
    verdict: str
    seen: int
    needed: int | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A rollout of ``version`` beside ``stable``. ``step`` is an index of ``steps``; -1 before the first.

    ``baseline`` and ``boot`` are what had been counted when the step began, by version; ``carried`` is what was seen in
    this step before counting began anew; ``current`` is all that both answered in it, at the last look; ``past`` are
    the steps before. ``forecast`` was said before the first step. A step without ``step_started`` is wanted and has
    not begun: its traffic may not have moved yet. ``ready`` is set by ``rollout promote``: go to the end without the
    steps that are left.
    """

    version: int
    digest: str
    stable: int
    strategy: str
    steps: tuple[int, ...]
    started: str
    step: int = -1
    step_started: str = ""
    phase: Phase = Phase.RUNNING
    why: str = ""
    by: str = ""
    ready: bool = False
    boot: str = ""
    baseline: Mapping[int, Seen] = field(default_factory=dict)
    carried: Stratum | None = None
    current: Stratum | None = None
    past: tuple[Stratum, ...] = ()
    looks: tuple[Look, ...] = ()
    forecast: tuple[str, ...] = ()

    @property
    def going(self) -> bool:
        """Whether it is not over: it runs, or waits for a person."""
        return self.phase in (Phase.RUNNING, Phase.PAUSED)

    @property
    def strata(self) -> tuple[Stratum, ...]:
        """All that was seen of both versions beside each other, oldest first."""
        return (*self.past, self.current) if self.current else self.past

    @property
    def weight(self) -> int:
        """The new version's share of the traffic, in per cent."""
        return self.steps[self.step] if 0 <= self.step < len(self.steps) else 0

    def looked(self, looks: tuple[Look, ...]) -> Progress:
        """With these looks added; of each metric the oldest are thinned out, first and last stay."""
        kept: list[Look] = []
        for metric in dict.fromkeys(look.metric for look in (*self.looks, *looks)):
            mine = [look for look in (*self.looks, *looks) if look.metric == metric]
            while len(mine) > POINTS:
                mine = [*mine[:-2:2], *mine[-2:]]
            kept += mine
        return replace(self, looks=tuple(kept))

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "steps": list(self.steps),
            "phase": self.phase.value,
            "baseline": {str(v): s.to_json() for v, s in self.baseline.items()},
            "carried": self.carried.to_json() if self.carried else None,
            "current": self.current.to_json() if self.current else None,
            "past": [p.to_json() for p in self.past],
            "looks": [dict(vars(look)) for look in self.looks],
            "forecast": list(self.forecast),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Progress:
        """Raises KeyError, TypeError or ValueError where something lacks that :meth:`to_json` writes."""
        return cls(
            **{
                **known(cls, raw),
                "steps": tuple(int(s) for s in raw["steps"]),
                "phase": Phase(raw["phase"]),
                "baseline": {int(v): Seen.from_json(s) for v, s in raw["baseline"].items()},
                "carried": Stratum.from_json(raw["carried"]) if raw.get("carried") else None,
                "current": Stratum.from_json(raw["current"]) if raw.get("current") else None,
                "past": tuple(Stratum.from_json(p) for p in raw["past"]),
                "looks": tuple(Look(**known(Look, look)) for look in raw["looks"]),
                "forecast": tuple(str(line) for line in raw.get("forecast", ())),
            }
        )
