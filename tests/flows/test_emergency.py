"""A roll-forward in an emergency, and changes of what promotions rely on: on a real forge, with a real registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlp_ci.errors import NotApproved
from mlp_ci.github import platform_of
from mlp_ci.promote import Verdict, approvals, promote, verify_intent
from mlp_ci.promote.emergencies import ask_for_review, review_afterwards
from mlp_ci.promote.gather import Gatherer
from mlp_ci.promote.history import History, of_stage
from mlp_ci.report import Outcome
from mlp_ci.sandbox.forge import repositories, seed
from tests.promotion import MODEL, PLATFORM_YAML, World, promotion, register_versions, running_world, world_seed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlp_ci.report import Finding
    from mlp_ci.tracking import Tracking

POLICY = """\
platform_team: platform
emergency: {team: platform}
freezes: [{reason: Always, cron: "* * * * *", for: 2d, stages: [production]}]
"""


@pytest.fixture
def tracking(mlflow_server: str) -> Tracking:
    return register_versions(mlflow_server)


@pytest.fixture
def world(tmp_path: Path, tracking: Tracking) -> Iterator[World]:
    with running_world(tmp_path, world_seed(stages=promotion(staging=1).decode()), tracking.uri) as running:
        home = seed.repo_of(running.forge, "acme/.github")
        text = (PLATFORM_YAML + POLICY).encode()
        repositories.commit_files(running.forge, home, running.actor("carol"), {"platform.yaml": text}, "Policy")
        yield running


def verdict(world: World, tracking: Tracking) -> Verdict:
    ctx = world.ctx()
    return verify_intent(ctx, world.hub(), tracking, platform_of(ctx), "production")


def failed(found: Verdict) -> set[str]:
    return {r.check for r in found.reasons if r.outcome is Outcome.FAIL}


def later(world: World, tracking: Tracking) -> Finding | None:
    hub = world.hub()
    change = History(hub, MODEL).last_change(of_stage("production"), hub.head("main"))
    assert change is not None
    return review_afterwards(Gatherer(world.ctx(), hub, MODEL, lambda: tracking), "production", change)


def test_the_named_team_rolls_forward_and_is_asked_for_a_review(world: World, tracking: Tracking) -> None:
    report = promote(world.ctx("carol"), "production", 2, emergency="prices are wrong")
    number = int(report.outputs["pull-request"])
    pull = world.hub().pull(number)
    assert pull.title == f"EMERGENCY: promote {MODEL} 2 to production"
    assert "prices are wrong" in pull.body
    judged = approvals(world.ctx(in_job=True, event={"number": number}), pr=None, commit=None)
    assert judged.outputs["approved"] == "true"
    said = {f.check: f.message for f in judged.findings}
    assert said["emergency"] == "carol of the team platform asked for it as an emergency"
    assert "waived in an emergency: prices are wrong" in said["freeze"]
    world.merge("carol", number)

    found = verdict(world, tracking)
    assert (found.allowed, found.kind, found.author) == (True, "emergency", "carol"), failed(found)
    first, second = ask_for_review(world.hub(), MODEL, found), ask_for_review(world.hub(), MODEL, found)
    assert first == second
    issue = world.hub().wire.get(f"/repos/acme/{MODEL}/issues/{first}", "read")
    assert (issue["title"], [label["name"] for label in issue["labels"]]) == (
        f"Review the emergency promotion of {MODEL} 2 to production",
        ["emergency-review"],
    )
    waits = later(world, tracking)
    assert waits is not None
    assert waits.outcome is Outcome.FAIL
    assert "still waits for its review: 1 of 1 approval missing" in waits.message
    world.review("bob", number)
    done = later(world, tracking)
    assert done is not None
    assert (done.outcome, "reviewed afterwards by bob" in done.message) == (Outcome.PASS, True)


def test_who_is_not_of_the_team_needs_one_of_it(world: World, tracking: Tracking) -> None:
    number = int(promote(world.ctx("alice"), "production", 2, emergency="now").outputs["pull-request"])
    world.review("bob", number)
    judged = approvals(world.ctx(), pr=number, commit=None)
    assert {f.check for f in judged.findings if f.outcome is Outcome.FAIL} == {"emergency"}
    world.review("carol", number)
    assert approvals(world.ctx(), pr=number, commit=None).outcome is Outcome.PASS
    world.merge("alice", number)
    assert verdict(world, tracking).allowed


def test_an_emergency_is_no_way_around_the_gate_and_needs_a_policy_that_knows_it(world: World) -> None:
    number = world.open("carol", {"promotion.yaml": promotion(staging=1, production=4) + b"# x\n"}, "gate")
    judged = approvals(world.ctx(), pr=number, commit=None)
    assert "gate" in {f.check for f in judged.findings if f.outcome is Outcome.FAIL}
    home = seed.repo_of(world.forge, "acme/.github")
    files = {"platform.yaml": PLATFORM_YAML.encode()}
    repositories.commit_files(world.forge, home, world.actor("carol"), files, "No more emergencies")
    with pytest.raises(NotApproved, match="names nobody who may promote in an emergency"):
        promote(world.ctx("carol"), "production", 2, emergency="now")


def test_a_freeze_keeps_an_approved_promotion_waiting(world: World, tracking: Tracking) -> None:
    number = world.open("alice", {"promotion.yaml": promotion(staging=1, production=1)}, "topic")
    world.review("bob", number)
    report = approvals(world.ctx(in_job=True, event={"number": number}), pr=None, commit=None)
    [frozen] = [f for f in report.findings if f.outcome is Outcome.FAIL]
    assert (frozen.check, frozen.severity) == ("freeze", "notice")
    assert frozen.message.endswith("UTC: Always")
    world.merge("alice", number)
    assert "freeze" in failed(verdict(world, tracking))


@pytest.mark.parametrize(
    "files",
    [
        {".github/workflows/deploy.yml": b"on: push\n"},
        {"CODEOWNERS": b"* @acme/platform\n"},
        {"model.yaml": b""},
    ],
)
def test_what_promotions_rely_on_needs_the_platform_team(world: World, files: dict[str, bytes]) -> None:
    if "model.yaml" in files:
        text = world.hub().read_file("model.yaml", "main") or b""
        files = {"model.yaml": text.replace(b"tier: standard", b"tier: low")}
    number = world.open("alice", files, "change")

    def judged() -> set[str]:
        report = approvals(world.ctx(in_job=True, event={"number": number}), pr=None, commit=None)
        return {f.check for f in report.findings if f.outcome is Outcome.FAIL}

    assert judged() == {"approvals", "team:platform"}
    world.review("bob", number)
    assert judged() == {"team:platform"}
    world.review("carol", number)
    assert judged() == set()
    [comment] = world.hub().wire.pages(f"/repos/acme/{MODEL}/issues/{number}/comments", "read")
    assert "guarded files: approved" in comment["body"]


def test_the_policy_itself_needs_the_platform_team(world: World) -> None:
    home = seed.repo_of(world.forge, "acme/.github")
    hub = world.hub("carol").of(".github")
    hub.trees.point("laxer", hub.head("main"), force=False)
    files = {"platform.yaml": PLATFORM_YAML.encode()}
    repositories.commit_files(world.forge, home, world.actor("carol"), files, "Drop the freeze", "laxer")
    request = {"title": "Drop the freeze", "head": "laxer", "base": "main"}
    number = hub.wire.send("POST", "/repos/acme/.github/pulls", "open", request)["number"]
    ctx = world.ctx("carol")
    place = world.place("carol", repo=".github")
    report = approvals(ctx.__class__(**{**vars(ctx), "github": place}), pr=number, commit=None)
    assert {f.check for f in report.findings if f.outcome is Outcome.FAIL} == {"approvals", "team:platform"}


def test_a_schedule_judges_all_that_are_open(world: World) -> None:
    one = world.open("alice", {"promotion.yaml": promotion(staging=2)}, "one")
    world.open("alice", {"notes.md": b"hi\n"}, "two")
    ctx = world.ctx(in_job=True)
    report = approvals(ctx, pr=None, commit=None, everything=True)
    assert report.headline == "1 open promotions judged, 1 approved"
    head = world.hub().pull(one).head_sha
    [status] = world.hub().wire.pages(f"/repos/acme/{MODEL}/commits/{head}/statuses", "read")
    assert (status["context"], status["state"]) == ("mlp-ci/approvals", "success")
