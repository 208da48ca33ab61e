"""What the forge remembers: one frozen dataclass per table, from which the SQLite schema is generated.

Instants are text, ``2026-01-31T08:00:00Z``. A ``Json`` column holds JSON; an ``X | None`` column may be NULL.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeAlias

Json: TypeAlias = Any


@dataclass(frozen=True)
class Record:
    """A row. ``KEYS`` are table constraints, ``INDEXES`` column lists to index."""

    TABLE: ClassVar[str]
    KEYS: ClassVar[tuple[str, ...]] = ()
    INDEXES: ClassVar[tuple[str, ...]] = ()
    id: int


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
class Issue(Record):
    """An issue, or the conversation of a pull request (``is_pull``)."""

    TABLE = "issues"
    KEYS = ("UNIQUE (repo_id, number)",)
    repo_id: int
    number: int
    is_pull: bool
    title: str
    body: str | None
    state: str
    state_reason: str | None
    user_id: int
    closed_by: int | None
    created_at: str
    updated_at: str
    closed_at: str | None


@dataclass(frozen=True)
class Pull(Record):
    """A pull request; ``id`` is also its issue's id.

    ``mergeable`` and ``merge_sha`` (the test merge, then the real one) are facts computed whenever head or base moves.
    ``intent_sha`` is written before the base branch moves, so that an interrupted merge is finished by the next start.
    """

    TABLE = "pulls"
    INDEXES = ("repo_id", "head_sha")
    repo_id: int
    number: int
    head_repo_id: int
    head_ref: str
    head_sha: str
    base_ref: str
    base_sha: str
    draft: bool
    mergeable: bool | None
    merge_sha: str | None
    merged: bool
    merged_at: str | None
    merged_by: int | None
    intent_sha: str | None
    intent_user: int | None


@dataclass(frozen=True)
class Review(Record):
    """``state``: APPROVED | CHANGES_REQUESTED | COMMENTED | DISMISSED."""

    TABLE = "reviews"
    INDEXES = ("pull_id",)
    pull_id: int
    user_id: int
    state: str
    body: str
    commit_id: str
    submitted_at: str


@dataclass(frozen=True)
class ReviewRequest(Record):
    TABLE = "review_requests"
    INDEXES = ("pull_id",)
    pull_id: int
    user_id: int | None
    team_id: int | None


@dataclass(frozen=True)
class Comment(Record):
    TABLE = "comments"
    INDEXES = ("issue_id",)
    repo_id: int
    issue_id: int
    user_id: int
    body: str
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class Label(Record):
    TABLE = "labels"
    KEYS = ("UNIQUE (repo_id, name COLLATE NOCASE)",)
    repo_id: int
    name: str
    color: str
    description: str | None


@dataclass(frozen=True)
class IssueLabel(Record):
    TABLE = "issue_labels"
    KEYS = ("UNIQUE (issue_id, label_id)",)
    issue_id: int
    label_id: int


@dataclass(frozen=True)
class Assignee(Record):
    TABLE = "assignees"
    KEYS = ("UNIQUE (issue_id, user_id)",)
    issue_id: int
    user_id: int


@dataclass(frozen=True)
class Status(Record):
    TABLE = "statuses"
    INDEXES = ("repo_id, sha",)
    repo_id: int
    sha: str
    context: str
    state: str
    description: str | None
    target_url: str | None
    creator_id: int
    created_at: str


@dataclass(frozen=True)
class CheckSuite(Record):
    """The check runs of one app on one commit; those of a workflow run have ``run_id``."""

    TABLE = "check_suites"
    INDEXES = ("repo_id, sha",)
    repo_id: int
    sha: str
    app: str
    branch: str | None
    run_id: int | None
    created_at: str


@dataclass(frozen=True)
class CheckRun(Record):
    TABLE = "check_runs"
    INDEXES = ("repo_id, sha", "suite_id")
    repo_id: int
    suite_id: int
    sha: str
    name: str
    status: str
    conclusion: str | None
    details_url: str | None
    external_id: str | None
    output: Json
    started_at: str | None
    completed_at: str | None


@dataclass(frozen=True)
class Deployment(Record):
    TABLE = "deployments"
    INDEXES = ("repo_id",)
    repo_id: int
    sha: str
    ref: str
    task: str
    environment: str
    description: str | None
    payload: Json
    production: bool
    transient: bool
    creator_id: int
    created_at: str


@dataclass(frozen=True)
class DeploymentStatus(Record):
    TABLE = "deployment_statuses"
    INDEXES = ("deployment_id",)
    deployment_id: int
    state: str
    description: str
    environment: str
    environment_url: str
    log_url: str
    creator_id: int
    created_at: str


@dataclass(frozen=True)
class Environment(Record):
    TABLE = "environments"
    KEYS = ("UNIQUE (repo_id, name COLLATE NOCASE)",)
    repo_id: int
    name: str
    created_at: str


@dataclass(frozen=True)
class Event(Record):
    """Something that may start workflows. ``state``: new | taken | done.

    ``ref`` and ``sha`` are what a workflow checks out (GITHUB_REF, GITHUB_SHA); its checks belong on ``head_sha``.
    A ``suppressed`` event was caused by a run's own token: it is recorded and starts nothing, as on github.com.
    """

    TABLE = "events"
    INDEXES = ("state",)
    repo_id: int
    event: str
    action: str | None
    payload: Json
    actor: str
    ref: str
    sha: str
    head_sha: str
    number: int | None
    state: str
    suppressed: bool
    created_at: str


@dataclass(frozen=True)
class Workflow(Record):
    """A workflow file that the forge has met; the id is what GitHub's API asks for."""

    TABLE = "workflows"
    KEYS = ("UNIQUE (repo_id, path)",)
    repo_id: int
    path: str
    name: str
    created_at: str


@dataclass(frozen=True)
class Run(Record):
    """A workflow run. ``status``: queued | in_progress | completed; one per event and workflow file."""

    TABLE = "runs"
    KEYS = ("UNIQUE (event_id, workflow_id)",)
    INDEXES = ("repo_id",)
    repo_id: int
    workflow_id: int
    event_id: int
    suite_id: int
    name: str
    path: str
    title: str
    event: str
    run_number: int
    status: str
    conclusion: str | None
    head_branch: str | None
    head_sha: str
    actor_id: int
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class Job(Record):
    """A job of a run; ``steps`` is GitHub's list of steps; its check run carries the same state."""

    TABLE = "jobs"
    INDEXES = ("run_id",)
    run_id: int
    check_run_id: int
    name: str
    labels: Json
    status: str
    conclusion: str | None
    steps: Json
    created_at: str
    started_at: str | None
    completed_at: str | None


@dataclass(frozen=True)
class Log(Record):
    TABLE = "logs"
    INDEXES = ("run_id",)
    run_id: int
    job_id: int | None
    text: str


def ddl() -> str:
    """The SQLite schema of all records."""
    statements = []
    for kind in Record.__subclasses__():
        columns = ["id INTEGER PRIMARY KEY AUTOINCREMENT"]
        for field in fields(kind)[1:]:
            base, _, null = str(field.type).partition(" | ")
            sort = "INTEGER" if base in ("int", "bool") else "TEXT"
            columns.append(f"{field.name} {sort}{'' if null else ' NOT NULL'}")
        statements.append(f"CREATE TABLE IF NOT EXISTS {kind.TABLE} ({', '.join([*columns, *kind.KEYS])});")
        for number, index in enumerate(kind.INDEXES):
            name = f"{kind.TABLE}_{number}"
            statements.append(f"CREATE INDEX IF NOT EXISTS {name} ON {kind.TABLE} ({index});")
    return "\n".join(statements)
