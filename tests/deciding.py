"""Values for tests of the promotion policy: an honest case, and short ways to say what is different."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from mlp_ci.github.facts import CommitFact, DismissalFact, PullDetail, PullHistory, ReviewFact
from mlp_ci.promote.case import Case, Registered, Verdict
from mlp_ci.report import Outcome
from mlp_ci.spec import PlatformSpec, Promote, PromotionSpec, Quarantined, StageEntry, default_platform

D3, D4 = (f"sha256:{c * 64}" for c in "34")
EVIDENCE, SWAPPED = (f"sha256:{c * 64}" for c in "ef")
HEAD, OLD = "a" * 40, "0" * 40
TRAINED = "c" * 40
NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)  # a Wednesday


def promotion(
    model: str = "flight-delay", quarantine: tuple[Quarantined, ...] = (), **stages: StageEntry
) -> PromotionSpec:
    return PromotionSpec(apiVersion="mlp-ci/v1", model=model, stages=stages, quarantine=quarantine)


def entry(version: int = 4, digest: str = D4, **more: Any) -> StageEntry:
    return StageEntry(version=version, digest=digest, **more)


def held(digest: str = D4, reason: str = "late flights") -> Quarantined:
    return Quarantined(version=4, digest=digest, reason=reason, since=datetime(2026, 5, 1, tzinfo=UTC))


def stamp(second: int) -> str:
    return f"2026-11-18T10:{second // 60:02}:{second % 60:02}Z"


def commit(author: str = "alice", committer: str | None = None, sha: str = HEAD) -> CommitFact:
    bots = frozenset(p for p in (author, committer) if p and p.endswith("[bot]"))
    return CommitFact(sha=sha, author=author, committer=author if committer is None else committer, bots=bots)


def review(person: str, state: str = "APPROVED", at: int = 1, sha: str = HEAD, *, bot: bool = False) -> ReviewFact:
    return ReviewFact(id=at, person=person, state=state, commit=sha, submitted=stamp(at), bot=bot)


def dismissal(review: int, by: str, was: str = "CHANGES_REQUESTED", *, bot: bool = False) -> DismissalFact:
    return DismissalFact(review=review, was=was, by=by, by_bot=bot, at=stamp(review + 1))


def pull(**changes: Any) -> PullDetail:
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
    return replace(plain, **changes)


def history(**changes: Any) -> PullHistory:
    return replace(PullHistory(push_known=True, pushers=("alice",)), **changes)


def registered(**changes: Any) -> Registered:
    plain = Registered(
        exists=True,
        gate="pass",
        shown="pass",
        digest=D4,
        evidence=EVIDENCE,
        evidence_found=EVIDENCE,
        commit=TRAINED,
        commit_known=True,
        data=True,
    )
    return replace(plain, **changes)


def platform(**changes: Any) -> PlatformSpec:
    """The built-in policy with some keys of platform.yaml said otherwise."""
    return PlatformSpec.model_validate({"apiVersion": "mlp-ci/v1", **changes})


def own(**keys: Any) -> Promote:
    """The ``promote`` of a model.yaml."""
    return Promote.model_validate(keys)


def case(**changes: Any) -> Case:
    """Alice asks for version 4 in production, where staging has it, and Bob approved."""
    plain = Case(
        stage="production",
        tier="standard",
        platform=default_platform(),
        own=own(),
        repository="acme/flight-delay",
        default_branch="main",
        pull=pull(),
        history=history(),
        reviews=(review("bob"),),
        permissions={"alice": "write", "bob": "write", "carol": "admin", "dave": "read"},
        before=promotion(staging=entry(), production=entry(3, D3)),
        after=promotion(staging=entry(), production=entry()),
        registered=registered(),
        at=NOW,
    )
    return replace(plain, **changes)


def broken(verdict: Verdict) -> set[str]:
    """The rules that do not hold."""
    return {r.check for r in verdict.reasons if r.outcome is Outcome.FAIL}


def held_rules(verdict: Verdict) -> set[str]:
    return {r.check for r in verdict.reasons if r.outcome is Outcome.PASS}


def message(verdict: Verdict, check: str) -> str:
    return next(r.message for r in verdict.reasons if r.check == check)


def fix(verdict: Verdict, check: str) -> str:
    return next(r.fix for r in verdict.reasons if r.check == check)
