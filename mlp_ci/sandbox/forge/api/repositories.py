"""Repositories, branches, protection, collaborators."""

from __future__ import annotations

from typing import Any

from mlp_ci.sandbox.forge import access, protection, repositories, shapes
from mlp_ci.sandbox.forge.api.routing import Call, Group, Reply, page
from mlp_ci.sandbox.forge.records import Protection, Repo, Team, TeamRepo, User
from mlp_ci.sandbox.forge.store import Refusal, invalid

group = Group()
REPO = "/repos/{owner}/{repo}"


@group("GET", REPO)
def get_repository(call: Call) -> Any:
    return shapes.full_repository(call.forge, call.repo, call.actor.user)


@group("PATCH", REPO, "administration", "admin")
def edit_repository(call: Call) -> Any:
    values = {
        "description": call.get("description", str, call.repo.description),
        "private": call.get("private", bool, call.repo.private),
        "delete_branch_on_merge": call.get("delete_branch_on_merge", bool, call.repo.delete_branch_on_merge),
    }
    branch = call.get("default_branch", str, call.repo.default_branch)
    repo = repositories.edit(call.forge, call.repo, branch, values)
    return shapes.full_repository(call.forge, repo, call.actor.user)


@group("GET", "/user/repos")
def my_repositories(call: Call) -> Any:
    return _visible(call, call.forge.store.find(Repo, order="owner, name"), shapes.repository)


@group("GET", "/orgs/{org}/repos")
def organization_repositories(call: Call) -> Any:
    org = call.row(User, "login = ? COLLATE NOCASE AND type = 'Organization'", call.params["org"])
    found = call.forge.store.find(Repo, "owner_id = ?", org.id, order="name")
    return _visible(call, found, shapes.repository)


@group("POST", "/orgs/{org}/repos")
def create_repository(call: Call) -> Any:
    org = call.row(User, "login = ? COLLATE NOCASE AND type = 'Organization'", call.params["org"])
    if call.actor.quiet or not access.is_member(call.forge, org.id, call.actor.user):
        raise Refusal(403, "You need admin access to the organization before adding a repository to it.")
    repo = repositories.create(
        call.forge, org, call.text("name"),
        private=call.get("private", bool, False), description=call.get("description", str),
    )  # fmt: skip
    if call.get("auto_init", bool, False):
        repositories.commit_files(
            call.forge, repo, call.actor, {"README.md": f"# {repo.name}\n".encode()}, "Initial commit"
        )
    return Reply(shapes.full_repository(call.forge, call.forge.store.get(Repo, repo.id), call.actor.user), 201)


@group("POST", REPO + "/forks", "metadata", "read")
def fork(call: Call) -> Any:
    made = repositories.fork(call.forge, call.repo, call.actor.user)
    return Reply(shapes.full_repository(call.forge, made, call.actor.user), 202)


@group("GET", REPO + "/branches", "contents")
def branches(call: Call) -> Any:
    found = call.forge.git.refs(call.repo, "refs/heads")
    return page(call, [*found.items()], lambda item: _short(call, item[0].removeprefix("refs/heads/"), item[1]))


@group("GET", REPO + "/branches/{branch}", "contents")
def branch(call: Call) -> Any:
    name = call.params["branch"]
    sha = call.forge.git.refs(call.repo, f"refs/heads/{name}").get(f"refs/heads/{name}")
    if sha is None:
        raise Refusal(404, "Branch not found")
    url = f"{shapes.repo_url(call.forge, call.repo)}/branches/{name}"
    rule = protection.rule_of(call.forge, call.repo, name)
    return {
        "name": name,
        "commit": shapes.commit(call.forge, call.repo, call.forge.git.commit(call.repo, sha)),
        "_links": {"self": url, "html": f"{shapes.html_url(call.forge, call.repo)}/tree/{name}"},
        "protected": rule is not None,
        "protection": {"enabled": rule is not None},
        "protection_url": f"{url}/protection",
    }


@group("GET", REPO + "/branches/{branch}/protection", "administration", "admin")
def get_protection(call: Call) -> Any:
    rule = protection.rule_of(call.forge, call.repo, call.params["branch"])
    if rule is None:
        raise Refusal(404, "Branch not protected")
    return shapes.protection(call.forge, call.repo, rule)


@group("PUT", REPO + "/branches/{branch}/protection", "administration", "admin")
def put_protection(call: Call) -> Any:
    checks = call.get("required_status_checks", dict, {})
    reviews = call.get("required_pull_request_reviews", dict, {})
    restrictions = call.get("restrictions", dict)
    names = [*checks.get("contexts", []), *(c.get("context") for c in checks.get("checks", []) if isinstance(c, dict))]
    approvals = reviews.get("required_approving_review_count", 1 if reviews else 0)
    bypass = (restrictions or {}).get("users", [])
    if not all(isinstance(n, str) for n in [*names, *bypass]) or not isinstance(approvals, int):
        msg = "Protection"
        raise invalid(msg, "required_status_checks")
    values = {
        "required_checks": list(dict.fromkeys(names)),
        "strict": bool(checks.get("strict")),
        "approvals": approvals,
        "dismiss_stale": bool(reviews.get("dismiss_stale_reviews")),
        "enforce_admins": call.get("enforce_admins", bool, False),
        "block_pushes": restrictions is not None,
        "bypass": bypass,
    }
    rule = protection.protect(call.forge, call.repo, call.params["branch"], **values)
    return shapes.protection(call.forge, call.repo, rule)


@group("DELETE", REPO + "/branches/{branch}/protection", "administration", "admin")
def delete_protection(call: Call) -> Any:
    call.forge.store.delete(Protection, "repo_id = ? AND branch = ?", call.repo.id, call.params["branch"])
    return None


@group("GET", REPO + "/collaborators", role="write")
def collaborators(call: Call) -> Any:
    found = [
        user
        for user in call.forge.store.find(User, "type = 'User'", order="login")
        if access.role(call.forge, user, call.repo) != "none" and not _only_public(call, user)
    ]
    return page(call, found, lambda user: _collaborator(call, user))


@group("GET", REPO + "/collaborators/{username}")
def is_collaborator(call: Call) -> Any:
    user = call.user()
    if _only_public(call, user):
        raise Refusal(404, "Not Found")
    return None


@group("GET", REPO + "/collaborators/{username}/permission")
def permission(call: Call) -> Any:
    user = call.user()
    # github.com says none of an app's bot: its rights come from the installation, not from being a collaborator.
    have = "none" if user.type == "Bot" else access.role(call.forge, user, call.repo)
    legacy = {"triage": "read", "maintain": "write"}.get(have, have)
    return {"permission": legacy, "role_name": have, "user": {**_collaborator(call, user), "role_name": have}}


@group("GET", REPO + "/teams", "administration")
def teams(call: Call) -> Any:
    found = call.forge.store.find(TeamRepo, "repo_id = ?", call.repo.id)
    names = {"read": "pull", "write": "push"}

    def shape(link: TeamRepo) -> Any:
        return shapes.team(
            call.forge, call.forge.store.get(Team, link.team_id), names.get(link.permission, link.permission)
        )

    return page(call, found, shape)


def _visible(call: Call, found: list[Repo], shape: Any) -> Reply:
    seen = [repo for repo in found if access.visible(call.forge, call.actor, repo)]
    return page(call, seen, lambda repo: shape(call.forge, repo, call.actor.user))


def _short(call: Call, name: str, sha: str) -> dict[str, Any]:
    url = f"{shapes.repo_url(call.forge, call.repo)}/commits/{sha}"
    rule = protection.rule_of(call.forge, call.repo, name)
    return {"name": name, "commit": {"sha": sha, "url": url}, "protected": rule is not None}


def _collaborator(call: Call, user: User) -> dict[str, Any]:
    have = access.role(call.forge, user, call.repo)
    return {**shapes.user(call.forge, user), "permissions": shapes.permissions(have), "role_name": have}


def _only_public(call: Call, user: User) -> bool:
    """Whether the user can see the repository only because everybody can."""
    return not access.belongs(call.forge, user, call.repo)
