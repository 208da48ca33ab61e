"""A verdict in words: one line for a commit status, one comment, tables for a terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci.promote.case import APPROVALS, GUARDED, QUARANTINE, Verdict
from mlp_ci.report import Outcome, Table, markdown_cell, markdown_table
from mlp_ci.spec import PROMOTION_FILE

if TYPE_CHECKING:
    from mlp_ci.github import PullDetail

STATUS = "mlp-ci/approvals"
MARKER = "mlp-ci approvals"

# What each rule is for, in the order in which they are judged; `approvals --explain` prints it.
RULES = {
    "readable": "The file is plain YAML that a reviewer can read: no links, anchors, duplicate keys.",
    "one-file": "Who approves sees the promotion and nothing else.",
    "whole": "What GitHub does not list, nobody has judged.",
    "same-repository": "GitHub records who pushed only to this repository.",
    "base": "Only the default branch is deployed.",
    "state": "A draft or a closed pull request asks for nothing.",
    "one-entry": "One approval is for one stage.",
    "model": "The file stays the file of this model.",
    "commit-authors": "Somebody unknown could be one of those who approve.",
    "co-authors": "Co-authors cannot approve, so all of them have to be known.",
    "pushers": "An e-mail address in a commit can be anybody's; a push needs the person's own credentials.",
    "changes-requested": "One objection is enough to stop it.",
    "dismissal": "Only an admin who did not work on it may set an objection aside.",
    "approval-counts": "An approval counts from a person with write access, for this commit, not for their own work.",
    APPROVALS: "The policy says how many people, by tier and stage.",
    "team:": "The policy names teams that must be among them.",
    "emergency": "Only the named team may do without the usual approvals, and is asked for a review afterwards.",
    "stricter": "model.yaml may ask for more than the platform, never for less.",
    "version": "The registry knows the version.",
    "gate": "It passed its gate on held-out data.",
    "digest": "The approval is for these bytes, not for a number.",
    "evidence": "What the approvers read is what the version was registered with.",
    "lineage": "It is known which code and which data it comes from.",
    "quarantine": "Bytes that were rolled back do not come back by accident.",
    "quarantine-lift": "A quarantine ends only by an approved pull request of its own.",
    "stage-order": "A version proves itself in one stage before it goes on.",
    "soak": "And for as long as the policy says.",
    "freeze": "Nothing is promoted in a freeze.",
    "guarded-files": "Policy, owners and workflows decide over everything else; the platform team approves them.",
    "policy": "A rule that was loosened while this was open does not help it.",
    "registered": "A repository without a model has nothing to promote.",
}


def title_of(verdict: Verdict) -> str:
    if verdict.stage in (QUARANTINE, PROMOTION_FILE, GUARDED):
        return verdict.stage
    return f"version {verdict.entry.version} to {verdict.stage}" if verdict.entry else f"{verdict.stage} to run nothing"


def status_of(verdicts: list[Verdict]) -> str:
    """The state of the commit status: pending where only time or approvals are missing."""
    if all(v.allowed for v in verdicts):
        return "success"
    return "pending" if all(v.allowed or v.waiting for v in verdicts) else "failure"


def summary(verdicts: list[Verdict]) -> str:
    """One line for a commit status."""
    refusals = [r for v in verdicts for r in v.reasons if r.outcome is Outcome.FAIL]
    if refusals:
        # What nobody can approve away comes first.
        refusals.sort(key=lambda r: r.check == APPROVALS or r.check.startswith("team:"))
        more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
        return refusals[0].message + more
    people = list(dict.fromkeys(a for v in verdicts for a in v.approvers))
    if people:
        return f"approved by {', '.join(people)}"
    machine = all(v.machine for v in verdicts)
    return "approved by the machine: every gate passed" if machine else "all rules hold; no approval needed"


def verdict_table(verdict: Verdict) -> Table:
    rows = tuple((r.check, r.outcome, r.message) for r in verdict.reasons)
    return Table(title=title_of(verdict), columns=("rule", "result", "reason"), rows=rows)


def explained(verdicts: list[Verdict]) -> list[Table]:
    """Why there are these rules, and what would have to happen for those that do not hold."""
    checks = dict.fromkeys(r.check for v in verdicts for r in v.reasons)
    why = tuple((check, RULES.get(check) or RULES["team:"]) for check in checks)
    todo = tuple((title_of(v), r.check, r.fix) for v in verdicts for r in v.reasons if r.outcome is Outcome.FAIL)
    tables = [Table(title="Why these rules", columns=("rule", "reason for it"), rows=why)]
    if todo:
        tables.append(Table(title="What is missing", columns=("for", "rule", "what mends it"), rows=todo))
    return tables


def comment(run_url: str, pull: PullDetail, verdicts: list[Verdict]) -> str:
    """The one comment: the verdict, who still has to approve what, and every rule."""
    lines = []
    for verdict in verdicts:
        said = "approved" if verdict.allowed else "waiting" if verdict.waiting else "not allowed"
        symbol = "✅" if verdict.allowed else "⏳" if verdict.waiting else "❌"
        lines += [f"### {symbol} {title_of(verdict)}: {said}", ""]
        refusals = [r for r in verdict.reasons if r.outcome is Outcome.FAIL]
        for reason in refusals:
            lines.append(f"- **{reason.check}**: {markdown_cell(reason.message)}")
            lines += [f"  → {markdown_cell(reason.fix)}"] if reason.fix else []
        table = markdown_table(replace(verdict_table(verdict), title=""))
        lines += ["", "<details><summary>Every rule</summary>", "", table, "", "</details>", ""]
    run = f" · [run]({run_url})" if run_url else ""
    lines.append(
        f"<sub>For commit {pull.head_sha[:12]}, by the policy of {markdown_cell(verdicts[0].policy)}. An approval "
        f"counts for this commit only. `mlp-ci deploy` checks the same again after the merge.{run}</sub>"
    )
    return "\n".join(lines) + "\n"
