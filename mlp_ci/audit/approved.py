"""Whether every deployment on record was approved, asked of GitHub again: by what it has now, for what was then.

What can only be known at the time (soak, freezes, who was in a team or on call, what the registry said) was judged by
`mlp-ci deploy` before anything was loaded, and is not judged again here. People who have left since do not make a past
approval wrong, so they are news and no failure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from mlp_ci.promote.case import APPROVALS, ROLLBACK, Verdict
from mlp_ci.promote.emergencies import review_afterwards
from mlp_ci.promote.history import Change, of_stage
from mlp_ci.promote.intent import is_rollback, verify_change
from mlp_ci.promote.people import WRITERS
from mlp_ci.report import Finding, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlp_ci.promote.gather import Gatherer
    from mlp_ci.promote.records import DeploymentRecord
    from mlp_ci.spec import PlatformSpec
    from mlp_ci.tracking import Tracking

# Rules on what was so at the time; see above. `pushers`: GitHub keeps its record of pushes for a while only.
THEN = {"version", "gate", "digest", "evidence", "lineage", "soak", "freeze", "emergency"}
MAY_FADE = {"pushers"}


class NoRegistry:
    """Stands in for MLflow, which says nothing about the past that could be trusted."""

    def find_version(self, model: str, number: int) -> None:
        """No version."""
        _ = model, number


def no_registry() -> Tracking:
    return cast("Tracking", NoRegistry())


@dataclass
class Judge:
    """Judges records; what two of them rest on is asked of GitHub once."""

    gatherer: Gatherer
    platform: PlatformSpec
    records: list[DeploymentRecord]
    reviewed: list[int] = field(default_factory=list)  # pull requests of emergencies that were reviewed since
    _verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)

    def findings(self, record: DeploymentRecord) -> list[Finding]:
        """What does not hold of one record; empty when all does."""
        change = self._change(record)
        if change is None:
            where = f"{record.commit[:12]} on the default branch"
            what = f"{where} does not ask for version {record.version} in {record.stage}"
            return [_fail(record, "asked", what, "find out who deployed it; `mlp-ci deploy` brings what git asks for")]
        self.gatherer.at = record.at
        verdict = self._verdict(record.stage, change)
        found = [*_rules(record, verdict), *_named(record, verdict), *self._people(record, verdict)]
        return [*found, *self._stage_before(record, change), *self._review_after(record, change)]

    def _verdict(self, stage: str, change: Change) -> Verdict:
        key = (stage, change.commit.sha)
        if key not in self._verdicts:
            self._verdicts[key] = verify_change(self.gatherer, self.platform, stage, change)
        return self._verdicts[key]

    def _change(self, record: DeploymentRecord) -> Change | None:
        """The change that asked for what was deployed; for a rollback the one that first brought the version there.

        A rollback needs no approval, as it leads to what was approved. And it may be deployed before git says the
        same: a protected branch gets a pull request.
        """
        hub = self.gatherer.hub
        if not hub.is_ancestor(record.commit, hub.default_branch):
            return None
        for change in self.gatherer.walk.changes(of_stage(record.stage), record.commit):
            entry = change.after.stages.get(record.stage)
            same = entry is not None and (entry.version, entry.digest) == (record.version, record.digest)
            if record.kind != ROLLBACK:
                return change if same and change.commit.sha == record.commit else None
            if same and not is_rollback(record.stage, change.before, change.after):
                return change
        return None

    def _people(self, record: DeploymentRecord, verdict: Verdict) -> Iterator[Finding]:
        """Everybody whom the record names approved the merged head, and they were enough."""
        counted = {who.lower() for who in verdict.approvers}
        missing = [who for who in self._vouched(record) if who.lower() not in counted]
        why = {r.subject.lower(): r.message for r in verdict.reasons if r.check == "approval-counts"}
        left = [who for who in missing if who.lower() in why and self._left(who)]
        for who in left:
            what = f"{who}, who approved it, may no longer write to the repository"
            yield _fail(record, APPROVALS, what, "", outcome=Outcome.SKIP, severity="notice")
        fix = _AGAIN.format(pull=verdict.pull)
        for who in [who for who in missing if who not in left]:
            yield _fail(record, APPROVALS, why.get(who.lower(), _GONE.format(who=who)), fix)
        enough = len(counted) + len(left) >= verdict.needed
        for reason in verdict.reasons:
            if reason.outcome is Outcome.FAIL and _is_counting(reason.check) and not (left and enough):
                yield _fail(record, reason.check, reason.message, fix)

    def _vouched(self, record: DeploymentRecord) -> tuple[str, ...]:
        """Who approved it, by the record; a rollback leads to an earlier record, which says it."""
        if record.kind != ROLLBACK:
            return record.approved_by
        same = [r for r in self.records if r.number < record.number and r.stage == record.stage]
        same = [r for r in same if (r.version, r.digest) == (record.version, record.digest) and r.kind != ROLLBACK]
        return same[-1].approved_by if same else record.approved_by

    def _review_after(self, record: DeploymentRecord, change: Change) -> Iterator[Finding]:
        """An emergency did without approvals; afterwards it needs those that the policy asks for."""
        found = review_afterwards(self.gatherer, record.stage, change) if record.kind != ROLLBACK else None
        if found is None or change.pull is None:
            return
        if found.outcome is Outcome.PASS:
            self.reviewed.append(change.pull.number)
        else:
            yield _fail(record, "emergency", found.message, _AGAIN.format(pull=change.pull.number))

    def _left(self, login: str) -> bool:
        return self.gatherer.hub.permission(login) not in WRITERS

    def _stage_before(self, record: DeploymentRecord, change: Change) -> Iterator[Finding]:
        """That the stage before had the version only counts when it got there by a pull request that was allowed."""
        entry, names = change.after.stages.get(record.stage), self.platform.stage_names()
        earlier = self.platform.stage_before(record.stage) if record.stage in names else None
        if earlier is None or entry is None or entry.emergency or not change.commit.parents:
            return
        there = next(
            (
                c
                for c in self.gatherer.walk.changes(of_stage(earlier.name), change.commit.parents[0])
                if not is_rollback(earlier.name, c.before, c.after)
            ),
            None,
        )
        wrong = [r for r in self._verdict(earlier.name, there).reasons if _still_counts(r)] if there else []
        if wrong:
            what = f"{earlier.name} had the version when this was merged, but not by an allowed promotion: "
            fix = f"promote it to {earlier.name} by pull request"
            yield _fail(record, "stage-order", what + wrong[0].message, fix)


def _still_counts(reason: Finding) -> bool:
    """Whether a rule that fails today failed then as well; approvals are judged with the record of that stage."""
    passing = reason.outcome is not Outcome.FAIL or reason.check in THEN | MAY_FADE
    return not passing and not _is_counting(reason.check)


def _rules(record: DeploymentRecord, verdict: Verdict) -> Iterator[Finding]:
    """The rules that hold for ever: who wrote it, what it changed, how it was merged."""
    for reason in verdict.reasons:
        if _still_counts(reason):
            yield _fail(record, reason.check, reason.message, reason.fix)
        elif reason.outcome is Outcome.FAIL and reason.check in MAY_FADE:
            yield _fail(record, reason.check, reason.message, "", outcome=Outcome.SKIP, severity="notice")


def _is_counting(check: str) -> bool:
    return check == APPROVALS or check.startswith("team:")


def _named(record: DeploymentRecord, verdict: Verdict) -> Iterator[Finding]:
    """The record names the pull request that brought it."""
    if record.kind != ROLLBACK and record.pull != verdict.pull:
        said = f"#{record.pull}" if record.pull else "no pull request"
        is_of = f"is the merge of #{verdict.pull}" if verdict.pull else "came by none"
        what = f"the record names {said}, and {record.commit[:12]} {is_of}"
        yield _fail(record, "pull-request", what, "find out who wrote the record; see the findings on the chain")


_AGAIN = "have somebody who did not write it approve #{pull}, which counts after the merge as well; or roll back"
_GONE = "GitHub has no approval of the merged head by {who} (any more)"


def _fail(record: DeploymentRecord, check: str, message: str, fix: str, **changes: Any) -> Finding:
    subject = f"record {record.number} ({record.stage}, version {record.version})"
    known: dict[str, Any] = {"outcome": Outcome.FAIL, "severity": "error", **changes}
    return Finding(check=check, message=message, fix=fix, subject=subject, **known)
