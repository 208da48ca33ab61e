"""The one issue that says what does not agree: opened and kept up to date in a job, closed when all agrees again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.printable import markdown_text
from mlp_ci.promote.emergencies import marker
from mlp_ci.report import Outcome

if TYPE_CHECKING:
    from mlp_ci.github import Hub
    from mlp_ci.report import Finding

MARKER = "mlp-ci audit"
MOST = 60  # findings that are listed


def tell(hub: Hub, model: str, findings: list[Finding]) -> str:
    """Open, update or close it; its address, empty where there is none."""
    wrong = [f for f in findings if f.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)]
    if wrong:
        number = hub.open_issue(MARKER, _title(model, wrong), _body(wrong))
        return f"{hub.place.server_url}/{hub.place.full_name}/issues/{number}"
    for number in hub.open_issues(MARKER):
        hub.close_issue(number, "Everything agrees again.")
    return ""


def thank(hub: Hub, pulls: list[int]) -> None:
    """Close the issues that ask for the review of these emergency promotions: they have got it."""
    for pull in dict.fromkeys(pulls):
        for number in hub.open_issues(marker(pull)):
            hub.close_issue(number, f"#{pull} was approved as the policy asks.")


def _title(model: str, wrong: list[Finding]) -> str:
    count = "1 thing does" if len(wrong) == 1 else f"{len(wrong)} things do"
    return f"Audit of {model}: {count} not agree"


def _body(wrong: list[Finding]) -> str:
    lines = [
        "`mlp-ci audit` holds the records of deployments, their approvals, guarded files, MLflow and what serves",
        "against git. This does not agree:",
        "",
    ]
    for finding in wrong[:MOST]:
        subject = f"**{markdown_text(finding.subject)}**: " if finding.subject else ""
        lines.append(f"- [ ] {subject}{markdown_text(finding.message)} ({finding.check})")
        lines += [f"  - {markdown_text(finding.fix)}"] if finding.fix else []
    lines += [f"- … and {len(wrong) - MOST} more; the log of the audit has them all"] if len(wrong) > MOST else []
    lines += [
        "",
        "The next audit that finds nothing closes this. What to do with each: *Audit what is live* in the docs.",
    ]
    return "\n".join(lines) + "\n"
