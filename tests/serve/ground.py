"""A place and a target for tests of the driver: what was counted is what a test says was counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci import clock
from mlp_ci.errors import OutsideError
from mlp_ci.serve.measured import Measured, Seen
from mlp_ci.serve.rollout import driving
from mlp_ci.serve.rollout.driving import Driven, Plan, roll_out
from mlp_ci.serve.rollout.progress import Phase, Progress
from mlp_ci.serve.state import Place
from mlp_ci.serve.targets import Answer, Release, Settings
from mlp_ci.spec.serve import Serve
from tests.flows.paper import Paper

if TYPE_CHECKING:
    import pytest

    from mlp_ci.serve.measured import Labels
    from mlp_ci.serve.targets import Target

ERRORS = [{"metric": "error_rate", "max_increase": 0.02}]


@dataclass
class Scripted(Paper):
    """Each look at it adds ``each`` requests by version, split as the traffic is, with ``bad`` errors by version."""

    each: int = 0
    bad: dict[int, float] = field(default_factory=dict)
    well: bool = True
    answer: int = 200
    boot: str = "a"
    counts: dict[int, Seen] = field(default_factory=dict)
    deaf: int = 0

    def healthy(self, _place: Place, _version: int) -> bool:
        return self.well

    def ask(self, _place: Place, version: int | None, _body: bytes) -> Answer:
        bad = version is None and self.answer != 200
        return Answer(self.answer if bad else 200, b'{"predictions": [1]}')

    def measured(self, place: Place) -> Measured:
        if self.deaf:
            self.deaf -= 1
            msg = "the gateway is down"
            raise OutsideError(msg)
        for arm in self.arms(place):
            share = round(self.each * arm.weight / 100)
            new = Seen(requests=share, errors=round(share * self.bad.get(arm.version, 0)), latency={5: share})
            self.counts[arm.version] = self.counts.get(arm.version, Seen()).plus(new)
        return Measured(boot=self.boot, seconds=10, versions=dict(self.counts))


@dataclass
class Ground:
    """A place where version 1 has the traffic, and the release of version 2."""

    place: Place
    target: Scripted
    file: Path
    labels: Labels | None = None

    def release(self, version: int) -> Release:
        folder = self.place.home / f"v{version}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "serving_input_example.json").write_text("{}")
        return Release(version, f"sha256:{version:064x}", folder)

    def roll(self, version: int = 2, *, seconds: float = 0.0, **rollout: Any) -> Driven:
        given = {"strategy": "canary", "steps": [10, 50, 100], "wait": "1h", "trust": "0s", **rollout}
        serve = Serve.model_validate({"rollout": given})
        wait = timedelta(seconds=seconds)
        plan = Plan(release=self.release(version), settings=Settings(serve=serve), watch=wait, labels=self.labels)
        target: Target = self.target
        return roll_out(target, self.place, plan)

    def pass_time(self, span: timedelta) -> None:
        clock.set_instant(self.file, clock.now() + span)

    @property
    def weights(self) -> dict[int, int]:
        return {a.version: a.weight for a in self.target.arms(self.place)}

    @property
    def progress(self) -> Progress:
        found = self.target.progress(self.place)
        assert isinstance(found, Progress)
        return found


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """Where version 1 has the traffic since 2013-04-01, and nobody waits between two looks."""
    file = folder / "now"
    clock.set_instant(file, datetime(2013, 4, 1, tzinfo=UTC))
    monkeypatch.setenv(clock.ENV, str(file))
    monkeypatch.setattr(driving, "LOOKS", (0.0, 0.0))
    made = Ground(Place(folder / "serve", "flights", "production"), Scripted(), file)
    assert made.roll(1).phase is Phase.DONE, "the first deployment ever needs no steps"
    assert made.weights == {1: 100}
    return made
