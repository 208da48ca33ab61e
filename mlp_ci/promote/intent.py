"""What git asks for in a stage, and whether it may: the check after the merge, before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci.github.facts import CommitFact
from mlp_ci.promote.case import ROLLBACK, Verdict, failed, passed
from mlp_ci.promote.files import changed_stages, model_at, promotion_at
from mlp_ci.promote.gather import Gatherer
from mlp_ci.promote.history import Change, of_stage
from mlp_ci.promote.version_rules import registry_rules
from mlp_ci.report import Finding, Outcome
from mlp_ci.spec import PROMOTION_FILE, PromotionSpec, StageEntry

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.github import Hub, PullDetail
    from mlp_ci.spec import PlatformSpec
    from mlp_ci.tracking import Tracking


def verify_intent(ctx: Context, hub: Hub, tracking: Tracking, platform: PlatformSpec, stage: str) -> Verdict:
    """The verdict on what promotion.yaml on the default branch asks for in ``stage``, as GitHub has it now.

    The last change of the stage's entry must be the merge of a pull request that the policy allows, with the reviews
    of exactly the merged head; or a rollback: a commit that puts an earlier, itself verified entry back and
    quarantines the bytes it takes away, and changes nothing else. A rollback needs no approval, because it can only
    lead to where people already agreed to be. ``platform`` names the order of the stages; what has to be approved is
    read from the policy as it was before each pull request.
    """
    head = hub.head(hub.default_branch)
    model = model_at(hub, head)
    now = promotion_at(hub, head, model.name)
    gatherer = Gatherer(ctx, hub, model.name, lambda: tracking)
    entry = now.stages.get(stage)
    change = gatherer.walk.last_change(of_stage(stage), head)
    if change is None:
        message = f"nothing was ever promoted to {stage}"
        finding = Finding(check="intent", outcome=Outcome.SKIP, message=message)
        return Verdict(allowed=True, reasons=[finding], stage=stage, commit=head)
    verdict = verify_change(gatherer, platform, stage, change)
    reasons = [*verdict.reasons, *_still_free(now, entry)]
    if change.after.stages.get(stage) != entry:
        what = f"{PROMOTION_FILE} says something else than the commit that last changed it ({change.commit.sha[:12]})"
        reasons.append(failed("merged-as-approved", what, fix=f"make it a plain file, and promote to {stage} again"))
    allowed = verdict.allowed and all(r.outcome is not Outcome.FAIL for r in reasons)
    return replace(verdict, allowed=allowed, reasons=reasons, entry=entry, commit=change.commit.sha)


def verify_change(gatherer: Gatherer, platform: PlatformSpec, stage: str, change: Change) -> Verdict:
    """The verdict on one change of a stage's entry on the default branch."""
    entry = change.after.stages.get(stage)
    if is_rollback(stage, change.before, change.after):
        return _verify_rollback(gatherer, platform, stage, change)
    if change.pull is None:
        finding = _pushed(stage, change)
        return Verdict(allowed=False, reasons=[finding], stage=stage, entry=entry, commit=change.commit.sha)
    base = change.commit.parents[0]
    verdict = gatherer.verdict(change.pull, stage, (change.before, change.after), base)
    approved = promotion_at(gatherer.hub, change.pull.head_sha, gatherer.model).stages.get(stage)
    if approved != entry:
        what = f"what was merged is not what pull request #{change.pull.number} asked for at its last commit"
        fix = f"revert {change.commit.sha[:12]} and run `mlp-ci promote {stage}`"
        finding = failed("merged-as-approved", what, fix=fix)
        return replace(verdict, allowed=False, reasons=[*verdict.reasons, finding])
    return _with_stage_before(gatherer, platform, change, verdict)


def _with_stage_before(gatherer: Gatherer, platform: PlatformSpec, change: Change, verdict: Verdict) -> Verdict:
    """That the stage before has the version only counts when it got there the allowed way."""
    earlier = platform.stage_before(verdict.stage) if verdict.stage in platform.stage_names() else None
    asked = earlier is not None and verdict.entry is not None and not verdict.entry.emergency
    if not verdict.allowed or not asked or earlier is None:
        return verdict
    there = gatherer.walk.last_change(of_stage(earlier.name), change.commit.parents[0])
    if there and _came_there(gatherer, platform, earlier.name, there):
        return verdict
    sha = there.commit.sha[:12] if there else ""
    what = f"{earlier.name} had the version when this was merged, but not by an allowed promotion ({sha})"
    finding = failed("stage-order", what, fix=f"promote it to {earlier.name} by pull request first")
    return replace(verdict, allowed=False, reasons=[*verdict.reasons, finding])


def _came_there(gatherer: Gatherer, platform: PlatformSpec, stage: str, change: Change) -> bool:
    """Whether a version came to the stage before by an allowed change; that the stage is frozen now is no matter."""
    verdict = verify_change(gatherer, platform, stage, change)
    return all(r.outcome is not Outcome.FAIL or r.check == "freeze" for r in verdict.reasons)


def is_rollback(stage: str, before: PromotionSpec, after: PromotionSpec) -> bool:
    """Whether a change has the shape of a rollback: this entry goes back, its bytes are quarantined, nothing else."""
    taken, put = before.stages.get(stage), after.stages.get(stage)
    if taken is None or put is None or changed_stages(before, after) != [stage]:
        return False
    held = {q.digest for q in before.quarantine}
    added = [q for q in after.quarantine if q.digest not in held]
    return [q.digest for q in added] == [taken.digest] and put.digest not in held | {taken.digest}


def rollback_verdict(
    gatherer: Gatherer, platform: PlatformSpec, pull: PullDetail, change: tuple[PromotionSpec, PromotionSpec], base: str
) -> Verdict | None:
    """The verdict on a pull request that is a rollback, as if it was merged into ``base``; None on one that is none.

    There are such where the default branch takes no direct commit. It needs what the commit would need: no approval.
    """
    before, after = change
    stage = next(iter(changed_stages(before, after)), "")
    if not is_rollback(stage, before, after):
        return None
    commit = CommitFact(sha=pull.head_sha, parents=(base,), author=pull.author)
    step = Change(commit=commit, before=before, after=after, pull=None)
    return replace(_verify_rollback(gatherer, platform, stage, step), pull=pull.number)


def _verify_rollback(gatherer: Gatherer, platform: PlatformSpec, stage: str, change: Change) -> Verdict:
    """A rollback is allowed when what it puts back was approved for this stage before."""
    entry, sha = change.after.stages[stage], change.commit.sha
    parent = change.commit.parents[0]
    who = change.commit.author or change.commit.author_name
    plain = Verdict(allowed=False, reasons=[], stage=stage, entry=entry, commit=sha, author=who, kind=ROLLBACK)
    others = [f for f in gatherer.hub.changed_between(parent, sha) if f != PROMOTION_FILE]
    if others:
        what = f"the rollback {sha[:12]} also changes {', '.join(others[:3])}"
        return replace(plain, reasons=[failed("one-file", what, fix=_MEND.format(stage=stage))])
    changes = gatherer.walk.changes(of_stage(stage), parent)
    earlier = next((c for c in changes if _puts_back(entry, c.after.stages.get(stage))), None)
    was = verify_change(gatherer, platform, stage, earlier) if earlier else None
    pull = was.pull if was else None
    refused = [r for r in was.reasons if r.outcome is Outcome.FAIL and r.check != "freeze"] if was else []
    if was is None or refused:
        what = f"{sha[:12]} looks like a rollback, but version {entry.version} was never approved for {stage}"
        finding = failed("rollback", what, fix=_MEND.format(stage=stage))
        return replace(plain, reasons=[finding, *refused], pull=pull)
    what = f"rolled back by {who} to what was approved before"
    what += f" in pull request #{was.pull}" if was.pull else ""
    reasons = [passed("rollback", what), *registry_rules(entry, gatherer.registered(entry))]
    allowed = all(r.outcome is not Outcome.FAIL for r in reasons)
    return replace(plain, allowed=allowed, reasons=reasons, pull=pull, approvers=was.approvers, policy=was.policy)


def _puts_back(entry: StageEntry, earlier: StageEntry | None) -> bool:
    """Whether an entry is an earlier one; a target knows only version and digest, and so may leave the rest out."""
    return entry == earlier or (entry.same(earlier) and entry.evidence is None and not entry.emergency)


def _pushed(stage: str, change: Change) -> Finding:
    commit = change.commit
    who = commit.committer if commit.committer and commit.committer != "web-flow" else commit.author
    who = who or commit.author_name or "somebody GitHub does not know"
    entry = change.after.stages.get(stage)
    asked = f"version {entry.version}" if entry else "nothing"
    what = f"{commit.sha[:12]} by {who} asks for {asked} in {stage} without a merged pull request: nobody approved it"
    fix = f"git revert {commit.sha[:12]}"
    fix += f", then mlp-ci promote {stage} --version {entry.version}" if entry else ""
    return failed("pull-request", what, subject=who, fix=fix)


def _still_free(now: PromotionSpec, entry: StageEntry | None) -> list[Finding]:
    """A quarantine that came after the promotion counts as well."""
    held = next((q for q in now.quarantine if entry and q.digest == entry.digest), None)
    if held is None:
        return []
    what = f"its bytes are quarantined since {held.since:%Y-%m-%d}: {held.reason or 'no reason given'}"
    fix = "promote another version, or lift the quarantine in a pull request of its own"
    return [failed("quarantine", what, fix=fix)]


_MEND = "revert it, or ask for the version with `mlp-ci promote {stage}`"
