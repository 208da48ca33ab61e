"""Saying outside what runs: the alias in MLflow, the chained record in git, GitHub's deployment. After the traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError, MlpError, OutsideError, RolloutAborted
from mlp_ci.report import Finding, Outcome
from mlp_ci.serve.rights import one_record

if TYPE_CHECKING:
    from mlp_ci.github import Hub
    from mlp_ci.promote import Verdict
    from mlp_ci.serve.asked import Job
    from mlp_ci.serve.state import LiveFact, Place
    from mlp_ci.spec import StageEntry
    from mlp_ci.tracking import Tracking


def announce(job: Job, place: Place, entry: StageEntry, verdict: Verdict) -> None:
    """Say that the entry is live. Killed or failing anywhere, the next call says what was not said yet, once.

    Raises RolloutAborted when the traffic has moved on: the alias and the records follow whoever moved it.
    """
    with one_record(place):
        fact = job.target.live(place)
        if fact is None or (fact.version, fact.digest) != (entry.version, entry.digest):
            msg = f"another command moved the traffic of {place} away from version {entry.version}"
            raise RolloutAborted(msg, why="its alias and its record follow that", fix="see what the rollback says")
        point_alias(job.tracking, place, entry.version)
        if job.hub is not None:
            record = _record(job, job.hub, place, (entry, fact), verdict)
            payload = deployment_payload(place.model, entry.version, entry.digest, record)
            job.hub.record_deployment(verdict.commit, place.stage, fact.address, payload)
            if verdict.kind == "emergency":
                from mlp_ci.promote.emergencies import ask_for_review

                ask_for_review(job.hub, place.model, verdict)
        job.target.announce(place, entry.version)


def _record(job: Job, hub: Hub, place: Place, what: tuple[StageEntry, LiveFact], verdict: Verdict) -> str:
    """The hash of the deployment's record. What it says is the same however often it is tried: see ``append``."""
    from mlp_ci.promote.records import Draft, append

    entry, fact = what
    draft = Draft(
        model=place.model,
        stage=place.stage,
        version=entry.version,
        digest=entry.digest,
        evidence=fact.evidence,
        kind=verdict.kind,
        at=fact.since,
        commit=verdict.commit,
        pull=verdict.pull,
        asked_by=verdict.author,
        approved_by=verdict.approvers,
        merged_by=verdict.merged_by,
        policy=verdict.policy,
        run=hub.place.run_url,
        address=fact.address,
    )
    return append(hub, draft)[1]


def deployment_payload(model: str, version: int, digest: str, record: str) -> dict[str, Any]:
    """What GitHub's deployment carries; ``record`` ties it to the chain."""
    return {"model": model, "version": version, "digest": digest, "record": record}


def point_alias(tracking: Tracking, place: Place, version: int) -> None:
    """Let the alias of the stage name the version; an OutsideError or InputError says why it does not."""
    try:
        if tracking.alias(place.model, place.stage) != version:
            tracking.set_alias(place.model, place.stage, version)
    except MlpError as error:
        gone = deleted(tracking, place, version)
        if gone is None:
            raise
        raise gone from error


def deleted(tracking: Tracking, place: Place, version: int) -> InputError | None:
    """What to say of a version that serves and that the registry no longer has; None when it has it."""
    try:
        if tracking.find_version(place.model, version) is not None:
            return None
    except OutsideError:
        return None
    msg = f"version {version} serves {place}, and it was deleted in MLflow"
    why = "no alias can name it, and once its files are gone from this machine nobody can serve it again"
    fix = f"restore MLflow's database from its backup, or promote another version: mlp-ci promote {place.stage}"
    return InputError(msg, why=why, fix=fix)


def alias_finding(tracking: Tracking, place: Place, version: int, *, because: str = "git asks for") -> Finding | None:
    """What to say of an alias that does not name the version that serves and that git asks for; None when it does.

    MLflow keeps no record of who moves an alias, and nothing here moves it back unasked: it may be a person's haste,
    an attack, or another tool, and somebody should look.
    """
    alias = tracking.alias(place.model, place.stage)
    if alias == version:
        return None
    gone = deleted(tracking, place, version)
    if gone is not None:
        message, fix = f"{gone.what}: {gone.why}", gone.fix
    else:
        names = f"points to version {alias}" if alias else "is gone"
        message = f"the alias {place.stage} {names}, and {because} version {version}; MLflow does not say who did it"
        fix = "find out who can write to MLflow; `mlp-ci audit --repair` puts the alias back"
    return Finding(
        check="alias", outcome=Outcome.FAIL, severity="warning", subject=place.stage, message=message, fix=fix
    )
