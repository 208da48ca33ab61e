"""What is recorded about commits: statuses, checks, deployments."""

from __future__ import annotations

from dataclasses import dataclass

from mlp_ci.sandbox.forge.records.tables import Json, Record


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
