"""Users, organisations, teams and their members."""

from __future__ import annotations

import time
from typing import Any

from mlp_ci.sandbox.forge import access, shapes
from mlp_ci.sandbox.forge.api.routing import Call, Group, page
from mlp_ci.sandbox.forge.records import OrgMember, Repo, Team, TeamMember, TeamRepo, User
from mlp_ci.sandbox.forge.store import Refusal

group = Group()
_TEAM = "/orgs/{org}/teams/{team_slug}"
_LIMIT = 5000


@group("GET", "/user")
def me(call: Call) -> Any:
    if call.actor.token is not None and call.actor.token.kind != "user":
        raise Refusal(403, "Resource not accessible by integration")
    zeros = ("private_gists", "total_private_repos", "owned_private_repos", "disk_usage", "collaborators")
    full = shapes.full_user(call.forge, call.actor.user)
    return {**full, **dict.fromkeys(zeros, 0), "two_factor_authentication": True}


@group("GET", "/users/{username}")
def user(call: Call) -> Any:
    return shapes.full_user(call.forge, call.user())


@group("GET", "/rate_limit")
def rate_limit(call: Call) -> Any:
    rate = {"limit": _LIMIT, "remaining": _LIMIT, "reset": int(time.time()) + 3600, "used": 0}
    return {"resources": {"core": rate, "search": rate, "graphql": rate}, "rate": rate}


@group("GET", "/orgs/{org}")
def organization(call: Call) -> Any:
    return shapes.full_organization(call.forge, _org(call))


@group("GET", "/orgs/{org}/members")
def members(call: Call) -> Any:
    """Outsiders see those who made their membership public, which here nobody does."""
    org = _org(call)
    ids = "id IN (SELECT user_id FROM org_members WHERE org_id = ? AND role != 'app')"
    found = call.forge.store.find(User, ids, org.id, order="login") if _inside(call, org) else []
    return page(call, found, lambda u: shapes.user(call.forge, u))


@group("GET", "/orgs/{org}/members/{username}")
def is_member(call: Call) -> Any:
    org = _org(call)
    if not _inside(call, org) or access.is_member(call.forge, org.id, call.user()) is None:
        raise Refusal(404, "Not Found")


@group("GET", "/orgs/{org}/memberships/{username}")
def membership(call: Call) -> Any:
    org, who = _known_org(call), call.user()
    found = call.row(OrgMember, "org_id = ? AND user_id = ? AND role != 'app'", org.id, who.id)
    return {
        "url": call.url,
        "state": "active",
        "role": found.role,
        "organization_url": f"{call.forge.api}/orgs/{org.login}",
        "organization": shapes.organization(call.forge, org),
        "user": shapes.user(call.forge, who),
    }


@group("GET", "/orgs/{org}/teams")
def teams(call: Call) -> Any:
    found = call.forge.store.find(Team, "org_id = ?", _known_org(call).id, order="slug")
    return page(call, found, lambda team: shapes.team(call.forge, team))


@group("GET", _TEAM)
def team(call: Call) -> Any:
    return shapes.full_team(call.forge, _team(call))


@group("GET", _TEAM + "/members")
def team_members(call: Call) -> Any:
    return page(call, access.team_members(call.forge, _team(call)), lambda user: shapes.user(call.forge, user))


@group("GET", _TEAM + "/memberships/{username}")
def team_membership(call: Call) -> Any:
    found = call.row(TeamMember, "team_id = ? AND user_id = ?", _team(call).id, call.user().id)
    return {"url": call.url, "role": found.role, "state": "active"}


@group("GET", _TEAM + "/repos")
def team_repositories(call: Call) -> Any:
    links = call.forge.store.find(TeamRepo, "team_id = ?", _team(call).id)
    found = [call.forge.store.get(Repo, link.repo_id) for link in links]
    seen = [repo for repo in found if access.visible(call.forge, call.actor, repo)]
    return page(call, seen, lambda repo: shapes.repository(call.forge, repo, call.actor.user))


@group("PUT", _TEAM + "/repos/{owner}/{repo}")
def grant_repository(call: Call) -> Any:
    team = _team(call)
    repo = call.forge.store.repo(call.params["owner"], call.params["repo"])
    if repo is None or repo.owner_id != team.org_id or not access.visible(call.forge, call.actor, repo):
        raise Refusal(404, "Not Found")
    if not access.allowed(call.forge, call.actor, repo, "administration", "write", "admin"):
        raise Refusal(403, "Must have admin rights to Repository.")
    names = {"pull": "read", "push": "write"}
    given = call.choice("permission", ("pull", "triage", "push", "maintain", "admin"), "push") or "push"
    access.grant(call.forge, team, repo, names.get(given, given))


def _org(call: Call) -> User:
    return call.row(User, "login = ? COLLATE NOCASE AND type = 'Organization'", call.params["org"])


def _known_org(call: Call) -> User:
    """The organisation, for what only its members and its apps may ask; a run's token is neither, as on github.com."""
    org = _org(call)
    if call.actor.quiet:
        raise Refusal(403, "Resource not accessible by integration")
    if not _inside(call, org):
        raise Refusal(404, "Not Found")
    return org


def _inside(call: Call, org: User) -> bool:
    return not call.actor.quiet and access.inside(call.forge, org, call.actor.user)


def _team(call: Call) -> Team:
    return call.row(Team, "org_id = ? AND slug = ?", _known_org(call).id, call.params["team_slug"])
