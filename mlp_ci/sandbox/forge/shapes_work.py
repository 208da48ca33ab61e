"""How GitHub's REST API writes the work on a repository: issues, pull requests, reviews, checks, deployments, runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlp_ci.sandbox.forge import access, checks, protection, shapes
from mlp_ci.sandbox.forge.records import (
    Assignee,
    CheckRun,
    CheckSuite,
    Collaborator,
    Comment,
    Deployment,
    DeploymentStatus,
    Environment,
    Issue,
    Job,
    Label,
    Pull,
    Repo,
    Review,
    ReviewRequest,
    Run,
    Status,
    Team,
    User,
    Workflow,
)
from mlp_ci.sandbox.forge.shapes import Shape, html_url, node_id, repo_url, user, user_by_id

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.access import Forge
    from mlp_ci.sandbox.forge.repos import Commit

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


def status(forge: Forge, repo: Repo, status: Status) -> Shape:
    return {
        "id": status.id,
        "node_id": node_id(status),
        "url": f"{repo_url(forge, repo)}/statuses/{status.sha}",
        "avatar_url": f"{forge.url}/avatars/{status.creator_id}",
        "state": status.state,
        "description": status.description,
        "target_url": status.target_url,
        "context": status.context,
        "created_at": status.created_at,
        "updated_at": status.created_at,
        "creator": user_by_id(forge, status.creator_id),
    }


def app(forge: Forge, slug: str, owner: User) -> Shape:
    """The GitHub App that a check belongs to; here always one of the sandbox's own."""
    number = 15368 if slug == checks.ACTIONS_APP else 1
    times = dict.fromkeys(("created_at", "updated_at"), "2013-01-01T00:00:00Z")
    return {
        "id": number, "slug": slug, "node_id": f"App{number}", "owner": user(forge, owner), "name": slug,
        "description": "",
        "external_url": forge.url, "html_url": f"{forge.url}/apps/{slug}", **times, "permissions": {}, "events": [],
    }  # fmt: skip


def pulls_at(forge: Forge, repo: Repo, sha: str) -> list[Shape]:
    """The open pull requests whose head is this commit, as checks and runs mention them."""
    found = []
    for pull in forge.store.find(Pull, "repo_id = ? AND head_sha = ? AND merged = 0", repo.id, sha):
        end = {"id": repo.id, "name": repo.name, "url": repo_url(forge, repo)}
        found.append({
            "id": pull.id, "number": pull.number, "url": f"{repo_url(forge, repo)}/pulls/{pull.number}",
            "head": {"ref": pull.head_ref, "sha": pull.head_sha, "repo": end},
            "base": {"ref": pull.base_ref, "sha": pull.base_sha, "repo": end},
        })  # fmt: skip
    return found


def check_run(forge: Forge, repo: Repo, check: CheckRun) -> Shape:
    url = f"{repo_url(forge, repo)}/check-runs/{check.id}"
    suite = forge.store.get(CheckSuite, check.suite_id)
    output = {"title": None, "summary": None, "text": None, **(check.output or {})}
    return {
        "id": check.id,
        "node_id": node_id(check),
        "name": check.name,
        "head_sha": check.sha,
        "external_id": check.external_id or "",
        "url": url,
        "html_url": f"{html_url(forge, repo)}/runs/{check.id}",
        "details_url": check.details_url,
        "status": check.status,
        "conclusion": check.conclusion,
        "started_at": check.started_at,
        "completed_at": check.completed_at,
        "output": {**output, "annotations_count": 0, "annotations_url": f"{url}/annotations"},
        "check_suite": {"id": suite.id},
        "app": app(forge, suite.app, forge.store.get(User, repo.owner_id)),
        "pull_requests": pulls_at(forge, repo, check.sha),
    }


def check_suite(forge: Forge, repo: Repo, suite: CheckSuite, commit: Commit) -> Shape:
    state, conclusion = checks.suite_state(forge, suite)
    url = f"{repo_url(forge, repo)}/check-suites/{suite.id}"
    return {
        "id": suite.id,
        "node_id": node_id(suite),
        "head_branch": suite.branch,
        "head_sha": suite.sha,
        "status": state,
        "conclusion": conclusion,
        "url": url,
        "before": None,
        "after": suite.sha,
        "pull_requests": pulls_at(forge, repo, suite.sha),
        "app": app(forge, suite.app, forge.store.get(User, repo.owner_id)),
        "repository": shapes.minimal_repository(forge, repo),
        "created_at": suite.created_at,
        "updated_at": suite.created_at,
        "head_commit": shapes.simple_commit(commit),
        "latest_check_runs_count": forge.store.count(CheckRun, "suite_id = ?", suite.id),
        "check_runs_url": f"{url}/check-runs",
    }


def deployment(forge: Forge, repo: Repo, deployment: Deployment) -> Shape:
    url = f"{repo_url(forge, repo)}/deployments/{deployment.id}"
    last = forge.store.first(DeploymentStatus, "deployment_id = ?", deployment.id, order="id DESC")
    return {
        "id": deployment.id,
        "node_id": node_id(deployment),
        "url": url,
        "sha": deployment.sha,
        "ref": deployment.ref,
        "task": deployment.task,
        "payload": deployment.payload,
        "environment": deployment.environment,
        "original_environment": deployment.environment,
        "description": deployment.description,
        "creator": user_by_id(forge, deployment.creator_id),
        "created_at": deployment.created_at,
        "updated_at": last.created_at if last else deployment.created_at,
        "statuses_url": f"{url}/statuses",
        "repository_url": repo_url(forge, repo),
        "transient_environment": deployment.transient,
        "production_environment": deployment.production,
    }


def deployment_status(forge: Forge, repo: Repo, status: DeploymentStatus) -> Shape:
    parent = f"{repo_url(forge, repo)}/deployments/{status.deployment_id}"
    return {
        "id": status.id,
        "node_id": node_id(status),
        "url": f"{parent}/statuses/{status.id}",
        "state": status.state,
        "creator": user_by_id(forge, status.creator_id),
        "description": status.description,
        "environment": status.environment,
        "environment_url": status.environment_url,
        "log_url": status.log_url,
        "target_url": status.log_url,
        "created_at": status.created_at,
        "updated_at": status.created_at,
        "deployment_url": parent,
        "repository_url": repo_url(forge, repo),
    }


def environment(forge: Forge, repo: Repo, environment: Environment) -> Shape:
    name = quote(environment.name, safe="")
    return {
        "id": environment.id,
        "node_id": node_id(environment),
        "name": environment.name,
        "url": f"{repo_url(forge, repo)}/environments/{name}",
        "html_url": f"{html_url(forge, repo)}/deployments/{name}",
        "created_at": environment.created_at,
        "updated_at": environment.created_at,
        "protection_rules": [],
        "deployment_branch_policy": None,
    }


def workflow(forge: Forge, repo: Repo, flow: Workflow) -> Shape:
    name = flow.path.rpartition("/")[2]
    return {
        "id": flow.id,
        "node_id": node_id(flow),
        "name": flow.name,
        "path": flow.path,
        "state": "active",
        "created_at": flow.created_at,
        "updated_at": flow.created_at,
        "url": f"{repo_url(forge, repo)}/actions/workflows/{flow.id}",
        "html_url": f"{html_url(forge, repo)}/blob/{quote(repo.default_branch)}/{flow.path}",
        "badge_url": f"{html_url(forge, repo)}/workflows/{quote(name)}/badge.svg",
    }


def run(forge: Forge, repo: Repo, run: Run, commit: Commit) -> Shape:
    url = f"{repo_url(forge, repo)}/actions/runs/{run.id}"
    actor = user_by_id(forge, run.actor_id)
    own = shapes.minimal_repository(forge, repo)
    return {
        "id": run.id,
        "node_id": node_id(run),
        "name": run.name,
        "display_title": run.title,
        "head_branch": run.head_branch,
        "head_sha": run.head_sha,
        "path": run.path,
        "run_number": run.run_number,
        "run_attempt": 1,
        "event": run.event,
        "status": run.status,
        "conclusion": run.conclusion,
        "workflow_id": run.workflow_id,
        "check_suite_id": run.suite_id,
        "pull_requests": pulls_at(forge, repo, run.head_sha),
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "run_started_at": run.created_at,
        "actor": actor,
        "triggering_actor": actor,
        "url": url,
        "html_url": f"{html_url(forge, repo)}/actions/runs/{run.id}",
        **{f"{name}_url": f"{url}/{name}" for name in ("jobs", "logs", "artifacts", "cancel", "rerun")},
        "check_suite_url": f"{repo_url(forge, repo)}/check-suites/{run.suite_id}",
        "workflow_url": f"{repo_url(forge, repo)}/actions/workflows/{run.workflow_id}",
        "head_commit": shapes.simple_commit(commit),
        "repository": own,
        "head_repository": own,
    }


def job(forge: Forge, repo: Repo, job: Job, run: Run) -> Shape:
    api = repo_url(forge, repo)
    steps: list[dict[str, Any]] = job.steps or []
    return {
        "id": job.id,
        "node_id": node_id(job),
        "run_id": run.id,
        "run_url": f"{api}/actions/runs/{run.id}",
        "run_attempt": 1,
        "head_sha": run.head_sha,
        "head_branch": run.head_branch,
        "url": f"{api}/actions/jobs/{job.id}",
        "html_url": f"{html_url(forge, repo)}/actions/runs/{run.id}/job/{job.id}",
        "check_run_url": f"{api}/check-runs/{job.check_run_id}",
        "name": job.name,
        "workflow_name": run.name,
        "status": job.status,
        "conclusion": job.conclusion,
        "created_at": job.created_at,
        "started_at": job.started_at or job.created_at,
        "completed_at": job.completed_at,
        "steps": [{"number": n, "started_at": None, "completed_at": None, **s} for n, s in enumerate(steps, 1)],
        "labels": job.labels or [],
        "runner_id": 1,
        "runner_name": "sandbox",
        "runner_group_id": 1,
        "runner_group_name": "Default",
    }
