"""Who may do what: tokens, actors and the permission a user has on a repository."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.sandbox.forge.records import (
    Collaborator,
    OrgMember,
    Repo,
    Run,
    Team,
    TeamMember,
    TeamRepo,
    Token,
    User,
)
from mlp_ci.sandbox.forge.repos import Repos
from mlp_ci.sandbox.forge.store import Refusal, Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ROLES = ("none", "read", "triage", "write", "maintain", "admin")
LEVELS = ("none", "read", "write", "admin")
_NOREPLY = re.compile(r"(?:([0-9]{1,15})\+)?([^@+]+)@users\.noreply\.github\.com", re.IGNORECASE)
ACTIONS_BOT = "github-actions[bot]"


@dataclass
class Forge:
    """Everything the forge has: its memory, its repositories and the address it is reached at."""

    root: Path
    store: Store
    git: Repos
    url: str = "http://127.0.0.1"

    @property
    def api(self) -> str:
        return f"{self.url}/api/v3"


def open_forge(root: Path, url: str = "http://127.0.0.1") -> Forge:
    """Open (or make) the forge whose state lies under ``root``."""
    root = root.resolve()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Forge(root, Store(root / "forge.db"), Repos(root / "repos"), url)


@dataclass(frozen=True)
class Actor:
    """Somebody doing something: a user, and the token they came with (None on a web page or inside the forge)."""

    user: User
    token: Token | None = None

    @property
    def quiet(self) -> bool:
        """Whether the events this actor causes start no workflows: they came from a run's own token."""
        return self.token is not None and self.token.kind == "run"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def issue_token(forge: Forge, user: User, kind: str = "user", value: str = "") -> str:
    """Make a token for ``user`` (or register ``value``) and give it; only its digest is kept."""
    prefix = {"user": "ghp_", "app": "ghs_", "run": "ghs_"}[kind]
    token = value or prefix + secrets.token_hex(18)
    if forge.store.first(Token, "digest = ?", digest(token)) is None:
        forge.store.insert(Token, digest=digest(token), user_id=user.id, kind=kind)
    return token


def issue_run_token(forge: Forge, run: Run, permissions: Mapping[str, str]) -> str:
    """A token for one workflow run with GitHub's ``permissions:`` map; it dies when the run completes."""
    bot = forge.store.user(ACTIONS_BOT)
    if bot is None:
        raise Refusal(422, f"The forge has no user {ACTIONS_BOT}: seed it first")
    token = "ghs_" + secrets.token_hex(18)
    granted = {scope.replace("-", "_"): level for scope, level in permissions.items()}
    forge.store.insert(
        Token, digest=digest(token), user_id=bot.id, kind="run", repo_id=run.repo_id, run_id=run.id, permissions=granted
    )
    return token


def authenticate(forge: Forge, token: str) -> Actor | None:
    """The actor behind a token, or None when there is none (any more)."""
    found = forge.store.first(Token, "digest = ?", digest(token)) if token else None
    return Actor(forge.store.get(User, found.user_id), found) if found else None


def role(forge: Forge, user: User, repo: Repo) -> str:
    """The strongest of: organisation owner, team, collaborator, membership (read), public (read)."""
    store = forge.store
    if user.id == repo.owner_id:
        return "admin"
    roles = ["none" if repo.private else "read"]
    member = store.first(OrgMember, "org_id = ? AND user_id = ?", repo.owner_id, user.id)
    if member is not None:
        roles.append({"admin": "admin", "app": "write"}.get(member.role, "read"))
    direct = store.first(Collaborator, "repo_id = ? AND user_id = ?", repo.id, user.id)
    if direct is not None:
        roles.append(direct.permission)
    mine = "SELECT team_id FROM team_members WHERE user_id = ?"
    roles += [t.permission for t in store.find(TeamRepo, f"repo_id = ? AND team_id IN ({mine})", repo.id, user.id)]
    return max(roles, key=ROLES.index)


def at_least(have: str, need: str) -> bool:
    return ROLES.index(have) >= ROLES.index(need)


def allowed(forge: Forge, actor: Actor, repo: Repo, scope: str, level: str, need: str) -> bool:
    """Whether ``actor`` may do something that asks for the role ``need``, or, with a run token, ``scope: level``.

    ``scope`` may name several, ``issues|pull_requests``: one is enough.
    """
    token = actor.token
    if token is not None and token.kind == "run":
        if need == "admin":
            return False
        if token.repo_id != repo.id:
            return not repo.private and level == "read"
        grants: Mapping[str, str] = token.permissions or {}
        have = [grants.get(name, "read" if name == "metadata" else "none") for name in scope.split("|")]
        return any(LEVELS.index(h if h in LEVELS else "none") >= LEVELS.index(level) for h in have)
    return at_least(role(forge, actor.user, repo), need)


def visible(forge: Forge, actor: Actor, repo: Repo) -> bool:
    """Whether the actor may know that the repository exists."""
    if actor.token is not None and actor.token.kind == "run":
        return actor.token.repo_id == repo.id or not repo.private
    return role(forge, actor.user, repo) != "none"


def is_member(forge: Forge, org_id: int, user: User) -> OrgMember | None:
    return forge.store.first(OrgMember, "org_id = ? AND user_id = ? AND role != 'app'", org_id, user.id)


def inside(forge: Forge, org: User, user: User) -> bool:
    """Whether the user is a member of the organisation, or an app that is installed on a repository of it."""
    store = forge.store
    if user.type != "Bot":
        return is_member(forge, org.id, user) is not None
    own = "user_id = ? AND repo_id IN (SELECT id FROM repos WHERE owner_id = ?)"
    return (
        store.count(OrgMember, "org_id = ? AND user_id = ?", org.id, user.id) > 0
        or store.count(Collaborator, own, user.id, org.id) > 0
    )


def team_members(forge: Forge, team: Team) -> list[User]:
    ids = "SELECT user_id FROM team_members WHERE team_id = ?"
    return forge.store.find(User, f"id IN ({ids})", team.id, order="login")


def members_of(forge: Forge, team: Team) -> list[TeamMember]:
    return forge.store.find(TeamMember, "team_id = ?", team.id)


def grant(forge: Forge, team: Team, repo: Repo, permission: str) -> None:
    """Give a team a role on a repository, or change it."""
    with forge.store.tx():
        found = forge.store.first(TeamRepo, "team_id = ? AND repo_id = ?", team.id, repo.id)
        if found is not None:
            forge.store.update(found, permission=permission)
        else:
            forge.store.insert(TeamRepo, team_id=team.id, repo_id=repo.id, permission=permission)


def by_email(forge: Forge, email: str) -> User | None:
    """The user a commit's e-mail belongs to: their own address or GitHub's noreply form."""
    found = forge.store.first(User, "email = ? COLLATE NOCASE", email) if email else None
    if found is None and (noreply := _NOREPLY.fullmatch(email)):
        # With an id the id decides, so that a name given up and taken by somebody else stays whose it was.
        number, login = noreply.groups()
        found = forge.store.first(User, "id = ?", int(number)) if number else forge.store.user(login)
    return found


def email_of(user: User) -> str:
    return user.email or f"{user.id}+{user.login}@users.noreply.github.com"


def belongs(forge: Forge, user: User, repo: Repo) -> bool:
    """Whether the user has a place in the repository: owner, organisation member, team or collaborator."""
    store = forge.store
    mine = "repo_id = ? AND team_id IN (SELECT team_id FROM team_members WHERE user_id = ?)"
    return (
        user.id == repo.owner_id
        or is_member(forge, repo.owner_id, user) is not None
        or store.count(Collaborator, "repo_id = ? AND user_id = ?", repo.id, user.id) > 0
        or store.count(TeamRepo, mine, repo.id, user.id) > 0
    )
