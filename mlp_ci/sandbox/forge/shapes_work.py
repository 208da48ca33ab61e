"""How GitHub's REST API writes the work on a repository: issues, pull requests, reviews, comments."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from mlp_ci.sandbox.forge import access, protection, shapes, shapes_checks
from mlp_ci.sandbox.forge.records import (
    Assignee,
    Collaborator,
    Comment,
    Issue,
    IssueEvent,
    Label,
    Pull,
    Repo,
    Review,
    ReviewRequest,
    Team,
    User,
)
from mlp_ci.sandbox.forge.shapes import Shape, html_url, node_id, repo_url, user, user_by_id

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.access import Forge

_REACTIONS = ("+1", "-1", "confused", "eyes", "heart", "hooray", "laugh", "rocket", "total_count")


def association(forge: Forge, repo: Repo, who: int) -> str:
    """MEMBER | COLLABORATOR | OWNER | NONE, as GitHub says of whoever wrote something."""
    if who == repo.owner_id:
        return "OWNER"
    person = forge.store.get(User, who)
    if access.is_member(forge, repo.owner_id, person):
        return "MEMBER"
    known = forge.store.first(Collaborator, "repo_id = ? AND user_id = ?", repo.id, who)
    return "COLLABORATOR" if known and person.type == "User" else "NONE"


def label(forge: Forge, repo: Repo, label: Label) -> Shape:
    return {
        "id": label.id,
        "node_id": node_id(label),
        "url": f"{repo_url(forge, repo)}/labels/{quote(label.name)}",
        "name": label.name,
        "description": label.description,
        "color": label.color,
        "default": False,
        "archived_at": None,
        "archived_by": None,
    }


def labels_of(forge: Forge, issue_id: int) -> list[Label]:
    return forge.store.find(Label, "id IN (SELECT label_id FROM issue_labels WHERE issue_id = ?)", issue_id)


def _talk(forge: Forge, repo: Repo, issue: Issue) -> Shape:
    """What issues and pull requests have in common."""
    assignees = [user_by_id(forge, a.user_id) for a in forge.store.find(Assignee, "issue_id = ?", issue.id)]
    return {
        "id": issue.id,
        "node_id": node_id(issue),
        "number": issue.number,
        "state": issue.state,
        "locked": False,
        "active_lock_reason": None,
        "title": issue.title,
        "body": issue.body,
        "user": user_by_id(forge, issue.user_id),
        "labels": [label(forge, repo, found) for found in labels_of(forge, issue.id)],
        "milestone": None,
        "assignee": assignees[0] if assignees else None,
        "assignees": assignees,
        "author_association": association(forge, repo, issue.user_id),
        "created_at": issue.created_at,
        "updated_at": issue.updated_at,
        "closed_at": issue.closed_at,
    }


def issue(forge: Forge, repo: Repo, issue: Issue) -> Shape:
    """An issue; a pull request is one too, with a ``pull_request`` key."""
    url = f"{repo_url(forge, repo)}/issues/{issue.number}"
    page = f"{html_url(forge, repo)}/{'pull' if issue.is_pull else 'issues'}/{issue.number}"
    shape = {
        **_talk(forge, repo, issue),
        "url": url,
        "repository_url": repo_url(forge, repo),
        "labels_url": f"{url}/labels{{/name}}",
        "comments_url": f"{url}/comments",
        "events_url": f"{url}/events",
        "timeline_url": f"{url}/timeline",
        "html_url": page,
        "comments": forge.store.count(Comment, "issue_id = ?", issue.id),
        "closed_by": user_by_id(forge, issue.closed_by),
        "state_reason": issue.state_reason,
        "reactions": {"url": f"{url}/reactions", **dict.fromkeys(_REACTIONS, 0)},
    }
    if issue.is_pull:
        pull = forge.store.get(Pull, issue.id)
        api = f"{repo_url(forge, repo)}/pulls/{issue.number}"
        shape["draft"] = pull.draft
        shape["pull_request"] = {
            "url": api, "html_url": page, "diff_url": f"{page}.diff", "patch_url": f"{page}.patch",
            "merged_at": pull.merged_at,
        }  # fmt: skip
    return shape


def comment(forge: Forge, repo: Repo, comment: Comment) -> Shape:
    talk = forge.store.get(Issue, comment.issue_id)
    page = f"{html_url(forge, repo)}/{'pull' if talk.is_pull else 'issues'}/{talk.number}"
    url = f"{repo_url(forge, repo)}/issues/comments/{comment.id}"
    return {
        "id": comment.id,
        "node_id": node_id(comment),
        "url": url,
        "html_url": f"{page}#issuecomment-{comment.id}",
        "issue_url": f"{repo_url(forge, repo)}/issues/{talk.number}",
        "body": comment.body,
        "user": user_by_id(forge, comment.user_id),
        "author_association": association(forge, repo, comment.user_id),
        "performed_via_github_app": None,
        "reactions": {"url": f"{url}/reactions", **dict.fromkeys(_REACTIONS, 0)},
        "created_at": comment.created_at,
        "updated_at": comment.updated_at,
    }


def requested(forge: Forge, pull: Pull) -> tuple[list[User], list[Team]]:
    """The users and teams whose review is asked for."""
    asked = forge.store.find(ReviewRequest, "pull_id = ?", pull.id)
    users = [forge.store.get(User, r.user_id) for r in asked if r.user_id is not None]
    return users, [forge.store.get(Team, r.team_id) for r in asked if r.team_id is not None]


def _end(forge: Forge, repo: Repo, ref: str, sha: str) -> Shape:
    owner = forge.store.get(User, repo.owner_id)
    shape = shapes.repository(forge, repo)
    return {"label": f"{owner.login}:{ref}", "ref": ref, "sha": sha, "user": user(forge, owner), "repo": shape}


def pull_simple(forge: Forge, repo: Repo, pull: Pull) -> Shape:
    """A pull request as it stands in lists."""
    url = f"{repo_url(forge, repo)}/pulls/{pull.number}"
    issue_url = f"{repo_url(forge, repo)}/issues/{pull.number}"
    page = f"{html_url(forge, repo)}/pull/{pull.number}"
    users, teams = requested(forge, pull)
    links = {
        "self": url, "html": page, "issue": issue_url, "comments": f"{issue_url}/comments",
        "review_comments": f"{url}/comments", "review_comment": f"{repo_url(forge, repo)}/pulls/comments{{/number}}",
        "commits": f"{url}/commits", "statuses": f"{repo_url(forge, repo)}/statuses/{pull.head_sha}",
    }  # fmt: skip
    head_repo = forge.store.get(Repo, pull.head_repo_id)
    return {
        **_talk(forge, repo, forge.store.get(Issue, pull.id)),
        "url": url,
        "html_url": page,
        "diff_url": f"{page}.diff",
        "patch_url": f"{page}.patch",
        "issue_url": issue_url,
        **{
            f"{name}_url": links[name]
            for name in ("commits", "review_comments", "review_comment", "comments", "statuses")
        },
        "_links": {name: {"href": href} for name, href in links.items()},
        "draft": pull.draft,
        "auto_merge": None,
        "merged_at": pull.merged_at,
        "merge_commit_sha": pull.merge_sha,
        "requested_reviewers": [user(forge, u) for u in users],
        "requested_teams": [shapes.team(forge, t) for t in teams],
        "head": _end(forge, head_repo, pull.head_ref, pull.head_sha),
        "base": _end(forge, repo, pull.base_ref, pull.base_sha),
    }


def pull(forge: Forge, repo: Repo, pull: Pull) -> Shape:
    """A pull request in full, with whether and how it can be merged and the size of its diff."""
    base = forge.git.merge_base(repo, pull.base_sha, pull.head_sha) or pull.base_sha
    files = forge.git.diff(repo, base, pull.head_sha, patch=False)
    return {
        **pull_simple(forge, repo, pull),
        "merged": pull.merged,
        "mergeable": None if pull.merged else pull.mergeable,
        "rebaseable": None if pull.merged else pull.mergeable,
        "mergeable_state": protection.mergeable_state(forge, repo, pull),
        "merged_by": user_by_id(forge, pull.merged_by),
        "comments": forge.store.count(Comment, "issue_id = ?", pull.id),
        "review_comments": 0,
        "maintainer_can_modify": pull.head_repo_id != repo.id,
        "commits": forge.git.count(repo, base, pull.head_sha),
        "additions": sum(f.additions for f in files),
        "deletions": sum(f.deletions for f in files),
        "changed_files": len(files),
    }


def review(forge: Forge, repo: Repo, review: Review) -> Shape:
    pull = forge.store.get(Pull, review.pull_id)
    page = f"{html_url(forge, repo)}/pull/{pull.number}#pullrequestreview-{review.id}"
    url = f"{repo_url(forge, repo)}/pulls/{pull.number}"
    return {
        "id": review.id,
        "node_id": node_id(review),
        "user": user_by_id(forge, review.user_id),
        "body": review.body,
        "state": review.state,
        "html_url": page,
        "pull_request_url": url,
        "_links": {"html": {"href": page}, "pull_request": {"href": url}},
        "submitted_at": review.submitted_at,
        "commit_id": review.commit_id,
        "author_association": association(forge, repo, review.user_id),
    }


def issue_event(forge: Forge, repo: Repo, event: IssueEvent) -> Shape:
    actor = forge.store.get(User, event.actor_id)
    slug = actor.login.removesuffix("[bot]")
    app = shapes_checks.app(forge, slug, forge.store.get(User, repo.owner_id)) if actor.type == "Bot" else None
    url = repo_url(forge, repo)
    return {
        "id": event.id,
        "node_id": node_id(event),
        "url": f"{url}/issues/events/{event.id}",
        "actor": user(forge, actor),
        "event": event.event,
        "commit_id": event.commit_id,
        "commit_url": f"{url}/commits/{event.commit_id}" if event.commit_id else None,
        "created_at": event.created_at,
        "performed_via_github_app": app,
        **event.detail,
    }
