"""After a promotion in an emergency: an issue that asks for the review that was waived, closed once it is given."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci.promote.case import APPROVALS, EMERGENCY, Verdict
from mlp_ci.report import Finding, Outcome, markdown_cell

if TYPE_CHECKING:
    from mlp_ci.github import Hub
    from mlp_ci.promote.gather import Gatherer
    from mlp_ci.promote.history import Change

LABEL = "emergency-review"


def marker(pull: int) -> str:
    """What the issue about a pull request carries, hidden."""
    return f"mlp-ci emergency {pull}"


def ask_for_review(hub: Hub, model: str, verdict: Verdict) -> int | None:
    """Open the issue that asks for the review of an emergency promotion, once; its number, None for any other kind."""
    if verdict.kind != EMERGENCY or verdict.pull is None or verdict.entry is None:
        return None
    title = f"Review the emergency promotion of {model} {verdict.entry.version} to {verdict.stage}"
    stood = next((r.message for r in verdict.reasons if r.check == "emergency"), "")
    body = (
        f"Version {verdict.entry.version} went to **{verdict.stage}** in #{verdict.pull} without the usual approvals: "
        f"{markdown_cell(verdict.entry.emergency)}\n\n{markdown_cell(stood)}.\n\n"
        f"Look at it now as you would have before. If it should stay, approve #{verdict.pull} (GitHub takes reviews of "
        "merged pull requests), with as many people as the policy asks for; the next audit closes this issue. If not: "
        f"`mlp-ci rollback --stage {verdict.stage}`.\n"
    )
    return hub.open_issue(marker(verdict.pull), title, body, (LABEL,))


def review_afterwards(gatherer: Gatherer, stage: str, change: Change) -> Finding | None:
    """Whether an emergency promotion has got the approvals that it did without; None where it was no emergency."""
    entry = change.after.stages.get(stage)
    if entry is None or not entry.emergency or change.pull is None:
        return None
    plain = entry.model_copy(update={"emergency": ""})
    after = change.after.model_copy(update={"stages": {**change.after.stages, stage: plain}})
    verdict = gatherer.verdict(change.pull, stage, (change.before, after), change.commit.parents[0])
    missing = [r for r in verdict.reasons if r.outcome is Outcome.FAIL and about_people(r.check)]
    where = f"the emergency promotion of version {entry.version} to {stage} in #{change.pull.number}"
    if not missing:
        what = f"{where} was reviewed afterwards by {', '.join(verdict.approvers) or 'nobody, as none is needed'}"
        return Finding(check="emergency-review", outcome=Outcome.PASS, subject=stage, message=what)
    finding = replace(missing[0], check="emergency-review", subject=stage)
    return replace(finding, message=f"{where} still waits for its review: {missing[0].message}")


def about_people(check: str) -> bool:
    """Whether a rule is about who approved or objected."""
    return check in (APPROVALS, "changes-requested", "dismissal") or check.startswith("team:")
