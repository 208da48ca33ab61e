"""The steps of a rollout as pure functions: how far it is, what was measured and judged in; what to do next out.

Time is the project's clock, which may jump: no duration is ever negative, and a step that seems to begin in the future
begins now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from mlp_ci.serve.measured import Measured, Seen
from mlp_ci.serve.rollout.progress import Look, Phase, Progress, Stratum
from mlp_ci.serve.state import CANARY, SHADOW, STABLE, Arm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.serve.analysis import Analysis
    from mlp_ci.serve.measured import Means
    from mlp_ci.serve.state import Held, Interval
    from mlp_ci.spec.serve import Rollout

FAILED_CHECKS = 3  # so many health checks in a row that fail end a rollout
AT_ONCE = "all-at-once"


class Action(StrEnum):
    """What to do with the current step."""

    HOLD = "hold"
    ADVANCE = "advance"
    SETTLE = "settle"  # it gets all traffic, and the rollout is over
    PAUSE = "pause"
    ABORT = "abort"


@dataclass(frozen=True)
class Decision:
    """The action, and a sentence that says why. ``told`` is False where the step is left without knowing."""

    action: Action
    why: str
    told: bool = True


def decide(
    progress: Progress, analysis: Analysis | None, checks: Sequence[bool], now: datetime, rollout: Rollout
) -> Decision:
    """What to do now. ``analysis`` is None for a step that nothing can be compared in; ``checks``: see above.

    ``checks`` are health checks of the new version, oldest first. Harm is looked for first, also while a person
    thinks about it or has already decided; so more traffic never follows a bad sign.
    """
    if not progress.going:
        return Decision(Action.HOLD, progress.why or "the rollout is over")
    bad = harm(analysis, checks)
    if bad:
        return Decision(Action.ABORT, bad)
    if not checks or not checks[-1]:
        return Decision(Action.HOLD, "its server does not answer its health check just now")
    if progress.ready:
        return Decision(Action.SETTLE, f"promoted by {progress.by or 'a person'}")
    if progress.phase is Phase.PAUSED:
        return Decision(Action.HOLD, progress.why or "it is paused")
    if not progress.step_started:
        return Decision(Action.HOLD, "the step has not begun: nobody could say what was counted")
    onward = Action.SETTLE if progress.step + 1 >= len(progress.steps) else Action.ADVANCE
    passed, verdict = elapsed(progress, now), str(analysis.verdict) if analysis else "pass"
    if passed < rollout.min_step:
        return Decision(Action.HOLD, "the step has not lasted as long as `min_step` says")
    if verdict == "pass":
        return Decision(onward, _reasons(analysis, "pass") or "nothing speaks against it")
    unclear = _reasons(analysis, "insufficient") or "nothing was measured yet"
    if passed < rollout.wait:
        return Decision(Action.HOLD, unclear)
    late = {"advance": onward, "abort": Action.ABORT, "pause": Action.PAUSE}[rollout.on_insufficient]
    return Decision(late, f"it cannot be told after {_long(passed)}: {unclear}", told=False)


def harm(analysis: Analysis | None, checks: Sequence[bool]) -> str:
    """Why the new version has to go; "" when nothing says so."""
    last = list(checks)[-FAILED_CHECKS:]
    if len(last) == FAILED_CHECKS and not any(last):
        return f"its server failed {FAILED_CHECKS} health checks in a row"
    return _reasons(analysis, "fail")


def _reasons(analysis: Analysis | None, verdict: str) -> str:
    """Why the metrics of that verdict have it; those with the same reason together."""
    metrics = dict[str, list[str]]()
    for judged in analysis.judged if analysis else ():
        if judged.verdict == verdict:
            metrics.setdefault(judged.reason, []).append(judged.metric)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in metrics.items())


def elapsed(progress: Progress, now: datetime) -> timedelta:
    """How long the step lasts by now, never less than nothing."""
    if not progress.step_started:
        return timedelta(0)
    return max(timedelta(0), now - datetime.fromisoformat(progress.step_started))


def _long(span: timedelta) -> str:
    seconds = span.total_seconds()
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"


# ---------------------------------------------------------------- from one to the next


def first(version: int, digest: str, stable: int, rollout: Rollout, now: datetime) -> Progress:
    """A rollout whose first step is wanted and has not begun."""
    return Progress(
        version=version,
        digest=digest,
        stable=stable,
        strategy=rollout.strategy,
        steps=rollout.weights,
        started=now.isoformat(),
        step=0,
    )


def split(progress: Progress) -> list[Arm]:
    """How the traffic is to be split in the current step."""
    weight = progress.weight
    if progress.strategy == SHADOW:
        return [Arm(version=progress.stable, weight=100), Arm(version=progress.version, weight=weight, arm=SHADOW)]
    return [
        Arm(version=progress.stable, weight=100 - weight, arm=STABLE),
        Arm(version=progress.version, weight=weight, arm=CANARY),
    ]


def compared(progress: Progress) -> bool:
    """Whether both versions answer in this step, so that one can be held against the other."""
    return progress.strategy == SHADOW or progress.weight < 100


def begun(progress: Progress, measured: Measured, now: datetime) -> Progress:
    """Its traffic has moved: the step begins, and counts from here."""
    return replace(
        progress,
        step_started=now.isoformat(),
        boot=measured.boot,
        baseline=_both(progress, measured),
        carried=None,
        current=Stratum(weight=progress.weight, started=now.isoformat()),
    )


def observed(progress: Progress, measured: Measured, now: datetime) -> Progress:
    """What both versions answered since the step began. Where counting began anew, what was seen before is kept."""
    if datetime.fromisoformat(progress.step_started) > now:  # the clock went back
        progress = replace(progress, step_started=now.isoformat())
    if measured.boot != progress.boot:
        return replace(progress, boot=measured.boot, baseline=_both(progress, measured), carried=progress.current)
    stratum = progress.carried or Stratum(weight=progress.weight, started=_since(progress, now))
    grown = {
        version: seen.since(progress.baseline.get(version, Seen()))
        for version, seen in _both(progress, measured).items()
    }
    current = replace(
        stratum,
        stable=stratum.stable.plus(grown[progress.stable]),
        canary=stratum.canary.plus(grown[progress.version]),
    )
    before = progress.current or stratum
    known = {progress.stable: before.stable.means, progress.version: before.canary.means}
    return labelled(replace(progress, current=current), known)


def _since(progress: Progress, now: datetime) -> str:
    """When the step began, also when its wait began anew since then because a person let it go on."""
    current = progress.current
    return current.started if current and datetime.fromisoformat(current.started) <= now else progress.step_started


def labelled(progress: Progress, means: Mapping[int, Means]) -> Progress:
    """With what labels say of both versions since the rollout began, by version; see ``Seen.means``."""
    current = progress.current
    if current is None:
        return progress
    stable, canary = (means.get(version, {}) for version in (progress.stable, progress.version))
    current = replace(
        current,
        stable=replace(current.stable, means={**current.stable.means, **stable}),
        canary=replace(current.canary, means={**current.canary.means, **canary}),
    )
    return replace(progress, current=current)


def advanced(progress: Progress, *, told: bool = True) -> Progress:
    """The next step is wanted; its traffic has not moved yet. ``told``: whether this one was decided by its data."""
    if progress.current and not told:
        progress = replace(progress, current=replace(progress.current, undecided=True))
    return replace(
        progress,
        step=progress.step + 1,
        step_started="",
        past=progress.strata,
        current=None,
        carried=None,
        baseline={},
    )


def paused(progress: Progress, why: str, by: str = "") -> Progress:
    """Traffic stays as it is until a person decides, also where somebody had already said to go to the end."""
    return replace(progress, phase=Phase.PAUSED, why=why, by=by, ready=False)


def resumed(progress: Progress, now: datetime) -> Progress:
    """It goes on where it stood, and may wait as long again."""
    started = now.isoformat() if progress.step_started else ""
    return replace(progress, phase=Phase.RUNNING, why="", by="", step_started=started)


def looks_of(analysis: Analysis | None, now: datetime) -> tuple[Look, ...]:
    """One look at every metric, to be remembered."""
    return tuple(
        Look(
            at=now.isoformat(),
            metric=judged.metric,
            verdict=str(judged.verdict),
            seen=judged.seen,
            needed=judged.needed,
            effect=judged.effect,
            low=judged.low,
            high=judged.high,
        )
        for judged in (analysis.judged if analysis else ())
    )


def same_but_for_a_person(one: Progress, other: Progress) -> bool:
    """Whether they differ in nothing but what a person may say: go on, stop, all of it."""
    said = {"phase": "", "why": "", "by": "", "ready": "", "step_started": ""}
    return {**one.to_json(), **said} == {**other.to_json(), **said}


def trusted(
    ran: Sequence[Interval], held: Sequence[Held], digest: str, now: datetime, window: timedelta
) -> datetime | None:
    """When these bytes last had all the traffic of the stage, if that is within ``window`` and nobody took it away."""
    if digest in {h.digest for h in held}:
        return None
    ends = [i.ended for i in ran if i.digest == digest and i.ended is not None]
    return max(ends) if ends and max(timedelta(0), now - max(ends)) <= window else None


def _both(progress: Progress, measured: Measured) -> dict[int, Seen]:
    return {version: measured.versions.get(version, Seen()) for version in (progress.stable, progress.version)}
