"""May this promotion go ahead? A pure function from what is known to a verdict with a reason for every rule.

No clock, no network, no file: everything it may know is in the :class:`Case`.

The rules, for one stage entry that a pull request changes:

- the pull request is open or merged, goes to the default branch, is no draft, changes promotion.yaml alone, and in
  it one stage's entry (or lifts a quarantine);
- every commit in it is by somebody GitHub knows, so that nobody approves their own work under another address;
- enough people approved exactly this head. A person counts when they may write to the repository, are no bot, and
  are neither the author of the pull request nor author or committer of a commit in it. Of each person only the latest
  review with a verdict counts: a dismissed review is no approval, and it never brings an older one back;
- nobody with write access has asked for changes as their latest word, about whatever commit;
- the version exists, passed its gate, has evidence, and has the digest that the file names;
- the digest is quarantined neither before nor after the pull request: a lift is a pull request of its own;
- in every stage but the first, the version and its digest are what the stage before has on the default branch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlp_ci.github.facts import WEB_FLOW, PullDetail, ReviewFact
from mlp_ci.report import Finding, Outcome
from mlp_ci.spec import PROMOTION_FILE, PlatformSpec, PromotionSpec, StageEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The pseudo-stage of a pull request that lifts a quarantine; a space, so that no real stage can have this name.
QUARANTINE = "quarantine lift"
APPROVALS = "approvals"
WRITERS = ("write", "maintain", "admin")
OPINIONS = ("APPROVED", "CHANGES_REQUESTED", "DISMISSED")


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What the registry knows of the version; ``exists`` false when it knows none of that number."""

    exists: bool
    gate: str = ""
    digest: str = ""
    evidence: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything that :func:`decide` may know. ``before`` and ``after``: promotion.yaml without and with the change.

    ``permissions`` holds what each reviewer may do (login → admin, write, read or none); a login that is not in it
    may do nothing.
    """

    stage: str
    tier: str
    platform: PlatformSpec
    default_branch: str
    pull: PullDetail
    reviews: tuple[ReviewFact, ...]
    permissions: Mapping[str, str]
    before: PromotionSpec
    after: PromotionSpec
    registered: Registered = field(default_factory=lambda: Registered(exists=False))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """``allowed`` when no reason fails. ``commit`` and ``pull`` are what the verdict is about.

    ``entry`` is None when the stage is to run nothing (or the pull request lifts a quarantine).
    """

    allowed: bool
    reasons: list[Finding]
    stage: str
    entry: StageEntry | None = None
    commit: str = ""
    pull: int | None = None
    needed: int = 0
    approvers: tuple[str, ...] = ()

    @property
    def waiting(self) -> bool:
        """Whether approvals are all that is missing."""
        failed = {r.check for r in self.reasons if r.outcome is Outcome.FAIL}
        return failed == {APPROVALS}


def decide(case: Case) -> Verdict:
    """The verdict on one stage entry of one pull request."""
    entry = case.after.stages.get(case.stage)
    needed, unknown = approvals_needed(case)
    reasons = [*unknown, *_pull_rules(case), *_history_rules(case)]
    approvers = counted_approvers(case)
    reasons += _people_rules(case, needed, approvers)
    if case.stage != QUARANTINE and not unknown:
        reasons += _entry_rules(case, entry)
    return Verdict(
        allowed=all(r.outcome is not Outcome.FAIL for r in reasons),
        reasons=reasons,
        stage=case.stage,
        entry=entry,
        commit=case.pull.head_sha,
        pull=case.pull.number,
        needed=needed,
        approvers=approvers,
    )


def approvals_needed(case: Case) -> tuple[int, list[Finding]]:
    """How many approvals the tier asks for in the stage; with a finding where the policy does not know one of them."""
    policy = case.platform.tiers.get(case.tier)
    if policy is None:
        known = ", ".join(case.platform.tiers)
        return 1, [
            _fail("tier", f"the platform has no tier {case.tier}; it has {known}", fix="mend tier in model.yaml")
        ]
    if case.stage == QUARANTINE:
        return max(1, *policy.approvals.values()), []
    if case.stage not in case.platform.stage_names():
        known = ", ".join(case.platform.stage_names())
        return 1, [_fail("stage", f"the platform has no stage {case.stage}; it has {known}", fix=f"use one of {known}")]
    return policy.approvals[case.stage], []


# ---------------------------------------------------------------- the pull request


def _pull_rules(case: Case) -> Iterable[Finding]:
    pull = case.pull
    others = [f for f in pull.files if f != PROMOTION_FILE]
    if not pull.complete:
        yield _fail("whole", "GitHub does not list all commits and files of this pull request", fix=_FRESH)
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        fix = f"move {shown} to a pull request of its own"
        yield _fail("one-file", f"a promotion changes {PROMOTION_FILE} alone; this one also changes {shown}", fix=fix)
    else:
        yield _pass("one-file", f"it changes {PROMOTION_FILE} alone")
    if pull.base_ref != case.default_branch:
        fix = f"change its base to {case.default_branch}"
        yield _fail("base", f"it goes to {pull.base_ref}; only {case.default_branch} is deployed", fix=fix)
    if pull.state == "closed":
        yield _fail("state", "it was closed without a merge", fix="reopen it, or run `mlp-ci promote` again")
    if pull.draft and pull.state == "open":
        yield _fail("state", "it is a draft", fix="mark it as ready for review")
    stages = {*case.before.stages, *case.after.stages}
    also = [s for s in sorted(stages) if s != case.stage and case.before.stages.get(s) != case.after.stages.get(s)]
    if also:
        fix = "promote to one stage at a time"
        yield _fail("one-entry", f"it also changes {', '.join(also)}", fix=fix)
    if case.after.model != case.before.model:
        what = f"it changes the model's name from {case.before.model} to {case.after.model}"
        yield _fail("model", what, fix=f"keep `model: {case.before.model}`")


def _history_rules(case: Case) -> Iterable[Finding]:
    unknown = [c.sha[:12] for c in case.pull.commits if not c.author or not c.committer]
    if unknown:
        what = f"GitHub does not know who wrote {', '.join(unknown)}"
        fix = "commit with an address of your GitHub account, or run `mlp-ci promote` again"
        yield _fail("commit-authors", what, fix=fix)
    elif case.pull.commits:
        people = ", ".join(sorted({c.author for c in case.pull.commits}))
        yield _pass("commit-authors", f"its commits are by {people}")
    else:
        yield _fail("commit-authors", "it has no commits", fix=_FRESH)


# ---------------------------------------------------------------- the people


def own_people(pull: PullDetail) -> frozenset[str]:
    """Who cannot approve this pull request because it is their own work, in lower case."""
    logins = {pull.author} | {c.author for c in pull.commits} | {c.committer for c in pull.commits}
    return frozenset(login.lower() for login in logins if login and login != WEB_FLOW)


def latest_reviews(reviews: Iterable[ReviewFact]) -> dict[str, ReviewFact]:
    """Login in lower case → that person's last review that says yes, no or was dismissed."""
    latest: dict[str, ReviewFact] = {}
    for review in sorted(reviews, key=lambda r: (r.submitted, r.id)):
        if review.state in OPINIONS:
            latest[review.person.lower()] = review
    return latest


def counted_approvers(case: Case) -> tuple[str, ...]:
    """The people whose approval counts."""
    own = own_people(case.pull)
    return tuple(
        review.person
        for login, review in sorted(latest_reviews(case.reviews).items())
        if review.state == "APPROVED" and not _why_not(case, login, review, own)
    )


def _may_write(case: Case, login: str) -> bool:
    return next((p for who, p in case.permissions.items() if who.lower() == login), "none") in WRITERS


def _why_not(case: Case, login: str, review: ReviewFact, own: frozenset[str]) -> str:
    """Why an approval does not count; empty when it does."""
    if not login:
        return "GitHub no longer knows who gave it"
    if review.bot:
        return "a bot's approval never counts"
    if login in own:
        return "it is their own work"
    if not _may_write(case, login):
        return "they may not write to this repository"
    if review.commit != case.pull.head_sha:
        return f"it is for {review.commit[:12]}, not for the newest commit {case.pull.head_sha[:12]}"
    return ""


def _people_rules(case: Case, needed: int, approvers: tuple[str, ...]) -> Iterable[Finding]:
    own = own_people(case.pull)
    latest = latest_reviews(case.reviews)
    blocking = [
        review.person
        for login, review in sorted(latest.items())
        if review.state == "CHANGES_REQUESTED" and not review.bot and _may_write(case, login)
    ]
    for person in blocking:
        fix = f"settle it with {person}; their approval, or a dismissal of their review, takes this away"
        yield _fail("changes-requested", f"{person} asked for changes", subject=person, fix=fix)
    for login, review in sorted(latest.items()):
        if review.state == "APPROVED" and (why := _why_not(case, login, review, own)):
            yield Finding(
                check="approval-counts",
                outcome=Outcome.SKIP,
                subject=review.person or "somebody",
                message=f"the approval does not count: {why}",
                severity="notice",
            )
    noun = "approval" if needed == 1 else "approvals"
    if needed == 0:
        yield _pass(APPROVALS, f"tier {case.tier} needs no approval here")
    elif len(approvers) >= needed:
        yield _pass(APPROVALS, f"{len(approvers)} of {needed} {noun} of this head: {', '.join(approvers)}")
    else:
        missing = needed - len(approvers)
        whom = "someone" if missing == 1 else f"{missing} people"
        message = (
            f"{missing} of {needed} {noun} missing: {whom} with write access other than {_others(case, approvers)}"
        )
        yield _fail(APPROVALS, message, fix="ask them to approve the newest commit of the pull request")


def _others(case: Case, approvers: tuple[str, ...]) -> str:
    logins = [case.pull.author, *(c.author for c in case.pull.commits), *(c.committer for c in case.pull.commits)]
    bots = {b for c in case.pull.commits for b in c.bots} | ({case.pull.author} if case.pull.author_bot else set())
    people = [p for p in dict.fromkeys([*logins, *approvers]) if p and p != WEB_FLOW and p not in bots]
    return ", ".join(people) or "bots"


# ---------------------------------------------------------------- the version


def _entry_rules(case: Case, entry: StageEntry | None) -> Iterable[Finding]:
    if entry is None:
        yield _pass("version", f"{case.stage} is to run nothing")
        return
    yield from registry_rules(entry, case.registered)
    held = {q.digest: q for q in (*case.before.quarantine, *case.after.quarantine)}.get(entry.digest)
    if held:
        what = f"these bytes are quarantined since {held.since:%Y-%m-%d}: {held.reason or 'no reason given'}"
        fix = "promote another version, or first lift the quarantine in a pull request of its own"
        yield _fail("quarantine", what, fix=fix)
    else:
        yield _pass("quarantine", "its bytes are not quarantined")
    yield _order_rule(case, entry)


def registry_rules(entry: StageEntry, registered: Registered) -> Iterable[Finding]:
    """Whether the registry has the version that the entry names, gated and with the same bytes."""
    name = f"version {entry.version}"
    if not registered.exists:
        fix = "name a version that `mlp-ci register` made"
        yield _fail("version", f"{name} is not in the registry", fix=fix)
        return
    yield _pass("version", f"{name} is in the registry")
    if registered.gate == "pass" and registered.evidence:
        yield _pass("gate", f"{name} passed its gate")
    else:
        what = f"{name} has no evidence" if registered.gate == "pass" else f"{name} did not pass its gate"
        yield _fail("gate", what, fix="promote a version that passed; `mlp-ci evaluate` says why this one did not")
    if registered.digest == entry.digest:
        yield _pass("digest", f"the registry has the same bytes ({entry.digest[:19]}…)")
    else:
        what = f"the file names {entry.digest[:19]}…, the registry has {registered.digest[:19] or 'none'}…"
        fix = "run `mlp-ci promote` again; if you did not expect this, find out who changed the artefact"
        yield _fail("digest", what, fix=fix)


def _order_rule(case: Case, entry: StageEntry) -> Finding:
    earlier = case.platform.stage_before(case.stage)
    if earlier is None:
        return _pass("stage-order", f"{case.stage} is the first stage")
    there = case.before.stages.get(earlier.name)
    if there == entry:
        return _pass("stage-order", f"{earlier.name} has this version")
    runs = f"version {there.version}" if there else "nothing"
    if there and there.version == entry.version:
        runs += " with other bytes"
    fix = f"mlp-ci promote {earlier.name} --version {entry.version}, and merge that first"
    what = f"{case.stage} only takes what {earlier.name} has; {earlier.name} has {runs}"
    return _fail("stage-order", what, fix=fix)


_FRESH = "close it and run `mlp-ci promote` again"


def _pass(check: str, message: str) -> Finding:
    return Finding(check=check, outcome=Outcome.PASS, message=message)


def _fail(check: str, message: str, *, fix: str, subject: str = "") -> Finding:
    return Finding(check=check, outcome=Outcome.FAIL, message=message, fix=fix, subject=subject)
