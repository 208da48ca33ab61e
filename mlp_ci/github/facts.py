"""What GitHub says, as frozen values: nothing in here makes a request."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

WEB_FLOW = "web-flow"  # the committer of what people do on GitHub's own pages; no person


@dataclass(frozen=True, kw_only=True)
class PullRequest:
    """A pull request that should exist: one per branch. ``files`` are whole contents by path."""

    branch: str
    title: str
    body: str
    files: Mapping[str, bytes]
    labels: tuple[str, ...] = ()
    message: str = ""  # of the commit; the title, if empty


@dataclass(frozen=True, kw_only=True)
class PullFact:
    """The pull request that now exists. ``changed``: its files, title or body were written by this call."""

    number: int
    url: str
    created: bool
    changed: bool
    sha: str = ""


@dataclass(frozen=True, kw_only=True)
class CommitFact:
    """A commit. ``author`` and ``committer`` are logins, empty where GitHub knows nobody with that address."""

    sha: str
    parents: tuple[str, ...] = ()
    author: str = ""
    committer: str = ""
    author_name: str = ""
    bots: frozenset[str] = frozenset()  # those of the two logins that are bots
    message: str = ""
    date: str = ""


@dataclass(frozen=True, kw_only=True)
class ReviewFact:
    """One review. ``state`` is APPROVED, CHANGES_REQUESTED, COMMENTED, DISMISSED or PENDING."""

    id: int
    person: str
    state: str
    commit: str
    submitted: str = ""
    bot: bool = False


@dataclass(frozen=True, kw_only=True)
class PullDetail:
    """One pull request. ``state`` is open, closed or merged; ``files`` holds old and new names of what is renamed.

    ``complete`` is false when GitHub lists fewer commits or files than the pull request has.
    """

    number: int
    url: str
    title: str
    author: str
    author_bot: bool
    state: str
    head_sha: str
    head_ref: str
    head_repo: str
    base_ref: str
    base_sha: str
    merge_commit_sha: str = ""
    merged_by: str = ""
    draft: bool = False
    body: str = ""
    files: tuple[str, ...] = ()
    commits: tuple[CommitFact, ...] = ()
    complete: bool = True
    created_at: str = ""
    merged_at: str = ""


@dataclass(frozen=True, kw_only=True)
class DismissalFact:
    """A review that somebody took back. ``was`` is what it said: APPROVED or CHANGES_REQUESTED; ``at`` when."""

    review: int
    was: str
    by: str
    by_bot: bool
    at: str


@dataclass(frozen=True, kw_only=True)
class PullHistory:
    """What happened to a pull request, as GitHub's servers recorded it: nobody can write this with a push.

    ``pushers``: who pushed its commits. ``push_known``: a recorded push has the head as its result; false where the
    record is out of reach. ``restarted``: when it was last reopened or given another base, "" if never.
    ``co_authors``: commit → logins that its trailers name; ``unresolved``: those whom GitHub does not know.
    """

    pushers: tuple[str, ...] = ()
    push_known: bool = False
    dismissals: tuple[DismissalFact, ...] = ()
    restarted: str = ""
    co_authors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unresolved: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DeploymentFact:
    """A deployment on record. ``created`` is the instant that GitHub wrote down, ``creator`` who recorded it."""

    id: int
    sha: str
    stage: str
    state: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    creator: str = ""


def deployment_fact(raw: Mapping[str, Any], state: str = "") -> DeploymentFact:
    """From an item of ``GET /repos/{repo}/deployments``; others may have put anything into its payload."""
    payload = raw.get("payload") or {}
    if isinstance(payload, str):
        with suppress(ValueError):
            payload = json.loads(payload)
    return DeploymentFact(
        id=raw["id"],
        sha=raw["sha"],
        stage=raw["environment"],
        state=state,
        payload=payload if isinstance(payload, dict) else {},
        created=raw.get("created_at") or "",
        creator=login_of(raw.get("creator")),
    )


def is_bot(user: Mapping[str, Any] | None) -> bool:
    """Whether an account is no person: an app, a bot, or a login only apps can have."""
    return bool(user) and (user.get("type") != "User" or str(user.get("login", "")).endswith("[bot]"))  # type: ignore[union-attr]


def login_of(user: Mapping[str, Any] | None) -> str:
    return str(user.get("login") or "") if user else ""


def commit_fact(raw: Mapping[str, Any]) -> CommitFact:
    """From an item of ``GET /repos/{repo}/commits``."""
    people = [p for p in (raw.get("author"), raw.get("committer")) if p]
    inner = raw["commit"]
    return CommitFact(
        sha=raw["sha"],
        parents=tuple(p["sha"] for p in raw.get("parents", [])),
        author=login_of(raw.get("author")),
        committer=login_of(raw.get("committer")),
        author_name=str((inner.get("author") or {}).get("name") or ""),
        bots=frozenset(login_of(p) for p in people if is_bot(p)),
        message=inner.get("message", ""),
        date=str((inner.get("committer") or {}).get("date") or ""),
    )


def review_fact(raw: Mapping[str, Any]) -> ReviewFact:
    """From an item of ``GET /repos/{repo}/pulls/{number}/reviews``."""
    return ReviewFact(
        id=raw["id"],
        person=login_of(raw.get("user")),
        state=raw["state"],
        commit=raw.get("commit_id") or "",
        submitted=raw.get("submitted_at") or "",
        bot=is_bot(raw.get("user")),
    )


def dismissal_fact(raw: Mapping[str, Any]) -> DismissalFact:
    """From a ``review_dismissed`` of ``GET /repos/{repo}/issues/{number}/events``."""
    said = raw.get("dismissed_review") or {}
    return DismissalFact(
        review=int(said.get("review_id") or 0),
        was=str(said.get("state") or "").upper(),
        by=login_of(raw.get("actor")),
        by_bot=is_bot(raw.get("actor")),
        at=raw.get("created_at") or "",
    )


def pull_detail(raw: Mapping[str, Any], files: list[Mapping[str, Any]], commits: list[Mapping[str, Any]]) -> PullDetail:
    """From ``GET /repos/{repo}/pulls/{number}`` and its lists of files and commits."""
    merged = bool(raw.get("merged") or raw.get("merged_at"))
    names = {f["filename"] for f in files} | {f["previous_filename"] for f in files if f.get("previous_filename")}
    return PullDetail(
        number=raw["number"],
        url=raw["html_url"],
        title=raw["title"],
        body=raw.get("body") or "",
        author=login_of(raw.get("user")),
        author_bot=is_bot(raw.get("user")),
        state="merged" if merged else raw["state"],
        head_sha=raw["head"]["sha"],
        head_ref=raw["head"]["ref"],
        head_repo=((raw["head"].get("repo") or {}).get("full_name")) or "",
        base_ref=raw["base"]["ref"],
        base_sha=raw["base"]["sha"],
        merge_commit_sha=raw.get("merge_commit_sha") or "",
        merged_by=login_of(raw.get("merged_by")),
        draft=bool(raw.get("draft")),
        files=tuple(sorted(names)),
        commits=tuple(commit_fact(c) for c in commits),
        created_at=raw.get("created_at") or "",
        merged_at=raw.get("merged_at") or "",
        complete=len(commits) >= raw.get("commits", 0) and len(files) >= raw.get("changed_files", 0),
    )
