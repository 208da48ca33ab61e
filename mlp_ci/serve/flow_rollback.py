"""``mlp-ci rollback``: traffic first, on this machine alone; then the record in git, the alias, the deployment.

Nothing heavy is imported, and neither GitHub nor MLflow is asked, before the traffic has moved. Each later step that
fails is reported; the same command again, or the next deploy, finishes what is left and moves nothing twice.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import InputError, NothingToDo
from mlp_ci.report import Finding, Outcome, Report
from mlp_ci.serve.reversals import Finished, finish
from mlp_ci.serve.state import Place, Reversal
from mlp_ci.serve.targets import Target, Why, target_here
from mlp_ci.spec import load_model

if TYPE_CHECKING:
    from mlp_ci.context import Context

PREVIOUS = "previous"


def rollback(ctx: Context, stage: str, *, to: str, reason: str) -> Report:
    """Give all traffic of ``stage`` to ``to`` (``previous`` or the number of a version that ran here)."""
    began = time.perf_counter()
    model = load_model(ctx.repo)
    place = Place(ctx.serve_home, model.name, stage)
    report = roll_back(ctx, place, target_here(ctx, model), to=to, reason=reason)
    report.data["seconds_to_record"] = round(time.perf_counter() - began, 4)
    return report


def roll_back(ctx: Context, place: Place, target: Target, *, to: str, reason: str) -> Report:
    """Move the traffic on ``target``, then do what follows; see :func:`rollback`."""
    began = time.perf_counter()
    by = ctx.github.actor if ctx.github else ""
    reversal, moved = target.turn_back(place, _wanted(to), Why(reason=reason, now=clock.now(), by=by))
    seconds = time.perf_counter() - began
    if not moved and not target.unfinished(place):
        msg = f"version {reversal.version} already has all traffic of {place}, and its rollback is on record"
        raise NothingToDo(msg)
    said = f"all traffic is on version {reversal.version}"
    message = f"{said}, after {seconds:.2f} s" if moved else f"{said} already"
    done = finish(ctx, place, target)
    done.findings.insert(0, Finding(check="traffic", outcome=Outcome.PASS, subject=place.stage, message=message))
    target.tidy(place)
    reversal = next((r for r in done.reversals if r.same(reversal)), reversal)
    fact = target.live(place)
    report = _report(place, reversal, done, fact.address if fact else "")
    report.data["seconds_to_traffic"] = round(seconds, 4)
    return report


def _wanted(to: str) -> int | None:
    if to in ("", PREVIOUS):
        return None
    if not to.isdecimal():
        msg = f"--to is {PREVIOUS!r} or the number of a version, not {to!r}"
        raise InputError(msg)
    return int(to)


def _report(place: Place, reversal: Reversal, done: Finished, address: str) -> Report:
    headline = f"{place}: version {reversal.version} has the traffic, version {reversal.held.version} is held back"
    if done.failure is not None:
        headline += "; the record is not finished"
    return Report(
        command="rollback",
        headline=headline,
        outcome=Outcome.FAIL if done.failure else Outcome.PASS,
        findings=done.findings,
        outputs={"version": str(reversal.version), "pull-request": str(reversal.pull or "")},
        data={
            "stage": place.stage,
            "version": reversal.version,
            "digest": reversal.digest,
            "held": {"version": reversal.held.version, "digest": reversal.held.digest, "reason": reversal.held.reason},
            "commit": reversal.commit,
            "record": reversal.record,
        },
        links=[(place.stage, address)],
        exit_code=done.failure.exit_code if done.failure else None,
    )
