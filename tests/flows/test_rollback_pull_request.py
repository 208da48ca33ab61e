"""A rollback that has to be a pull request, because the default branch takes no direct commit, needs no approval."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from mlp_ci.github import PullFact, platform_of
from mlp_ci.promote import approvals, record_rollback, verify_intent
from mlp_ci.report import Outcome
from mlp_ci.sandbox.forge import protection
from mlp_ci.spec import Quarantined
from tests.promotion import DIGESTS, World, entry, promotion, register_versions, running_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlp_ci.report import Report
    from mlp_ci.tracking import Tracking


@pytest.fixture
def tracking(mlflow_server: str) -> Tracking:
    return register_versions(mlflow_server)


@pytest.fixture
def world(tmp_path: Path, tracking: Tracking) -> Iterator[World]:
    """Version 1 was in production, now version 2 is, in staging as well."""
    with running_world(tmp_path, tracking_uri=tracking.uri) as running:
        stages: dict[str, int] = {}
        for stage, version in [("staging", 1), ("production", 1), ("staging", 2), ("production", 2)]:
            stages[stage] = version
            number = running.open("alice", {"promotion.yaml": promotion(**stages)}, f"to-{stage}-{version}")
            running.review("bob", number)
            running.merge("alice", number)
        yield running


HELD = Quarantined(version=2, digest=DIGESTS[2], reason="late", since=datetime(2013, 8, 1, tzinfo=UTC))


def judge(world: World, number: int) -> tuple[Report, set[str]]:
    event = {"pull_request": {"number": number}, "number": number}
    report = approvals(world.ctx(in_job=True, event=event), pr=None, commit=None)
    return report, {f.check for f in report.findings if f.outcome is Outcome.FAIL}


def test_it_is_green_at_once_and_deployed_after_the_merge(world: World, tracking: Tracking) -> None:
    protection.protect(world.forge, world.repo, "main", block_pushes=True, enforce_admins=True)
    fact = record_rollback(world.ctx(), world.hub(), "production", entry(1), HELD)
    assert isinstance(fact, PullFact)
    report, failed = judge(world, fact.number)
    assert not failed, report.headline
    assert report.outputs["approved"] == "true"
    assert "merged" not in report.data  # a person merges it
    world.merge("alice", fact.number)
    found = verify_intent(world.ctx(), world.hub(), tracking, platform_of(world.ctx()), "production")
    assert found.allowed
    assert found.entry == entry(1)
    assert judge(world, fact.number)[1] == set()


def test_what_only_looks_like_one_is_red(world: World) -> None:
    for number, (files, rule) in enumerate(
        [
            ({"promotion.yaml": promotion((HELD,), staging=2, production=3)}, "rollback"),  # never was there
            ({"promotion.yaml": promotion((HELD,), staging=2, production=1), "train.py": b"print(9)\n"}, "one-file"),
            ({"promotion.yaml": promotion(staging=2, production=1)}, "approvals"),  # quarantines nothing
            ({"promotion.yaml": promotion((HELD,), staging=1, production=1)}, "one-entry"),
        ]
    ):
        pull = world.open("alice", files, f"like-{number}")
        report, failed = judge(world, pull)
        assert report.outputs["approved"] == "false", rule
        assert rule in failed, rule
