"""The first page, and a repository's: what is open, what ran last, what is live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.sandbox.forge import access
from mlp_ci.sandbox.forge.pages import actions, pulls
from mlp_ci.sandbox.forge.pages.code import folder_values
from mlp_ci.sandbox.forge.pages.web import REPO, Group, Page, Visit, go
from mlp_ci.sandbox.forge.records import Deployment, DeploymentStatus, Repo, Team, TeamRepo, User

if TYPE_CHECKING:
    from starlette.responses import Response

    from mlp_ci.sandbox.forge.access import Forge

group = Group()
REFRESH_SECONDS = 5
_RUNS = 8
_COMMITS = 6


@dataclass(frozen=True)
class Live:
    """What an environment runs; ``version`` is what the deployment's payload names, else its commit."""

    repo: Repo
    deployment: Deployment
    creator: User
    state: str
    version: str
    address: str
    log: str
    at: str


def live(forge: Forge, repo: Repo) -> list[Live]:
    """What runs where: per environment the newest success, or the newest at all when none succeeded."""
    best: dict[str, Live] = {}
    for deployment in forge.store.find(Deployment, "repo_id = ?", repo.id):
        found = _live(forge, repo, deployment)
        known = best.get(deployment.environment)
        if known is None or found.state == "success" or known.state != "success":
            best[deployment.environment] = found
    return list(best.values())


def _live(forge: Forge, repo: Repo, deployment: Deployment) -> Live:
    states = forge.store.find(DeploymentStatus, "deployment_id = ?", deployment.id, order="id DESC")
    facts: dict[str, Any] = deployment.payload if isinstance(deployment.payload, dict) else {}
    version = f"version {facts['version']}" if facts.get("version") else f"commit {deployment.sha[:7]}"
    creator = forge.store.get(User, deployment.creator_id)
    return Live(
        repo, deployment, creator, states[0].state if states else "pending", version,
        next((s.environment_url for s in states if s.environment_url), ""),
        next((s.log_url for s in states if s.log_url), ""),
        states[0].created_at if states else deployment.created_at,
    )  # fmt: skip


@group.get("/")
def first(visit: Visit) -> Page:
    forge, store = visit.forge, visit.forge.store
    repos = [repo for repo in store.find(Repo, order="owner, name") if access.visible(forge, visit.actor, repo)]
    latest = sorted((row for repo in repos for row in actions.rows(forge, repo, _RUNS)), key=lambda row: -row.run.id)[
        :_RUNS
    ]
    values = {
        "repos": [{"repo": repo, "teams": _teams(forge, repo)} for repo in repos],
        "pulls": [row for repo in repos for row in pulls.rows(forge, repo)],
        "runs": latest,
        "live": [row for repo in repos for row in live(forge, repo)],
    }
    busy = any(row.run.status != "completed" for row in latest)
    return Page("first.html", values, refresh=REFRESH_SECONDS if busy else 0)


@group.get("/{owner}")
def owner(visit: Visit) -> Response:
    """People and organisations have no page of their own; the API names one for each, so it leads somewhere."""
    visit.row(User, "login = ? COLLATE NOCASE", visit.params["owner"])
    return go("/")


@group.get(REPO)
def repository(visit: Visit) -> Page:
    forge, repo = visit.forge, visit.repo
    tip = forge.git.resolve(repo, repo.default_branch)
    heads = forge.git.refs(repo, "refs/heads")
    latest = actions.rows(forge, repo, _RUNS)
    values: dict[str, Any] = {
        "tip": tip,
        "ref": repo.default_branch,
        "branches": [(ref.removeprefix("refs/heads/"), sha) for ref, sha in heads.items()],
        "commits": forge.git.log(repo, f"--max-count={_COMMITS}", tip) if tip else [],
        "pulls": pulls.rows(forge, repo),
        "runs": latest,
        "live": live(forge, repo),
        "clone": f"{forge.url}/{repo.full_name}.git",
        "entries": [],
        "readme": None,
        "readme_name": "",
        "prefix": "",
    }
    root = forge.git.entry(repo, tip, "") if tip else None
    if root is not None:
        values |= folder_values(forge, repo, repo.default_branch, "", root)
    busy = visit.stirring or any(row.run.status != "completed" for row in latest)
    return Page("repository.html", values, refresh=REFRESH_SECONDS if busy else 0)


def _teams(forge: Forge, repo: Repo) -> list[str]:
    return [forge.store.get(Team, row.team_id).slug for row in forge.store.find(TeamRepo, "repo_id = ?", repo.id)]
