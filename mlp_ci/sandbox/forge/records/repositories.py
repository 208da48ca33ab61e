"""Repositories, who may do what there, their rules, refs and settings."""

from __future__ import annotations

from dataclasses import dataclass

from mlp_ci.sandbox.forge.records.tables import Json, Record


@dataclass(frozen=True)
class TeamRepo(Record):
    TABLE = "team_repos"
    KEYS = ("UNIQUE (team_id, repo_id)",)
    team_id: int
    repo_id: int
    permission: str


@dataclass(frozen=True)
class Repo(Record):
    """A repository. ``writer_id`` is set while somebody changes its refs, so that a crash can be made good."""

    TABLE = "repos"
    KEYS = ("UNIQUE (owner COLLATE NOCASE, name COLLATE NOCASE)",)
    owner_id: int
    owner: str
    name: str
    private: bool
    description: str | None
    default_branch: str
    delete_branch_on_merge: bool
    fork_of: int | None
    writer_id: int | None
    writer_quiet: bool
    created_at: str
    updated_at: str
    pushed_at: str

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True)
class Collaborator(Record):
    TABLE = "collaborators"
    KEYS = ("UNIQUE (repo_id, user_id)",)
    repo_id: int
    user_id: int
    permission: str


@dataclass(frozen=True)
class Protection(Record):
    """Rules of one branch. ``block_pushes`` refuses direct pushes by anyone whose login is not in ``bypass``."""

    TABLE = "protections"
    KEYS = ("UNIQUE (repo_id, branch)",)
    repo_id: int
    branch: str
    required_checks: Json
    strict: bool
    approvals: int
    dismiss_stale: bool
    enforce_admins: bool
    block_pushes: bool
    bypass: Json


@dataclass(frozen=True)
class Ref(Record):
    """A ref as it was last announced; the difference to git is what still has to be told as push events."""

    TABLE = "refs"
    KEYS = ("UNIQUE (repo_id, ref)",)
    repo_id: int
    ref: str
    sha: str


@dataclass(frozen=True)
class Setting(Record):
    """A secret or variable of a repository (or, with ``repo_id`` NULL, of an organisation)."""

    TABLE = "settings"
    KEYS = ("UNIQUE (kind, owner_id, repo_id, name)",)
    kind: str
    owner_id: int
    repo_id: int | None
    name: str
    value: str
    updated_at: str


@dataclass(frozen=True)
class Activity(Record):
    """A branch moved, and who moved it: whoever the server had authenticated, whatever the commits say.

    ``kind``: push | force_push | branch_creation | branch_deletion | pr_merge.
    """

    TABLE = "activities"
    INDEXES = ("repo_id, ref",)
    repo_id: int
    ref: str
    kind: str
    actor_id: int
    before: str
    after: str
    at: str
