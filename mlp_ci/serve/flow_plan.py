"""``mlp-ci deploy --plan``: what a deploy would do, stage by stage, without doing any of it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import MlpError, OutsideError
from mlp_ci.report import Finding, Outcome, Report
from mlp_ci.serve import artefacts
from mlp_ci.serve.asked import judged, open_job
from mlp_ci.serve.flow_deploy import settings_of, stages_of, unasked
from mlp_ci.serve.rollout import standing, steps
from mlp_ci.serve.targets import Release

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.serve.asked import Job
    from mlp_ci.spec import StageEntry


def plan(ctx: Context, stage: str | None) -> Report:
    """What would change and whether it may; the text of the changes is the report's document. Changes nothing."""
    job = open_job(ctx)
    findings, texts = list[Finding](), list[str]()
    for name in stages_of(job, stage):
        entry = job.promotion.stages.get(name)
        if entry is None:
            findings.append(unasked(name, job.target.live(job.place(name))))
            continue
        said, text = _of_stage(job, name, entry)
        findings += said
        texts += [f"# {job.model.name} in {name}\n{text}"] if text else []
    waits = [f for f in findings if f.outcome is Outcome.FAIL]
    changed = f"{len(texts)} stage{'s' if len(texts) != 1 else ''} would change" if texts else "nothing would change"
    return Report(
        command="deploy",
        headline=f"{job.model.name}: {changed}" + (f", if {len(waits)} things were not in the way" if waits else ""),
        outcome=Outcome.PASS,
        findings=findings,
        outputs={"plan": "".join(texts)},
        data={"commit": job.commit, "plan": texts},
        document="".join(texts),
        exit_code=0,
    )


def _of_stage(job: Job, stage: str, entry: StageEntry) -> tuple[list[Finding], str]:
    place = job.place(stage)
    try:
        reasons = [replace(r, severity="warning") for r in judged(job, stage).reasons]
        run = job.tracking.version(job.model.name, entry.version).run_id
    except MlpError as error:
        reasons, run = [_failed(stage, error)], ""
    folder = artefacts.folder_of(job.ctx.serve_home, entry.digest)
    release = Release(entry.version, entry.digest, folder, run=run)
    try:
        text = job.target.plan(place, release, settings_of(job, stage, release))
    except MlpError as error:
        return [*reasons, _failed(stage, error)], ""
    if not text:
        message = f"version {entry.version} is live, and nothing would change"
        return [Finding(check="plan", outcome=Outcome.PASS, subject=stage, message=message)], ""
    return [*reasons, *_forecast(job, stage, entry)], text


def _forecast(job: Job, stage: str, entry: StageEntry) -> list[Finding]:
    """How many requests the steps would need, and how long that would take with the traffic that there was."""
    place = job.place(stage)
    rollout = job.model.serve.rollout.of_stage(stage, job.platform.stage_names()[-1])
    fact = job.target.live(place)
    if fact is None or fact.version == entry.version or rollout.strategy == steps.AT_ONCE:
        return []
    progress = steps.first(entry.version, entry.digest, fact.version, rollout, clock.now())
    with contextlib.suppress(OutsideError):
        progress = standing.forecast(progress, rollout, job.target.measured(place))
    return [
        Finding(check="forecast", outcome=Outcome.SKIP, subject=stage, message=line, severity="notice")
        for line in progress.forecast
    ]


def _failed(stage: str, error: MlpError) -> Finding:
    message = f"{error.what}; {error.why}" if error.why else error.what
    return Finding(
        check="plan", outcome=Outcome.FAIL, subject=stage, message=message, fix=error.fix, severity="warning"
    )
