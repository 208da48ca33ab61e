"""``mlp-ci validate``: fetch the data that ``model.yaml`` names, and check it."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlp_ci import clock, dvc
from mlp_ci.data.duck import open_file
from mlp_ci.data.judge import Check, FileVerdict, freshness, judge_file
from mlp_ci.data.plan import types_wanted
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome, Report, Table
from mlp_ci.spec.load import load_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.spec.data import Data


def validate(context: Context) -> Report:
    """Pull, digest, measure, judge. Fails the report when a rule is broken.

    Raises SpecError for a bad ``model.yaml``, InputError for data that is not there or cannot be read.
    """
    started = time.monotonic()
    data = load_model(context.repo).data
    paths = [data.train, data.test]
    files = dvc.pull(context.repo, paths)
    digests = {path: dvc.tracked_digest(context.repo, path) for path in paths}
    verdicts = {path: judge(files[path], path, data) for path in paths}
    fresh = freshness([v.newest for v in verdicts.values()], data, clock.now())
    return _report(verdicts, fresh, digests, time.monotonic() - started)


def judge(file: Path, shown_as: str, data: Data) -> FileVerdict:
    """All rules of ``data`` that concern one file, for the file at ``file``."""
    doing(f"checking {shown_as}")
    with open_file(file, shown_as, types_wanted(data)) as engine:
        return judge_file(engine, data)


def data_digest(digests: Mapping[str, str]) -> str:
    """One digest over all data: SHA-256 of the sorted JSON object path → digest."""
    text = json.dumps(dict(digests), sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _report(
    verdicts: Mapping[str, FileVerdict], fresh: Check | None, digests: Mapping[str, str], seconds: float
) -> Report:
    findings = [f for path, verdict in verdicts.items() for f in _findings(path, verdict)]
    if fresh:
        findings.append(_finding("", fresh))
    broken = [f for f in findings if f.outcome is Outcome.FAIL and f.severity == "error"]
    checks = sum(len(v.checks) for v in verdicts.values()) + (fresh is not None)
    rows = sum(v.rows for v in verdicts.values())
    headline = f"{checks} checks on {rows:,} rows in {seconds:.1f} s: "
    headline += f"{len(broken)} failed" if broken else "the data is as model.yaml says"
    return Report(
        command="validate",
        headline=headline,
        outcome=Outcome.FAIL if broken else Outcome.PASS,
        findings=findings,
        tables=[_table(path, verdict) for path, verdict in verdicts.items()],
        outputs={"data-digest": data_digest(digests)},
        data={
            "digests": dict(digests),
            "files": {path: _plain(verdict) for path, verdict in verdicts.items()},
            "freshness": asdict(fresh) if fresh else None,
            "seconds": round(seconds, 3),
        },
    )


def _findings(path: str, verdict: FileVerdict) -> list[Finding]:
    """One finding per broken rule, and one for all the rules of the file that hold."""
    held = sum(c.outcome is Outcome.PASS for c in verdict.checks)
    passed = Finding(
        check="validate", outcome=Outcome.PASS, subject=path, message=f"{held} checks hold on {verdict.rows:,} rows"
    )
    return [*(_finding(path, c) for c in verdict.checks if c.outcome is not Outcome.PASS), passed]


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
    rows = tuple(
        (c.name, c.type, _share(c.nulls), c.smallest, c.largest, c.distinct, c.outcome) for c in verdict.columns
    )
    columns = ("column", "type", "nulls", "min", "max", "distinct", "outcome")
    return Table(title=f"{path}: {verdict.rows:,} rows", columns=columns, rows=rows)


def _share(share: float | None) -> str:
    if share is None:
        return ""
    return f"{share:.2%}" if share else "0"


def _plain(verdict: FileVerdict) -> dict[str, Any]:
    newest: datetime | None = verdict.newest
    return {
        "rows": verdict.rows,
        "newest": newest.isoformat() if newest else None,
        "checks": [asdict(c) for c in verdict.checks],
        "columns": [asdict(c) for c in verdict.columns],
    }
