"""``mlp-ci deploy``: make the serving target run what the default branch asks for, stage by stage, if it may.

A reconcile: intent from git by the API (a checkout may be stale), fact from the target, and only the difference is
done. Killed anywhere, the same command finishes; a stage that is refused leaves the others alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError, MlpError, NotApproved, NothingToDo, OutsideError, RolloutAborted
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome, Report
from mlp_ci.serve import artefacts
from mlp_ci.serve.shifting import Rollout, roll_out
from mlp_ci.serve.state import LiveFact, Place, one_rollout
from mlp_ci.serve.targets import Release, Target, target_of
from mlp_ci.spec import MODEL_FILE, PROMOTION_FILE, ModelSpec, PlatformSpec, PromotionSpec, StageEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.context import Context
    from mlp_ci.github import Hub
    from mlp_ci.tracking import Tracking

TRIES = 3  # how often intent is read again when somebody merges at the same moment


@dataclass
class Job:
    """One run of the command: what git asks for, and whom to ask. MLflow is only contacted when it is needed."""

    ctx: Context
    platform: PlatformSpec
    hub: Hub | None
    model: ModelSpec
    promotion: PromotionSpec
    target: Target
    commit: str
    _tracking: Tracking | None = None

    @property
    def tracking(self) -> Tracking:
        if self._tracking is None:
            from mlp_ci.tracking import connect

            self._tracking = connect(self.ctx, self.platform)
        return self._tracking

    def place(self, stage: str) -> Place:
        return Place(self.ctx.serve_home, self.model.name, stage)


@dataclass
class Done:
    """What became of one stage."""

    findings: list[Finding] = field(default_factory=list)
    deployed: dict[str, Any] | None = None
    exit_code: int = 0


def deploy(ctx: Context, stage: str | None) -> Report:
    """Bring every stage (or one) to what promotion.yaml on the default branch names.

    Raises NothingToDo when it names nothing. Refusals and failures of a stage are findings, and decide the exit code:
    5 not approved, 6 rolled back, 2 and 7 as everywhere; the first stage's failure wins.
    """
    job = open_job(ctx)
    stages = job.platform.stage_names()
    if stage is not None and stage not in stages:
        msg = f"there is no stage {stage!r}"
        raise InputError(msg, fix=f"stages of this platform: {', '.join(stages)}")
    if not job.promotion.stages:
        msg = f"{PROMOTION_FILE} on the default branch asks for no version in any stage"
        raise NothingToDo(msg, fix="mlp-ci promote <stage> opens the pull request that asks for one")
    return _report(job, bring_all(job, [stage] if stage else stages))


def bring_all(job: Job, stages: Sequence[str]) -> dict[str, Done]:
    """Bring these stages to what git asks for, one after the other; what became of each."""
    results: dict[str, Done] = {}
    for name in stages:
        for _ in range(TRIES):
            try:
                results[name] = bring(job, name)
            except Moved as error:  # somebody merged just now: read again what git asks for
                results[name] = Done([_finding(error, name)], exit_code=error.exit_code)
                job = open_job(job.ctx)
                continue
            except Refused as error:
                results[name] = Done(error.reasons, exit_code=error.exit_code)
            except MlpError as error:
                results[name] = Done([_finding(error, name)], exit_code=error.exit_code)
            break
    return results


# ---------------------------------------------------------------- intent


def open_job(ctx: Context) -> Job:
    """What git asks for now; InputError when its files disagree."""
    from mlp_ci.github import platform_of

    platform = platform_of(ctx)
    if ctx.github is None:
        hub, commit, model, promotion = None, *_local_intent(ctx)
    else:
        hub, commit, model, promotion = _remote_intent(ctx)
    if promotion.model != model.name:
        msg = f"{PROMOTION_FILE} is about {promotion.model}, {MODEL_FILE} about {model.name}"
        raise InputError(msg, fix=f"write `model: {model.name}` in {PROMOTION_FILE}", file=PROMOTION_FILE)
    target = target_of(model.serve.target)
    return Job(ctx, platform, hub, model, promotion, target, commit)


def _remote_intent(ctx: Context) -> tuple[Hub, str, ModelSpec, PromotionSpec]:
    from mlp_ci.github import connect
    from mlp_ci.promote.gather import model_at, promotion_at

    hub = connect(ctx.require_github("deploying"))
    commit = hub.head(hub.default_branch)
    model = model_at(hub, commit)
    return hub, commit, model, promotion_at(hub, commit, model.name)


def _local_intent(ctx: Context) -> tuple[str, ModelSpec, PromotionSpec]:
    """Intent of a repository that is on no GitHub: what its HEAD has."""
    from mlp_ci import git
    from mlp_ci.spec import parse_model, parse_promotion

    git.require_repository(ctx.repo)
    commit = git.head(ctx.repo)
    described = git.file_at(ctx.repo, commit, MODEL_FILE)
    if described is None:
        msg = f"commit {commit[:12]} has no {MODEL_FILE}"
        raise InputError(msg, fix=f"git add {MODEL_FILE} && git commit, or pass the folder of the model with --path")
    model = parse_model(described)
    asked = git.file_at(ctx.repo, commit, PROMOTION_FILE)
    if asked is None:
        return commit, model, PromotionSpec(apiVersion="mlp-ci/v1", model=model.name)  # type: ignore[call-arg]
    return commit, model, parse_promotion(asked)


# ---------------------------------------------------------------- one stage


def bring(job: Job, stage: str) -> Done:
    """Bring one stage to what git asks for, if it may be; do only what is missing."""
    place, entry = job.place(stage), job.promotion.stages.get(stage)
    fact = job.target.live(place)
    for held in job.target.held(place):
        if not held.known and _git_knows(job.promotion, entry, held.digest):
            job.target.acknowledge(place, held.digest)
    if entry is None:
        return Done([_unasked(stage, fact)])
    if fact and (fact.version, fact.digest) == (entry.version, entry.digest) and _alone(job.target, place):
        return _keep(job, place, entry, fact)
    with one_rollout(place):
        commit, passed = _verify(job, place, entry)
        release = _obtain(job, stage, entry)
        findings = [*passed, *roll_out(job.target, place, release, _plan(job))]
    fact = job.target.live(place)
    address = fact.address if fact else ""
    findings.append(_pass("live", stage, f"version {entry.version} answers at {address}"))
    deployed = {"stage": stage, "version": entry.version, "digest": entry.digest, "address": address}
    try:
        _announce(job, place, entry, commit)
    except MlpError as error:  # the traffic has moved all the same
        fix = f"{error.fix + '; then ' if error.fix else ''}run `mlp-ci deploy` again: it finishes the record"
        findings.append(replace(_finding(error, stage), check="record", fix=fix))
        return Done(findings, deployed, error.exit_code)
    return Done(findings, deployed)


def _git_knows(promotion: PromotionSpec, entry: StageEntry | None, digest: str) -> bool:
    return entry is None or entry.digest != digest or digest in {q.digest for q in promotion.quarantine}


def _alone(target: Target, place: Place) -> bool:
    return len(target.arms(place)) == 1


def _unasked(stage: str, fact: LiveFact | None) -> Finding:
    if fact is None:
        return Finding(check="intent", outcome=Outcome.SKIP, subject=stage, message="git asks for no version here")
    return Finding(
        check="intent",
        outcome=Outcome.FAIL,
        severity="warning",
        subject=stage,
        message=f"git asks for no version here, and version {fact.version} still runs",
        fix=f"promote a version to {stage}, or end it by hand where it runs",
    )


def _keep(job: Job, place: Place, entry: StageEntry, fact: LiveFact) -> Done:
    """The stage already has what git asks for: bring back what is down, and finish what a killed run left."""
    findings = []
    if fact.running:
        findings.append(_pass("live", place.stage, f"version {fact.version} is live already; nothing to do"))
        folder = artefacts.folder_of(job.ctx.serve_home, fact.digest)
        job.target.prepare(place, Release(fact.version, fact.digest, folder), _log_plan(job))
    else:
        job.target.prepare(place, _obtain(job, place.stage, entry), _log_plan(job))
        findings.append(_pass("live", place.stage, f"version {fact.version} was down and runs again"))
    if not _still(job, place, entry):
        job.target.tidy(place)
        message = "another command moved the traffic while this looked at it; it has the last word"
        return Done([*findings, Finding(check="live", outcome=Outcome.SKIP, subject=place.stage, message=message)])
    if job.target.announced(place) != entry.version:
        _announce(job, place, entry, _commit_of(job, place.stage))
        findings.append(_pass("announced", place.stage, "its alias and deployment record were still missing"))
    else:
        findings += _mend_alias(job, place, entry)
    return Done(findings)


def _still(job: Job, place: Place, entry: StageEntry) -> bool:
    """Whether the entry has the traffic at this moment: a rollback may come at any time, and the alias follows it."""
    fact = job.target.live(place)
    return fact is not None and (fact.version, fact.digest) == (entry.version, entry.digest)


def _commit_of(job: Job, stage: str) -> str:
    if job.hub is None:
        return job.commit
    from mlp_ci.promote import verify_intent

    return verify_intent(job.ctx, job.hub, job.tracking, job.platform, stage).commit or job.commit


def _mend_alias(job: Job, place: Place, entry: StageEntry) -> list[Finding]:
    alias = job.tracking.alias(job.model.name, place.stage)
    if alias == entry.version or not _still(job, place, entry):
        return []
    job.tracking.set_alias(job.model.name, place.stage, entry.version)
    pointed = f"pointed to version {alias}" if alias else "was gone"
    return [
        Finding(
            check="alias",
            outcome=Outcome.FAIL,
            severity="warning",
            subject=place.stage,
            message=f"the alias {place.stage} {pointed}, which git did not ask for; it is back on {entry.version}",
            fix="aliases follow deployments: move traffic with `mlp-ci promote`, not with MLflow",
        )
    ]


# ---------------------------------------------------------------- may it?


def _verify(job: Job, place: Place, entry: StageEntry) -> tuple[str, list[Finding]]:
    """The commit that asks for the entry, and the rules that hold; raises NotApproved with those that do not."""
    doing(f"{place.stage}: verifying approvals and evidence")
    stage = place.stage
    held = next((h for h in job.target.held(place) if h.digest == entry.digest and not h.known), None)
    if held:
        msg = f"version {held.version} was rolled back in {stage}: {held.reason or 'no reason given'}"
        why = "git still asks for it; bringing it back would undo the rollback"
        fix = (
            f"merge the rollback's pull request (`mlp-ci rollback --stage {stage}` again opens it), or promote another"
        )
        raise NotApproved(msg, why=why, fix=fix)
    if job.hub is None:
        return job.commit, _verify_alone(job, stage, entry)
    from mlp_ci.promote import verify_intent

    verdict = verify_intent(job.ctx, job.hub, job.tracking, job.platform, stage)
    if not verdict.allowed:
        raise Refused(stage, [replace(r, subject=r.subject or stage) for r in verdict.reasons])
    if verdict.entry != entry:
        msg = f"{PROMOTION_FILE} changed while this ran"
        raise Moved(msg, why="what was verified is not what was read", fix="run `mlp-ci deploy` again")
    return verdict.commit or job.commit, [replace(r, subject=r.subject or stage) for r in verdict.reasons]


class Moved(OutsideError):
    """Git asks for something else than a moment ago."""


class Refused(NotApproved):
    """A verdict with several reasons, all to be shown."""

    def __init__(self, stage: str, reasons: list[Finding]) -> None:
        failed = [r for r in reasons if r.outcome is Outcome.FAIL]
        first = failed[0] if failed else Finding(check="approval", outcome=Outcome.FAIL, message="it is not allowed")
        super().__init__(f"{stage}: {first.message}", fix=first.fix)
        self.reasons = reasons


def _verify_alone(job: Job, stage: str, entry: StageEntry) -> list[Finding]:
    """Without GitHub nobody can have approved anything: only what needs no approval may go live."""
    tier = job.platform.tiers.get(job.model.tier)
    needed = tier.approvals.get(stage) if tier else None
    if needed is None or needed > 0:
        count = "an unknown number of" if needed is None else str(needed)
        msg = f"{stage} needs {count} approvals for tier {job.model.tier}, and this repository is on no GitHub"
        raise NotApproved(msg, why="nobody can have approved it", fix="push it to GitHub and promote by pull request")
    if entry.digest in {q.digest for q in job.promotion.quarantine}:
        msg = f"version {entry.version} is quarantined"
        raise NotApproved(msg, fix="promote another version, or take it out of `quarantine` first")
    return [_pass("approvals", stage, f"tier {job.model.tier} needs no approval here")]


# ---------------------------------------------------------------- the artefact


def _obtain(job: Job, stage: str, entry: StageEntry) -> Release:
    return artefacts.obtain(job.ctx.serve_home, job.tracking, job.model.name, stage, entry)


def _plan(job: Job) -> Rollout:
    return Rollout(steps=job.model.serve.rollout.steps, log=_log_plan(job))


def _log_plan(job: Job) -> dict[str, Any]:
    """Which columns the prediction log keeps: those of model.yaml that are neither sensitive nor the target."""
    data = job.model.data
    named = {name: str(column.type) for name, column in data.columns.items() if not column.sensitive}
    for name in (*data.key, *([data.time] if data.time else [])):
        if name not in data.columns:
            named[name] = "timestamp" if name == data.time else "string"
    named.pop(data.target, None)
    return {"root": str(job.ctx.prediction_log.resolve()), "columns": named}


# ---------------------------------------------------------------- the record


def _announce(job: Job, place: Place, entry: StageEntry, commit: str) -> None:
    """After the traffic: the alias, then GitHub's record."""
    tracking = job.tracking
    if not _still(job, place, entry):
        msg = f"another command moved the traffic of {place} away from version {entry.version}"
        raise RolloutAborted(msg, why="its alias and its record follow that", fix="see what the rollback says")
    tracking.set_alias(job.model.name, place.stage, entry.version)
    fact = job.target.live(place)
    if job.hub is not None and fact is not None:
        payload = {"model": job.model.name, "version": entry.version, "digest": entry.digest}
        job.hub.record_deployment(commit, place.stage, fact.address, payload)
    job.target.announce(place, entry.version)


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


def _report(job: Job, results: dict[str, Done]) -> Report:
    deployed = [r.deployed for r in results.values() if r.deployed]
    failed = {stage: r for stage, r in results.items() if r.exit_code}
    findings = [f for r in results.values() for f in r.findings]
    if failed:
        moved = f"; deployed: {_names(deployed)}" if deployed else ""
        headline = f"{job.model.name}: {', '.join(failed)} could not be brought to what git asks for{moved}"
    elif deployed:
        headline = f"{job.model.name}: {_names(deployed)}"
    else:
        headline = f"{job.model.name}: nothing to do, every stage runs what git asks for"
    return Report(
        command="deploy",
        headline=headline,
        outcome=Outcome.FAIL if failed else Outcome.PASS,
        findings=findings,
        outputs={
            "deployed": json.dumps(deployed),
            "address": str(deployed[-1]["address"]) if deployed else "",
        },
        data={"commit": job.commit, "deployed": deployed},
        links=[(str(d["stage"]), str(d["address"])) for d in deployed],
        exit_code=next((r.exit_code for r in failed.values()), None),
    )


def _names(deployed: list[dict[str, Any]]) -> str:
    return ", ".join(f"version {d['version']} is live in {d['stage']}" for d in deployed)
