"""The promotion policy: named cases, and a naive oracle over random histories."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.github.facts import CommitFact, PullDetail, ReviewFact
from mlp_ci.promote.policy import QUARANTINE, Case, Registered, Verdict, decide
from mlp_ci.report import Outcome
from mlp_ci.spec import PlatformSpec, PromotionSpec, Quarantined, Stage, StageEntry, default_platform

D3, D4 = (f"sha256:{c * 64}" for c in "34")
HEAD, OLD = "h" * 40, "0" * 40
ORDER = {"APPROVED": 1, "CHANGES_REQUESTED": 2, "DISMISSED": 3, "COMMENTED": 4}


def promotion(
    model: str = "flight-delay", quarantine: tuple[Quarantined, ...] = (), **stages: StageEntry
) -> PromotionSpec:
    return PromotionSpec(apiVersion="mlp-ci/v1", model=model, stages=stages, quarantine=quarantine)


def entry(version: int, digest: str) -> StageEntry:
    return StageEntry(version=version, digest=digest)


def commit(author: str = "alice", committer: str | None = None, sha: str = HEAD) -> CommitFact:
    return CommitFact(sha=sha, author=author, committer=author if committer is None else committer)


def review(person: str, state: str = "APPROVED", at: int = 1, sha: str = HEAD, *, bot: bool = False) -> ReviewFact:
    stamp = f"2013-04-01T00:{at // 60:02}:{at % 60:02}Z"
    return ReviewFact(id=at, person=person, state=state, commit=sha, submitted=stamp, bot=bot)


def pull(**changes: object) -> PullDetail:
    plain = PullDetail(
        number=7,
        url="http://forge/acme/flight-delay/pull/7",
        title="Promote flight-delay 4 to production",
        author="alice",
        author_bot=False,
        state="open",
        head_sha=HEAD,
        head_ref="mlp-ci/promote-production",
        head_repo="acme/flight-delay",
        base_ref="main",
        base_sha=OLD,
        files=("promotion.yaml",),
        commits=(commit(),),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def case(**changes: object) -> Case:
    plain = Case(
        stage="production",
        tier="standard",
        platform=default_platform(),
        default_branch="main",
        pull=pull(),
        reviews=(review("bob"),),
        permissions={"alice": "write", "bob": "write", "carol": "admin", "dave": "read"},
        before=promotion(staging=entry(4, D4), production=entry(3, D3)),
        after=promotion(staging=entry(4, D4), production=entry(4, D4)),
        registered=Registered(exists=True, gate="pass", digest=D4, evidence="sha256:e"),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def failed(verdict: Verdict) -> set[str]:
    return {r.check for r in verdict.reasons if r.outcome is Outcome.FAIL}


def message(verdict: Verdict, check: str) -> str:
    return next(r.message for r in verdict.reasons if r.check == check)


def test_a_second_persons_approval_of_the_head_is_enough() -> None:
    verdict = decide(case())
    assert verdict.allowed
    assert verdict.approvers == ("bob",)
    assert (verdict.entry, verdict.commit, verdict.pull, verdict.needed) == (entry(4, D4), HEAD, 7, 1)
    passed = {r.check for r in verdict.reasons if r.outcome is Outcome.PASS}
    assert passed == {
        "one-file", "commit-authors", "approvals", "version", "gate", "digest", "quarantine", "stage-order",
    }  # fmt: skip


def test_nobody_yet_says_who_could_approve() -> None:
    verdict = decide(case(reviews=()))
    assert not verdict.allowed
    assert verdict.waiting
    assert message(verdict, "approvals") == "1 of 1 approval missing: someone with write access other than alice"


def test_two_are_needed_and_one_is_there() -> None:
    verdict = decide(case(tier="critical"))
    assert verdict.waiting
    assert message(verdict, "approvals") == "1 of 2 approvals missing: someone with write access other than alice, bob"


def test_two_reviews_by_one_person_are_one_approval() -> None:
    assert not decide(case(tier="critical", reviews=(review("bob", at=1), review("Bob", at=2)))).allowed


def test_tier_low_needs_nobody() -> None:
    verdict = decide(case(tier="low", reviews=()))
    assert verdict.allowed
    assert verdict.needed == 0


def test_approvals_that_do_not_count() -> None:
    for changes, why in [
        ({"reviews": (review("alice"),)}, "their own work"),
        ({"reviews": (review("ALICE"),)}, "their own work"),
        ({"pull": pull(commits=(commit("bob"),))}, "their own work"),
        ({"pull": pull(commits=(commit("alice", "bob"),))}, "their own work"),
        ({"reviews": (review("dave"),)}, "may not write"),
        ({"reviews": (review("mallory"),)}, "may not write"),
        ({"reviews": (review("bob", bot=True),)}, "bot"),
        ({"reviews": (review("bob", sha=OLD),)}, "not for the newest commit"),
    ]:
        verdict = decide(case(**changes))
        assert failed(verdict) == {"approvals"}, why
        assert why in message(verdict, "approval-counts")


def test_an_approval_for_an_earlier_head_names_both_commits() -> None:
    verdict = decide(case(reviews=(review("bob", sha=OLD),)))
    assert OLD[:12] in message(verdict, "approval-counts")
    assert HEAD[:12] in message(verdict, "approval-counts")


def test_asking_for_changes_blocks_until_the_same_person_approves() -> None:
    no = review("carol", "CHANGES_REQUESTED", 2)
    assert failed(decide(case(reviews=(review("bob"), no)))) == {"changes-requested"}
    assert failed(decide(case(reviews=(review("bob"), no, review("carol", "COMMENTED", 3))))) == {"changes-requested"}
    assert decide(case(reviews=(review("bob"), no, review("carol", at=3)))).allowed


def test_changes_asked_by_somebody_who_may_not_write_do_not_block() -> None:
    assert decide(case(reviews=(review("bob"), review("dave", "CHANGES_REQUESTED", 2)))).allowed


def test_a_dismissed_review_brings_no_older_one_back() -> None:
    verdict = decide(case(reviews=(review("bob", at=1), review("bob", "DISMISSED", 2))))
    assert failed(verdict) == {"approvals"}
    blocked_then_dismissed = (review("carol", at=1), review("carol", "DISMISSED", 2), review("bob", at=3))
    assert decide(case(reviews=blocked_then_dismissed)).approvers == ("bob",)


def test_the_order_of_the_list_does_not_matter_only_time_does() -> None:
    assert decide(case(reviews=(review("bob", at=9), review("bob", "CHANGES_REQUESTED", 2)))).allowed


def test_what_the_pull_request_may_not_be() -> None:
    for changes, check in [
        ({"files": ("model.yaml", "promotion.yaml")}, "one-file"),
        ({"base_ref": "release"}, "base"),
        ({"state": "closed"}, "state"),
        ({"draft": True}, "state"),
        ({"complete": False}, "whole"),
        ({"commits": ()}, "commit-authors"),
        ({"commits": (commit(""),)}, "commit-authors"),
        ({"commits": (commit("alice", ""),)}, "commit-authors"),
    ]:
        assert failed(decide(case(pull=pull(**changes)))) == {check}, changes


def test_a_commit_made_on_githubs_pages_is_its_authors() -> None:
    assert decide(case(pull=pull(commits=(commit("alice", "web-flow"),)))).allowed


def test_the_version_must_be_what_the_registry_has() -> None:
    for registered, checks in [
        (Registered(exists=False), {"version"}),
        (Registered(exists=True, gate="fail", digest=D4, evidence="e"), {"gate"}),
        (Registered(exists=True, gate="pass", digest=D4), {"gate"}),
        (Registered(exists=True, gate="pass", digest=D3, evidence="e"), {"digest"}),
        (Registered(exists=True, gate="pass", digest="", evidence="e"), {"digest"}),
    ]:
        assert failed(decide(case(registered=registered))) == checks


def test_production_takes_only_what_staging_has() -> None:
    for staging in ({}, {"staging": entry(3, D3)}, {"staging": entry(4, D3)}):
        before = promotion(**staging, production=entry(3, D3))
        after = promotion(**staging, production=entry(4, D4))
        assert failed(decide(case(before=before, after=after))) == {"stage-order"}


def test_one_pull_request_promotes_to_one_stage() -> None:
    before = promotion(staging=entry(3, D3), production=entry(3, D3))
    verdict = decide(case(before=before))
    assert failed(verdict) == {"one-entry", "stage-order"}
    assert message(verdict, "one-entry") == "it also changes staging"
    assert failed(decide(case(stage="staging", before=before))) == {"one-entry"}


def test_quarantined_bytes_stay_out_even_when_the_same_change_lifts_it() -> None:
    held = (Quarantined(version=4, digest=D4, reason="late flights", since=datetime(2013, 5, 1, tzinfo=UTC)),)
    plain = case()
    before, after = replace(plain).before, plain.after
    with_it = promotion(quarantine=held, **before.stages)
    verdict = decide(case(before=with_it, after=after))
    assert failed(verdict) == {"quarantine"}
    assert "late flights" in message(verdict, "quarantine")
    assert failed(decide(case(after=promotion(quarantine=held, **after.stages)))) == {"quarantine"}


def test_lifting_a_quarantine_needs_the_strictest_approval_even_in_tier_low() -> None:
    same = promotion(staging=entry(3, D3))
    lift = case(stage=QUARANTINE, before=same, after=same)
    assert failed(decide(replace(lift, tier="low", reviews=()))) == {"approvals"}
    assert decide(replace(lift, tier="low")).allowed
    assert decide(replace(lift, tier="critical")).needed == 2


def test_taking_a_stage_out_of_service_needs_approval_but_no_version() -> None:
    gone = promotion(staging=entry(4, D4))
    assert decide(case(after=gone, registered=Registered(exists=False))).allowed
    assert failed(decide(case(after=gone, reviews=()))) == {"approvals"}


def test_unknown_tier_and_stage_and_another_model() -> None:
    assert "tier" in failed(decide(case(tier="gold")))
    assert "stage" in failed(decide(case(stage="canary")))
    assert failed(decide(case(after=promotion("other", **case().after.stages)))) == {"model"}


# ---------------------------------------------------------------- the oracle

PEOPLE = ("alice", "Bob", "carol", "dave", "erin", "robot[bot]")


@dataclass
class History:
    """One random history, as plain as can be: what happened, in order."""

    author: str
    committers: list[tuple[str, str]]
    events: list[tuple[str, str, bool]]  # person, state, of the newest head?
    rights: dict[str, str]
    tier: str
    stage: str
    files: list[str]
    state: str
    facts: tuple[bool, str, bool, bool]  # exists, gate, digest agrees, quarantined
    staging_has_it: bool
    bots: set[str] = field(default_factory=lambda: {"robot[bot]"})


def mostly(usual: object, *others: object) -> st.SearchStrategy[Any]:
    """Most histories must be nearly in order, or a wrong "yes" of the policy would hide behind other reasons."""
    return st.sampled_from([usual] * 8 + list(others))


histories = st.builds(
    History,
    author=st.sampled_from(PEOPLE),
    committers=st.lists(
        st.tuples(mostly("alice", *PEOPLE, "", "BOB"), mostly("alice", *PEOPLE, "web-flow")), min_size=1, max_size=3
    )
    | mostly([("alice", "alice")], []),
    events=st.lists(
        st.tuples(st.sampled_from((*PEOPLE, "bob", "CAROL")), mostly("APPROVED", *sorted(ORDER)), mostly(True, False)),
        max_size=8,
    ),
    rights=st.fixed_dictionaries({p: mostly("write", "admin", "read", "none") for p in PEOPLE})
    | st.dictionaries(st.sampled_from(PEOPLE), st.sampled_from(["admin", "write", "read", "none"])),
    tier=st.sampled_from(["low", "standard", "critical"]),
    stage=st.sampled_from(["staging", "production"]),
    files=mostly(["promotion.yaml"], ["promotion.yaml", "train.py"], ["train.py"]),
    state=mostly("merged", "open", "closed"),
    facts=st.tuples(mostly(True, False), mostly("pass", "fail"), mostly(True, False), mostly(False, True)),
    staging_has_it=mostly(True, False),
)


def oracle(h: History) -> bool:
    """What the rules say, told in the plainest way: go through the events one by one and keep what each person said."""
    word: dict[str, tuple[str, bool]] = {}
    for person, state, newest in h.events:
        if state != "COMMENTED":
            word[person.casefold()] = (state, newest)
    can_write = {p.casefold() for p, r in h.rights.items() if r in ("write", "admin")}
    involved = {h.author.casefold()}
    for author, committer in h.committers:
        involved.add(author.casefold())
        involved.add(committer.casefold())
    yes = 0
    for person, (state, newest) in word.items():
        human = person not in {b.casefold() for b in h.bots}
        if human and person in can_write and state == "CHANGES_REQUESTED":
            return False
        if human and person in can_write and person not in involved and state == "APPROVED" and newest:
            yes += 1
    need = {
        ("low", "staging"): 0, ("low", "production"): 0,
        ("standard", "staging"): 0, ("standard", "production"): 1,
        ("critical", "staging"): 1, ("critical", "production"): 2,
    }[h.tier, h.stage]  # fmt: skip
    if yes < need or not h.committers or any(not author for author, _ in h.committers):
        return False
    if h.files != ["promotion.yaml"] or h.state == "closed":
        return False
    exists, gate, same, quarantined = h.facts
    if not exists or gate != "pass" or not same or quarantined:
        return False
    return h.stage == "staging" or h.staging_has_it


def as_case(h: History) -> Case:
    exists, gate, same, quarantined = h.facts
    held = (Quarantined(version=4, digest=D4, since=datetime(2013, 5, 1, tzinfo=UTC)),) if quarantined else ()
    staging = {"staging": entry(4, D4) if h.staging_has_it and h.stage == "production" else entry(3, D3)}
    before = promotion(quarantine=held, **staging)
    after = promotion(quarantine=held, **{**staging, h.stage: entry(4, D4)})
    return case(
        stage=h.stage,
        tier=h.tier,
        pull=pull(
            author=h.author,
            author_bot=h.author in h.bots,
            commits=tuple(commit(a, c, sha=f"{i}" * 40) for i, (a, c) in enumerate(h.committers)),
            files=tuple(h.files),
            state=h.state,
        ),
        reviews=tuple(
            review(person, state, at, HEAD if newest else OLD, bot=person.lower() in h.bots)
            for at, (person, state, newest) in enumerate(h.events)
        ),
        permissions=h.rights,
        before=before,
        after=after,
        registered=Registered(exists=exists, gate=gate, digest=D4 if same else D3, evidence="e"),
    )


@settings(max_examples=2_000, deadline=None)
@given(histories)
def test_agrees_with_the_oracle(history: History) -> None:
    verdict = decide(as_case(history))
    assert verdict.allowed == oracle(history), verdict.reasons


@settings(max_examples=300, deadline=None)
@given(histories, st.sampled_from(PEOPLE))
def test_asking_for_changes_never_helps(history: History, person: str) -> None:
    worse = replace(history, events=[*history.events, (person, "CHANGES_REQUESTED", True)])
    assert decide(as_case(worse)).allowed <= decide(as_case(history)).allowed


def test_the_same_case_gives_the_same_verdict_and_quickly() -> None:
    crowd = tuple(review(f"person-{i % 50}", "APPROVED", i) for i in range(500))
    big = case(reviews=crowd, permissions={f"person-{i}": "write" for i in range(50)})
    start = time.process_time()
    verdicts = [decide(big) for _ in range(20)]
    assert (time.process_time() - start) / 20 < 0.05
    assert all(v == verdicts[0] for v in verdicts)


def test_more_stages_than_two() -> None:
    stages = tuple(Stage(name=n) for n in ("dev", "staging", "production"))  # type: ignore[call-arg]
    tiers = {"standard": {"approvals": {"dev": 0, "staging": 0, "production": 1}}}
    platform = PlatformSpec.model_validate({"apiVersion": "mlp-ci/v1", "stages": stages, "tiers": tiers})
    dev = {"dev": entry(4, D4)}
    skipped = case(platform=platform, before=promotion(**dev), after=promotion(**dev, production=entry(4, D4)))
    assert failed(decide(skipped)) == {"stage-order"}
