"""The promotion policy: whose approval counts, who objects, who worked on it."""

from __future__ import annotations

from typing import Any

import pytest

from mlp_ci.promote.people import people_rows
from mlp_ci.promote.policy import decide, needed
from tests.deciding import (
    HEAD,
    OLD,
    broken,
    case,
    commit,
    dismissal,
    fix,
    history,
    message,
    own,
    platform,
    pull,
    review,
    stamp,
)


def test_two_reviews_by_one_person_are_one_approval() -> None:
    assert not decide(case(tier="critical", reviews=(review("bob", at=1), review("Bob", at=2)))).allowed


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"reviews": (review("alice"),)}, "it is their own work"),
        ({"reviews": (review("ALICE"),)}, "it is their own work"),
        ({"pull": pull(commits=(commit("bob"),))}, "it is their own work"),
        ({"pull": pull(commits=(commit("alice", "Bob"),))}, "it is their own work"),
        ({"pull": pull(commits=(commit("bob", sha=OLD), commit()))}, "it is their own work"),
        ({"history": history(co_authors={HEAD: ("alice", "Bob")})}, "it is their own work"),
        ({"history": history(pushers=("alice", "bob"))}, "it is their own work"),
        ({"platform": platform(cannot_approve=["BOB"])}, "they are on the list cannot_approve"),
        ({"own": own(cannot_approve=["bob"])}, "they are on the list cannot_approve"),
        ({"reviews": (review("dave"),)}, "they may not write to this repository"),
        ({"reviews": (review("mallory"),)}, "they may not write to this repository"),
        ({"reviews": (review("bob", bot=True),)}, "a bot's approval never counts"),
        ({"reviews": (review(""),)}, "GitHub no longer knows who gave it"),
        (
            {"reviews": (review("bob", sha=OLD),)},
            "it is for 000000000000, not for the newest commit aaaaaaaaaaaa",
        ),
        (
            {"history": history(restarted=stamp(1))},
            "it is older than the reopening or change of base at 2026-11-18T10:00:01Z",
        ),
    ],
)
def test_approvals_that_do_not_count(changes: dict[str, Any], why: str) -> None:
    verdict = decide(case(**changes))
    assert broken(verdict) == {"approvals"}
    assert verdict.approvers == ()
    person = case(**changes).reviews[0].person or "somebody"
    assert message(verdict, "approval-counts") == f"the approval of {person} does not count: {why}"


def test_an_address_of_somebody_else_does_not_hide_who_pushed() -> None:
    """Mallory commits as Alice, has Alice's name on everything, and approves: the push was made with her own key."""
    spoofed = case(
        pull=pull(author="alice", commits=(commit("alice"),)),
        history=history(pushers=("mallory",)),
        reviews=(review("mallory"),),
        permissions={"mallory": "write"},
    )
    verdict = decide(spoofed)
    assert broken(verdict) == {"approvals"}
    assert message(verdict, "approvals") == (
        "1 of 1 approval missing: someone with write access other than alice, mallory"
    )


def test_where_nobody_knows_who_pushed_nobody_can_be_excluded() -> None:
    verdict = decide(case(history=history(push_known=False, pushers=())))
    assert broken(verdict) == {"pushers"}
    assert message(verdict, "pushers") == f"GitHub has no record of who pushed {HEAD[:12]}"
    assert not verdict.waiting


def test_a_co_author_whom_github_does_not_know() -> None:
    verdict = decide(case(history=history(unresolved=(f"{HEAD[:12]}: Eve <eve@example.com>",))))
    assert broken(verdict) == {"co-authors"}
    assert message(verdict, "co-authors") == f"GitHub does not know the co-author of {HEAD[:12]}: Eve <eve@example.com>"


def test_an_approval_after_the_reopening_counts() -> None:
    assert decide(case(history=history(restarted=stamp(1)), reviews=(review("bob", at=2),))).allowed


def test_an_approval_of_the_head_outlives_a_push_record_of_earlier_commits() -> None:
    assert decide(case(history=history(pushers=("alice", "robot[bot]")))).allowed


# ---------------------------------------------------------------- objections


def test_asking_for_changes_blocks_until_the_same_person_approves() -> None:
    no = review("carol", "CHANGES_REQUESTED", 2)
    verdict = decide(case(reviews=(review("bob"), no)))
    assert broken(verdict) == {"changes-requested"}
    assert message(verdict, "changes-requested") == "carol asked for changes"
    assert broken(decide(case(reviews=(review("bob"), no, review("carol", "COMMENTED", 3))))) == {"changes-requested"}
    assert decide(case(reviews=(review("bob"), no, review("carol", at=3)))).allowed


def test_an_objection_to_an_earlier_commit_still_blocks() -> None:
    assert not decide(case(reviews=(review("bob", at=3), review("carol", "CHANGES_REQUESTED", sha=OLD)))).allowed
    restarted = history(restarted=stamp(2))
    late = (review("bob", at=3), review("carol", "CHANGES_REQUESTED"))
    assert not decide(case(reviews=late, history=restarted)).allowed


def test_changes_asked_by_somebody_who_may_not_write_do_not_block() -> None:
    assert decide(case(reviews=(review("bob"), review("dave", "CHANGES_REQUESTED", 2)))).allowed
    assert decide(case(reviews=(review("bob"), review("carol", "CHANGES_REQUESTED", 2, bot=True)))).allowed


def test_a_dismissed_review_brings_no_older_one_back() -> None:
    taken_back = history(dismissals=(dismissal(2, "bob", "APPROVED"),))
    verdict = decide(case(reviews=(review("bob", at=1), review("bob", "DISMISSED", 2)), history=taken_back))
    assert broken(verdict) == {"approvals"}
    settled = (review("carol", at=1), review("carol", "DISMISSED", 2), review("bob", at=3))
    objection = history(dismissals=(dismissal(2, "erin"),))
    rights = {"alice": "write", "bob": "write", "carol": "write", "erin": "admin"}
    assert decide(case(reviews=settled, history=objection, permissions=rights)).approvers == ("bob",)


RIGHTS = {"alice": "write", "bob": "write", "carol": "admin", "erin": "admin", "frank": "write"}


@pytest.mark.parametrize(
    ("said", "allowed", "words"),
    [
        (dismissal(2, "carol"), True, "carol, an admin, dismissed what frank had asked to change"),
        (dismissal(2, "carol", ""), True, "carol, an admin, dismissed what frank had asked to change"),
        (dismissal(2, "bob"), False, "frank asked for changes, and bob, who is no admin, dismissed it"),
        (dismissal(2, "bob", ""), False, "frank asked for changes, and bob, who is no admin, dismissed it"),
        (dismissal(2, "erin"), False, "frank asked for changes, and erin, whose own work this is, dismissed it"),
        (dismissal(2, ""), False, "frank asked for changes, and somebody, who is no admin, dismissed it"),
        (dismissal(2, "carol", bot=True), False, "frank asked for changes, and carol, who is no admin, dismissed it"),
        (
            dismissal(9, "carol"),
            False,
            "a review of frank was dismissed, and GitHub does not say what it was, or by whom",
        ),
    ],
)
def test_only_an_admin_who_did_not_work_on_it_sets_an_objection_aside(said: Any, *, allowed: bool, words: str) -> None:
    verdict = decide(
        case(
            permissions=RIGHTS,
            history=history(pushers=("alice", "erin"), dismissals=(said,)),
            reviews=(review("frank", "DISMISSED", 2), review("bob", at=3)),
        )
    )
    assert verdict.allowed is allowed
    assert broken(verdict) == (set() if allowed else {"dismissal"})
    assert message(verdict, "dismissal") == words


def test_a_dismissed_approval_is_nobodys_objection() -> None:
    taken_back = history(dismissals=(dismissal(2, "bob", "APPROVED"),))
    assert decide(
        case(permissions=RIGHTS, history=taken_back, reviews=(review("frank", "DISMISSED", 2), review("bob")))
    ).allowed


def test_the_order_of_the_list_does_not_matter_only_time_does() -> None:
    assert decide(case(reviews=(review("bob", at=9), review("bob", "CHANGES_REQUESTED", 2)))).allowed


# ---------------------------------------------------------------- teams

RISK = platform(
    tiers={"standard": {"approvals": {"staging": 0, "production": {"count": 2, "teams": ["risk", "legal"]}}}}
)


def teams(risk: set[str], legal: set[str]) -> dict[str, frozenset[str]]:
    return {"risk": frozenset(risk), "legal": frozenset(legal)}


def test_each_team_must_be_among_those_who_approve() -> None:
    two = (review("bob"), review("carol", at=2))
    assert decide(case(platform=RISK, reviews=two, teams=teams({"Bob"}, {"CAROL"}))).allowed
    assert decide(case(platform=RISK, reviews=two, teams=teams({"bob"}, {"bob"}))).allowed
    verdict = decide(
        case(platform=RISK, reviews=two, teams=teams({"bob", "alice", "dave"}, {"alice", "frank", "erin"}))
    )
    assert broken(verdict) == {"team:legal"}
    assert verdict.waiting
    assert message(verdict, "team:risk") == "bob approved for the team risk"
    assert message(verdict, "team:legal") == "nobody of the team legal has approved"
    assert fix(verdict, "team:legal") == "ask one of the team to approve the newest commit: erin, frank"


def test_a_team_is_no_way_around_the_other_rules() -> None:
    for changes in (
        {"reviews": (review("alice"), review("bob", at=2), review("carol", at=3))},
        {"reviews": (review("bob", sha=OLD), review("carol", at=3), review("erin", at=4))},
    ):
        verdict = decide(case(platform=RISK, **changes, permissions=RIGHTS, teams=teams({"alice"}, {"carol"})))
        assert "team:risk" in broken(verdict)


def test_somebody_removed_from_the_team_no_longer_counts_for_it() -> None:
    two = (review("bob"), review("carol", at=2))
    verdict = decide(case(platform=RISK, reviews=two, teams=teams(set(), {"carol"})))
    assert broken(verdict) == {"team:risk"}
    assert fix(verdict, "team:risk").endswith("it has nobody who could")


# ---------------------------------------------------------------- stricter models


def test_a_model_may_ask_for_more_than_the_platform() -> None:
    stricter = own(approvals={"production": {"count": 2, "teams": ["risk"]}})
    verdict = decide(case(own=stricter, teams=teams({"erin"}, set())))
    assert verdict.needed == 2
    assert broken(verdict) == {"approvals", "team:risk"}


def test_a_model_may_not_ask_for_less_and_is_told() -> None:
    verdict = decide(case(tier="critical", own=own(approvals={"production": 1})))
    assert verdict.needed == 2
    assert broken(verdict) == {"approvals"}
    assert message(verdict, "stricter") == "model.yaml asks for 1 in production, the platform for 2"


def test_the_platform_sets_the_least_tier_of_a_model() -> None:
    floor = platform(models={"flight-delay": {"tier": "critical"}})
    assert decide(case(platform=floor, tier="low")).needed == 2
    assert decide(case(platform=platform(models={"flight-delay": {"tier": "low"}}), tier="critical")).needed == 2
    assert decide(case(platform=platform(models={"another": {"tier": "critical"}}))).needed == 1


def test_everybody_who_reviewed_in_a_table() -> None:
    told = case(reviews=(review("bob"), review("dave", at=2), review("carol", "CHANGES_REQUESTED", 3)))
    assert people_rows(told, needed(told)[0]) == [
        ("bob", "approved", HEAD[:12], "yes"),
        ("carol", "changes requested", HEAD[:12], ""),
        ("dave", "approved", HEAD[:12], "no: they may not write to this repository"),
    ]
