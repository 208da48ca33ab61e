"""What a look tells: findings, the table, the links. The page is :mod:`mlp_ci.monitor.page`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.data.drift.decision import Decision
from mlp_ci.data.words import round_share, show_share
from mlp_ci.errors import GateError
from mlp_ci.monitor.verdict import ALARM, INSUFFICIENT, PASS, Verdict, names_of
from mlp_ci.monitor.words import without_repeats
from mlp_ci.report import Finding, Outcome, Report, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlp_ci.data.drift.compare import ColumnDrift

# A job summary with more is not read; the page and the JSON have all of them.
MOST_ROWS = 20
MOST_FINDINGS = 8
OUTCOMES = {
    Decision.DRIFTED: Outcome.FAIL,
    Decision.SUSPECTED: Outcome.INCONCLUSIVE,
    Decision.STABLE: Outcome.PASS,
    Decision.INSUFFICIENT: Outcome.INCONCLUSIVE,
}


def report_of(verdict: Verdict, page: Path, kept_at: str, *, fail_on_drift: bool) -> Report:
    """The report of one look. An alarm is news: the exit code stays 0 unless ``fail_on_drift``."""
    alarm = verdict.outcome == ALARM
    return Report(
        command="monitor",
        headline=verdict.sentence,
        outcome={ALARM: Outcome.FAIL, INSUFFICIENT: Outcome.INCONCLUSIVE, PASS: Outcome.PASS}[verdict.outcome],
        findings=_findings(verdict),
        tables=[_table(verdict.drifts)] if verdict.drifts else [],
        outputs={"drifted": "true" if alarm else "false", "verdict": verdict.outcome, "report": str(page)},
        data=verdict.as_dict(),
        links=[("Report", str(page)), ("Kept with the version's run", kept_at)],
        exit_code=GateError.exit_code if alarm and fail_on_drift else 0,
    )


def _findings(verdict: Verdict) -> list[Finding]:
    findings = _of_columns(verdict.drifted, Outcome.FAIL, "warning")
    findings += _of_columns(verdict.suspected, Outcome.INCONCLUSIVE, "notice")
    findings += _of_the_past(verdict)
    everywhere = [d for d in verdict.drifts if not d.segment]
    stable = sum(d.decision is Decision.STABLE for d in everywhere)
    if stable:
        message = f"{stable} of {len(everywhere)} watched columns are as in training"
        findings.append(Finding(check="drift", outcome=Outcome.PASS, message=message))
    unsure = [d for d in everywhere if d.decision is Decision.INSUFFICIENT]
    if unsure or not verdict.drifts:
        names = names_of([d.column for d in unsure]) or "every column"
        needed = verdict.spec.monitor.drift.min_rows
        message = f"too few rows to decide about {names}: {needed:,} are needed"
        fix = "look at a longer window (--since), or wait for more traffic"
        outcome = Outcome.INCONCLUSIVE
        findings.append(Finding(check="drift", outcome=outcome, message=message, fix=fix, severity="notice"))
    if verdict.look.absent:
        message = f"the prediction log has no column {names_of(verdict.look.absent)}"
        fix = "deploy the version that reads them, or set `monitor: false` for them in model.yaml"
        findings.append(_warning("log", message, fix))
    if verdict.look.unreadable:
        names = names_of(verdict.look.unreadable)
        findings.append(_warning("log", f"{names} of the prediction log cannot be read and was left out", ""))
    if verdict.performance:
        findings.append(verdict.performance.finding())
    if verdict.estimate:
        findings.append(verdict.estimate.finding())
    return findings


def _of_columns(drifts: Sequence[ColumnDrift], outcome: Outcome, severity: str) -> list[Finding]:
    """One finding a column; its segments are part of it, and of many columns the last ones are only counted."""
    everywhere = {d.column: d for d in drifts if not d.segment}
    segments: dict[str, list[str]] = {}
    for d in drifts:
        if d.segment and d.column in everywhere:
            segments.setdefault(d.column, []).append(d.segment)
    told = [d for d in drifts if not d.segment or d.column not in everywhere]
    findings = []
    for d in told[:MOST_FINDINGS]:
        weight = "" if d.importance is None else f"; {round_share(d.importance)} of what moves the model"
        within = segments.get(d.column, []) if not d.segment else []
        also = f"; also where {names_of(within, 3)}" if within else ""
        message = f"{d.reason}{weight}{also}"
        findings.append(Finding(check="drift", outcome=outcome, subject=d.name, message=message, severity=severity))
    if rest := [d.name for d in told[MOST_FINDINGS:]]:
        said = f"{len(rest)} more: {names_of(rest)}"
        findings.append(Finding(check="drift", outcome=outcome, message=said, severity=severity))
    return findings


def _of_the_past(verdict: Verdict) -> list[Finding]:
    """Alarms of windows that nobody looked at when they ended."""
    found = []
    for past in verdict.timeline:
        if past.missed:
            message = f"{names_of(without_repeats(past.drifted))} had drifted from {past.span}; no look was taken then"
            found.append(_warning("missed", message, "run the monitor as often as monitor.schedule says"))
    return found


def _warning(check: str, message: str, fix: str) -> Finding:
    return Finding(check=check, outcome=Outcome.FAIL, message=message, fix=fix, severity="warning")


def _table(drifts: Sequence[ColumnDrift]) -> Table:
    """What can be read on a small screen: the segments of what changed everywhere, the p-values and the distances are
    in the page."""
    changed = [d for d in drifts if d.decision in (Decision.DRIFTED, Decision.SUSPECTED)]
    told = set(without_repeats(d.name for d in changed))
    shown = [d for d in drifts if d.name in told or not d.segment][:MOST_ROWS]
    rows = [
        (
            d.name,
            OUTCOMES[d.decision],
            *((None,) * 3 if d.decision is Decision.INSUFFICIENT else (_psi(d.pooled), _psi(d.usual), _psi(d.limit))),
            "" if d.importance is None else round_share(d.importance),
            f"{show_share(d.nulls_then)} → {show_share(d.nulls_now)}" if d.nulls_then or d.nulls_now else "",
        )
        for d in shown
    ]
    columns = ("column", "outcome", "PSI", "usual", "limit", "importance", "missing then → now")
    # A column of the table that says nothing is left out: not every version has importances.
    kept = [i for i in range(len(columns)) if i < 5 or any(row[i] for row in rows)]
    more = f" ({len(drifts) - len(shown)} more are in the report)" if len(drifts) > len(shown) else ""
    return Table(
        title=f"Training against now, what probably hurts most first{more}",
        columns=tuple(columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in rows),
    )


def _psi(value: float) -> float:
    return round(value, 3)
