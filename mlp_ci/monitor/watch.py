"""``mlp-ci monitor``: what came in, against what the live version was trained on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci import clock
from mlp_ci.data.drift.compare import Told, Yardstick, ordered
from mlp_ci.data.drift.decision import decide
from mlp_ci.data.drift.reference import Reference
from mlp_ci.data.profiles.profile import PREDICTION
from mlp_ci.data.profiles.shapes import NumberProfile
from mlp_ci.errors import InputError, NothingToDo, OutsideError
from mlp_ci.monitor.comment import tell_pull
from mlp_ci.monitor.look import Log, look_at
from mlp_ci.monitor.metrics import export
from mlp_ci.monitor.packing import pack
from mlp_ci.monitor.performance import Answers, estimate_performance, performance_by_window
from mlp_ci.monitor.risk import risk_of_a_look
from mlp_ci.monitor.telling import report_of
from mlp_ci.monitor.timeline import missed, sample_of, spans_back, timeline_of
from mlp_ci.monitor.verdict import Verdict
from mlp_ci.monitor.windows import Span, Window, log_parts, resolve
from mlp_ci.progress import doing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.context import Context
    from mlp_ci.monitor.estimate import Estimate
    from mlp_ci.monitor.look import Look
    from mlp_ci.monitor.metrics import Export
    from mlp_ci.monitor.performance import PerformanceLook
    from mlp_ci.report import Report
    from mlp_ci.spec.model import ModelSpec
    from mlp_ci.spec.platform import PlatformSpec
    from mlp_ci.tracking import Tracking, VersionFact

FOLDER = "monitor"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a look needs besides the spec: where the data and the log lie, and what the version said of itself.

    ``looked_until`` is the end of the newest window that somebody looked at, None where nobody did.
    """

    repo: Path
    log: Path
    reference: Reference
    evidence: Mapping[str, Any]
    now: datetime
    looked_until: datetime | None = None


def monitor(
    context: Context, window: Window, report_file: Path | None, *, fail_on_drift: bool, to: Export | None = None
) -> Report:
    """Look at one window of one stage, and remember the verdict with the live version's run.

    The figures of the newest window go ``to`` Prometheus; a look back leaves them as they are. An alarm is news: the
    exit code stays 0 unless ``fail_on_drift``. Raises NothingToDo when nothing is live.
    """
    from mlp_ci import tracking as mlflow
    from mlp_ci.github import platform_of
    from mlp_ci.spec.load import load_model

    spec = load_model(context.repo)
    platform = platform_of(context)
    _require_stage(platform, window.stage)
    now = clock.now()
    span = resolve(window, now, spec.monitor.window_length, spec.monitor.schedule)
    tracking = mlflow.connect(context, platform)
    version = tracking.version(spec.name, live_version(context, tracking, spec, window.stage))
    facts = Facts(
        repo=context.repo,
        log=context.prediction_log,
        reference=Reference.from_json(tracking.read_json(version.run_id, "profile.json")),
        evidence=_evidence(tracking, version),
        now=now,
        looked_until=_looked_until(tracking, version, window.stage),
    )
    verdict = judge(spec, version, facts, span, window.stage)
    page = report_file or context.work / FOLDER / f"{verdict.file_name}.html"
    _write_page(verdict, page)
    _remember(tracking, verdict, page, facts.looked_until)
    pack(context.prediction_log, spec.name, window.stage, span, now)
    kept_at = _kept_at(tracking.run_page(version.run_id), verdict)
    report = report_of(verdict, page, kept_at, fail_on_drift=fail_on_drift)
    if to and _is_newest(verdict, facts.looked_until):
        report.findings += export(verdict, to)
    # A person who tries out a window, or looks back, changes nothing that others read.
    if context.in_job and _is_newest(verdict, facts.looked_until):
        told = tell_pull(context, verdict.as_dict(), kept_at)
        report.findings += [told] if told else []
    return report


def live_version(context: Context, tracking: Tracking, model: ModelSpec, stage: str) -> int:
    """The version that runs in a stage: what the target says, else where the alias stands. NothingToDo if none."""
    from mlp_ci import serve

    try:
        live = serve.live(context, model, stage)
    except OutsideError:  # a cluster that this machine does not reach; the alias followed its traffic
        live = None
    number = live.version if live else tracking.alias(model.name, stage)
    if number is None:
        msg = f"no version of {model.name} is live in {stage}"
        raise NothingToDo(msg, why="there is nothing to compare the traffic with", fix=f"mlp-ci promote {stage}")
    return number


def judge(spec: ModelSpec, version: VersionFact, facts: Facts, span: Span, stage: str) -> Verdict:
    """Measure and decide; nothing is written but the profiles of the log's hours."""
    doing(f"reading the prediction log of {stage}, {span}")
    log = Log(
        folder=facts.log,
        model=spec.name,
        stage=stage,
        version=version.number,
        reference=facts.reference,
        data=spec.data,
        now=facts.now,
    )
    drift = spec.monitor.drift
    spans = spans_back(log, span, drift.persistence)
    looks = look_at(log, spans)
    yardstick = Yardstick(facts.reference)
    samples = [sample_of(look) for look in looks]
    measured = [yardstick.measure(sample) for sample in samples]
    risk = risk_of_a_look(spec.monitor)
    together = yardstick.together(measured, samples[0].seconds)
    decided = decide(measured[0], measured[1:], drift, risk, together)
    Told(spec=drift, risk=risk, together=together)
    past = timeline_of(yardstick, looks, measured, drift, risk)
    return Verdict(
        model=spec.name,
        stage=stage,
        version=version,
        span=span,
        created=facts.now,
        look=looks[0],
        reference=facts.reference,
        drifts=tuple(
            ordered(yardstick.told(samples[0], measured, decided, Told(spec=drift, risk=risk, together=together)))
        ),
        risk=risk,
        spec=spec,
        timeline=tuple(replace(p, missed=p.span is not span and missed(p, facts.looked_until)) for p in past),
        performance=_performance(spec, version, facts, log, spans),
        estimate=_estimate(spec, facts, looks[0]),
    )


def _performance(
    spec: ModelSpec, version: VersionFact, facts: Facts, log: Log, spans: Sequence[Span]
) -> PerformanceLook | None:
    """Drift and performance share the false alarms that the team accepts, each the half."""
    if spec.monitor.performance is None:
        return None
    whole = Span(since=spans[-1].since, until=spans[0].until)
    parts = log_parts(log.folder, log.model, log.stage, whole)
    answers = Answers(parts=parts, version=version.number, evidence=facts.evidence)
    return performance_by_window(facts.repo, spec, answers, spans[0], spans, alpha=risk_of_a_look(spec.monitor))


def _estimate(spec: ModelSpec, facts: Facts, look: Look) -> Estimate | None:
    """What the metric probably is without labels; None for models whose predictions do not say."""
    outcomes, predictions = facts.reference.outcomes, look.profile.columns.get(PREDICTION)
    if outcomes is None or not isinstance(predictions, NumberProfile):
        return None
    return estimate_performance(spec, facts.evidence, outcomes, predictions.counts)


def _evidence(tracking: Tracking, version: VersionFact) -> Mapping[str, Any]:
    """What the version showed when it was judged; nothing for a version that was registered by other means."""
    there = tracking.has_artifact(version.run_id, version.evidence_file)
    return tracking.read_json(version.run_id, version.evidence_file) if there else {}


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


def _latest(stage: str) -> str:
    return f"{stage}-latest.json"


def _remember(tracking: Tracking, verdict: Verdict, page: Path, looked_until: datetime | None) -> None:
    """Store the page and the verdict with the run; ``latest`` stays that of the newest window."""
    doing("keeping the report with the version's run")
    run_id, name = verdict.version.run_id, verdict.file_name
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as folder:
        copy = Path(folder) / f"{name}.html"
        copy.write_bytes(page.read_bytes())
        tracking.log_file(run_id, copy, FOLDER)
        if _is_newest(verdict, looked_until):
            file = Path(folder) / _latest(verdict.stage)
            value = {**verdict.as_dict(), "report": f"{FOLDER}/{name}.html"}
            file.write_text(json.dumps(value, indent=2), encoding="utf-8")
            tracking.log_file(run_id, file, FOLDER)


def _is_newest(verdict: Verdict, looked_until: datetime | None) -> bool:
    return looked_until is None or looked_until <= verdict.span.until


def _looked_until(tracking: Tracking, version: VersionFact, stage: str) -> datetime | None:
    """End of the newest window whose verdict is kept; None without one."""
    path = f"{FOLDER}/{_latest(stage)}"
    if not tracking.has_artifact(version.run_id, path):
        return None
    window = tracking.read_json(version.run_id, path).get("window")
    known = window.get("until") if isinstance(window, Mapping) else None
    return datetime.fromisoformat(known) if isinstance(known, str) else None


def _kept_at(run_page: str, verdict: Verdict) -> str:
    """Where MLflow's UI shows the report: the work folder of a job is gone when somebody wants to read it."""
    if not run_page.startswith("http"):
        return run_page
    return f"{run_page}/artifacts/{FOLDER}/{verdict.file_name}.html"


__all__ = ["Verdict", "judge", "live_version", "monitor", "risk_of_a_look"]
