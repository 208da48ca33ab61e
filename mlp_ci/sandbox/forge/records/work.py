"""Issues and pull requests, and what is said about them."""

from __future__ import annotations

from dataclasses import dataclass

from mlp_ci.sandbox.forge.records.tables import Json, Record


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
class IssueEvent(Record):
    """Something that happened to an issue or pull request. ``detail``: what only this kind of event tells.

    A dismissal keeps here what the review had said; the review itself only says that it is dismissed.
    """

    TABLE = "issue_events"
    INDEXES = ("issue_id",)
    repo_id: int
    issue_id: int
    event: str
    actor_id: int
    commit_id: str | None
    detail: Json
    created_at: str
