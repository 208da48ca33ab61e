"""Issues, their labels and the comments below issues and pull requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.sandbox.forge import events, history
from mlp_ci.sandbox.forge.records import Assignee, Comment, Issue, IssueLabel, Label, Repo
from mlp_ci.sandbox.forge.store import invalid, stamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.sandbox.forge.access import Actor, Forge

_PLAIN_COLOR = "ededed"


def new_issue(forge: Forge, repo: Repo, actor: Actor, title: str, body: str | None, *, is_pull: bool = False) -> Issue:
    """The row of an issue or pull request under the next number; announces nothing."""
    at = stamp()
    with forge.store.tx():
        last = forge.store.first(Issue, "repo_id = ?", repo.id, order="number DESC")
        return forge.store.insert(
            Issue, repo_id=repo.id, number=(last.number if last else 0) + 1, is_pull=is_pull, title=title, body=body,
            state="open", user_id=actor.user.id, created_at=at, updated_at=at,
        )  # fmt: skip


def open_issue(forge: Forge, repo: Repo, actor: Actor, title: str, body: str | None) -> Issue:
    with forge.store.tx():
        issue = new_issue(forge, repo, actor, title, body)
        events.issue_event(forge, repo, actor, issue, "opened")
    return issue


def edit_issue(forge: Forge, repo: Repo, actor: Actor, issue: Issue, values: dict[str, Any]) -> Issue:
    """Change title, body, state or state_reason; each kind of change is an event of its own."""
    at = stamp()
    with forge.store.tx():
        state = values.get("state", issue.state)
        if state != issue.state:
            closing = state == "closed"
            values = {"state_reason": "completed" if closing else "reopened", **values}
            values |= {"closed_at": at if closing else None, "closed_by": actor.user.id if closing else None}
        changed = forge.store.update(issue, **values, updated_at=at)
        if state != issue.state:
            word = "closed" if state == "closed" else "reopened"
            history.note(forge, repo, actor, issue.id, word, state_reason=changed.state_reason)
            events.issue_event(forge, repo, actor, changed, word)
        if changed.title != issue.title:
            history.note(forge, repo, actor, issue.id, "renamed", rename={"from": issue.title, "to": changed.title})
        if (changed.title, changed.body) != (issue.title, issue.body):
            events.issue_event(forge, repo, actor, changed, "edited", changes={})
    return changed


def set_assignees(forge: Forge, issue: Issue, logins: Sequence[str]) -> None:
    """Assign exactly these; a login nobody has is a 422."""
    with forge.store.tx():
        forge.store.delete(Assignee, "issue_id = ?", issue.id)
        for login in dict.fromkeys(logins):
            user = forge.store.user(login)
            if user is None:
                msg = "Issue"
                raise invalid(msg, "assignees")
            forge.store.insert(Assignee, issue_id=issue.id, user_id=user.id)


def find_label(forge: Forge, repo: Repo, name: str) -> Label | None:
    return forge.store.first(Label, "repo_id = ? AND name = ? COLLATE NOCASE", repo.id, name)


def new_label(forge: Forge, repo: Repo, name: str, color: str = _PLAIN_COLOR, description: str | None = None) -> Label:
    with forge.store.tx():
        if find_label(forge, repo, name):
            msg = "Label"
            raise invalid(msg, "name", "already_exists")
        return forge.store.insert(Label, repo_id=repo.id, name=name, color=color, description=description)


def add_labels(forge: Forge, repo: Repo, issue: Issue, names: Sequence[str]) -> None:
    """Put labels on an issue; those the repository does not have yet are made, as GitHub does."""
    with forge.store.tx():
        for name in names:
            label = find_label(forge, repo, name) or new_label(forge, repo, name)
            if not forge.store.count(IssueLabel, "issue_id = ? AND label_id = ?", issue.id, label.id):
                forge.store.insert(IssueLabel, issue_id=issue.id, label_id=label.id)


def clear_labels(forge: Forge, issue: Issue) -> None:
    forge.store.delete(IssueLabel, "issue_id = ?", issue.id)


def add_comment(forge: Forge, repo: Repo, actor: Actor, issue: Issue, body: str) -> Comment:
    """Comment on an issue or a pull request."""
    at = stamp()
    with forge.store.tx():
        comment = forge.store.insert(
            Comment, repo_id=repo.id, issue_id=issue.id, user_id=actor.user.id, body=body, created_at=at, updated_at=at
        )
        forge.store.update(issue, updated_at=at)
        events.comment_event(forge, repo, actor, comment, "created")
    return comment


def edit_comment(forge: Forge, repo: Repo, actor: Actor, comment: Comment, body: str) -> Comment:
    with forge.store.tx():
        comment = forge.store.update(comment, body=body, updated_at=stamp())
        events.comment_event(forge, repo, actor, comment, "edited")
    return comment


def delete_comment(forge: Forge, repo: Repo, actor: Actor, comment: Comment) -> None:
    with forge.store.tx():
        events.comment_event(forge, repo, actor, comment, "deleted")
        forge.store.delete(Comment, "id = ?", comment.id)
