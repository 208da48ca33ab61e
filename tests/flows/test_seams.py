"""What happens between the commands: two of them at once, jobs that end in the wrong order, an old job run again."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci import serve
from mlp_ci.errors import RolloutAborted
from mlp_ci.evaluate.flow import Job
from mlp_ci.register import propose_version
from mlp_ci.report import Outcome, Report
from mlp_ci.serve import artefacts, flow_deploy
from mlp_ci.serve import state as states
from mlp_ci.serve.asked import open_job
from mlp_ci.serve.rollout import steps
from mlp_ci.serve.rollout.driving import Plan, roll_out
from mlp_ci.serve.targets import Release
from mlp_ci.serve.targets.local import local
from mlp_ci.serve.targets.machine import settings_of
from mlp_ci.spec import Quarantined, parse_model, parse_promotion
from mlp_ci.train.key import TrainKey
from tests import promotion
from tests.flows.served import BETTER, GOOD, Scene, messages, scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


NOW = datetime(2013, 4, 1, tzinfo=UTC)


@pytest.fixture
def flights(tmp_path: Path, mlflow_server: str) -> Iterator[Scene]:
    with scene(tmp_path, mlflow_server) as made:
        yield made


class Between:
    """The local target, with something that another command does right after the n-th call of a function."""

    def __init__(self, function: str, number: int, happens: Callable[[], object]) -> None:
        self.function, self.number, self.happens = function, number, happens
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(local, name)
        if name != self.function:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            self.calls += 1
            if self.calls == self.number:
                self.happens()
            return result

        return call


@pytest.mark.slow
@pytest.mark.parametrize(("function", "number"), [("prepare", 1), ("keep", 1), ("measured", 1), ("healthy", 1)])
def test_a_rollback_in_the_middle_of_a_rollout_has_the_last_word(flights: Scene, function: str, number: int) -> None:
    flights.promote(staging=GOOD)
    assert serve.deploy(flights.ctx, None).outcome is Outcome.PASS
    flights.promote(staging=BETTER)
    place, ctx = flights.place("staging"), flights.ctx
    run_id = flights.tracking.version(flights.name, BETTER).run_id
    folder = artefacts.fetch(ctx.serve_home, flights.tracking, run_id, flights.digests[BETTER])
    release = Release(BETTER, flights.digests[BETTER], folder)
    # A deploy that was killed left the version at ten per cent: this is what the rollback ends.
    state = states.read(place)
    assert state
    settings = settings_of(state)
    local.prepare(place, release, settings)
    progress = steps.first(BETTER, release.digest, GOOD, settings.serve.rollout, NOW)
    local.keep(place, progress, None)
    local.shift(place, steps.split(progress))
    local.keep(place, steps.begun(progress, local.measured(place), NOW), progress)
    target: Any = Between(function, number, lambda: serve.rollback(ctx, "staging", to="previous", reason="it is slow"))
    with pytest.raises(RolloutAborted):
        roll_out(target, place, Plan(release=release, settings=settings))
    assert [(a.version, a.weight) for a in local.arms(place)] == [(GOOD, 100)]
    assert flights.tracking.alias(flights.name, "staging") == GOOD
    local.tidy(place)
    after = states.read(place)
    assert after
    assert list(after.servers) == [GOOD]


def test_a_rollback_while_deploy_looks_keeps_its_alias(flights: Scene) -> None:
    for version in (GOOD, BETTER):
        flights.promote(staging=version)
        assert serve.deploy(flights.ctx, None).outcome is Outcome.PASS
    job = open_job(flights.ctx)
    rollback = lambda: serve.rollback(flights.ctx, "staging", to="previous", reason="it is slow")  # noqa: E731
    target: Any = Between("prepare", 1, rollback)
    done = flow_deploy.bring(replace(job, target=target), "staging")
    assert [f.outcome for f in done.findings][-1] is Outcome.SKIP
    assert flights.live("staging") == GOOD
    assert flights.tracking.alias(flights.name, "staging") == GOOD
    after = states.read(flights.place("staging"))
    assert after
    assert list(after.servers) == [GOOD]
    assert serve.deploy(flights.ctx, None).outcome is Outcome.PASS
    assert flights.tracking.alias(flights.name, "staging") == GOOD


@pytest.mark.slow
def test_a_merge_while_deploy_verifies_is_deployed_too(flights: Scene) -> None:
    flights.promote(staging=GOOD)
    job = open_job(flights.ctx)
    target: Any = Between("held", 2, lambda: flights.promote(staging=BETTER))
    done = flow_deploy.bring_all(replace(job, target=target), ["staging"])
    assert done["staging"].exit_code == 0, done["staging"].findings
    assert flights.live("staging") == BETTER
    assert flights.tracking.alias(flights.name, "staging") == BETTER


@pytest.mark.slow
def test_a_rollback_to_what_was_rolled_back_is_not_written_into_git(flights: Scene) -> None:
    """Deploy would refuse the entry: git must never ask for what it quarantines."""
    for version in (GOOD, BETTER):
        flights.promote(staging=version)
        assert serve.deploy(flights.ctx, None).outcome is Outcome.PASS
    assert serve.rollback(flights.ctx, "staging", to="previous", reason="slow").outcome is Outcome.PASS
    head = flights.world.main()
    report = serve.rollback(flights.ctx, "staging", to=str(BETTER), reason="I was wrong")
    assert flights.live("staging") == BETTER, "traffic follows the person"
    assert report.outcome is Outcome.FAIL
    assert "version 2 is quarantined in git" in messages(report)
    assert flights.world.main() == head


# ---------------------------------------------------------------- register


@contextmanager
def _registering(folder: Path, mlflow_server: str) -> Iterator[Callable[[str, int], tuple[Report, promotion.World]]]:
    """A job on the default branch, at a commit, that registered a version and is about to propose it."""
    tracking = promotion.register_versions(mlflow_server)
    with promotion.running_world(folder, tracking_uri=mlflow_server) as world:
        checkout = folder / "clone"
        address = world.server.url.replace("://", "://app:app-token@")
        source = f"{address}/acme/{world.repo.name}.git"
        subprocess.run(["git", "clone", "-q", source, str(checkout)], check=True)

        def propose(commit: str, version: int) -> tuple[Report, promotion.World]:
            subprocess.run(["git", "-C", str(checkout), "fetch", "-q"], check=True)
            subprocess.run(["git", "-C", str(checkout), "checkout", "-q", commit], check=True)
            place = replace(world.place(), ref="refs/heads/main", run_id="1")
            ctx = replace(world.ctx(in_job=True), repo=checkout, github=place)
            fact = tracking.version(promotion.MODEL, version)
            job = Job(
                ctx=ctx,
                spec=parse_model(promotion.MODEL_YAML.encode()),
                key=TrainKey(digest="", parts={}),
                tracking=tracking,
                run=tracking.run(fact.run_id),
            )
            report = Report(command="register", headline="")
            propose_version(job, fact, report)
            return report, world

        yield propose


def test_an_older_job_that_ends_later_leaves_the_newer_proposal_alone(tmp_path: Path, mlflow_server: str) -> None:
    with _registering(tmp_path, mlflow_server) as propose:
        older = subprocess.run(
            ["git", "-C", str(tmp_path / "clone"), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        first, world = propose(older, 1)
        assert first.outputs["pull-request"] == "1"
        newer = world.push("alice", {"train.py": b"print('better')\n"}, "Train better")
        assert propose(newer, 2)[0].outputs["pull-request"] == "1"
        late, _ = propose(older, 1)
        assert "pull-request" not in late.outputs
        assert "whose own job proposes" in messages(late)
        raw = world.hub().read_file("promotion.yaml", "mlp-ci/promote-staging")
        assert raw
        assert parse_promotion(raw).stages["staging"].version == 2

        # What trains nothing, a merged promotion for example, does not make a job's model old.
        world.push("alice", {"README.md": b"# Hello\n"}, "Explain")
        assert propose(newer, 3)[0].outputs["pull-request"] == "1"


def test_a_version_that_was_rolled_back_is_not_proposed_and_fails_nothing(tmp_path: Path, mlflow_server: str) -> None:
    with _registering(tmp_path, mlflow_server) as propose:
        since = datetime(2013, 8, 1, tzinfo=UTC)
        bad = Quarantined(version=2, digest=promotion.DIGESTS[2], reason="slow", since=since)
        text = promotion.promotion((bad,), staging=1)
        report, world = propose("HEAD", 1)
        head = world.push("carol", {"promotion.yaml": text}, "Roll back")
        report, _ = propose(head, 2)
        assert "not proposed: version 2 is quarantined since 2013-08-01: slow" in messages(report)
        assert "takes it out of `quarantine`" in messages(report)
        assert report.findings[-1].outcome is Outcome.SKIP
        assert (report.exit_code, report.outcome) == (None, Outcome.PASS)
        assert world.hub().pulls_of_branch("mlp-ci/promote-staging", "all")[0]["number"] == 1
