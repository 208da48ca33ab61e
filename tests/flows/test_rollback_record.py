"""What follows a rollback's traffic, whoever does not answer: git, the alias, the chained record, the deployment."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.errors import NothingToDo
from mlp_ci.promote import records
from mlp_ci.report import Outcome
from mlp_ci.sandbox.forge import protection
from mlp_ci.serve import flow_deploy
from mlp_ci.serve.asked import open_job
from mlp_ci.serve.flow_rollback import roll_back
from tests.flows.paper import Paper
from tests.flows.served import BETTER, BROKEN, GOOD, Scene, messages, scene, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.report import Report
    from mlp_ci.serve.flow_deploy import Done
    from mlp_ci.serve.state import Reversal

NOBODY = "http://127.0.0.1:9"


@dataclass
class Team:
    """What people do in staging; the target is a stand-in that moves traffic at once."""

    flights: Scene
    paper: Paper = field(default_factory=Paper)

    def deploy(self, version: int = 0) -> Done:
        if version:
            self.flights.promote(staging=version)
        job = replace(open_job(self.flights.ctx), target=self.paper)  # type: ignore[arg-type]
        return flow_deploy.bring_all(job, ["staging"])["staging"]

    def roll_back(self, ctx: Context | None = None, to: str = "previous", reason: str = "it lies") -> Report:
        place = self.flights.place("staging")
        return roll_back(ctx or self.flights.ctx, place, self.paper, to=to, reason=reason)  # type: ignore[arg-type]

    @property
    def offline(self) -> Context:
        """Neither GitHub nor MLflow answers."""
        place = replace(self.flights.world.place(), api_url=f"{NOBODY}/api/v3")
        return replace(self.flights.ctx, github=place, tracking_uri=NOBODY)

    def left(self) -> list[tuple[int, tuple[str, ...]]]:
        unfinished: list[Reversal] = self.paper.unfinished(self.flights.place("staging"))
        return [(r.held.version, r.left) for r in unfinished]

    @property
    def deployments(self) -> list[int]:
        return [d.payload["version"] for d in self.flights.world.hub().deployments("staging")]

    def quarantined(self) -> list[int]:
        return [q.version for q in self.flights.asked().quarantine]


@pytest.fixture
def team(tmp_path: Path, mlflow_server: str) -> Iterator[Team]:
    """Version 1 ran in staging, version 2 runs there now."""
    with scene(tmp_path, mlflow_server, models=written) as flights:
        made = Team(flights)
        for version in (GOOD, BETTER):
            assert made.deploy(version).exit_code == 0
        yield made


def test_everything_says_the_same_after_one_command(team: Team) -> None:
    report = team.roll_back()
    assert report.outcome is Outcome.PASS, messages(report)
    hub = team.flights.world.hub()
    assert [r.kind for r in records.read(hub)] == ["promotion", "promotion", "rollback"]
    newest, deployed = records.read(hub)[-1], hub.deployments("staging")[0]
    assert (newest.version, newest.digest, newest.pull) == (GOOD, team.flights.digests[GOOD], None)
    assert newest.commit == team.flights.world.main() == report.data["commit"]
    assert newest.evidence == records.read(hub)[0].evidence != ""
    assert newest.digest_of_record == report.data["record"] == deployed.payload["record"]
    assert deployed.sha == newest.commit
    assert report.data["seconds_to_traffic"] < 2
    assert team.left() == []
    with pytest.raises(NothingToDo):
        team.roll_back(to="1")
    writes = len(team.flights.world.faults.writes())
    assert team.deploy().exit_code == 0
    assert len(team.flights.world.faults.writes()) == writes, "there was nothing left to say"


def test_who_asked_for_it_is_on_record(team: Team) -> None:
    github = replace(team.flights.world.place(), actor="carol", run_id="7")
    team.roll_back(replace(team.flights.ctx, github=github))
    newest = records.read(team.flights.world.hub())[-1]
    assert (newest.asked_by, newest.approved_by) == ("carol", ())
    assert newest.run.endswith("/actions/runs/7")


def test_with_nobody_to_tell_it_moves_traffic_and_the_next_deploy_tells(team: Team) -> None:
    report = team.roll_back(team.offline)
    assert report.exit_code == 7
    assert team.flights.live("staging") == GOOD
    assert team.left() == [(BETTER, ("git", "alias", "record", "deployment"))]
    assert [f.check for f in report.findings if f.outcome is Outcome.FAIL] == ["git", "alias"]
    assert team.quarantined() == []
    done = team.deploy()
    assert done.exit_code == 0, done.findings
    assert [f.check for f in done.findings][:4] == ["git", "alias", "record", "deployment"]
    assert (team.left(), team.quarantined(), team.flights.asked().stages["staging"].version) == ([], [BETTER], GOOD)
    assert team.paper.moves == [GOOD, BETTER, GOOD], "deploy moved nothing"
    assert team.flights.tracking.alias(team.flights.name, "staging") == GOOD
    assert team.deployments == [GOOD, BETTER, GOOD]


@pytest.mark.slow
def test_a_third_version_does_not_make_it_forget_the_rollback(team: Team) -> None:
    """The bytes that were taken away must be refused from then on, although git asks for others by now."""
    team.roll_back(team.offline)
    done = team.deploy(BROKEN)
    assert done.exit_code == 0, done.findings
    assert team.flights.live("staging") == BROKEN
    assert team.quarantined() == [BETTER]
    assert team.flights.asked().stages["staging"].version == BROKEN, "what people promoted meanwhile stands"
    assert team.left() == []
    assert team.flights.records()[2:] == [("staging", GOOD, "rollback"), ("staging", BROKEN, "promotion")]
    assert team.flights.tracking.alias(team.flights.name, "staging") == BROKEN
    again = team.deploy()
    assert (again.exit_code, again.deployed) == (0, None)


@pytest.mark.slow
def test_what_even_the_deploy_of_a_third_version_cannot_tell_stays_to_be_told(team: Team) -> None:
    team.roll_back(team.offline)
    team.flights.promote(staging=BROKEN)
    team.flights.world.faults.fail("POST /api/v3/repos/acme/arrival-delay/git/blobs", 403, times=2)
    done = team.deploy()
    assert done.exit_code == 0, done.findings
    assert [f.severity for f in done.findings if f.check == "git"] == ["warning"]
    assert team.flights.live("staging") == BROKEN
    assert team.left() == [(BETTER, ("git", "record"))], "the alias and the deployment are the third version's"
    assert team.deploy().exit_code == 0
    assert (team.left(), team.quarantined()) == ([], [BETTER])


@pytest.mark.slow
def test_a_rollback_of_a_rollback_tells_git_of_both_in_their_order(team: Team) -> None:
    assert team.deploy(BROKEN).exit_code == 0
    team.roll_back(team.offline)
    team.roll_back(team.offline, to="1")
    assert [version for version, _ in team.left()] == [BROKEN, BETTER]
    done = team.deploy()
    assert done.exit_code == 0, done.findings
    assert (team.left(), team.quarantined()) == ([], [BROKEN, BETTER])
    assert team.flights.asked().stages["staging"].version == GOOD
    assert team.flights.records()[3:] == [("staging", BETTER, "rollback"), ("staging", GOOD, "rollback")]
    assert team.flights.tracking.alias(team.flights.name, "staging") == GOOD


def test_what_git_says_already_is_not_said_twice(team: Team) -> None:
    """Somebody wrote it into git on another machine, or an earlier run did and was killed before it noted that."""
    team.roll_back()
    head = team.flights.world.main()
    place = team.flights.place("staging")
    reversal = team.paper.reversal(place)
    team.paper.note(place, replace(reversal, done=("alias",), commit="", record=""))
    report = team.roll_back()
    assert report.outcome is Outcome.PASS, messages(report)
    assert team.flights.world.main() == head
    assert len(team.flights.records()) == 3
    assert team.deployments == [GOOD, BETTER, GOOD]


@pytest.mark.slow
def test_a_protected_branch_gets_a_pull_request_and_deploy_waits_for_its_merge(team: Team) -> None:
    world = team.flights.world
    protection.protect(world.forge, world.repo, "main", block_pushes=True, enforce_admins=True)
    report = team.roll_back(reason="too slow")
    assert report.outcome is Outcome.PASS, messages(report)
    number = int(report.outputs["pull-request"])
    assert records.read(world.hub())[-1].pull == number
    held = team.deploy()
    assert held.exit_code == 5
    assert "version 2 was rolled back in staging: too slow" in str(held.findings)
    assert team.flights.live("staging") == GOOD
    world.merge("carol", number)
    done = team.deploy()
    assert done.exit_code == 0, done.findings
    assert (team.flights.live("staging"), team.quarantined()) == (GOOD, [BETTER])
    assert team.paper.moves == [GOOD, BETTER, GOOD]
    assert len(records.read(world.hub())) == 3


@pytest.mark.parametrize("down", ["mlflow", "github"])
def test_who_is_down_is_told_when_it_is_back(team: Team, down: str) -> None:
    context: dict[str, Any] = {
        "mlflow": {"tracking_uri": NOBODY},
        "github": {"github": team.offline.github},
    }[down]
    report = team.roll_back(replace(team.flights.ctx, **context))
    assert report.exit_code == 7
    assert team.flights.live("staging") == GOOD
    failed = [f.check for f in report.findings if f.outcome is Outcome.FAIL]
    assert failed == [{"mlflow": "alias", "github": "git"}[down]]
    again = team.roll_back()
    assert again.outcome is Outcome.PASS, messages(again)
    assert "already" in messages(again)
    assert team.paper.moves == [GOOD, BETTER, GOOD]
    assert (team.left(), team.quarantined()) == ([], [BETTER])
    assert len(team.flights.records()) == 3
    assert team.deployments == [GOOD, BETTER, GOOD]
    assert team.flights.tracking.alias(team.flights.name, "staging") == GOOD
