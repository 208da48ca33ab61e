"""Do git, what serves and the aliases agree? Told without changing anything; put right only when that is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci import serve
from mlp_ci.report import Outcome
from mlp_ci.serve import agreement, flow_deploy
from mlp_ci.serve import state as states
from mlp_ci.serve.asked import open_job
from mlp_ci.serve.flow_rollback import roll_back
from mlp_ci.serve.measured import Measured
from mlp_ci.serve.rights import one_rollout
from mlp_ci.serve.rollout import steps
from mlp_ci.serve.state import Arm, Server
from mlp_ci.serve.targets import Release, Settings
from tests.flows.paper import Paper
from tests.flows.served import BETTER, BROKEN, GOOD, Scene, scene, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.report import Finding
    from mlp_ci.serve.asked import Job

NOW = datetime(2013, 4, 1, tzinfo=UTC)


@dataclass
class Floor:
    """The audit's view; the target is a stand-in that moves traffic at once."""

    flights: Scene
    paper: Paper = field(default_factory=Paper)

    def job(self, ctx: Context | None = None) -> Job:
        return replace(open_job(ctx or self.flights.ctx), target=self.paper)  # type: ignore[arg-type]

    def deploy(self, **stages: int) -> int:
        if stages:
            self.flights.promote(**stages)
        done = flow_deploy.bring_all(self.job(), ["staging", "production"])
        return max(d.exit_code for d in done.values())

    def look(self, ctx: Context | None = None) -> list[tuple[str, str, str]]:
        """Stage, check and message of what is not as it should be; looking must change nothing."""
        world, place = self.flights.world, self.flights.place("staging")
        writes = len(world.faults.writes())
        state = states.read(place)
        found = agreement.compare(self.job(ctx))
        assert len(world.faults.writes()) == writes
        assert states.read(place) == state
        return [(f.subject, f.check, f.message) for f in found if f.outcome not in (Outcome.PASS, Outcome.SKIP)]

    def mend(self, stage: str = "staging") -> list[Finding]:
        return agreement.mend(self.job(), stage)

    @property
    def alias(self) -> int | None:
        return self.flights.tracking.alias(self.flights.name, "staging")


@pytest.fixture
def floor(tmp_path: Path, mlflow_server: str) -> Iterator[Floor]:
    with scene(tmp_path, mlflow_server, models=written) as flights:
        yield Floor(flights)


def test_all_agrees_after_a_deploy_and_there_is_nothing_to_repair(floor: Floor) -> None:
    assert floor.look() == []
    assert floor.deploy(staging=GOOD) == 0
    (said,) = [f for f in agreement.compare(floor.job()) if f.outcome is Outcome.PASS]
    assert said.message == "git, MLflow and what serves agree on version 1"
    writes = len(floor.flights.world.faults.writes())
    assert all(f.outcome is Outcome.PASS for f in floor.mend())
    assert len(floor.flights.world.faults.writes()) == writes
    assert floor.paper.moves == [GOOD]


def test_a_moved_alias_is_told_and_put_back_when_that_is_asked_for(floor: Floor) -> None:
    floor.deploy(staging=GOOD)
    floor.flights.tracking.set_alias(floor.flights.name, "staging", BETTER)
    ((stage, check, message),) = floor.look()
    assert (stage, check) == ("staging", "alias")
    assert "points to version 2, and git asks for version 1" in message
    assert floor.deploy() == 0
    assert floor.alias == BETTER, "deploy tells, and leaves it"
    assert floor.mend()[-1].message == "the alias staging is back on version 1; it pointed to version 2"
    assert floor.alias == GOOD
    assert floor.look() == []


def test_an_alias_is_not_put_back_to_what_nobody_approved(floor: Floor) -> None:
    """Whoever writes to git and to the target must not get the alias as well."""
    floor.deploy(staging=GOOD)
    world, place = floor.flights.world, floor.flights.place("staging")
    world.push("carol", {"promotion.yaml": floor.flights.entries(staging=BETTER)})
    with states.changing(place) as state:
        put(state, BETTER, floor.flights.digests[BETTER])
        state.announced = BETTER
    assert [check for _, check, _ in floor.look()] == ["alias"]
    (refused,) = [f for f in floor.mend() if f.outcome is Outcome.FAIL]
    assert "not approved" in refused.message
    assert "without a merged pull request" in refused.message
    assert floor.alias == GOOD


def put(state: states.State, version: int, digest: str) -> None:
    """What somebody does who moves traffic by hand."""
    state.servers[version] = Server(version=version, digest=digest, port=5000, artefact="", python="")
    state.hand_over(version, digest, state_time())


def state_time() -> Any:
    from mlp_ci import clock

    return clock.now()


def test_an_unasked_version_is_told_and_deploy_or_repair_end_it(floor: Floor) -> None:
    floor.deploy(staging=GOOD)
    with states.changing(floor.flights.place("staging")) as state:
        put(state, BROKEN, floor.flights.digests[BROKEN])
    ((_, check, message),) = floor.look()
    assert check == "unasked"
    assert "version 3 serves, which no deploy announced, and git asks for version 1" in message
    assert all(f.outcome is Outcome.PASS for f in floor.mend() if f.check in ("live", "approvals"))
    assert floor.flights.live("staging") == GOOD
    assert floor.look() == []


def test_what_was_merged_and_not_deployed_yet_is_told_as_that(floor: Floor) -> None:
    floor.deploy(staging=GOOD)
    floor.flights.promote(staging=BETTER)
    assert floor.look() == [
        ("staging", "traffic", "git asks for version 2, and version 1, which was deployed before, still serves")
    ]
    floor.mend()
    assert floor.look() == []
    assert floor.flights.live("staging") == BETTER


def test_a_rollback_is_told_until_git_knows(floor: Floor) -> None:
    floor.deploy(staging=GOOD)
    floor.deploy(staging=BETTER)
    offline = replace(floor.flights.ctx, tracking_uri="http://127.0.0.1:9", github=None)
    roll_back(offline, floor.flights.place("staging"), floor.paper, to="previous", reason="slow")  # type: ignore[arg-type]
    told = {check: message for _, check, message in floor.look()}
    assert "git asks for version 2, which was rolled back here (slow); version 1 serves" in told["traffic"]
    assert "the rollback of version 2 is not finished: alias left" in told["rollback"]
    (refused,) = [f for f in floor.mend() if f.outcome is Outcome.FAIL]
    assert "rolled back in staging: slow" in refused.message
    assert floor.flights.live("staging") == GOOD, "a repair brings nothing back that a person took away"


def test_a_stage_that_git_asks_nothing_for_is_ended_only_by_a_repair(floor: Floor) -> None:
    floor.deploy(staging=GOOD)
    floor.flights.promote()
    found = {check: message for _, check, message in floor.look()}
    assert "version 1 serves at" in found["unasked"]
    assert "the alias staging names version 1, and git asks for no version here" in found["alias"]
    floor.deploy()
    assert floor.paper.live(floor.flights.place("staging")).running  # type: ignore[union-attr]
    (ended,) = floor.mend()
    assert ended.message == "version 1 no longer serves: git asks for no version here"
    assert [check for _, check, _ in floor.look()] == ["alias"]
    assert floor.deploy(staging=BETTER) == 0
    assert floor.look() == []


def test_a_stage_that_somebody_emptied_unseen_is_not_ended(floor: Floor) -> None:
    floor.deploy(staging=GOOD)
    floor.flights.world.push("carol", {"promotion.yaml": floor.flights.entries()})
    (refused,) = floor.mend()
    assert refused.outcome is Outcome.FAIL
    assert "not approved" in refused.message
    assert floor.paper.live(floor.flights.place("staging")).running  # type: ignore[union-attr]


def test_a_version_deleted_in_mlflow_is_told_with_what_mends_it(floor: Floor) -> None:
    floor.deploy(staging=GOOD)
    floor.flights.tracking.delete_version(floor.flights.name, GOOD)
    ((_, check, message),) = floor.look()
    assert check == "alias"
    assert "version 1 serves" in message
    assert "was deleted in MLflow" in message
    done = flow_deploy.bring_all(floor.job(), ["staging"])["staging"]
    assert done.exit_code == 0, "it serves from this machine all the same"
    (finding,) = [f for f in done.findings if f.check == "alias"]
    assert "was deleted in MLflow" in finding.message
    assert "restore MLflow's database" in finding.fix
    assert "mlp-ci train" not in finding.fix


def test_changed_tags_a_rollout_half_way_and_what_is_down_are_told(floor: Floor) -> None:
    floor.deploy(staging=GOOD)
    place, digests = floor.flights.place("staging"), floor.flights.digests
    floor.flights.tracking.set_version_tags(floor.flights.name, GOOD, {"mlp.digest": digests[BETTER]})
    assert [check for _, check, _ in floor.look()] == ["registry"]
    floor.flights.tracking.set_version_tags(floor.flights.name, GOOD, {"mlp.digest": digests[GOOD]})
    settings = Settings(serve=open_job(floor.flights.ctx).model.serve)
    floor.paper.prepare(place, Release(BETTER, digests[BETTER], place.folder), settings)
    floor.paper.shift(place, [Arm(version=GOOD, weight=90), Arm(version=BETTER, weight=10, arm="canary")])
    assert "90 % on version 1, 10 % on version 2" in floor.look()[0][2]
    with one_rollout(place):
        assert floor.look() == [], "a deploy that is under way is no disagreement"
    floor.paper.shift(place, [Arm(version=GOOD, weight=100)])
    progress = steps.first(BETTER, digests[BETTER], GOOD, settings.serve.rollout, NOW)
    floor.paper.keep(place, progress, floor.paper.progress(place))
    assert floor.look() == []
    floor.flights.promote(staging=BETTER)
    assert floor.look() == [], "a rollout that is on its way is no disagreement"
    floor.paper.shift(place, steps.split(progress))
    floor.paper.keep(place, steps.begun(progress, Measured(), NOW), progress)
    assert floor.look() == []
    floor.paper.shift(place, [Arm(version=GOOD, weight=100)])
    assert [check for _, check, _ in floor.look()] == ["traffic"], "its traffic went elsewhere"
    floor.flights.promote(staging=GOOD)
    floor.paper.stop(place)
    assert floor.look() == [("staging", "traffic", "version 1 should serve and is down")]
    floor.mend()
    assert floor.look() == []


def test_without_mlflow_the_rest_is_looked_at(floor: Floor) -> None:
    floor.deploy(staging=GOOD)
    floor.flights.promote(staging=BETTER)
    found = floor.look(replace(floor.flights.ctx, tracking_uri="http://127.0.0.1:9"))
    assert [(stage, check) for stage, check, _ in found] == [
        ("staging", "traffic"),
        ("staging", "alias"),
        ("production", "alias"),
    ]
    assert "could not be looked at" in found[1][2]


def test_on_a_machine_that_serves_nothing_git_and_mlflow_are_compared(floor: Floor, tmp_path: Path) -> None:
    floor.deploy(staging=GOOD)
    elsewhere = replace(floor.flights.ctx, serve_home=tmp_path / "elsewhere")
    assert [f for f in serve.disagreements(elsewhere) if f.outcome is Outcome.FAIL] == []
    floor.flights.promote(staging=BETTER)
    (behind,) = [f for f in serve.disagreements(elsewhere) if f.outcome is Outcome.FAIL]
    assert behind.message == "git asks for version 2, and what was deployed last is 1"
    floor.deploy()
    floor.flights.tracking.set_alias(floor.flights.name, "staging", GOOD)
    (moved,) = [f for f in serve.disagreements(elsewhere) if f.outcome is Outcome.FAIL]
    assert moved.check == "alias"
    assert not elsewhere.serve_home.exists()
