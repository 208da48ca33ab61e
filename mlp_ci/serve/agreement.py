"""Whether what git asks for, what serves, and the aliases in MLflow agree. Looking changes nothing; repairing is asked.

For ``mlp-ci audit``. What serves is asked of the target on this machine; where that never served the model, only git
and MLflow are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.errors import MlpError, NotApproved, OutsideError
from mlp_ci.report import Finding, Outcome
from mlp_ci.serve.announcing import alias_finding, point_alias
from mlp_ci.serve.asked import Job, judged, open_job
from mlp_ci.serve.rights import busy, one_record
from mlp_ci.serve.rollout.steps import split

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlp_ci.context import Context
    from mlp_ci.serve.state import LiveFact, Place
    from mlp_ci.spec import StageEntry

DEPLOY = "`mlp-ci deploy` where it is served, or `mlp-ci audit --repair`"


def disagreements(ctx: Context) -> list[Finding]:
    """For each stage: what does not agree, or that all does. Changes nothing."""
    return compare(open_job(ctx))


def compare(job: Job) -> list[Finding]:
    """See :func:`disagreements`."""
    served = {i.stage for i in job.target.history(job.ctx.serve_home, job.model.name)}
    stages = dict.fromkeys([*job.platform.stage_names(), *job.promotion.stages, *sorted(served)])
    return [finding for stage in stages for finding in _of_stage(job, job.place(stage), here=bool(served))]


def _of_stage(job: Job, place: Place, *, here: bool) -> list[Finding]:
    entry, fact = job.promotion.stages.get(place.stage), job.target.live(place)
    looks: list[Callable[[], list[Finding]]] = []
    if here:
        looks += [lambda: _traffic(job, place, entry, fact), lambda: _unfinished(job, place)]
    elif entry is not None:
        message = "nothing of this model was ever served on this machine, so only git and MLflow were compared"
        looks.append(lambda: [Finding(check="traffic", outcome=Outcome.SKIP, subject=place.stage, message=message)])
    looks.append(lambda: _registry(job, place, entry, fact))
    found, moving = [], busy(place)
    for look in looks:
        try:
            found += look()
        except OutsideError as error:
            message = f"it could not be looked at: {error.what}"
            found.append(
                Finding(
                    check="alias", outcome=Outcome.INCONCLUSIVE, subject=place.stage, message=message, fix=error.fix
                )
            )
    wrong = any(f.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE) for f in found)
    if wrong and (moving or busy(place)):
        message = "a deploy or a rollback is under way; look again when it is done"
        return [Finding(check="traffic", outcome=Outcome.SKIP, subject=place.stage, message=message)]
    moving = any(f.check == "rollout" and f.outcome is Outcome.SKIP for f in found)
    if not wrong and not moving and entry is not None:
        where = "git, MLflow and what serves" if here else "git and MLflow"
        found.append(_pass("agreement", place.stage, f"{where} agree on version {entry.version}"))
    return found


# ---------------------------------------------------------------- looking


def _traffic(job: Job, place: Place, entry: StageEntry | None, fact: LiveFact | None) -> list[Finding]:
    """What serves against what git asks for."""
    stage = place.stage
    if entry is None:
        if fact is None or not fact.running:
            return []
        message = f"version {fact.version} serves at {fact.address}, and git asks for no version here"
        fix = f"promote a version to {stage}, or end it with `mlp-ci audit --repair`"
        return [_fail("unasked", stage, message, fix)]
    if fact is None:
        return [
            _fail("traffic", stage, f"git asks for version {entry.version}, and nothing serves it", f"run {DEPLOY}")
        ]
    if (fact.version, fact.digest) != (entry.version, entry.digest):
        under_way = _under_way(job, place, entry)
        return [under_way or _other(job, place, entry, fact)]
    if not fact.running:
        return [_fail("traffic", stage, f"version {entry.version} should serve and is down", f"run {DEPLOY}")]
    arms = job.target.arms(place)
    if len(arms) > 1:
        split = ", ".join(f"{a.weight} % on version {a.version}" for a in arms)
        return [_fail("traffic", stage, f"a rollout was left half way: {split}", "`mlp-ci deploy` goes on with it")]
    return []


def _under_way(job: Job, place: Place, entry: StageEntry) -> Finding | None:
    """A rollout to what git asks for, with the traffic that it should have by now; None when there is none."""
    progress = job.target.progress(place)
    if progress is None or not progress.going or progress.digest != entry.digest:
        return None
    if progress.step_started and job.target.arms(place) != split(progress):
        return None
    message = f"version {entry.version} is on its way in: {progress.weight} % ({progress.phase})"
    fix = f"mlp-ci rollout status --stage {place.stage}"
    return Finding(check="rollout", outcome=Outcome.SKIP, subject=place.stage, message=message, fix=fix)


def _other(job: Job, place: Place, entry: StageEntry, fact: LiveFact) -> Finding:
    """Something else serves than git asks for: rolled back, not deployed yet, or put there by nobody knows whom."""
    asks = f"git asks for version {entry.version}"
    if fact.version == entry.version:
        asks += " with other bytes"
    held = next((h for h in job.target.held(place) if h.digest == entry.digest and not h.known), None)
    if held:
        message = (
            f"{asks}, which was rolled back here ({held.reason or 'no reason given'}); version {fact.version} serves"
        )
        fix = f"merge the rollback's pull request; `mlp-ci rollback --stage {place.stage}` again opens it"
        return _fail("traffic", place.stage, message, fix)
    if job.target.announced(place) == fact.version:
        message = f"{asks}, and version {fact.version}, which was deployed before, still serves"
        return _fail("traffic", place.stage, message, f"run {DEPLOY}")
    message = f"version {fact.version} serves, which no deploy announced, and {asks}"
    return _fail("unasked", place.stage, message, f"find out who moved the traffic; then {DEPLOY}")


def _unfinished(job: Job, place: Place) -> list[Finding]:
    return [
        _fail(
            "rollback",
            place.stage,
            f"the rollback of version {r.held.version} is not finished: {', '.join(r.left)} left",
            f"run `mlp-ci rollback --stage {place.stage}` or `mlp-ci deploy` again: they move no traffic twice",
        )
        for r in job.target.unfinished(place)
    ]


def _registry(job: Job, place: Place, entry: StageEntry | None, fact: LiveFact | None) -> list[Finding]:
    """The alias names what serves; MLflow has the version with the bytes that git names."""
    stage = place.stage
    if entry is None:
        alias = job.tracking.alias(place.model, stage)
        if alias is None:
            return []
        message = f"the alias {stage} names version {alias}, and git asks for no version here"
        fix = f"promote a version to {stage}, or delete the alias in MLflow"
        return [_fail("alias", stage, message, fix, severity="warning")]
    version = job.tracking.find_version(place.model, entry.version)
    if version is not None and version.digest != entry.digest:
        message = f"MLflow gives version {entry.version} the digest {version.digest or 'none'}, git {entry.digest}"
        return [_fail("registry", stage, message, "find out who can write to MLflow and changed the tag")]
    if fact is None:
        return _alias_alone(job, place, entry)
    if job.target.announced(place) != fact.version:  # the alias follows when the record is finished
        return []
    agreed = (fact.version, fact.digest) == (entry.version, entry.digest)
    wrong = alias_finding(job.tracking, place, fact.version, because="git asks for" if agreed else "here serves")
    return [wrong] if wrong else []


def _alias_alone(job: Job, place: Place, entry: StageEntry) -> list[Finding]:
    """The alias where this machine does not know what serves: GitHub's deployments say what was brought last."""
    wrong = alias_finding(job.tracking, place, entry.version)
    newest = job.hub.deployments(place.stage, limit=1) if wrong and job.hub else []
    if not newest or newest[0].payload.get("version") == entry.version:
        return [wrong] if wrong else []
    message = f"git asks for version {entry.version}, and what was deployed last is {newest[0].payload.get('version')}"
    return [_fail("traffic", place.stage, message, f"run {DEPLOY}")]


# ---------------------------------------------------------------- repairing


def repair(ctx: Context, stage: str) -> list[Finding]:
    """Put one stage right: what serves becomes what git asks for, if that is approved, and the alias follows.

    A stage that git asks nothing for is ended, if that was approved or was never otherwise. Says what was done; an
    expected failure is a finding.
    """
    return mend(open_job(ctx), stage)


def mend(job: Job, stage: str) -> list[Finding]:
    """See :func:`repair`."""
    from mlp_ci.serve.flow_deploy import bring_all

    place, entry = job.place(stage), job.promotion.stages.get(stage)
    try:
        if entry is None:
            return _end(job, place)
        done = bring_all(job, [stage])[stage]
        found = [f for f in done.findings if f.check != "alias"]
        return found if done.exit_code else [*found, *_alias_back(job, place)]
    except MlpError as error:
        message = f"{error.what}; {error.why}" if error.why else error.what
        return [_fail("repair", stage, message, error.fix)]


def _alias_back(job: Job, place: Place) -> list[Finding]:
    """Point the alias to what serves, is asked for by git, and may be."""
    with one_record(place):
        entry, fact = open_job(job.ctx).promotion.stages.get(place.stage), job.target.live(place)
        if entry is None or fact is None or (fact.version, fact.digest) != (entry.version, entry.digest):
            return []
        alias = job.tracking.alias(place.model, place.stage)
        if alias == entry.version:
            return []
        _require_allowed(job, place)
        point_alias(job.tracking, place, entry.version)
    was = f"it pointed to version {alias}" if alias else "it was gone"
    return [_pass("alias", place.stage, f"the alias {place.stage} is back on version {entry.version}; {was}")]


def _end(job: Job, place: Place) -> list[Finding]:
    fact = job.target.live(place)
    if fact is None or not fact.running:
        return [_pass("unasked", place.stage, "git asks for no version here, and none serves")]
    _require_allowed(job, place)
    job.target.stop(place)
    return [_pass("unasked", place.stage, f"version {fact.version} no longer serves: git asks for no version here")]


def _require_allowed(job: Job, place: Place) -> None:
    verdict = judged(job, place.stage)
    failed = next((r for r in verdict.reasons if r.outcome is Outcome.FAIL), None)
    if failed or not verdict.allowed:
        msg = f"what git asks for in {place.stage} is not approved, so nothing was repaired"
        raise NotApproved(msg, why=failed.message if failed else "", fix=failed.fix if failed else "")


def _pass(check: str, subject: str, message: str) -> Finding:
    return Finding(check=check, outcome=Outcome.PASS, subject=subject, message=message)


def _fail(check: str, subject: str, message: str, fix: str, severity: str = "error") -> Finding:
    return Finding(check=check, outcome=Outcome.FAIL, subject=subject, message=message, fix=fix, severity=severity)
