"""How GitHub's REST API writes what is recorded about commits: statuses, checks, deployments, workflow runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlp_ci.sandbox.forge import checks, shapes
from mlp_ci.sandbox.forge.records import (
    CheckRun,
    CheckSuite,
    Deployment,
    DeploymentStatus,
    Environment,
    Job,
    Pull,
    Repo,
    Run,
    Status,
    User,
    Workflow,
)
from mlp_ci.sandbox.forge.shapes import Shape, html_url, node_id, repo_url, user, user_by_id

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.access import Forge
    from mlp_ci.sandbox.forge.objects import Commit


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
    number = checks.app_number(forge, slug) or 1
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
