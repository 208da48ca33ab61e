"""What git asks for in a stage, and whether it may: the check after the merge, before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci.promote.gather import Gatherer, changed_stages, model_at, promotion_at
from mlp_ci.promote.history import Change, History
from mlp_ci.promote.policy import Verdict, decide, registry_rules
from mlp_ci.report import Finding, Outcome
from mlp_ci.spec import PROMOTION_FILE, PlatformSpec, PromotionSpec, StageEntry

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.github import Hub
    from mlp_ci.tracking import Tracking


def verify_intent(ctx: Context, hub: Hub, tracking: Tracking, platform: PlatformSpec, stage: str) -> Verdict:
    """The verdict on what promotion.yaml on the default branch asks for in ``stage``, as GitHub has it now.

    The last change of the stage's entry must be the merge of a pull request that :func:`decide` allows, with the
    reviews of exactly the merged head; or a rollback: a commit that puts an earlier, itself verified entry back and
    quarantines the bytes it takes away, and changes nothing else. A rollback needs no approval, because it can only
    lead to where people already agreed to be. ``ctx`` is not asked: a checkout may be stale.
    """
    _ = ctx
    head = hub.head(hub.default_branch)
    model = model_at(hub, head)
    now = promotion_at(hub, head, model.name)
    history = History(hub, model.name)
    gatherer = Gatherer(hub, platform, lambda: tracking)
    entry = now.stages.get(stage)
    change = history.last_change(stage, head)
    if change is None:
        message = f"nothing was ever promoted to {stage}"
        finding = Finding(check="intent", outcome=Outcome.SKIP, message=message)
        return Verdict(allowed=True, reasons=[finding], stage=stage, commit=head)
    verdict = _verify_change(history, gatherer, stage, change)
    reasons = [*verdict.reasons, *_still_free(now, entry)]
    allowed = verdict.allowed and all(r.outcome is not Outcome.FAIL for r in reasons)
    return replace(verdict, allowed=allowed, reasons=reasons, entry=entry, commit=change.commit.sha)


def _verify_change(history: History, gatherer: Gatherer, stage: str, change: Change) -> Verdict:
    entry = change.after.stages.get(stage)
    if is_rollback(stage, change.before, change.after):
        return _verify_rollback(history, gatherer, stage, change)
    if change.pull is None:
        finding = _pushed(stage, change)
        return Verdict(allowed=False, reasons=[finding], stage=stage, entry=entry, commit=change.commit.sha)
    model = model_at(gatherer.hub, change.commit.parents[0])
    verdict = decide(gatherer.case(change.pull, stage, model, (change.before, change.after)))
    approved = promotion_at(gatherer.hub, change.pull.head_sha, model.name).stages.get(stage)
    if approved != entry:
        what = f"what was merged is not what pull request #{change.pull.number} asked for at its last commit"
        fix = f"revert {change.commit.sha[:12]} and run `mlp-ci promote {stage}`"
        finding = Finding(check="merged-as-approved", outcome=Outcome.FAIL, message=what, fix=fix)
        return replace(verdict, allowed=False, reasons=[*verdict.reasons, finding])
    return _with_stage_before(history, gatherer, change, verdict)


def _with_stage_before(history: History, gatherer: Gatherer, change: Change, verdict: Verdict) -> Verdict:
    """That the stage before has the version only counts when it got there the allowed way."""
    platform = gatherer.platform
    earlier = platform.stage_before(verdict.stage) if verdict.stage in platform.stage_names() else None
    if not verdict.allowed or earlier is None or verdict.entry is None:
        return verdict
    there = history.last_change(earlier.name, change.commit.parents[0])
    if there and _verify_change(history, gatherer, earlier.name, there).allowed:
        return verdict
    sha = there.commit.sha[:12] if there else ""
    what = f"{earlier.name} had the version when this was merged, but not by an allowed promotion ({sha})"
    fix = f"promote it to {earlier.name} by pull request first"
    finding = Finding(check="stage-order", outcome=Outcome.FAIL, message=what, fix=fix)
    return replace(verdict, allowed=False, reasons=[*verdict.reasons, finding])


def is_rollback(stage: str, before: PromotionSpec, after: PromotionSpec) -> bool:
    """Whether a change has the shape of a rollback: this entry goes back, its bytes are quarantined, nothing else."""
    taken, put = before.stages.get(stage), after.stages.get(stage)
    if taken is None or put is None or changed_stages(before, after) != [stage]:
        return False
    held = {q.digest for q in before.quarantine}
    added = [q for q in after.quarantine if q.digest not in held]
    return [q.digest for q in added] == [taken.digest] and put.digest not in held | {taken.digest}


def _verify_rollback(history: History, gatherer: Gatherer, stage: str, change: Change) -> Verdict:
    """A rollback is allowed when what it puts back was approved for this stage before."""
    entry, sha = change.after.stages[stage], change.commit.sha
    parent = change.commit.parents[0]
    others = [f for f in gatherer.hub.changed_between(parent, sha) if f != PROMOTION_FILE]
    if others:
        what = f"the rollback {sha[:12]} also changes {', '.join(others[:3])}"
        finding = Finding(check="one-file", outcome=Outcome.FAIL, message=what, fix=_MEND.format(stage=stage))
        return Verdict(allowed=False, reasons=[finding], stage=stage, entry=entry, commit=sha)
    earlier = next((c for c in history.changes(stage, parent) if c.after.stages.get(stage) == entry), None)
    was = _verify_change(history, gatherer, stage, earlier) if earlier else None
    pull = was.pull if was else None
    if was is None or not was.allowed:
        what = f"{sha[:12]} looks like a rollback, but version {entry.version} was never approved for {stage}"
        finding = Finding(check="rollback", outcome=Outcome.FAIL, message=what, fix=_MEND.format(stage=stage))
        inner = [r for r in was.reasons if r.outcome is Outcome.FAIL] if was else []
        return Verdict(allowed=False, reasons=[finding, *inner], stage=stage, entry=entry, commit=sha, pull=pull)
    who = change.commit.author or change.commit.author_name
    what = f"rolled back by {who} to what was approved before"
    what += f" in pull request #{was.pull}" if was.pull else ""
    model = model_at(gatherer.hub, parent)
    reasons = [
        Finding(check="rollback", outcome=Outcome.PASS, message=what),
        *registry_rules(entry, gatherer.registered(model.name, entry)),
    ]
    allowed = all(r.outcome is not Outcome.FAIL for r in reasons)
    return Verdict(allowed=allowed, reasons=reasons, stage=stage, entry=entry, commit=sha, pull=pull)


def _pushed(stage: str, change: Change) -> Finding:
    commit = change.commit
    who = commit.committer if commit.committer and commit.committer != "web-flow" else commit.author
    who = who or commit.author_name or "somebody GitHub does not know"
    entry = change.after.stages.get(stage)
    asked = f"version {entry.version}" if entry else "nothing"
    what = f"{commit.sha[:12]} by {who} asks for {asked} in {stage} without a merged pull request: nobody approved it"
    fix = f"git revert {commit.sha[:12]}"
    fix += f", then mlp-ci promote {stage} --version {entry.version}" if entry else ""
    return Finding(check="pull-request", outcome=Outcome.FAIL, message=what, subject=who, fix=fix)


def _still_free(now: PromotionSpec, entry: StageEntry | None) -> list[Finding]:
    """A quarantine that came after the promotion counts as well."""
    held = next((q for q in now.quarantine if entry and q.digest == entry.digest), None)
    if held is None:
        return []
    what = f"its bytes are quarantined since {held.since:%Y-%m-%d}: {held.reason or 'no reason given'}"
    fix = "promote another version, or lift the quarantine in a pull request of its own"
    return [Finding(check="quarantine", outcome=Outcome.FAIL, message=what, fix=fix)]


_MEND = "revert it, or ask for the version with `mlp-ci promote {stage}`"
