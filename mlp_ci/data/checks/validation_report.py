"""The report of a validation: what is broken first, and no more of it than a person reads."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from mlp_ci.data.checks.acceptance import Acceptance, outcomes
from mlp_ci.data.words import show_share
from mlp_ci.report import Finding, Outcome, Report, Table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from mlp_ci.data.checks.verdict import Check, FileVerdict
    from mlp_ci.spec.data import Data

# A job summary has room for a mebibyte and a reader for less.
MOST_COLUMNS, MOST_FINDINGS = 200, 100


def report_on(
    command: str, verdicts: Mapping[str, FileVerdict], fresh: Check | None, data: Data, now: datetime, seconds: float
) -> Report:
    """One report on all files, after the suppressions of ``data.checks.suppress`` as of ``now``.

    The machine's copy under ``data`` holds every check and every column.
    """
    accepted = Acceptance(data.checks.suppress, now.date())
    judged = {path: _after(verdict, accepted) for path, verdict in verdicts.items()}
    general = accepted.judge([fresh] if fresh else [])
    notices = accepted.unused()
    every = [*(c for v in judged.values() for c in v.checks), *general]
    broken = sum(c.outcome is Outcome.FAIL and c.severity == "error" for c in every)
    warned = sum(c.outcome is Outcome.FAIL and c.severity == "warning" for c in every)
    told = f"{broken:,} failed" if broken else "the data is as model.yaml says"
    told += f", {warned:,} warning{'s' if warned != 1 else ''}" if warned else ""
    rows = sum(v.rows for v in judged.values())
    findings = [f for path, verdict in judged.items() for f in _findings(path, verdict)]
    findings += [_finding("", c) for c in [*general, *notices]]
    return Report(
        command=command,
        headline=f"{len(every):,} checks on {rows:,} row{'s' if rows != 1 else ''} in {seconds:.1f} s: {told}",
        outcome=Outcome.FAIL if broken else Outcome.PASS,
        findings=findings,
        tables=[_table(path, verdict) for path, verdict in judged.items()],
        data={
            "files": {path: _plain(verdict) for path, verdict in judged.items()},
            "freshness": asdict(general[0]) if general else None,
            "suppressions": [asdict(c) for c in notices],
            "seconds": round(seconds, 3),
        },
    )


def _after(verdict: FileVerdict, accepted: Acceptance) -> FileVerdict:
    checks = accepted.judge(verdict.checks)
    return replace(verdict, checks=tuple(checks), columns=outcomes(verdict.columns, checks))


def _findings(path: str, verdict: FileVerdict) -> list[Finding]:
    """One finding per rule that does not hold, errors first, and one for all the rules of the file that do."""
    order = {"error": 0, "warning": 1}
    open_ = [c for c in verdict.checks if c.outcome is not Outcome.PASS]
    open_.sort(key=lambda c: (c.outcome is not Outcome.FAIL, order.get(c.severity, 2)))
    found = [_finding(path, c) for c in open_[:MOST_FINDINGS]]
    if len(open_) > MOST_FINDINGS:
        rest = open_[MOST_FINDINGS:]
        failed = [c for c in rest if c.outcome is Outcome.FAIL]
        message = f"{len(rest):,} more checks do not hold"
        found.append(
            Finding(
                check="validate",
                outcome=Outcome.FAIL if failed else Outcome.SKIP,
                subject=path,
                message=message,
                fix="`--format json` lists them all",
                severity="error" if any(c.severity == "error" for c in failed) else "warning",
            )
        )
    held = sum(c.outcome is Outcome.PASS for c in verdict.checks)
    rows = f"{verdict.rows:,} row{'s' if verdict.rows != 1 else ''}"
    passed = Finding(check="validate", outcome=Outcome.PASS, subject=path, message=f"{held:,} checks hold on {rows}")
    return [*found, passed]


def _finding(path: str, check: Check) -> Finding:
    return Finding(
        check=check.rule,
        outcome=check.outcome,
        subject=" ".join(filter(None, [path, check.column])),
        message=check.message,
        fix=check.fix,
        severity=check.severity,
    )


def _table(path: str, verdict: FileVerdict) -> Table:
    shown = sorted(verdict.columns, key=lambda c: c.outcome is not Outcome.FAIL)[:MOST_COLUMNS]
    if len(verdict.columns) <= MOST_COLUMNS:
        shown = list(verdict.columns)
    rows = tuple(
        (c.name, c.type, "" if c.nulls is None else show_share(c.nulls), c.smallest, c.largest, c.distinct, c.outcome)
        for c in shown
    )
    title = f"{path}: {verdict.rows:,} row{'s' if verdict.rows != 1 else ''}"
    if len(shown) < len(verdict.columns):
        title += f"; {len(shown)} of {len(verdict.columns):,} columns, those that fail first"
    return Table(title=title, columns=("column", "type", "nulls", "min", "max", "distinct", "outcome"), rows=rows)


def _plain(verdict: FileVerdict) -> dict[str, Any]:
    newest = verdict.newest
    return {
        "rows": verdict.rows,
        "newest": newest.isoformat() if newest else None,
        "checks": [asdict(c) for c in verdict.checks],
        "columns": [asdict(c) for c in verdict.columns],
    }
