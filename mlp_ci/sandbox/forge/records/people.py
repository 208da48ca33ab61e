"""People, organisations, teams, and the tokens they come with."""

from __future__ import annotations

from dataclasses import dataclass

from mlp_ci.sandbox.forge.records.tables import Json, Record


@dataclass(frozen=True)
class User(Record):
    """A person, an organisation (``type`` Organization) or an app's bot (``type`` Bot)."""

    TABLE = "users"
    KEYS = ("UNIQUE (login COLLATE NOCASE)",)
    login: str
    type: str
    name: str | None
    email: str | None
    description: str | None
    created_at: str


@dataclass(frozen=True)
class Token(Record):
    """A credential, kept as a SHA-256. ``kind``: user | app | run; a run token is bound to its repository and run."""

    TABLE = "tokens"
    KEYS = ("UNIQUE (digest)",)
    digest: str
    user_id: int
    kind: str
    repo_id: int | None
    run_id: int | None
    permissions: Json | None


@dataclass(frozen=True)
class OrgMember(Record):
    """``role``: admin | member, or app for an app that is installed on all repositories."""

    TABLE = "org_members"
    KEYS = ("UNIQUE (org_id, user_id)",)
    org_id: int
    user_id: int
    role: str


@dataclass(frozen=True)
class Team(Record):
    TABLE = "teams"
    KEYS = ("UNIQUE (org_id, slug)",)
    org_id: int
    slug: str
    name: str
    description: str | None
    created_at: str


@dataclass(frozen=True)
class TeamMember(Record):
    TABLE = "team_members"
    KEYS = ("UNIQUE (team_id, user_id)",)
    team_id: int
    user_id: int
    role: str
