"""The promotion policy: soak, freezes, emergencies, a policy that changes meanwhile, and what promotions rely on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlp_ci.promote.case import Case, Stay
from mlp_ci.promote.policy import decide, decide_guarded, strictest
from mlp_ci.report import Outcome
from tests.deciding import (
    D3,
    NOW,
    OLD,
    broken,
    case,
    commit,
    entry,
    fix,
    held,
    history,
    message,
    own,
    platform,
    promotion,
    pull,
    registered,
    review,
)

SOAKED = platform(stages=[{"name": "staging", "soak": "24h"}, {"name": "production"}])


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


# ---------------------------------------------------------------- soak


def test_a_version_that_never_was_in_the_stage_before() -> None:
    verdict = decide(case(platform=SOAKED))
    assert broken(verdict) == {"soak"}
    assert message(verdict, "soak") == "it has to be in staging for 1d, and no deployment of it there is on record"
    assert fix(verdict, "soak") == "let the deploy workflow bring version 4 to staging first"


def test_a_soak_that_is_running_says_when_it_is_over() -> None:
    verdict = decide(case(platform=SOAKED, stay=Stay(longest=hours(5), since=NOW - hours(5))))
    assert broken(verdict) == {"soak"}
    assert verdict.waiting
    assert message(verdict, "soak") == "it has to be in staging for 1d; it is there since 2026-11-18 07:00 UTC"
    assert fix(verdict, "soak") == "wait until 2026-11-19 07:00 UTC; this is judged again by itself"


def test_a_soak_is_over_on_the_second() -> None:
    assert decide(case(platform=SOAKED, stay=Stay(longest=hours(24), since=NOW - hours(24)))).allowed
    short = hours(24) - timedelta(seconds=1)
    assert not decide(case(platform=SOAKED, stay=Stay(longest=short, since=NOW - short))).allowed


def test_an_interrupted_soak_begins_again() -> None:
    """20 hours, then something else, then 10 hours: no stay was long enough."""
    verdict = decide(case(platform=SOAKED, stay=Stay(longest=hours(20), since=NOW - hours(10))))
    assert broken(verdict) == {"soak"}
    assert fix(verdict, "soak").startswith("wait until 2026-11-19 02:00 UTC")


def test_a_soak_that_was_over_before_the_stage_got_something_else_counts() -> None:
    assert decide(case(platform=SOAKED, stay=Stay(longest=hours(30), since=None))).allowed


def test_a_model_may_ask_for_a_longer_soak_never_for_a_shorter() -> None:
    day = Stay(longest=hours(30), since=NOW - hours(30))
    assert broken(decide(case(platform=SOAKED, own=own(soak={"staging": "48h"}), stay=day))) == {"soak"}
    verdict = decide(case(platform=SOAKED, own=own(soak={"staging": "1h"}), stay=Stay(longest=hours(2))))
    assert broken(verdict) == {"soak"}
    assert message(verdict, "stricter") == "model.yaml asks for a shorter soak in staging than the platform"


def test_the_first_stage_and_an_empty_one_have_nothing_to_wait_for() -> None:
    first = case(platform=SOAKED, stage="staging", before=promotion(), after=promotion(staging=entry()))
    assert decide(first).allowed
    assert decide(case(platform=SOAKED, after=promotion(staging=entry()))).allowed


# ---------------------------------------------------------------- freezes

YEAR_END = {"reason": "Year end", "from": "2026-12-20T00:00:00Z", "until": "2027-01-02T00:00:00Z"}
WEEKENDS = {"reason": "Weekends", "cron": "0 16 * * 5", "for": "62h", "zone": "Europe/Berlin"}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("freeze", "moment", "frozen"),
    [
        (YEAR_END, "2026-12-19T23:59:59+00:00", False),
        (YEAR_END, "2026-12-20T00:00:00+00:00", True),
        (YEAR_END, "2027-01-01T23:59:59+00:00", True),
        (YEAR_END, "2027-01-02T00:00:00+00:00", False),
        (WEEKENDS, "2026-11-20T15:59:59+01:00", False),
        (WEEKENDS, "2026-11-20T16:00:00+01:00", True),
        (WEEKENDS, "2026-11-23T05:59:59+01:00", True),
        (WEEKENDS, "2026-11-23T06:00:00+01:00", False),
        # The clocks go forward in the night to Sunday: 62 hours are 62 hours, and end at 7.
        (WEEKENDS, "2026-03-30T06:59:59+02:00", True),
        (WEEKENDS, "2026-03-30T07:00:00+02:00", False),
        # And back: they end at 5. What begins at 16:00 begins at 16:00 in summer and in winter.
        (WEEKENDS, "2026-10-23T15:59:59+02:00", False),
        (WEEKENDS, "2026-10-23T16:00:00+02:00", True),
        (WEEKENDS, "2026-10-26T04:59:59+01:00", True),
        (WEEKENDS, "2026-10-26T05:00:00+01:00", False),
    ],
)
def test_when_a_freeze_holds(freeze: dict[str, Any], moment: str, *, frozen: bool) -> None:
    verdict = decide(case(platform=platform(freezes=[freeze]), at=at(moment)))
    assert broken(verdict) == ({"freeze"} if frozen else set())
    assert verdict.waiting is frozen


def test_a_freeze_says_until_when_and_why() -> None:
    frozen = platform(freezes=[WEEKENDS, {**YEAR_END, "from": "2026-11-20T00:00:00Z"}])
    verdict = decide(case(platform=frozen, at=at("2026-11-21T12:00:00+00:00")))
    assert message(verdict, "freeze") == "production is frozen until 2027-01-02 00:00 UTC: Year end"
    assert fix(verdict, "freeze") == "wait; this is judged again by itself, or see `mlp-ci promote --emergency`"


def test_a_freeze_closes_the_stages_that_it_names() -> None:
    moment = at("2026-12-24T18:00:00+00:00")
    assert decide(case(platform=platform(freezes=[{**YEAR_END, "stages": ["staging"]}]), at=moment)).allowed
    assert not decide(case(platform=platform(freezes=[{**YEAR_END, "stages": ["production"]}]), at=moment)).allowed


def test_a_model_may_have_freezes_of_its_own() -> None:
    moment = at("2026-12-24T18:00:00+00:00")
    assert broken(decide(case(own=own(freezes=[YEAR_END]), at=moment))) == {"freeze"}


def test_a_freeze_closes_a_stage_for_removals_too() -> None:
    removal = case(after=promotion(staging=entry()), at=at("2026-12-24T18:00:00+00:00"))
    assert broken(decide(replace(removal, platform=platform(freezes=[YEAR_END])))) == {"freeze"}


# ---------------------------------------------------------------- emergencies

ON_CALL = platform(
    stages=[{"name": "staging", "soak": "24h"}, {"name": "production"}],
    emergency={"team": "on-call"},
    freezes=[YEAR_END],
)
WHY = "customers are down"


def emergency(**changes: Any) -> Case:
    """Alice of the on-call team asks at Christmas for a version that staging has not; nobody approved it."""
    plain = case(
        platform=ON_CALL,
        tier="critical",
        reviews=(),
        before=promotion(production=entry(3, D3)),
        after=promotion(production=entry(emergency=WHY)),
        teams={"on-call": frozenset({"Alice"})},
        at=at("2026-12-24T18:00:00+00:00"),
    )
    return replace(plain, **changes)


def test_a_member_may_do_without_approvals_order_soak_and_freezes() -> None:
    verdict = decide(emergency())
    assert verdict.allowed
    assert (verdict.kind, verdict.needed, verdict.machine) == ("emergency", 0, False)
    assert message(verdict, "emergency") == "alice of the team on-call asked for it as an emergency"
    skipped = {r.check for r in verdict.reasons if r.outcome is Outcome.SKIP}
    assert skipped == {"approvals", "stage-order", "freeze"}
    assert message(verdict, "approvals") == f"waived in an emergency: {WHY}"
    assert message(verdict, "freeze") == (
        f"production is frozen until 2027-01-02 00:00 UTC: Year end; waived in an emergency: {WHY}"
    )


def test_without_a_named_team_there_is_no_emergency() -> None:
    nobody = platform(freezes=[YEAR_END])
    verdict = decide(emergency(platform=nobody))
    assert broken(verdict) == {"emergency"}
    assert message(verdict, "emergency") == "the platform names nobody who may promote in an emergency"


def test_somebody_else_may_not_even_with_all_approvals() -> None:
    others = {"on-call": frozenset({"frank"})}
    two = (review("bob"), review("carol", at=2))
    verdict = decide(emergency(teams=others, reviews=two))
    assert broken(verdict) == {"emergency"}
    assert message(verdict, "emergency") == "only the team on-call may promote in an emergency"
    assert fix(verdict, "emergency") == "ask somebody of the team on-call to approve it"
    assert broken(decide(emergency(teams={}))) == {"emergency"}


def test_an_approval_by_a_member_is_enough_whoever_asked() -> None:
    others = {"on-call": frozenset({"BOB"})}
    verdict = decide(emergency(teams=others, reviews=(review("bob"),)))
    assert verdict.allowed
    assert message(verdict, "emergency") == "bob of the team on-call approved it as an emergency"
    assert not decide(emergency(teams=others, reviews=(review("bob", sha=OLD),))).allowed
    assert not decide(emergency(teams={"on-call": frozenset({"dave"})}, reviews=(review("dave"),))).allowed


@pytest.mark.parametrize(
    "changes",
    [
        {"history": history(pushers=("alice", "mallory"))},
        {"history": history(pushers=("alice", "github-actions[bot]"))},
        {"history": history(co_authors={OLD: (), "a" * 40: ("mallory",)})},
        {"pull": pull(commits=(commit(), commit("mallory")))},
        {"pull": pull(author="mallory")},
        {"pull": pull(author="robot[bot]", author_bot=True)},
        {"pull": pull(author="robot[bot]", author_bot=True, commits=(commit("robot[bot]"),))},
    ],
)
def test_a_members_pull_request_with_somebody_elses_hand_in_it_needs_a_members_approval(
    changes: dict[str, Any],
) -> None:
    assert broken(decide(emergency(**changes))) == {"emergency"}
    more = emergency(**changes, teams={"on-call": frozenset({"alice", "bob"})}, reviews=(review("bob"),))
    assert decide(more).allowed


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"registered": registered(exists=False)}, "version"),
        ({"registered": registered(gate="fail")}, "gate"),
        ({"registered": registered(digest=D3)}, "digest"),
        ({"registered": registered(evidence_found="")}, "evidence"),
        ({"registered": registered(data=False)}, "lineage"),
        ({"lifted": "the lift was not allowed"}, "quarantine-lift"),
        ({"reviews": (review("carol", "CHANGES_REQUESTED"),)}, "changes-requested"),
        ({"history": history(push_known=False)}, "pushers"),
        ({"pull": pull(files=("promotion.yaml", "train.py"))}, "one-file"),
        ({"pull": pull(draft=True)}, "state"),
        (
            {
                "before": promotion(quarantine=(held(),)),
                "after": promotion(quarantine=(held(),), production=entry(emergency=WHY)),
            },
            "quarantine",
        ),
    ],
)
def test_what_stays_required_in_an_emergency(changes: dict[str, Any], check: str) -> None:
    assert broken(decide(emergency(**changes))) == {check}


# ---------------------------------------------------------------- a policy that changed meanwhile


def by_both(older: dict[str, Any], newer: dict[str, Any]) -> Any:
    verdicts = [replace(decide(case(**basis)), policy=name) for basis, name in ((older, "then"), (newer, "now"))]
    return strictest(verdicts)


def test_one_policy_says_nothing_about_another() -> None:
    assert not any(r.check == "policy" for r in strictest([decide(case())]).reasons)


def test_a_rule_that_was_loosened_meanwhile_does_not_help() -> None:
    strict = {"platform": platform(models={"flight-delay": {"tier": "critical"}})}
    verdict = by_both(strict, {})
    assert broken(verdict) == {"approvals"}
    assert message(verdict, "policy") == (
        "the policy changed while this was open; both have to allow it, and by then it is not allowed"
    )


def test_a_rule_that_was_tightened_meanwhile_counts() -> None:
    verdict = by_both({}, {"own": own(cannot_approve=["bob"])})
    assert broken(verdict) == {"approvals"}
    assert "by now it is not allowed" in message(verdict, "policy")


def test_what_waiting_does_not_mend_is_said_first() -> None:
    waits, broken_for_good = {"tier": "critical"}, {"registered": registered(gate="fail"), "tier": "low"}
    for pair in ((waits, broken_for_good), (broken_for_good, waits)):
        verdict = by_both(*pair)
        assert not verdict.waiting
        assert "gate" in broken(verdict)


def test_both_policies_allow_it() -> None:
    verdict = by_both({"tier": "low"}, {"tier": "standard"})
    assert verdict.allowed
    assert verdict.needed == 1
    assert message(verdict, "policy").endswith("by now it is allowed too")


def test_the_machine_merges_only_by_both() -> None:
    assert not by_both({"tier": "standard"}, {"tier": "low"}).machine
    assert not by_both({"tier": "low"}, {"tier": "standard"}).machine
    assert by_both({"tier": "low"}, {"tier": "low"}).machine


# ---------------------------------------------------------------- what promotions rely on

PLATFORM_TEAM = platform(platform_team="platform", cannot_approve=["frank"])


def guarded(**changes: Any) -> Case:
    plain = case(
        platform=PLATFORM_TEAM,
        pull=pull(files=(".github/workflows/deploy.yml", "train.py")),
        guarded=(".github/workflows/deploy.yml",),
        teams={"platform": frozenset({"bob", "alice", "frank"})},
        after=case().before,
        registered=registered(exists=False),
    )
    return replace(plain, **changes)


def test_the_platform_team_approves_what_promotions_rely_on() -> None:
    verdict = decide_guarded(guarded())
    assert verdict.allowed
    assert (verdict.needed, verdict.approvers) == (1, ("bob",))
    assert message(verdict, "guarded-files") == "it changes .github/workflows/deploy.yml"
    assert message(verdict, "team:platform") == "bob approved for the team platform"


@pytest.mark.parametrize(
    ("changes", "checks"),
    [
        ({"reviews": ()}, {"approvals", "team:platform"}),
        ({"reviews": (review("alice"),)}, {"approvals", "team:platform"}),
        ({"reviews": (review("carol"),)}, {"team:platform"}),
        ({"reviews": (review("bob", sha=OLD),)}, {"approvals", "team:platform"}),
        ({"reviews": (review("frank"),), "permissions": {"frank": "admin"}}, {"approvals", "team:platform"}),
        ({"reviews": (review("bob"), review("carol", "CHANGES_REQUESTED"))}, {"changes-requested"}),
        ({"history": history(push_known=False)}, {"pushers"}),
        ({"history": history(pushers=("bob",))}, {"approvals", "team:platform"}),
        ({"pull": pull(draft=True)}, {"state"}),
        ({"pull": pull(complete=False)}, {"whole"}),
        ({"pull": pull(commits=(commit(""),))}, {"commit-authors"}),
        ({"teams": {}}, {"team:platform"}),
    ],
)
def test_what_the_platform_team_may_not_skip(changes: dict[str, Any], checks: set[str]) -> None:
    assert broken(decide_guarded(guarded(**changes))) == checks


def test_without_a_platform_team_it_is_said_that_nobody_has_to_approve() -> None:
    verdict = decide_guarded(guarded(platform=platform(), reviews=()))
    assert verdict.allowed
    assert message(verdict, "guarded-files") == (
        "it changes .github/workflows/deploy.yml, and platform.yaml names no platform_team that would have to "
        "approve that"
    )
