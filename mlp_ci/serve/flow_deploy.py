"""``mlp-ci deploy``: make the serving target run what the default branch asks for, stage by stage, if it may.

A reconcile: intent from git by the API (a checkout may be stale), fact from the target, and only the difference is
done. Killed anywhere, the same command finishes; a stage that is refused leaves the others alone.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError, MlpError, NothingToDo, OutsideError, RolloutAborted
from mlp_ci.report import Finding, Outcome, Report, Table
from mlp_ci.serve import artefacts
from mlp_ci.serve.announcing import alias_finding, announce
from mlp_ci.serve.asked import Job, Moved, Refused, judged, open_job, verified
from mlp_ci.serve.reversals import finish
from mlp_ci.serve.rights import one_rollout
from mlp_ci.serve.rollout.driving import Plan, clear_others, roll_out
from mlp_ci.serve.rollout.ending import Failed, again, guard
from mlp_ci.serve.rollout.progress import Phase
from mlp_ci.serve.targets import Release, Settings, Target
from mlp_ci.serve.telling import status
from mlp_ci.spec import PROMOTION_FILE, PromotionSpec, StageEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.context import Context
    from mlp_ci.serve.measured import LabelsOf
    from mlp_ci.serve.smoke import Smoke
    from mlp_ci.serve.state import LiveFact, Place
    from mlp_ci.serve.telling.facts import Facts

TRIES = 3  # how often intent is read again when somebody merges at the same moment
GOING = (Phase.RUNNING.value, Phase.PAUSED.value)
PHASES = (Phase.ABORTED.value, Phase.PAUSED.value, Phase.RUNNING.value, Phase.DONE.value)  # what matters most first


@dataclass
class Done:
    """What became of one stage. ``rollout`` says how far one is; empty where there is none."""

    findings: list[Finding] = field(default_factory=list)
    deployed: dict[str, Any] | None = None
    exit_code: int = 0
    rollout: str = ""
    tables: list[Table] = field(default_factory=list)


def deploy(
    ctx: Context,
    stage: str | None,
    *,
    watch: timedelta = timedelta(0),
    labels: LabelsOf | None = None,
) -> Report:
    """Bring every stage (or one) to what promotion.yaml on the default branch names, as far as it may be by now.

    ``watch``: stay for so long with a rollout whose steps take their time; the next deploy goes on with it.
    ``labels`` finds whoever knows what labels say of versions. Raises NothingToDo when git names nothing. Refusals and
    failures of a stage are findings, and decide the exit code: 5 not approved, 6 rolled back, 2 and 7 as everywhere;
    the first stage's failure wins.
    """
    job = replace(open_job(ctx), watch=watch, labels=labels)
    return report_of(job, bring_all(job, stages_of(job, stage)))


def stages_of(job: Job, stage: str | None) -> list[str]:
    """The stages that are meant; InputError for one that there is not, NothingToDo when git asks for nothing."""
    stages = list(job.platform.stage_names())
    if stage is not None and stage not in stages:
        msg = f"there is no stage {stage!r}"
        raise InputError(msg, fix=f"stages of this platform: {', '.join(stages)}")
    if not job.promotion.stages:
        msg = f"{PROMOTION_FILE} on the default branch asks for no version in any stage"
        raise NothingToDo(msg, fix="mlp-ci promote <stage> opens the pull request that asks for one")
    return [stage] if stage else stages


def bring_all(job: Job, stages: Sequence[str]) -> dict[str, Done]:
    """Bring these stages to what git asks for, one after the other; what became of each."""
    results: dict[str, Done] = {}
    end = time.monotonic() + job.watch.total_seconds()
    for name in stages:
        said: list[Finding] = []
        job = replace(job, watch=timedelta(seconds=max(0.0, end - time.monotonic())))
        for _ in range(TRIES):
            try:
                results[name] = bring(job, name)
            except Moved as error:  # somebody merged just now: read again what git asks for
                said += error.findings
                results[name] = Done([_finding(error, name)], exit_code=error.exit_code)
                job = replace(open_job(job.ctx), target=job.target, watch=job.watch, labels=job.labels)
                continue
            except Refused as error:
                results[name] = Done(error.reasons, exit_code=error.exit_code)
            except MlpError as error:
                results[name] = Done([_finding(error, name)], exit_code=error.exit_code)
            break
        results[name].findings[:0] = said
    return results


# ---------------------------------------------------------------- one stage


def bring(job: Job, stage: str) -> Done:
    """Bring one stage to what git asks for, if it may be; do only what is missing."""
    place, entry = job.place(stage), job.promotion.stages.get(stage)
    left = _finish_rollbacks(job, place)
    fact = job.target.live(place)
    open_ones = {r.held.digest for r in job.target.unfinished(place) if "git" in r.left}
    for held in job.target.held(place):
        if not held.known and held.digest not in open_ones and _git_knows(job.promotion, entry, held.digest):
            job.target.acknowledge(place, held.digest)
    if entry is None:
        return Done([*left, unasked(stage, fact)])
    if fact and (fact.version, fact.digest) == (entry.version, entry.digest) and _alone(job.target, place):
        done = _keep(job, place, entry, fact)
    else:
        done = _move(job, place, entry)
    done.findings[:0] = left
    return done


def _finish_rollbacks(job: Job, place: Place) -> list[Finding]:
    """Finish what a killed or failing rollback left to be said; raises Moved when git asks for something new then.

    What cannot be finished is a warning: the rollback said it as a failure, and this is another command's business.
    """
    done = finish(job.ctx, place, job.target)
    said = [replace(f, severity="warning") if f.outcome is Outcome.FAIL else f for f in done.findings]
    if done.wrote and job.hub is not None:
        msg = f"git did not know of a rollback in {place.stage} yet; it does now"
        raise Moved(msg, why="it may ask for something else than before", fix="run `mlp-ci deploy` again", said=said)
    return said


def _git_knows(promotion: PromotionSpec, entry: StageEntry | None, digest: str) -> bool:
    return entry is None or entry.digest != digest or digest in {q.digest for q in promotion.quarantine}


def _alone(target: Target, place: Place) -> bool:
    return len(target.arms(place)) == 1


def unasked(stage: str, fact: LiveFact | None) -> Finding:
    """What to say of a stage that git asks nothing for."""
    if fact is None or not fact.running:
        return Finding(check="intent", outcome=Outcome.SKIP, subject=stage, message="git asks for no version here")
    return Finding(
        check="intent",
        outcome=Outcome.FAIL,
        severity="warning",
        subject=stage,
        message=f"git asks for no version here, and version {fact.version} still runs",
        fix=f"promote a version to {stage}, or end it with `mlp-ci audit --repair`",
    )


def _move(job: Job, place: Place, entry: StageEntry) -> Done:
    """Give the traffic to the entry, as far as it may have it by now, and say so everywhere."""
    stage = place.stage
    with one_rollout(place):
        clear_others(job.target, place, entry.digest)
        reasons: list[Finding] = []
        try:
            try:
                verdict = verified(job, place, entry)
                release = artefacts.obtain(job.ctx.serve_home, job.tracking, job.model.name, stage, entry)
            except MlpError:  # a freeze, a registry that is down: harm is looked for all the same
                guard(job.target, place, entry.digest, job.model.serve.rollout)
                raise
            reasons = list(verdict.reasons)
            driven = roll_out(job.target, place, _plan(job, place, release))
        except Failed as failed:
            return _aborted(job, place, [*reasons, *failed.findings], failed)
    findings = [*verdict.reasons, *driven.findings]
    tables = status.tables(driven.facts) if driven.facts else []
    if driven.phase is not Phase.DONE:
        return Done(findings, rollout=driven.phase.value, tables=tables)
    done = Done(findings, rollout=driven.phase.value if driven.facts else "", tables=tables)
    fact = job.target.live(place)
    address = fact.address if fact else ""
    findings.append(_pass("live", stage, f"version {entry.version} answers at {address}"))
    done.deployed = {"stage": stage, "version": entry.version, "digest": entry.digest, "address": address}
    try:
        announce(job, place, entry, verdict)
    except MlpError as error:  # the traffic has moved all the same
        fix = f"{error.fix + '; then ' if error.fix else ''}run `mlp-ci deploy` again: it finishes the record"
        findings.append(replace(_finding(error, stage), check="record", fix=fix))
        done.exit_code = error.exit_code
    return done


def _aborted(job: Job, place: Place, findings: list[Finding], failed: Failed) -> Done:
    """Traffic is back already: say why, with the evidence, and have git, the alias and the records say so too."""
    findings.append(_finding(failed, place.stage))
    facts = failed.facts
    findings += _evidence(facts) if facts else []
    findings += finish(job.ctx, place, job.target).findings
    tables = status.tables(facts) if facts else []
    return Done(findings, exit_code=failed.exit_code, rollout=Phase.ABORTED.value, tables=tables)


def _evidence(facts: Facts) -> list[Finding]:
    """What each metric said when the rollout was aborted."""
    verdicts = {"pass": Outcome.PASS, "fail": Outcome.FAIL}
    return [
        Finding(
            check="analysis",
            outcome=verdicts.get(judged.verdict, Outcome.INCONCLUSIVE),
            subject=facts.stage,
            message=f"{judged.metric}: {judged.reason}",
        )
        for judged in (facts.analysis.judged if facts.analysis else ())
    ]


def _keep(job: Job, place: Place, entry: StageEntry, fact: LiveFact) -> Done:
    """The stage already has what git asks for: bring back what is down, and finish what a killed run left."""
    folder = artefacts.folder_of(job.ctx.serve_home, fact.digest)
    release = Release(fact.version, fact.digest, folder)
    if not fact.running:
        release = artefacts.obtain(job.ctx.serve_home, job.tracking, job.model.name, place.stage, entry)
    try:
        job.target.prepare(place, release, settings_of(job, place.stage, release))
    except RolloutAborted:
        return Done([_last_word(place)])
    said = "is live already; nothing to do" if fact.running else "was down and runs again"
    findings = [_pass("live", place.stage, f"version {fact.version} {said}")]
    if not _still(job, place, entry):
        job.target.tidy(place)
        return Done([*findings, _last_word(place)])
    with contextlib.suppress(OutsideError), one_rollout(place):
        job.target.tidy(place)  # what a killed rollback or abort left running without traffic
    if job.target.announced(place) != entry.version:
        verdict = judged(job, place.stage)
        # It serves already; a freeze that began since does not keep its record from being finished.
        if any(r.outcome is Outcome.FAIL and r.check != "freeze" for r in verdict.reasons):
            raise Refused(place.stage, [*findings, *verdict.reasons])
        try:  # a deploy that was killed may not have come so far
            findings += again(job.target, place, (release, fact.previous), _questions(job))
        except Failed as failed:
            return _aborted(job, place, findings, failed)
        announce(job, place, entry, verdict)
        findings.append(_pass("announced", place.stage, "its alias and deployment record were still missing"))
    else:
        moved = alias_finding(job.tracking, place, entry.version)
        findings += [moved] if moved and _still(job, place, entry) else []
    return Done(findings)


def _last_word(place: Place) -> Finding:
    message = "another command moved the traffic while this looked at it; it has the last word"
    return Finding(check="live", outcome=Outcome.SKIP, subject=place.stage, message=message)


def _still(job: Job, place: Place, entry: StageEntry) -> bool:
    """Whether the entry has the traffic at this moment: a rollback may come at any time."""
    fact = job.target.live(place)
    return fact is not None and (fact.version, fact.digest) == (entry.version, entry.digest)


def _plan(job: Job, place: Place, release: Release) -> Plan:
    return Plan(
        release=release,
        settings=settings_of(job, place.stage, release),
        smoke=_questions(job),
        watch=job.watch,
        rehearsal=_rehearsal(job, place, release),
        labels=job.labels(job.ctx.repo, job.model, job.ctx.prediction_log) if job.labels else None,
    )


def settings_of(job: Job, stage: str, release: Release) -> Settings:
    """How the release is to run in a stage, with the lineage that labels carry."""
    labels = {"commit": job.commit, "team": job.model.team, "run": release.run}
    serve = job.model.serve
    rollout = serve.rollout.of_stage(stage, job.platform.stage_names()[-1])
    return Settings(serve=serve.model_copy(update={"rollout": rollout}), log=_log_plan(job), labels=labels)


def _questions(job: Job) -> tuple[Smoke, ...]:
    """What ``serve.smoke`` asks, as it is on the default branch."""
    from mlp_ci import git
    from mlp_ci.serve import smoke

    file = job.model.serve.smoke
    if file is None:
        return ()
    text = job.hub.read_file(file, job.commit) if job.hub else git.file_at(job.ctx.repo, job.commit, file)
    if text is None:
        msg = f"`serve.smoke` in model.yaml names {file}, and commit {job.commit[:12]} has no such file"
        raise InputError(msg, why="no traffic was moved", fix=f"commit {file}, or take `smoke` out")
    return smoke.parse(text.decode("utf-8", "replace"), file)


def _rehearsal(job: Job, place: Place, release: Release) -> Place | None:
    """The stage before this one, where the same bytes serve already: they are asked there first."""
    names = job.platform.stage_names()
    before = names[names.index(place.stage) - 1] if place.stage in names[1:] else None
    fact = job.target.live(job.place(before)) if before else None
    return job.place(before) if before and fact and fact.running and fact.digest == release.digest else None


def _log_plan(job: Job) -> dict[str, Any]:
    """Which columns the prediction log keeps: those of model.yaml that are neither sensitive nor the target."""
    data = job.model.data
    named = {name: str(column.type) for name, column in data.columns.items() if not column.sensitive}
    for name in (*data.key, *([data.time] if data.time else [])):
        if name not in data.columns:
            named[name] = "timestamp" if name == data.time else "string"
    named.pop(data.target, None)
    return {"root": str(job.ctx.prediction_log.resolve()), "columns": named}


# ---------------------------------------------------------------- saying it


def _pass(check: str, subject: str, message: str) -> Finding:
    return Finding(check=check, outcome=Outcome.PASS, subject=subject, message=message)


def _finding(error: MlpError, stage: str) -> Finding:
    check = {5: "approvals", 6: "rollout", 3: "gate"}.get(error.exit_code, "deploy")
    message = f"{error.what}; {error.why}" if error.why else error.what
    return Finding(
        check=check,
        outcome=Outcome.FAIL,
        subject=stage,
        message=message,
        fix=error.fix,
        file=error.file,
        line=error.line,
        column=error.column,
    )


def report_of(job: Job, results: dict[str, Done]) -> Report:
    """What became of all stages, as one report."""
    deployed = [r.deployed for r in results.values() if r.deployed]
    under_way = [f"version {job.promotion.stages[s].version} in {s}" for s, r in results.items() if r.rollout in GOING]
    failed = {stage: r for stage, r in results.items() if r.exit_code}
    findings = [f for r in results.values() for f in r.findings]
    if failed:
        moved = f"; deployed: {_names(deployed)}" if deployed else ""
        headline = f"{job.model.name}: {', '.join(failed)} could not be brought to what git asks for{moved}"
    elif deployed or under_way:
        going = f"under way: {', '.join(under_way)}" if under_way else ""
        headline = f"{job.model.name}: {'; '.join(t for t in (_names(deployed), going) if t)}"
    else:
        headline = f"{job.model.name}: nothing to do, every stage runs what git asks for"
    return Report(
        command="deploy",
        headline=headline,
        outcome=Outcome.FAIL if failed else Outcome.PASS,
        findings=findings,
        tables=[t for r in results.values() for t in r.tables],
        outputs={
            "deployed": json.dumps(deployed),
            "rollout": next((p for p in PHASES if p in {r.rollout for r in results.values()}), ""),
            "address": str(deployed[-1]["address"]) if deployed else "",
        },
        data={"commit": job.commit, "deployed": deployed},
        links=[(str(d["stage"]), str(d["address"])) for d in deployed],
        exit_code=next((r.exit_code for r in failed.values()), None),
    )


def _names(deployed: list[dict[str, Any]]) -> str:
    return ", ".join(f"version {d['version']} is live in {d['stage']}" for d in deployed)
