"""What was live when, from git objects alone: the deployments on record, and before those what promotion.yaml asked.

A record proves that a version was live; promotion.yaml alone only says that somebody asked for it. Each row says which
of the two it rests on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlp_ci import git
from mlp_ci.errors import SpecError
from mlp_ci.promote.ledger import Ledger, read_local
from mlp_ci.spec import PROMOTION_FILE, PromotionSpec, StageEntry, parse_promotion

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.promote.records import DeploymentRecord

RECORDED, ASKED = "recorded", "asked"
BRANCHES = ("refs/remotes/origin/HEAD", "HEAD")
LARGEST_FILE = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stage ran (or was asked to run) one version from ``since`` to ``until``; no end: to this day.

    ``basis`` is RECORDED or ASKED. Of what was only asked, nobody knows here who approved it.
    """

    since: datetime
    until: datetime | None
    stage: str
    version: int
    digest: str
    kind: str
    asked_by: str
    approved_by: tuple[str, ...]
    merged_by: str
    pull: int | None
    commit: str
    evidence: str
    basis: str
    record: int | None = None


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """All spans, oldest first, and the stages that ever had one. ``gaps``: what is missing, in words."""

    spans: tuple[Span, ...]
    stages: tuple[str, ...]
    ledger: Ledger | None
    gaps: tuple[str, ...] = ()

    def at(self, instant: datetime) -> dict[str, Span | None]:
        """Stage → what it had at that instant."""
        found: dict[str, Span | None] = dict.fromkeys(self.stages)
        for span in self.spans:
            if span.since <= instant and (span.until is None or instant < span.until):
                found[span.stage] = span
        return found


def timeline(repo: Path) -> Timeline:
    """What the clone in ``repo`` knows of the past."""
    ledger = read_local(repo)
    asked = _asked(repo)
    recorded = _recorded(ledger.records) if ledger else []
    spans = sorted([*_before_records(asked, recorded), *recorded], key=lambda s: s.since)
    gaps = ["the clone is shallow: older history is not in it"] if git.is_shallow(repo) else []
    stages = dict.fromkeys(s.stage for s in spans)
    return Timeline(spans=tuple(spans), stages=tuple(stages), ledger=ledger, gaps=tuple(gaps))


def _before_records(asked: list[Span], recorded: list[Span]) -> list[Span]:
    """What was asked for before the first record of its stage; the deployment of that record was asked for as well."""
    first: dict[str, Span] = {}
    for span in recorded:
        first.setdefault(span.stage, span)
    early = []
    for span in asked:
        begin = first.get(span.stage)
        if begin is None:
            early.append(span)
        elif span.since < begin.since and span.commit != begin.commit:
            early.append(replace(span, until=min(span.until or begin.since, begin.since)))
    return early


def _recorded(records: list[DeploymentRecord]) -> list[Span]:
    """A deployment lasts until the next of its stage."""
    spans: list[Span] = []
    newest: dict[str, int] = {}  # stage → where its newest span stands
    for record in records:
        index = newest.get(record.stage)
        if index is not None:
            spans[index] = replace(spans[index], until=max(record.at, spans[index].since))
        newest[record.stage] = len(spans)
        spans.append(
            Span(
                since=record.at,
                until=None,
                stage=record.stage,
                version=record.version,
                digest=record.digest,
                kind=record.kind,
                asked_by=record.asked_by,
                approved_by=record.approved_by,
                merged_by=record.merged_by,
                pull=record.pull,
                commit=record.commit,
                evidence=record.evidence,
                basis=RECORDED,
                record=record.number,
            )
        )
    return spans


# ---------------------------------------------------------------- promotion.yaml alone


def _asked(repo: Path) -> list[Span]:
    """What the default branch asked for, step by step: the merges, not the commits in them."""
    tip = git.commit_of(repo, *BRANCHES)
    if tip is None:
        return []
    commits = git.commits(repo, tip, PROMOTION_FILE, first_parent=True)
    ids = {c.sha: next((change.blob for change in c.changes if set(change.blob) != {"0"}), "") for c in commits}
    contents = git.blobs(repo, (blob for blob in ids.values() if blob), largest=LARGEST_FILE)
    spans: list[Span] = []
    open_at: dict[str, int] = {}
    before = PromotionSpec(apiVersion="mlp-ci/v1", model="none")  # type: ignore[call-arg]
    for commit in commits:
        after = _parsed(contents.get(ids[commit.sha]), before, gone=not ids[commit.sha])
        at = datetime.fromisoformat(commit.date).astimezone(UTC)
        for stage in dict.fromkeys([*before.stages, *after.stages]):
            entry = after.stages.get(stage)
            if entry == before.stages.get(stage) or (entry and entry.same(before.stages.get(stage))):
                continue
            if stage in open_at:
                index = open_at.pop(stage)
                spans[index] = replace(spans[index], until=max(at, spans[index].since))
            if entry:
                open_at[stage] = len(spans)
                spans.append(_span(commit, at, stage, entry, _kind(stage, before, after)))
        before = after
    return spans


def _parsed(raw: bytes | None, before: PromotionSpec, *, gone: bool) -> PromotionSpec:
    """A file that cannot be read says what it said before; a file that is gone asks for nothing."""
    if gone:
        return before.model_copy(update={"stages": {}})
    try:
        return parse_promotion(raw) if raw is not None else before
    except SpecError:
        return before


def _kind(stage: str, before: PromotionSpec, after: PromotionSpec) -> str:
    """By the shape of the change: a rollback quarantines what it takes away."""
    taken, put = before.stages.get(stage), after.stages.get(stage)
    held = {q.digest for q in before.quarantine}
    if taken and taken.digest in {q.digest for q in after.quarantine} - held:
        return "rollback"
    return "emergency" if put and put.emergency else "promotion"


def _span(commit: git.Commit, at: datetime, stage: str, entry: StageEntry, kind: str) -> Span:
    return Span(
        since=at,
        until=None,
        stage=stage,
        version=entry.version,
        digest=entry.digest,
        kind=kind,
        asked_by=commit.author,
        approved_by=(),
        merged_by=commit.committer,
        pull=None,
        commit=commit.sha,
        evidence=entry.evidence or "",
        basis=ASKED,
    )
