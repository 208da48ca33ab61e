"""Everything that the policy may know about a promotion, and what it says: plain values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mlp_ci.report import Finding, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.github.facts import PullDetail, PullHistory, ReviewFact
    from mlp_ci.spec import PlatformSpec, Promote, PromotionSpec, StageEntry

# The pseudo-stages of a pull request that lifts a quarantine, and of one that changes what promotions rely on; with a
# space in them, so that no real stage can have these names.
QUARANTINE = "quarantine lift"
GUARDED = "guarded files"
APPROVALS = "approvals"
PROMOTION, ROLLBACK, EMERGENCY = "promotion", "rollback", "emergency"
INCONCLUSIVE = str(Outcome.INCONCLUSIVE)


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What the registry knows of the version; ``exists`` false when it knows none of that number.

    ``evidence`` is what the version was registered with, ``evidence_found`` the digest of the evidence as it is now.
    ``gate`` is what its tag says of its gates, ``shown`` what that evidence itself says: pass, inconclusive, fail, or
    "nothing"; empty where it is not the evidence it was registered with. ``on_inconclusive``: what its evidence says
    that an undecided gate means. ``commit_known``: the commit it was trained from is in the history of the default
    branch. ``data``: its data is named by digest.
    """

    exists: bool
    gate: str = ""
    shown: str = ""
    on_inconclusive: str = ""
    digest: str = ""
    evidence: str = ""
    evidence_found: str = ""
    commit: str = ""
    commit_known: bool = False
    data: bool = False

    @property
    def undecided(self) -> bool:
        """Whether the held-out rows did not decide its gates, by the tag or by the evidence."""
        return INCONCLUSIVE in (self.gate, self.shown)


@dataclass(frozen=True, kw_only=True)
class Stay:
    """How long the stage before has had the version, deployed and verified: the longest stay without interruption.

    ``since`` is when the present stay began; None when the stage has something else by now, or never had it.
    """

    longest: timedelta = timedelta()
    since: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything that :func:`mlp_ci.promote.policy.decide` may know.

    ``before`` and ``after`` are promotion.yaml on the default branch without and with the change; ``own`` is what
    model.yaml asks for beyond the platform, ``on_inconclusive`` what it says that an undecided gate means.
    ``permissions`` holds what each reviewer and dismisser may do (login → admin, write, read or none) and ``teams`` who
    is in the teams that matter (slug → logins): who is not in them may do nothing and is in none. ``at`` is the instant
    to be judged for. ``lifted`` says, where these bytes were once quarantined and the lift was not allowed, what is
    wrong with it.
    """

    stage: str
    tier: str
    platform: PlatformSpec
    own: Promote
    on_inconclusive: str = "ask"
    repository: str
    default_branch: str
    pull: PullDetail
    history: PullHistory
    reviews: tuple[ReviewFact, ...]
    permissions: Mapping[str, str]
    teams: Mapping[str, frozenset[str]] = field(default_factory=dict)
    before: PromotionSpec
    after: PromotionSpec
    registered: Registered = field(default_factory=lambda: Registered(exists=False))
    stay: Stay = Stay()
    at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    lifted: str = ""
    guarded: tuple[str, ...] = ()

    @property
    def entry(self) -> StageEntry | None:
        return self.after.stages.get(self.stage)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """``allowed`` when no reason fails. ``commit`` and ``pull`` are what the verdict is about.

    ``entry`` is None when the stage is to run nothing (or the pull request lifts a quarantine). ``author`` asked for
    it; ``kind`` is promotion, rollback or emergency; ``policy`` says where the policy was read.
    """

    allowed: bool
    reasons: list[Finding]
    stage: str
    entry: StageEntry | None = None
    commit: str = ""
    pull: int | None = None
    needed: int = 0
    approvers: tuple[str, ...] = ()
    author: str = ""
    merged_by: str = ""
    policy: str = ""
    kind: str = PROMOTION
    machine: bool = False

    @property
    def waiting(self) -> bool:
        """Whether time and approvals are all that is missing."""
        failed = {r.check for r in self.reasons if r.outcome is Outcome.FAIL}
        patient = (check in (APPROVALS, "soak", "freeze") or check.startswith("team:") for check in failed)
        return bool(failed) and all(patient)


def passed(check: str, message: str) -> Finding:
    return Finding(check=check, outcome=Outcome.PASS, message=message)


def failed(check: str, message: str, *, fix: str, subject: str = "") -> Finding:
    return Finding(check=check, outcome=Outcome.FAIL, message=message, fix=fix, subject=subject)


def skipped(check: str, message: str, subject: str = "") -> Finding:
    return Finding(check=check, outcome=Outcome.SKIP, message=message, subject=subject, severity="notice")
