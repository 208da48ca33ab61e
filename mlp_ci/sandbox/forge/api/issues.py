"""Issues, labels and comments."""

from __future__ import annotations

from typing import Any

from mlp_ci.sandbox.forge import access, issues, pulls, shapes_work
from mlp_ci.sandbox.forge.api.repositories import REPO
from mlp_ci.sandbox.forge.api.routing import Call, Group, Reply, page
from mlp_ci.sandbox.forge.records import Comment, Issue, IssueLabel, Label, Pull, User
from mlp_ci.sandbox.forge.store import Refusal, invalid

group = Group()
SCOPE = "issues|pull_requests"
_ISSUE = REPO + "/issues/{issue_number}"
_COMMENT = REPO + "/issues/comments/{comment_id}"


@group("GET", REPO + "/issues", "issues")
def list_issues(call: Call) -> Any:
    state = call.query.get("state", "open")
    wanted = {name for name in call.query.get("labels", "").split(",") if name}
    creator = call.query.get("creator", "")
    found = [
        issue
        for issue in call.forge.store.find(Issue, "repo_id = ?", call.repo.id, order="number DESC")
        if state in ("all", issue.state)
        and wanted <= {label.name for label in shapes_work.labels_of(call.forge, issue.id)}
        and (not creator or call.forge.store.user(creator) == call.forge.store.get(User, issue.user_id))
    ]
    return page(call, found, lambda issue: shapes_work.issue(call.forge, call.repo, issue))


@group("POST", REPO + "/issues", "issues", "read")
def create_issue(call: Call) -> Any:
    with call.forge.store.tx():
        issue = issues.open_issue(call.forge, call.repo, call.actor, call.text("title"), call.get("body", str))
        issues.add_labels(call.forge, call.repo, issue, _label_names(call))
        issues.set_assignees(call.forge, issue, call.texts("assignees"))
    return Reply(shapes_work.issue(call.forge, call.repo, issue), 201)


@group("GET", _ISSUE, SCOPE)
def get_issue(call: Call) -> Any:
    return shapes_work.issue(call.forge, call.repo, _issue(call))


@group("PATCH", _ISSUE, SCOPE, "read")
def edit_issue(call: Call) -> Any:
    issue = _issue(call)
    _own_or_write(call, issue.user_id)
    values = {
        name: call.get(name, str) for name in ("title", "body", "state_reason") if call.get(name, str) is not None
    }
    state = call.choice("state", ("open", "closed"))
    if issue.is_pull:
        pull = call.forge.store.get(Pull, issue.id)
        pulls.edit(call.forge, call.repo, call.actor, pull, values.get("title"), values.get("body"))
        if state is not None:
            pulls.set_state(call.forge, call.repo, call.actor, pull, state)
    else:
        new = {**values, **({"state": state} if state else {})}
        issues.edit_issue(call.forge, call.repo, call.actor, issue, new)
    if "labels" in call.body:
        names = _label_names(call)
        issues.clear_labels(call.forge, issue)
        issues.add_labels(call.forge, call.repo, issue, names)
    if "assignees" in call.body:
        issues.set_assignees(call.forge, issue, call.texts("assignees"))
    return shapes_work.issue(call.forge, call.repo, call.forge.store.get(Issue, issue.id))


# --- comments


@group("GET", REPO + "/issues/comments", SCOPE)
def all_comments(call: Call) -> Any:
    return page(call, call.forge.store.find(Comment, "repo_id = ?", call.repo.id), lambda c: _comment_shape(call, c))


@group("GET", _ISSUE + "/comments", SCOPE)
def list_comments(call: Call) -> Any:
    found = call.forge.store.find(Comment, "issue_id = ?", _issue(call).id)
    return page(call, found, lambda comment: _comment_shape(call, comment))


@group("POST", _ISSUE + "/comments", SCOPE, "read")
def create_comment(call: Call) -> Any:
    comment = issues.add_comment(call.forge, call.repo, call.actor, _issue(call), _body(call))
    return Reply(_comment_shape(call, comment), 201)


@group("GET", _COMMENT, SCOPE)
def get_comment(call: Call) -> Any:
    return _comment_shape(call, _comment(call))


@group("PATCH", _COMMENT, SCOPE, "read")
def edit_comment(call: Call) -> Any:
    comment = _comment(call)
    _own_or_write(call, comment.user_id)
    return _comment_shape(call, issues.edit_comment(call.forge, call.repo, call.actor, comment, _body(call)))


@group("DELETE", _COMMENT, SCOPE, "read")
def delete_comment(call: Call) -> Any:
    comment = _comment(call)
    _own_or_write(call, comment.user_id)
    issues.delete_comment(call.forge, call.repo, call.actor, comment)


# --- labels


@group("GET", REPO + "/labels", SCOPE)
def list_labels(call: Call) -> Any:
    found = call.forge.store.find(Label, "repo_id = ?", call.repo.id, order="name")
    return page(call, found, lambda label: shapes_work.label(call.forge, call.repo, label))


@group("POST", REPO + "/labels", SCOPE)
def create_label(call: Call) -> Any:
    color = call.get("color", str, "ededed").removeprefix("#")
    label = issues.new_label(call.forge, call.repo, call.text("name"), color, call.get("description", str))
    return Reply(shapes_work.label(call.forge, call.repo, label), 201)


@group("GET", REPO + "/labels/{name}", SCOPE)
def get_label(call: Call) -> Any:
    return shapes_work.label(call.forge, call.repo, _label(call))


@group("PATCH", REPO + "/labels/{name}", SCOPE)
def edit_label(call: Call) -> Any:
    old = _label(call)
    name = call.get("new_name", str, old.name)
    taken = issues.find_label(call.forge, call.repo, name)
    if taken and taken.id != old.id:
        msg = "Label"
        raise invalid(msg, "name", "already_exists")
    color = call.get("color", str, old.color).removeprefix("#")
    new = call.forge.store.update(
        old, name=name, color=color, description=call.get("description", str, old.description)
    )
    return shapes_work.label(call.forge, call.repo, new)


@group("DELETE", REPO + "/labels/{name}", SCOPE)
def delete_label(call: Call) -> Any:
    label = _label(call)
    with call.forge.store.tx():
        call.forge.store.delete(IssueLabel, "label_id = ?", label.id)
        call.forge.store.delete(Label, "id = ?", label.id)


@group("GET", _ISSUE + "/labels", SCOPE)
def issue_labels(call: Call) -> Any:
    return _labels_reply(call, _issue(call))


@group("POST", _ISSUE + "/labels", SCOPE)
def add_labels(call: Call) -> Any:
    issue = _issue(call)
    issues.add_labels(call.forge, call.repo, issue, _label_names(call))
    return _labels_reply(call, issue)


@group("PUT", _ISSUE + "/labels", SCOPE)
def set_labels(call: Call) -> Any:
    issue = _issue(call)
    names = _label_names(call)
    with call.forge.store.tx():
        issues.clear_labels(call.forge, issue)
        issues.add_labels(call.forge, call.repo, issue, names)
    return _labels_reply(call, issue)


@group("DELETE", _ISSUE + "/labels", SCOPE)
def clear_labels(call: Call) -> Any:
    issues.clear_labels(call.forge, _issue(call))


@group("DELETE", _ISSUE + "/labels/{name}", SCOPE)
def remove_label(call: Call) -> Any:
    issue = _issue(call)
    label = _label(call)
    if not call.forge.store.delete(IssueLabel, "issue_id = ? AND label_id = ?", issue.id, label.id):
        raise Refusal(404, "Label does not exist")
    return _labels_reply(call, issue)


def _issue(call: Call) -> Issue:
    return call.row(Issue, "repo_id = ? AND number = ?", call.repo.id, call.number("issue_number"))


def _comment(call: Call) -> Comment:
    return call.row(Comment, "repo_id = ? AND id = ?", call.repo.id, call.number("comment_id"))


def _label(call: Call) -> Label:
    return call.row(Label, "repo_id = ? AND name = ? COLLATE NOCASE", call.repo.id, call.params["name"])


def _comment_shape(call: Call, comment: Comment) -> Any:
    return shapes_work.comment(call.forge, call.repo, comment)


def _labels_reply(call: Call, issue: Issue) -> Any:
    return page(
        call, shapes_work.labels_of(call.forge, issue.id), lambda label: shapes_work.label(call.forge, call.repo, label)
    )


def _label_names(call: Call) -> list[str]:
    """Labels of the body: names, or objects with a name."""
    names = [item.get("name") if isinstance(item, dict) else item for item in call.get("labels", list, [])]
    if not all(isinstance(name, str) and name for name in names):
        msg = "Label"
        raise invalid(msg, "name")
    return [str(name) for name in names]


def _body(call: Call) -> str:
    body = call.text("body")
    if len(body) > 65536:
        msg = "IssueComment"
        raise invalid(msg, "body", "custom", "body is too long (maximum is 65536 characters)")
    return body


def _own_or_write(call: Call, author: int) -> None:
    """One's own words anybody may change; other people's take write access."""
    if author != call.actor.user.id and not access.allowed(call.forge, call.actor, call.repo, SCOPE, "write", "write"):
        raise Refusal(403, "Resource not accessible by personal access token")
