"""``mlp-ci rollback``: traffic first, on this machine alone; then the record in git, the alias, the deployment.

Nothing heavy is imported, and neither GitHub nor MLflow is asked, before the traffic has moved. Each later step that
fails is reported; the same command again finishes what is left and moves nothing twice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mlp_ci import clock
from mlp_ci.errors import InputError, MlpError, NothingToDo
from mlp_ci.report import Finding, Outcome, Report
from mlp_ci.serve.state import Place, Reversal
from mlp_ci.serve.targets import Target, target_of
from mlp_ci.spec import Quarantined, StageEntry, load_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlp_ci.context import Context

PREVIOUS = "previous"


@dataclass
class _Record:
    """The later steps of one rollback, and what they found."""

    ctx: Context
    place: Place
    target: Target
    reversal: Reversal
    address: str
    commit: str = ""
    pull: str = ""

    def git(self) -> str:
        """promotion.yaml goes back, and the bytes that were taken away are quarantined."""
        if self.ctx.github is None:
            return "this repository is on no GitHub: change promotion.yaml by hand"
        from mlp_ci.github import connect
        from mlp_ci.promote import record_rollback

        hub = connect(self.ctx.require_github("recording a rollback"))
        held = self.reversal.held
        entry = StageEntry(version=self.reversal.version, digest=self.reversal.digest)
        taken = Quarantined(
            version=held.version,
            digest=held.digest,
            reason=held.reason,
            since=datetime.fromisoformat(held.since),
        )
        made: Any = record_rollback(self.ctx, hub, self.place.stage, entry, taken)
        number = getattr(made, "number", None)
        self.commit = str(made if isinstance(made, str) else getattr(made, "sha", ""))
        self.pull = str(number) if number else ""
        if self.pull:
            return f"pull request #{self.pull} records it; deploy holds version {held.version} back until it is merged"
        return f"recorded in git as {self.commit[:12]}; version {held.version} is quarantined"

    def alias(self) -> str:
        """The alias of the stage follows the traffic."""
        from mlp_ci.github import platform_of
        from mlp_ci.tracking import connect

        connect(self.ctx, platform_of(self.ctx)).set_alias(self.place.model, self.place.stage, self.reversal.version)
        return f"the alias {self.place.stage} names version {self.reversal.version}"

    def deployment(self) -> str:
        """GitHub's page of deployments says what runs."""
        if self.ctx.github is None:
            return "this repository is on no GitHub: there is no deployment to record"
        from mlp_ci.github import connect

        hub = connect(self.ctx.require_github("recording a rollback"))
        payload = {"model": self.place.model, "version": self.reversal.version, "digest": self.reversal.digest}
        commit = self.commit if self.commit and not self.pull else hub.head(hub.default_branch)
        hub.record_deployment(commit, self.place.stage, self.address, payload)
        return "the deployment is on record"


def rollback(ctx: Context, stage: str, *, to: str, reason: str) -> Report:
    """Give all traffic of ``stage`` to ``to`` (``previous`` or the number of a version that ran here)."""
    began = time.perf_counter()
    model = load_model(ctx.repo)
    place = Place(ctx.serve_home, model.name, stage)
    target = target_of(model.serve.target)
    reversal, moved = target.turn_back(place, _wanted(to), reason, clock.now())
    seconds = time.perf_counter() - began
    if not moved and reversal.finished:
        msg = f"version {reversal.version} already has all traffic of {place}, and its rollback is on record"
        raise NothingToDo(msg)
    fact = target.live(place)
    record = _Record(ctx, place, target, reversal, fact.address if fact else "")
    said = f"all traffic is on version {reversal.version}"
    findings = [_found("traffic", stage, f"{said}, after {seconds:.2f} s" if moved else f"{said} already")]
    failure = _finish(record, findings)
    target.tidy(place)
    return _report(record, findings, failure, seconds)


def _wanted(to: str) -> int | None:
    if to in ("", PREVIOUS):
        return None
    if not to.isdecimal():
        msg = f"--to is {PREVIOUS!r} or the number of a version, not {to!r}"
        raise InputError(msg)
    return int(to)


def _finish(record: _Record, findings: list[Finding]) -> MlpError | None:
    """Do the steps that are not done; returns the first failure."""
    steps: dict[str, Callable[[], str]] = {"git": record.git, "alias": record.alias, "deployment": record.deployment}
    stage, failure = record.place.stage, None
    for name, step in steps.items():
        if name in record.reversal.done:
            continue
        try:
            findings.append(_found(name, stage, step()))
        except MlpError as error:
            failure = failure or error
            fix = f"{error.fix + '; then ' if error.fix else ''}run the same command again: it moves no traffic twice"
            findings.append(Finding(check=name, outcome=Outcome.FAIL, subject=stage, message=error.what, fix=fix))
        else:
            record.target.note_step(record.place, name)
    if failure is None:
        record.target.announce(record.place, record.reversal.version)
    return failure


def _found(check: str, stage: str, message: str) -> Finding:
    return Finding(check=check, outcome=Outcome.PASS, subject=stage, message=message)


def _report(record: _Record, findings: list[Finding], failure: MlpError | None, seconds: float) -> Report:
    reversal = record.reversal
    headline = (
        f"{record.place}: version {reversal.version} has the traffic, version {reversal.held.version} is held back"
    )
    if failure is not None:
        headline += "; the record is not finished"
    return Report(
        command="rollback",
        headline=headline,
        outcome=Outcome.FAIL if failure else Outcome.PASS,
        findings=findings,
        outputs={"version": str(reversal.version), "pull-request": record.pull},
        data={
            "stage": record.place.stage,
            "version": reversal.version,
            "digest": reversal.digest,
            "held": {"version": reversal.held.version, "digest": reversal.held.digest, "reason": reversal.held.reason},
            "seconds_to_traffic": round(seconds, 4),
        },
        links=[(record.place.stage, record.address)],
        exit_code=failure.exit_code if failure else None,
    )
