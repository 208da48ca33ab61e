"""Drives a rollout on a target: start the version, try it, move the traffic step by step, or back.

The decisions are :mod:`mlp_ci.serve.rollout`'s; the state is the target's own, so a rollout that is killed anywhere
goes on from the step where it stood.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import InputError, RolloutAborted
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome
from mlp_ci.serve import artefacts
from mlp_ci.serve.measured import Seen as Counts
from mlp_ci.serve.rollout import Action, Pace, Seen, judge, steps_left
from mlp_ci.serve.state import CANARY, STABLE, Arm, Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.serve.targets import Release, Settings, Target

LOOK = 0.1  # seconds between two looks at a step


class StepFailed(Exception):
    """A step's measurements say no."""

    def __init__(self, weight: int, reason: str, arms: list[Arm]) -> None:
        super().__init__(reason)
        self.weight, self.reason, self.arms = weight, reason, arms


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How a release gets its traffic: the steps in per cent, their pace, and what the gateway logs."""

    steps: Sequence[int]
    settings: Settings
    pace: Pace = Pace()  # noqa: RUF009 - frozen


def roll_out(target: Target, place: Place, release: Release, plan: Rollout) -> list[Finding]:
    """Bring ``release`` to all of the traffic; what held on the way.

    Raises InputError when it does not start or does not answer its own example (no traffic was moved), RolloutAborted
    when a step failed (all traffic is back) or when another command moved the traffic meanwhile.
    """
    _clear_other_canary(target, place, release)
    # From here on whoever else moves the traffic, a rollback above all, has the last word.
    arms, before = target.arms(place), target.live(place)
    target.prepare(place, release, plan.settings)
    _not_rolled_back(target, place, release)
    findings = [_try_out(target, place, release)]
    _not_rolled_back(target, place, release)
    if before is None or before.version == release.version:
        target.settle(place, release, clock.now(), expected=arms)
        return findings
    standing = next((a.weight for a in arms if a.version == release.version), 0)
    versions = (before.version, release.version)
    try:
        for weight in steps_left(plan.steps, standing):
            findings.append(_step(target, place, (arms, _split(versions, weight)), plan.pace))
            arms = _split(versions, weight)
    except StepFailed as failed:
        target.shift(place, [Arm(version=before.version, weight=100)], expected=failed.arms)
        target.withdraw(place, release.version)
        msg = f"the rollout of version {release.version} was aborted at {failed.weight} %: {failed.reason}"
        why = f"all traffic is back on version {before.version}"
        fix = f"read {place.folder / 'logs'}; promote another version, or run `mlp-ci deploy` to try again"
        raise RolloutAborted(msg, why=why, fix=fix) from None
    target.settle(place, release, clock.now(), expected=arms)
    return findings


def _not_rolled_back(target: Target, place: Place, release: Release) -> None:
    """A rollback may have come while the version was fetched and started; what it took away stays away."""
    if all(h.known or h.digest != release.digest for h in target.held(place)):
        return
    if all(a.version != release.version for a in target.arms(place)):
        target.withdraw(place, release.version)
    msg = f"version {release.version} was rolled back in {place} while this deployed it"
    raise RolloutAborted(msg, why="no traffic was moved to it again", fix="see what the rollback says")


def _clear_other_canary(target: Target, place: Place, release: Release) -> None:
    """A version that a killed rollout left half way, and that git no longer asks for, goes."""
    fact, arms = target.live(place), target.arms(place)
    others = [a.version for a in arms if fact and a.version not in (fact.version, release.version)]
    if fact and others:
        target.shift(place, [Arm(version=fact.version, weight=100)], expected=arms)
        for version in others:
            target.withdraw(place, version)


def _try_out(target: Target, place: Place, release: Release) -> Finding:
    doing(f"{place.stage}: trying version {release.version} before any traffic")
    body = artefacts.example_body(release.artefact)
    if body is None:
        message = "the model was saved without an input example, so nothing was tried before it got traffic"
        return Finding(check="contract", outcome=Outcome.SKIP, subject=place.stage, message=message)
    answer = target.ask(place, release.version, body)
    wrong = "" if answer.status == 200 else f"it answers {answer.status}: {answer.body[:300].decode(errors='replace')}"
    if wrong:
        if all(a.version != release.version for a in target.arms(place)):
            target.withdraw(place, release.version)
        msg = f"version {release.version} does not answer its own input example: {wrong}"
        raise InputError(msg, why="no traffic was moved", fix="mend the model, register it again and promote that")
    message = "it answers its own input example"
    return Finding(check="contract", outcome=Outcome.PASS, subject=place.stage, message=message)


def _split(versions: tuple[int, int], weight: int) -> list[Arm]:
    stable, canary = versions
    return [
        Arm(version=stable, weight=100 - weight, arm=STABLE),
        Arm(version=canary, weight=weight, arm=CANARY),
    ]


def _step(target: Target, place: Place, moves: tuple[list[Arm], list[Arm]], pace: Pace) -> Finding:
    """One step: from the first split to the second, then look until the measurements decide."""
    _, arms = moves
    (stable, canary), weight = (arm.version for arm in arms), arms[1].weight
    target.shift(place, arms, expected=moves[0])
    before, began, checks = target.measured(place).versions, time.monotonic(), list[bool]()
    while True:
        checks.append(target.healthy(place, canary))
        if target.arms(place) != arms:
            msg = f"another command moved the traffic of {place} during the rollout"
            raise RolloutAborted(msg, fix="run `mlp-ci deploy` again when it is done")
        now = target.measured(place).versions
        old, new = _grown(before, now, stable), _grown(before, now, canary)
        seen = Seen(
            seconds=time.monotonic() - began,
            checks=checks,
            stable_requests=old.requests,
            stable_errors=old.errors,
            canary_requests=new.requests,
            canary_errors=new.errors,
        )
        action, reason = judge(seen, pace)
        if action is Action.ABORT:
            raise StepFailed(weight, reason, arms)
        if action is Action.ADVANCE:
            message = f"{weight} % on version {canary}: {reason}"
            return Finding(check="step", outcome=Outcome.PASS, subject=place.stage, message=message)
        time.sleep(LOOK)


def _grown(before: Mapping[int, Counts], now: Mapping[int, Counts], version: int) -> Counts:
    then, here = before.get(version, Counts()), now.get(version, Counts())
    if here.requests < then.requests:  # the gateway was restarted and counts anew
        return here
    return here.since(then)
