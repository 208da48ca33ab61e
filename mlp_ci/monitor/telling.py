"""What a look tells: findings, the table, the links. The page is :mod:`mlp_ci.monitor.page`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.data.decision import Decision
from mlp_ci.data.drift import ColumnDrift
from mlp_ci.data.statistics import show_p
from mlp_ci.errors import GateError
from mlp_ci.monitor.verdict import ALARM, INSUFFICIENT, PASS, Verdict, names_of, unique
from mlp_ci.report import Finding, Outcome, Report, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# A job summary with more rows is not read; the page and the JSON have all of them.
MOST_ROWS = 60
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
    findings = [_of_column(d, Outcome.FAIL, "warning") for d in verdict.drifted]
    findings += [_of_column(d, Outcome.INCONCLUSIVE, "notice") for d in verdict.suspected]
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


def _of_column(drift: ColumnDrift, outcome: Outcome, severity: str) -> Finding:
    weight = "" if drift.importance is None else f"; {drift.importance:.0%} of what moves the model"
    message = f"{drift.reason}{weight}"
    return Finding(check="drift", outcome=outcome, subject=drift.name, message=message, severity=severity)


def _of_the_past(verdict: Verdict) -> list[Finding]:
    """Alarms of windows that nobody looked at when they ended."""
    found = []
    for past in verdict.timeline:
        if past.missed:
            message = f"{names_of(unique(past.drifted))} had drifted from {past.span}; no look was taken then"
            found.append(_warning("missed", message, "run the monitor as often as monitor.schedule says"))
    return found


def _warning(check: str, message: str, fix: str) -> Finding:
    return Finding(check=check, outcome=Outcome.FAIL, message=message, fix=fix, severity="warning")


def _table(drifts: Sequence[ColumnDrift]) -> Table:
    shown = drifts[:MOST_ROWS]
    rows = tuple(
        (
            d.name,
            OUTCOMES[d.decision],
            round(d.psi, 4),
            round(d.usual, 4),
            round(d.limit, 4),
            "" if d.decision is Decision.INSUFFICIENT else show_p(d.p_adjusted),
            "" if d.importance is None else f"{d.importance:.0%}",
            f"{d.nulls_then:.1%} → {d.nulls_now:.1%}",
            d.rows_now,
        )
        for d in shown
    )
    columns = ("column", "outcome", "PSI", "usual", "limit", "p (corrected)", "importance", "nulls then → now", "rows")
    more = f" ({len(drifts) - MOST_ROWS} more are in the report)" if len(drifts) > MOST_ROWS else ""
    return Table(title=f"Training against now, what probably hurts most first{more}", columns=columns, rows=rows)
