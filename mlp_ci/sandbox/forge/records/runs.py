"""Events, and the workflows they start."""

from __future__ import annotations

from dataclasses import dataclass

from mlp_ci.sandbox.forge.records.tables import Json, Record


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
