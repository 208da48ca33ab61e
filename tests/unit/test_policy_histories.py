"""The promotion policy over random pull requests: next to a naive oracle, and what must hold for all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import cache
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.github.facts import ReviewFact
from mlp_ci.promote.policy import decide, decide_guarded, strictest
from mlp_ci.spec import Freeze, Need, PlatformSpec, Stage
from tests.histories import HEAD, LIFT, PEOPLE, differences, histories
from tests.oracle import opinion, opinion_on_guarded

if TYPE_CHECKING:
    from mlp_ci.promote.case import Case

# Every rule that can fail in a single case; `readable`, `policy` and `registered` are not decided by `decide`.
RULES = {
    "one-file", "whole", "same-repository", "base", "state", "one-entry", "model", "commit-authors", "co-authors",
    "pushers", "changes-requested", "dismissal", "approvals", "team", "emergency", "version", "gate", "digest",
    "evidence", "lineage", "quarantine", "quarantine-lift", "stage-order", "soak", "freeze", "tier", "stage",
}  # fmt: skip
SLICES = 8  # of the 100,000, so that they share the cores


def compared(seed: int, count: int) -> tuple[int, Counter[str], list[str]]:
    """How many were allowed, how often each rule failed, and what engine and oracle say differently."""
    allowed, failures, different = 0, Counter[str](), []
    for number, case in enumerate(histories(seed, count)):
        naive = opinion(case)
        allowed += naive.allowed
        failures.update({rule.split(":")[0] for rule in naive.broken})
        found = differences(decide(case), naive)
        found += differences(decide_guarded(case), opinion_on_guarded(case))
        different += [f"seed {seed}, case {number}: {d}" for d in found]
    return allowed, failures, different


def test_agrees_with_the_oracle() -> None:
    allowed, failures, different = compared(seed=1, count=3_000)
    assert not different, different[:5]
    assert 0.05 <= allowed / 3_000 <= 0.6
    assert set(failures) == RULES


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLICES))
def test_agrees_with_the_oracle_over_a_hundred_thousand_histories(part: int) -> None:
    count = 100_000 // SLICES
    allowed, failures, different = compared(seed=1000 + part, count=count)
    assert not different, different[:5]
    assert 0.05 <= allowed / count <= 0.6
    assert set(failures) == RULES
    # Which tiers and models there are is drawn once per part, so these two vary more than the rest.
    rare = {rule: share for rule in RULES - {"tier", "stage"} if (share := failures[rule] / count) < 0.005}
    assert not rare


# ---------------------------------------------------------------- what holds for every case


@cache
def pool() -> list[Case]:
    """Cases to choose from; Hypothesis chooses, and what is changed about them."""
    return list(histories(seed=7, count=2_000))


cases = st.integers(0, 1_999).map(lambda i: pool()[i])
people = st.sampled_from(PEOPLE)


def allows(case: Case) -> bool:
    return decide(case).allowed


@settings(max_examples=300, deadline=None)
@given(cases)
def test_the_verdict_is_the_same_again(case: Case) -> None:
    assert decide(case) == decide(case)
    assert decide_guarded(case) == decide_guarded(case)


@settings(max_examples=300, deadline=None)
@given(cases, people, st.integers(0, 59))
def test_asking_for_changes_never_helps(case: Case, person: str, second: int) -> None:
    no = ReviewFact(
        id=900, person=person, state="CHANGES_REQUESTED", commit=HEAD, submitted=f"2026-11-18T10:09:{second:02}Z"
    )
    assert allows(replace(case, reviews=(*case.reviews, no))) <= allows(case)


def settled(case: Case, person: str) -> Case:
    """The case without anything that ``person`` said before: an approval that goes away uncovers nothing older."""
    return replace(case, reviews=tuple(r for r in case.reviews if r.person.lower() != person.lower()))


@settings(max_examples=300, deadline=None)
@given(cases, people)
def test_taking_an_approval_away_never_helps(case: Case, person: str) -> None:
    approved = any(a.lower() == person.lower() for a in decide(case).approvers)
    if approved:
        assert allows(settled(case, person)) <= allows(case)


@settings(max_examples=300, deadline=None)
@given(cases, people)
def test_having_worked_on_it_never_helps_to_approve(case: Case, person: str) -> None:
    more = replace(case.history, pushers=(*case.history.pushers, person))
    assert allows(replace(case, history=more)) <= allows(case)


@settings(max_examples=300, deadline=None)
@given(cases, st.randoms(use_true_random=False))
def test_the_order_of_reviews_does_not_matter(case: Case, random: Random) -> None:
    shuffled = list(case.reviews)
    random.shuffle(shuffled)
    assert decide(replace(case, reviews=tuple(shuffled))) == decide(case)


@settings(max_examples=300, deadline=None)
@given(cases, st.sampled_from([str.upper, str.lower, str.title]))
def test_upper_and_lower_case_of_logins_do_not_matter(case: Case, spelled: type[str.upper]) -> None:
    other = replace(
        case,
        reviews=tuple(replace(r, person=spelled(r.person)) for r in case.reviews),
        permissions={spelled(p): right for p, right in case.permissions.items()},
        teams={team: frozenset(spelled(m) for m in members) for team, members in case.teams.items()},
    )
    mine, theirs = decide(case), decide(other)
    assert mine.allowed == theirs.allowed
    assert [(r.check, r.outcome) for r in mine.reasons] == [(r.check, r.outcome) for r in theirs.reasons]
    assert [a.lower() for a in mine.approvers] == [a.lower() for a in theirs.approvers]


# ---------------------------------------------------------------- a stricter policy never allows more


def with_approvals(case: Case, change: str) -> PlatformSpec:
    """The platform with one more approval, or one more team, for every tier and stage."""
    tiers = {}
    for name, tier in case.platform.tiers.items():
        needs = {s: more(n, change) for s, n in tier.approvals.items()}
        tiers[name] = tier.model_copy(update={"approvals": needs})
    return case.platform.model_copy(update={"tiers": tiers})


def more(need: Need, change: str) -> Need:
    if change == "count":
        return Need(count=need.count + 1, teams=need.teams)
    return Need(count=max(1, need.count), teams=tuple(dict.fromkeys((*need.teams, change))))


def with_soak(case: Case) -> PlatformSpec:
    stages = tuple(Stage(name=s.name, soak=(s.soak or timedelta()) + timedelta(hours=12)) for s in case.platform.stages)
    return case.platform.model_copy(update={"stages": stages})


def with_freeze(case: Case) -> PlatformSpec:
    day = Freeze.model_validate({"reason": "More", "cron": "0 6 * * *", "for": "12h", "zone": "Asia/Tokyo"})
    return case.platform.model_copy(update={"freezes": (*case.platform.freezes, day)})


@settings(max_examples=500, deadline=None)
@given(cases, st.sampled_from(["count", "risk", "legal", "soak", "freeze", "cannot_approve", "emergency"]), people)
def test_a_stricter_policy_never_allows_more(case: Case, change: str, person: str) -> None:
    stricter = {
        "soak": with_soak,
        "freeze": with_freeze,
        "cannot_approve": lambda c: c.platform.model_copy(
            update={"cannot_approve": (*c.platform.cannot_approve, person)}
        ),
        "emergency": lambda c: c.platform.model_copy(update={"emergency": None}),
    }.get(change, lambda c: with_approvals(c, change))(case)
    assert allows(replace(case, platform=stricter)) <= allows(case)


@settings(max_examples=300, deadline=None)
@given(cases, cases)
def test_a_model_is_never_laxer_than_the_platform(case: Case, other: Case) -> None:
    """Whatever a model.yaml asks for: never more is allowed than with a model.yaml that asks for nothing."""
    silent = replace(case, own=type(case.own)())
    assert allows(replace(case, own=other.own)) <= allows(silent)


@settings(max_examples=300, deadline=None)
@given(cases, cases)
def test_two_policies_allow_what_each_of_them_allows(case: Case, other: Case) -> None:
    then, now = decide(case), decide(replace(case, platform=other.platform, own=other.own, tier=other.tier))
    assert strictest([then, now]).allowed == (then.allowed and now.allowed)


def test_a_lift_asks_for_more_than_any_stage() -> None:
    for case in pool():
        if case.stage == LIFT or not case.platform.tiers.get(case.tier):
            continue
        assert decide(replace(case, stage=LIFT)).needed >= max(1, decide(case).needed)
