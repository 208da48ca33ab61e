"""Issues: the list, one with its comments, opening, commenting, closing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.sandbox.forge import issues as rules
from mlp_ci.sandbox.forge import shapes_work
from mlp_ci.sandbox.forge.pages.web import REPO, Group, Page, Visit, go
from mlp_ci.sandbox.forge.records import Comment, Issue, User
from mlp_ci.sandbox.forge.store import Refusal

if TYPE_CHECKING:
    from starlette.responses import Response

group = Group()
ISSUES = REPO + "/issues"
ISSUE = ISSUES + "/{number}"


@group.get(ISSUES, "issues")
def listing(visit: Visit) -> Page:
    store = visit.forge.store
    state = visit.query.get("state", "open")
    found = [
        {
            "issue": issue,
            "author": store.get(User, issue.user_id),
            "labels": shapes_work.labels_of(visit.forge, issue.id),
        }
        for issue in store.find(Issue, "repo_id = ? AND is_pull = 0", visit.repo.id, order="number DESC")
        if state in ("all", issue.state)
    ]
    return Page("issues.html", {"rows": found, "state": state})


@group.post(ISSUES + "/new", "issues", "read", back=listing)
def create(visit: Visit) -> Response:
    title = visit.form.get("title", "").strip()
    if not title:
        raise Refusal(422, "An issue needs a title")
    issue = rules.open_issue(visit.forge, visit.repo, visit.actor, title, visit.form.get("body") or None)
    return go(f"{visit.home}/issues/{issue.number}")


@group.get(ISSUE, "issues|pull_requests")
def show(visit: Visit) -> Page | Response:
    issue = _issue(visit)
    if issue.is_pull:
        return go(f"{visit.home}/pull/{issue.number}")
    store = visit.forge.store
    values = {
        "issue": issue,
        "author": store.get(User, issue.user_id),
        "labels": shapes_work.labels_of(visit.forge, issue.id),
        "comments": [
            {"comment": row, "who": store.get(User, row.user_id)}
            for row in store.find(Comment, "issue_id = ?", issue.id)
        ],
        "may_close": _may_close(visit, issue),
        "here": f"{visit.home}/issues/{issue.number}",
    }
    return Page("issue.html", values)


@group.post(ISSUE + "/comment", "issues|pull_requests", "read", back=show)
def comment(visit: Visit) -> Response:
    issue = _issue(visit)
    text = visit.form.get("body", "").strip()
    if not text:
        raise Refusal(422, "A comment needs some text")
    made = rules.add_comment(visit.forge, visit.repo, visit.actor, issue, text)
    return go(f"{visit.home}/issues/{issue.number}#comment-{made.id}")


@group.post(ISSUE + "/state", "issues", "read", back=show)
def set_state(visit: Visit) -> Response:
    issue = _issue(visit)
    state = visit.form.get("state", "")
    if issue.is_pull or state not in ("open", "closed"):
        raise Refusal(422, "An issue is open or closed")
    if not _may_close(visit, issue):
        raise Refusal(403, "Only its author, or somebody with write access, may close or reopen an issue")
    rules.edit_issue(visit.forge, visit.repo, visit.actor, issue, {"state": state})
    return go(f"{visit.home}/issues/{issue.number}")


def _issue(visit: Visit) -> Issue:
    return visit.row(Issue, "repo_id = ? AND number = ?", visit.repo.id, visit.number("number"))


def _may_close(visit: Visit, issue: Issue) -> bool:
    return issue.user_id == visit.actor.user.id or visit.may("issues", "write", "write")
