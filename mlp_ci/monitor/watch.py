"""``mlp-ci monitor``: what came in, against what the live version was trained on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci import clock
from mlp_ci.data.drift import ColumnDrift, Decision, compare, show_p
from mlp_ci.data.profile import Profile
from mlp_ci.errors import GateError, InputError, NothingToDo
from mlp_ci.monitor.look import look_at
from mlp_ci.monitor.packing import pack
from mlp_ci.monitor.performance import look_at_performance
from mlp_ci.monitor.verdict import ALARM, INSUFFICIENT, PASS, Verdict, names_of
from mlp_ci.monitor.windows import Span, Window, log_parts, resolve
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome, Report, Table

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.spec.model import ModelSpec
    from mlp_ci.spec.platform import PlatformSpec
    from mlp_ci.tracking import Tracking, VersionFact

FOLDER = "monitor"
LOOKS_PER_DAY = {"hourly": 24.0, "daily": 1.0, "weekly": 1 / 7}
# However many false alarms a team accepts, one look never runs a larger risk than this.
LARGEST_ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a look needs besides the spec: where the data and the log lie, and what the version said of itself."""

    repo: Path
    log: Path
    reference: Profile
    evidence: Mapping[str, Any]
    now: datetime


def monitor(context: Context, window: Window, report_file: Path | None, *, fail_on_drift: bool) -> Report:
    """Look at one window of one stage, and remember the verdict with the live version's run.

    An alarm is news: the exit code stays 0 unless ``fail_on_drift``. Raises NothingToDo when nothing is live.
    """
    from mlp_ci import tracking as mlflow
    from mlp_ci.github import platform_of
    from mlp_ci.spec.load import load_model

    spec = load_model(context.repo)
    platform = platform_of(context)
    _require_stage(platform, window.stage)
    now = clock.now()
    span = resolve(window, now, spec.monitor.window_length)
    tracking = mlflow.connect(context, platform)
    version = tracking.version(spec.name, live_version(context, tracking, spec.name, window.stage))
    facts = Facts(
        repo=context.repo,
        log=context.prediction_log,
        reference=Profile.from_json(tracking.read_json(version.run_id, "profile.json")),
        evidence=tracking.read_json(version.run_id, "evidence.json") if spec.monitor.performance else {},
        now=now,
    )
    verdict = judge(spec, version, facts, span, window.stage)
    page = report_file or context.work / FOLDER / f"{verdict.file_name}.html"
    _write_page(verdict, page)
    _remember(tracking, verdict, page)
    pack(context.prediction_log, spec.name, window.stage, span, now)
    return _report(verdict, page, tracking.run_page(version.run_id), fail_on_drift=fail_on_drift)


def live_version(context: Context, tracking: Tracking, model: str, stage: str) -> int:
    """The version that runs in a stage: what the target says, else where the alias stands. NothingToDo if none."""
    from mlp_ci import serve

    live = serve.live(context, model, stage)
    number = live.version if live else tracking.alias(model, stage)
    if number is None:
        msg = f"no version of {model} is live in {stage}"
        raise NothingToDo(msg, why="there is nothing to compare the traffic with", fix=f"mlp-ci promote {stage}")
    return number


def judge(spec: ModelSpec, version: VersionFact, facts: Facts, span: Span, stage: str) -> Verdict:
    """Measure and decide; nothing is written."""
    doing(f"reading the prediction log of {stage}, {span}")
    parts = log_parts(facts.log, spec.name, stage, span)
    look = look_at(parts, span, version.number, spec.data, facts.reference)
    alpha = risk_of_a_look(spec)
    return Verdict(
        model=spec.name,
        stage=stage,
        version=version,
        span=span,
        created=facts.now,
        look=look,
        reference=facts.reference,
        drifts=tuple(compare(facts.reference, look.profile, spec.monitor.drift, alpha=alpha)),
        alpha=alpha,
        spec=spec,
        performance=look_at_performance(facts.repo, spec, parts, span, version.number, facts.evidence),
    )


def risk_of_a_look(spec: ModelSpec) -> float:
    """The chance of a false alarm that one look may run, so that a day's looks keep to ``drift.false_alarms``.

    With L looks a day, each with at most this chance, the expected number of false alarms a day is at most the rate.
    """
    looks = LOOKS_PER_DAY[spec.monitor.schedule]
    return min(LARGEST_ALPHA, spec.monitor.drift.false_alarms / looks)


def _require_stage(platform: PlatformSpec, stage: str) -> None:
    names = platform.stage_names()
    if stage not in names:
        msg = f"there is no stage {stage!r}"
        raise InputError(msg, fix=f"the stages are {', '.join(names)}")


# ---------------------------------------------------------------- writing


def _write_page(verdict: Verdict, page: Path) -> None:
    from mlp_ci.monitor.page import render

    page.parent.mkdir(parents=True, exist_ok=True)
    scratch = page.with_name(f".{page.name}.part")
    scratch.write_text(render(verdict), encoding="utf-8")
    scratch.replace(page)


def _remember(tracking: Tracking, verdict: Verdict, page: Path) -> None:
    """Store the page and the verdict with the run; ``latest`` stays that of the newest window."""
    doing("keeping the report with the version's run")
    run_id, name = verdict.version.run_id, verdict.file_name
    latest = f"{verdict.stage}-latest.json"
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as folder:
        copy = Path(folder) / f"{name}.html"
        copy.write_bytes(page.read_bytes())
        tracking.log_file(run_id, copy, FOLDER)
        if _is_newer(tracking, verdict, latest):
            file = Path(folder) / latest
            value = {**verdict.as_dict(), "report": f"{FOLDER}/{name}.html"}
            file.write_text(json.dumps(value, indent=2), encoding="utf-8")
            tracking.log_file(run_id, file, FOLDER)


def _is_newer(tracking: Tracking, verdict: Verdict, latest: str) -> bool:
    path = f"{FOLDER}/{latest}"
    if not tracking.has_artifact(verdict.version.run_id, path):
        return True
    window = tracking.read_json(verdict.version.run_id, path).get("window")
    known = window.get("until") if isinstance(window, Mapping) else None
    return not isinstance(known, str) or datetime.fromisoformat(known) <= verdict.span.until


# ---------------------------------------------------------------- telling


def _report(verdict: Verdict, page: Path, run_page: str, *, fail_on_drift: bool) -> Report:
    alarm = verdict.outcome == ALARM
    return Report(
        command="monitor",
        headline=verdict.sentence,
        outcome={ALARM: Outcome.FAIL, INSUFFICIENT: Outcome.INCONCLUSIVE, PASS: Outcome.PASS}[verdict.outcome],
        findings=_findings(verdict),
        tables=[_table(verdict.drifts)] if verdict.drifts else [],
        outputs={"drifted": "true" if alarm else "false", "verdict": verdict.outcome, "report": str(page)},
        data=verdict.as_dict(),
        links=[("Report", str(page)), ("Kept with the version's run", _kept_at(run_page, verdict))],
        exit_code=GateError.exit_code if alarm and fail_on_drift else 0,
    )


def _kept_at(run_page: str, verdict: Verdict) -> str:
    """Where MLflow's UI shows the report: the work folder of a job is gone when somebody wants to read it."""
    if not run_page.startswith("http"):
        return run_page
    return f"{run_page}/artifacts/{FOLDER}/{verdict.file_name}.html"


def _findings(verdict: Verdict) -> list[Finding]:
    findings = [
        Finding(
            check="drift",
            outcome=Outcome.FAIL,
            subject=d.column,
            message=f"{d.reason}; {d.test} {d.statistic:.3f}",
            severity="warning",
        )
        for d in verdict.drifted
    ]
    stable = sum(d.decision is Decision.STABLE for d in verdict.drifts)
    if stable:
        message = f"{stable} of {len(verdict.drifts)} watched columns are as in training"
        findings.append(Finding(check="drift", outcome=Outcome.PASS, message=message))
    unsure = [d for d in verdict.drifts if d.decision is Decision.INSUFFICIENT]
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
        names = names_of([p.name for p in verdict.look.unreadable])
        findings.append(_warning("log", f"{names} of the prediction log cannot be read and was left out", ""))
    if verdict.performance:
        findings.append(verdict.performance.finding())
    return findings


def _warning(check: str, message: str, fix: str) -> Finding:
    return Finding(check=check, outcome=Outcome.FAIL, message=message, fix=fix, severity="warning")


def _table(drifts: Sequence[ColumnDrift]) -> Table:
    rows = tuple(
        (
            d.column,
            {Decision.DRIFTED: Outcome.FAIL, Decision.STABLE: Outcome.PASS}.get(d.decision, Outcome.INCONCLUSIVE),
            round(d.psi, 4),
            f"{'KS' if d.test == 'KS' else 'JS'} {d.statistic:.3f}",
            "" if d.decision is Decision.INSUFFICIENT else show_p(d.p_adjusted),
            f"{d.nulls_then:.1%} → {d.nulls_now:.1%}",
            d.rows_now,
        )
        for d in drifts
    )
    columns = ("column", "outcome", "PSI", "distance", "p (corrected)", "nulls then → now", "rows")
    return Table(title="Training against now, the worst first", columns=columns, rows=rows)


__all__ = ["Verdict", "judge", "live_version", "monitor", "risk_of_a_look"]
