"""What platform.yaml and model.yaml may say about approvals, teams, soak, freezes and emergencies."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from pydantic import TypeAdapter, ValidationError

from mlp_ci.errors import SpecError
from mlp_ci.spec import Freeze, Need, PlatformSpec, Promote, parse_platform, parse_promotion
from mlp_ci.spec.approval import Approvals, Login, Team

DIGEST = "sha256:" + "4" * 64


def problem(kind: Any, value: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return str(caught.value.errors()[0]["msg"])


def test_a_number_of_approvals_is_short_for_people_of_any_team() -> None:
    assert TypeAdapter(Approvals).validate_python(2) == Need(count=2)
    assert TypeAdapter(Approvals).validate_python({"count": 1, "teams": ["risk"]}) == Need(count=1, teams=("risk",))


NUMBER = "Value error, approvals are a number of people, or {count: 2, teams: [risk]}"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-1, "Input should be greater than or equal to 0"),
        (11, "Input should be less than or equal to 10"),
        (True, NUMBER),
        ("2", NUMBER),
        (1.5, NUMBER),
        (None, NUMBER),
        ({}, "Field required"),
        ({"teams": ["risk"]}, "Field required"),
        ({"count": 1, "team": "risk"}, "Extra inputs are not permitted"),
        ({"count": True}, "Input should be a valid integer"),
        ({"count": "2"}, "Input should be a valid integer"),
    ],
)
def test_what_is_no_number_of_approvals(value: Any, said: str) -> None:
    assert problem(Approvals, value) == said


def cure(line: str) -> str:
    """What a person is told to do about a line of platform.yaml."""
    with pytest.raises(SpecError) as refused:
        parse_platform(f"apiVersion: mlp-ci/v1\n{line}\n".encode())
    return refused.value.problems[0].fix


def test_a_team_without_people_is_a_contradiction() -> None:
    said = problem(Approvals, {"count": 0, "teams": ["risk"]})
    assert said == "Value error, an approval from a team is an approval: count must be at least 1"


@pytest.mark.parametrize("login", ["alice", "Alice-B", "a", "dependabot[bot]", "alice_acme"])
def test_logins(login: str) -> None:
    assert TypeAdapter(Login).validate_python(login) == login


@pytest.mark.parametrize("login", ["", "@alice", "аlice", "al ice", "alice\n", "-alice", "alice[Bot]", "ſam", "a/b"])
def test_a_login_is_ascii_and_looks_like_nobody_else(login: str) -> None:
    assert problem(Login, login).startswith("String should match pattern")
    fix = "a login as GitHub shows it: letters, digits and hyphens, without @"
    assert cure(f"cannot_approve: [{json.dumps(login)}]") == fix


@pytest.mark.parametrize("team", ["Risk", "@acme/risk", "acme/risk", "", "рisk", "risk team"])
def test_a_team_is_named_by_its_slug(team: str) -> None:
    assert problem(Team, team).startswith("String should match pattern")
    fix = "the team's slug as in its address: `risk`, without @ and the organisation"
    assert cure(f"platform_team: {json.dumps(team)}") == fix


# ---------------------------------------------------------------- freezes


def freeze(**keys: Any) -> dict[str, Any]:
    return {"reason": "Year end", **keys}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "a freeze has either from and until, or cron and for"),
        ({"from": "2026-12-20T00:00:00Z"}, "a freeze has either from and until, or cron and for"),
        ({"cron": "0 16 * * 5"}, "a freeze has either from and until, or cron and for"),
        (
            {"from": "2026-12-20T00:00:00Z", "until": "2026-12-21T00:00:00Z", "cron": "0 16 * * 5", "for": "1h"},
            "a freeze has either from and until, or cron and for",
        ),
        (
            {"from": "2026-12-20T00:00:00Z", "until": "2026-12-21T00:00:00Z", "for": "1h"},
            "a freeze has either from and until, or cron and for",
        ),
        ({"from": "2026-12-21T00:00:00Z", "until": "2026-12-21T00:00:00Z"}, "from is not before until"),
        ({"cron": "0 16 * * 5", "for": "400d"}, "a freeze that comes again lasts at most a year"),
        ({"cron": "0 16 * * 5", "for": "1h", "zone": "Berlin"}, "a time zone is a name such as UTC or Europe/Berlin"),
        ({"cron": "0 16 * * 5", "for": "1h", "zone": "../UTC"}, "a time zone is a name such as UTC or Europe/Berlin"),
    ],
)
def test_a_freeze_that_says_too_much_or_too_little(keys: dict[str, Any], said: str) -> None:
    assert problem(Freeze, freeze(**keys)) == f"Value error, {said}"


@pytest.mark.parametrize("cron", ["", "16 5", "0 24 * * *", "0 16 30 2 *", "@weekly", "* * * * * * *", "x"])
def test_a_cron_expression_has_five_fields_that_exist(cron: str) -> None:
    said = problem(Freeze, freeze(cron=cron, **{"for": "1h"}))
    assert said.startswith("Value error, a cron expression has five fields, such as `0 16 * * 5` (Fridays at 16:00)")


def test_a_time_without_its_offset_is_refused() -> None:
    naive = freeze(**{"from": "2026-12-20T00:00:00", "until": "2026-12-21T00:00:00"})
    assert problem(Freeze, naive) == "Input should have timezone info"


def test_a_freeze_needs_a_reason() -> None:
    said = problem(Freeze, {"reason": "", "cron": "0 16 * * 5", "for": "1h"})
    assert said == "String should have at least 1 character"


def weekly(cron: str, lasts: str, zone: str = "Europe/Berlin") -> Freeze:
    return Freeze.model_validate({"reason": "x", "cron": cron, "for": lasts, "zone": zone})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def test_a_freeze_holds_at_every_second_of_its_minutes() -> None:
    """Where the next minute begins another one, the present one still holds."""
    short = weekly("0,1 16 * * 5", "30s", "UTC")
    assert short.end(utc("2026-11-20T16:00:10+00:00")) == utc("2026-11-20T16:00:30+00:00")
    assert short.end(utc("2026-11-20T16:00:30+00:00")) is None
    assert short.end(utc("2026-11-20T16:01:29.9+00:00")) == utc("2026-11-20T16:01:30+00:00")
    always = weekly("* * * * *", "1m", "UTC")
    assert all(always.end(utc(f"2026-11-20T16:00:{s:02}.5+00:00")) for s in range(60))


def test_in_the_hour_that_comes_twice_a_freeze_holds_from_its_first_round() -> None:
    """02:30 comes twice in the night of 25 October; the freeze begins at the first and lasts its hour."""
    night = weekly("30 2 * * *", "1h")
    assert night.end(utc("2026-10-25T02:29:59+02:00")) is None
    for minute in range(60):
        assert night.end(utc("2026-10-25T02:30:00+02:00") + timedelta(minutes=minute)) == utc(
            "2026-10-25T02:30:00+01:00"
        )
    assert night.end(utc("2026-10-25T02:30:00+01:00")) is None


def test_in_the_hour_that_does_not_come_a_freeze_begins_after_it() -> None:
    night = weekly("30 2 * * *", "1h")
    assert night.end(utc("2026-03-29T01:59:59+01:00")) is None
    assert night.end(utc("2026-03-29T03:00:00+02:00")) == utc("2026-03-29T04:00:00+02:00")


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 */6 * * *", "15 1,2,3 * * 0", "0 0 * * *", "*/30 * * * *"])
@pytest.mark.parametrize("day", ["2026-03-28", "2026-10-24"])
def test_a_freeze_holds_after_each_start_that_cron_has_and_at_no_other_time(cron: str, day: str) -> None:
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    last = begin.astimezone(UTC) + timedelta(days=3)
    lasts = timedelta(minutes=20)
    starts = [s.astimezone(UTC) for s in takewhile(lambda s: s.astimezone(UTC) < last, CronSim(cron, begin))]
    recurring = weekly(cron, "20m")
    for minute in range(30, 3 * 24 * 60, 11):
        at = begin.astimezone(UTC) + timedelta(minutes=minute)
        expected = any(s <= at < s + lasts for s in starts)
        assert (recurring.end(at) is not None) == expected, at


# ---------------------------------------------------------------- whole files

PLATFORM = """\
apiVersion: mlp-ci/v1
platform_team: platform
cannot_approve: [intern, "release-robot[bot]"]
stages: [{name: staging, soak: 24h}, {name: production}]
tiers:
  standard: {approvals: {staging: 0, production: 1}}
  critical: {approvals: {staging: 1, production: {count: 2, teams: [risk]}}}
freezes:
  - {reason: Year end, from: 2026-12-20T00:00:00Z, until: 2027-01-02T00:00:00Z, stages: [production]}
  - {reason: Weekends, cron: "0 16 * * 5", for: 62h, zone: Europe/Berlin}
emergency: {team: on-call}
models: {credit-risk: {tier: critical}}
"""


def test_a_whole_policy_is_read_as_it_is_written() -> None:
    spec = parse_platform(PLATFORM.encode())
    assert spec.tiers["critical"].approvals["production"] == Need(count=2, teams=("risk",))
    assert spec.stages[0].soak == timedelta(hours=24)
    assert spec.models["credit-risk"].tier == "critical"
    assert spec.emergency is not None
    assert (spec.emergency.team, spec.platform_team) == ("on-call", "platform")
    assert spec.freezes[0].end(utc("2026-12-24T18:00:00+00:00")) == utc("2027-01-02T00:00:00+00:00")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "stages: [production]}",
            "stages: [produktion]}",
            "a freeze names produktion; the stages are staging, production",
        ),
        ("{tier: critical}}", "{tier: gold}}", "low"),
        (
            "{staging: 0, production: 1}",
            "{production: 1}",
            "tier standard does not say how many approvals staging needs",
        ),
        ("emergency: {team: on-call}", "emergency: {team: '@acme/on-call'}", "team"),
        ("{count: 2, teams: [risk]}", "{count: 2, team: risk}", "team"),
        ("cannot_approve: [intern,", "cannot_approve: ['@intern',", "cannot_approve"),
        ("platform_team: platform", "platform_teams: platform", "platform_team"),
    ],
)
def test_a_slip_in_the_policy_is_an_error_that_names_it(old: str, new: str, said: str) -> None:
    assert old in PLATFORM
    with pytest.raises(SpecError) as caught:
        parse_platform(PLATFORM.replace(old, new).encode())
    shown = " ".join(f"{p.what} {p.fix} {getattr(p, 'key', '')}" for p in caught.value.problems)
    assert said in shown


def test_only_tier_low_may_be_merged_by_a_machine() -> None:
    tiers = {"standard": {"approvals": {"staging": 0, "production": 1}, "merge": "machine"}}
    assert "only low can" in problem(PlatformSpec, {"apiVersion": "mlp-ci/v1", "tiers": tiers})


def test_what_a_model_asks_for_beyond_the_platform() -> None:
    asked = Promote.model_validate(
        {
            "approvals": {"production": {"count": 2, "teams": ["risk"]}},
            "cannot_approve": ["intern"],
            "soak": {"staging": "48h"},
            "freezes": [{"reason": "Closing", "cron": "0 6 1 * *", "for": "1d"}],
        }
    )
    assert asked.soak == {"staging": timedelta(hours=48)}
    assert Promote.model_validate({}) == Promote()  # type: ignore[call-arg]
    problem(Promote, {"soaks": {"staging": "48h"}})


def entry(**keys: Any) -> bytes:
    fields = "".join(f"\n    {k}: {v}" for k, v in {"version": 4, "digest": DIGEST, **keys}.items())
    return f"apiVersion: mlp-ci/v1\nmodel: flight-delay\nstages:\n  production:{fields}\n".encode()


def test_an_entry_may_name_its_evidence_and_an_emergency() -> None:
    found = parse_promotion(entry(evidence=DIGEST, emergency="customers are down")).stages["production"]
    assert (found.evidence, found.emergency) == (DIGEST, "customers are down")
    plain = parse_promotion(entry()).stages["production"]
    assert (plain.evidence, plain.emergency) == (None, "")
    assert plain.same(found)
    assert plain != found
    assert not plain.same(None)


@pytest.mark.parametrize(
    "keys",
    [{"evidence": "sha256:abc"}, {"evidence": '""'}, {"emergency": "x" * 501}, {"emergency": 3}, {"urgent": "x"}],
)
def test_what_an_entry_may_not_say(keys: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        parse_promotion(entry(**keys))
