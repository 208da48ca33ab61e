"""``mlp-ci history``: what was live when, who wanted it, who approved it, on what evidence. From a clone, offline."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from mlp_ci import clock, git
from mlp_ci.promote.ledger import FETCH, broken
from mlp_ci.promote.records import BRANCH
from mlp_ci.promote.timeline import ASKED, RECORDED, Span, Timeline, timeline
from mlp_ci.report import Finding, Outcome, Report, Table

if TYPE_CHECKING:
    from datetime import datetime

    from mlp_ci.context import Context

COLUMNS = (
    *("from", "until", "stage", "version", "digest", "kind", "asked by", "approved by", "merged by"),
    *("pull request", "commit", "evidence", "basis", "record"),
)
NOTHING, UNKNOWN = "nothing", "unknown"
# What a spreadsheet takes for a formula when a cell begins with it.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def what_was_live(ctx: Context, stage: str | None, at: str | None, *, as_csv: bool = False) -> Report:
    """The spans of one stage or all; with ``at`` what each stage had at that instant.

    The outcome is FAIL where the records were tampered with: what is shown is then no proof.
    """
    git.require_repository(ctx.repo)
    known = timeline(ctx.repo)
    instant = clock.parse_instant(at) if at else None
    rows = _rows(known, stage, instant)
    findings = [*_missing(known), *(broken(known.ledger) if known.ledger else [])]
    tampered = any(f.outcome is Outcome.FAIL for f in findings)
    return Report(
        command="history",
        headline=_headline(rows, known, stage, instant) + ("; the records were tampered with" if tampered else ""),
        outcome=Outcome.FAIL if tampered else Outcome.PASS,
        findings=findings,
        tables=[] if as_csv or not rows else [_table(rows)],
        data={"at": _shown(instant) if instant else None, "history": [_values(row) for row in rows]},
        document=_csv(rows) if as_csv else "",
    )


def _rows(known: Timeline, stage: str | None, instant: datetime | None) -> list[Span | str]:
    """Spans; a bare name is a stage that had nothing."""
    if instant is None:
        return [span for span in known.spans if stage in (None, span.stage)]
    stages = (stage,) if stage else known.stages
    had = known.at(instant)
    return [had.get(name) or name for name in stages]


def _missing(known: Timeline) -> list[Finding]:
    """What this clone cannot say."""
    found = [
        Finding(check="history", outcome=Outcome.SKIP, severity="notice", message=gap, fix="git fetch --unshallow")
        for gap in known.gaps
    ]
    if known.ledger is None:
        what = (
            f"the branch {BRANCH} is not in this clone, so this is what promotion.yaml asked for, "
            "not what was proven to be live; who approved it is unknown"
        )
        found.append(Finding(check="records", outcome=Outcome.SKIP, severity="notice", message=what, fix=FETCH))
    elif any(span.basis == ASKED for span in known.spans):
        what = "before a stage's first record this is what promotion.yaml asked for, not what was proven to be live"
        found.append(Finding(check="records", outcome=Outcome.SKIP, severity="notice", message=what))
    return found


def _headline(rows: list[Span | str], known: Timeline, stage: str | None, instant: datetime | None) -> str:
    if not rows:
        return f"nothing was ever deployed to {stage}" if stage else "nothing was ever deployed"
    if instant is not None:
        had = [f"{r.stage} had version {r.version}" if isinstance(r, Span) else f"{r} had nothing" for r in rows]
        return f"at {_shown(instant)} {', '.join(had)}"
    now = [span for span in known.spans if span.until is None and stage in (None, span.stage)]
    live = [f"{s.stage} has version {s.version} since {_shown(s.since)}" for s in now]
    if known.ledger:
        count = "1 deployment" if len(rows) == 1 else f"{len(rows):,} deployments"
    else:
        count = "1 change was asked for" if len(rows) == 1 else f"{len(rows):,} changes were asked for"
    return "; ".join([count, *live])


def _shown(instant: datetime | None) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ") if instant else ""


def _values(row: Span | str) -> dict[str, Any]:
    """A row for programs: whole digests, no words for what is not there."""
    if isinstance(row, str):
        return {"stage": row, "version": None}
    return {
        "from": _shown(row.since),
        "until": _shown(row.until) or None,
        "stage": row.stage,
        "version": row.version,
        "digest": row.digest,
        "kind": row.kind,
        "asked_by": row.asked_by,
        "approved_by": list(row.approved_by) if row.basis == RECORDED else None,
        "merged_by": row.merged_by,
        "pull_request": row.pull,
        "commit": row.commit,
        "evidence": row.evidence or None,
        "basis": row.basis,
        "record": row.record,
    }


def _cells(row: Span | str) -> tuple[Any, ...]:
    """A row for people, in the order of COLUMNS."""
    if isinstance(row, str):
        return ("", "", row, NOTHING, *[""] * (len(COLUMNS) - 4))
    approved = ", ".join(row.approved_by) if row.basis == RECORDED else UNKNOWN
    people = (row.asked_by, approved, row.merged_by)
    grounds = (row.pull, row.commit, row.evidence, row.basis, row.record)
    return (_shown(row.since), _shown(row.until), row.stage, row.version, row.digest, row.kind, *people, *grounds)


def _table(rows: list[Span | str]) -> Table:
    short = [
        tuple(_short(name, cell) for name, cell in zip(COLUMNS, _cells(row), strict=True) if name != "record")
        for row in rows
    ]
    return Table(title="", columns=tuple(_TITLES.get(c, c) for c in COLUMNS if c != "record"), rows=tuple(short))


_TITLES = {"from": "from (UTC)", "until": "until (UTC)"}


def _short(name: str, cell: Any) -> Any:
    if name in ("digest", "evidence") and isinstance(cell, str):
        return cell.removeprefix("sha256:")[:12]
    if name == "commit":
        return str(cell)[:12]
    if name in ("from", "until"):
        return str(cell).replace("T", " ").removesuffix("Z")
    if name == "pull request" and cell:
        return f"#{cell}"
    return "" if cell is None else str(cell)


def _csv(rows: list[Span | str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_harmless("" if cell is None else str(cell)) for cell in _cells(row)])
    return text.getvalue()


def _harmless(cell: str) -> str:
    """A name somebody chose must not become a formula in the auditor's spreadsheet."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell
