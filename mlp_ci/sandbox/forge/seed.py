"""An organisation with people, teams, repositories, secrets and rules, from a description; again changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlp_ci.sandbox.forge import access, protection, repositories, runs
from mlp_ci.sandbox.forge.access import ACTIONS_BOT, Actor, Forge
from mlp_ci.sandbox.forge.records import Collaborator, OrgMember, Repo, Team, TeamMember, Token, User
from mlp_ci.sandbox.forge.store import stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

WEB_FLOW_LOGIN = "web-flow"


@dataclass(frozen=True)
class SeedUser:
    """``kind``: User or Bot (an app).

    ``role``: admin | member of the organisation, or empty for an outsider; for a Bot ``app``: installed on all of the
    organisation's repositories, with the right to write.
    """

    login: str
    name: str = ""
    email: str = ""
    kind: str = "User"
    role: str = "member"
    token: str = ""


@dataclass(frozen=True)
class SeedTeam:
    """``repos``: name → permission (read | triage | write | maintain | admin)."""

    slug: str
    members: tuple[str, ...] = ()
    repos: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class SeedRule:
    """Branch protection; see ``records.Protection``."""

    branch: str = "main"
    required_checks: tuple[str, ...] = ()
    strict: bool = False
    approvals: int = 0
    dismiss_stale: bool = False
    enforce_admins: bool = False
    block_pushes: bool = False
    bypass: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeedRepo:
    """``collaborators``: login → permission. ``files`` are committed when the repository is empty."""

    name: str
    private: bool = True
    description: str = ""
    collaborators: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[SeedRule, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Seed:
    """An organisation. ``secrets`` and ``variables`` are the organisation's own, seen by all its repositories."""

    org: str
    users: tuple[SeedUser, ...] = ()
    teams: tuple[SeedTeam, ...] = ()
    repos: tuple[SeedRepo, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


def apply(forge: Forge, seed: Seed) -> dict[str, str]:
    """Bring the forge to what ``seed`` says; gives login → token for each user whose token was given or newly made."""
    org = _user(forge, SeedUser(seed.org, kind="Organization"))
    for login, mail in (
        (ACTIONS_BOT, "41898282+github-actions[bot]@users.noreply.github.com"),
        (WEB_FLOW_LOGIN, "noreply@github.com"),
    ):
        _user(forge, SeedUser(login, name=login, email=mail, kind="Bot" if "[bot]" in login else "User"))
    tokens = {}
    for wanted in seed.users:
        user = _user(forge, wanted)
        if wanted.role and (wanted.kind == "User" or wanted.role == "app"):
            _link(forge, OrgMember, {"org_id": org.id, "user_id": user.id}, {"role": wanted.role})
        if wanted.token or not forge.store.count(Token, "user_id = ?", user.id):
            tokens[user.login] = access.issue_token(
                forge, user, "app" if wanted.kind == "Bot" else "user", wanted.token
            )
    for repo in seed.repos:
        _repo(forge, org, repo)
    for team in seed.teams:
        _team(forge, org, team)
    for kind, values in (("secret", seed.secrets), ("variable", seed.variables)):
        for name, value in values.items():
            runs.set_setting(forge, kind, name, value, owner=org)
    return tokens


def _user(forge: Forge, wanted: SeedUser) -> User:
    found = forge.store.user(wanted.login)
    if found is not None:
        return forge.store.update(found, name=wanted.name or found.name, email=wanted.email or found.email)
    return forge.store.insert(
        User,
        login=wanted.login,
        type=wanted.kind,
        name=wanted.name or None,
        email=wanted.email or None,
        created_at=stamp(),
    )


def _repo(forge: Forge, org: User, wanted: SeedRepo) -> None:
    store = forge.store
    repo = store.repo(org.login, wanted.name)
    if repo is None:
        repo = repositories.create(
            forge, org, wanted.name, private=wanted.private, description=wanted.description or None
        )
    for login, permission in wanted.collaborators.items():
        _link(forge, Collaborator, {"repo_id": repo.id, "user_id": _known(forge, login).id}, {"permission": permission})
    for rule in wanted.rules:
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(rule).items() if key != "branch"}
        protection.protect(forge, repo, rule.branch, **values)
    for kind, settings in (("secret", wanted.secrets), ("variable", wanted.variables)):
        for name, value in settings.items():
            runs.set_setting(forge, kind, name, value, owner=org, repo=repo)
    if wanted.files and not forge.git.refs(repo, "refs/heads"):
        admin = next(iter(store.find(OrgMember, "org_id = ? AND role = 'admin'", org.id)), None)
        author = store.get(User, admin.user_id) if admin else org
        repositories.commit_files(forge, repo, Actor(author), wanted.files, "Initial commit")


def _team(forge: Forge, org: User, wanted: SeedTeam) -> None:
    store = forge.store
    team = store.first(Team, "org_id = ? AND slug = ?", org.id, wanted.slug)
    if team is None:
        team = store.insert(Team, org_id=org.id, slug=wanted.slug, name=wanted.name or wanted.slug, created_at=stamp())
    for login in wanted.members:
        _link(forge, TeamMember, {"team_id": team.id, "user_id": _known(forge, login).id}, {"role": "member"})
    for name, permission in wanted.repos.items():
        repo = store.repo(org.login, name)
        if repo is None:
            raise KeyError(name)
        access.grant(forge, team, repo, permission)


def _known(forge: Forge, login: str) -> User:
    user = forge.store.user(login)
    if user is None:
        raise KeyError(login)
    return user


def _link(
    forge: Forge,
    kind: type[OrgMember | TeamMember | Collaborator],
    keys: Mapping[str, int],
    values: Mapping[str, str],
) -> None:
    """Make or change the one row of a link table with these keys."""
    with forge.store.tx():
        where = " AND ".join(f"{key} = ?" for key in keys)
        found = forge.store.first(kind, where, *keys.values())
        if found is None:
            forge.store.insert(kind, **keys, **values)
        else:
            forge.store.update(found, **values)


def repo_of(forge: Forge, full_name: str) -> Repo:
    """The repository ``owner/name`` that must exist."""
    owner, _, name = full_name.partition("/")
    found = forge.store.repo(owner, name)
    if found is None:
        raise KeyError(full_name)
    return found
