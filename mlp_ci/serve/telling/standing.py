"""Where a rollout stands, what it waits for and what comes next: sentences and rows, from :class:`Facts` alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mlp_ci.report import Outcome
from mlp_ci.serve.measured import Seen
from mlp_ci.serve.rollout.progress import Phase
from mlp_ci.serve.telling.words import at_time, lasting, many, moment, scale_of, title_of, unit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.analysis import Judged
    from mlp_ci.serve.rollout.progress import Progress, Stratum
    from mlp_ci.serve.telling.facts import Facts

OUTCOMES = {"pass": Outcome.PASS, "fail": Outcome.FAIL, "insufficient": Outcome.INCONCLUSIVE}
UNDECIDED = {
    "pause": "it stops there and a person decides",
    "advance": "it goes on all the same",
    "abort": "all traffic goes back",
}


class Standing(StrEnum):
    """What became of a step."""

    OVER = "over"
    HERE = "here"
    FAILED = "failed"
    AHEAD = "ahead"
    LEFT_OUT = "left out"
    UNDECIDED = "undecided"  # it went on all the same: after its wait, or because a person said so


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: ``seconds`` is how long it took or has taken; ``forecast`` was said of it before the rollout began."""

    weight: int
    standing: Standing
    began: str = ""
    seconds: float | None = None
    stable: Seen = Seen()  # noqa: RUF009 - frozen
    canary: Seen = Seen()  # noqa: RUF009 - frozen
    forecast: str = ""


def steps_of(facts: Facts) -> list[Step]:
    """Every step of the rollout, in order."""
    progress = facts.progress
    if progress is None:
        return []
    met = {s.weight: s for s in (*progress.past, *([facts.current] if facts.current else []))}
    ends = _ends(facts, [*met.values()])
    said = _forecast(facts)
    rows = []
    for index, weight in enumerate(progress.steps):
        stratum = met.get(weight)
        rows.append(
            Step(
                weight=weight,
                standing=_standing(progress, index, stratum),
                began=stratum.started if stratum else "",
                seconds=ends.get(weight),
                stable=stratum.stable if stratum else Seen(),
                canary=stratum.canary if stratum else Seen(),
                forecast=said.get(weight, ""),
            )
        )
    return rows


def _forecast(facts: Facts) -> dict[int, str]:
    """The line of the forecast for each step. A step in which one version answers alone has none."""
    steps = facts.progress.steps if facts.progress else ()
    compared = [weight for weight in steps if weight < 100]
    for weights in (steps, compared):
        if len(weights) == len(facts.forecast):
            return dict(zip(weights, facts.forecast, strict=True))
    return {}


def loose_forecast(facts: Facts) -> tuple[str, ...]:
    """The lines of the forecast that belong to no single step."""
    return () if _forecast(facts) else facts.forecast


def _standing(progress: Progress, index: int, met: Stratum | None) -> Standing:
    ended = progress.phase in (Phase.ABORTED, Phase.DONE)
    if index == progress.step and progress.phase is not Phase.DONE:
        return Standing.FAILED if progress.phase is Phase.ABORTED else Standing.HERE
    if index <= progress.step and met:
        promoted = progress.ready and index == progress.step and met.weight < 100
        return Standing.UNDECIDED if promoted or met.undecided else Standing.OVER
    return Standing.LEFT_OUT if ended else Standing.AHEAD


def _ends(facts: Facts, met: Sequence[Stratum]) -> dict[int, float]:
    """How many seconds each step took that began: until the next began, or until now; a clock that jumps gives 0.

    A rollout that is over took no longer than until its last look.
    """
    begun = sorted((when, s.weight) for s in met if (when := moment(s.started)))
    looks = [when for look in (facts.progress.looks if facts.progress else ()) if (when := moment(look.at))]
    over = facts.progress is not None and facts.progress.phase in (Phase.ABORTED, Phase.DONE)
    last = max(looks) if looks and over else facts.now
    until = [when for when, _ in begun[1:]] + [last]
    return {weight: max(0.0, (end - when).total_seconds()) for (when, weight), end in zip(begun, until, strict=False)}


def outcome_of(facts: Facts) -> Outcome:
    """Good news, bad news, or a person is asked."""
    progress = facts.progress
    if progress is None:
        return Outcome.PASS if facts.live is not None else Outcome.SKIP
    if progress.phase is Phase.ABORTED or (facts.analysis and facts.analysis.verdict == "fail"):
        return Outcome.FAIL
    if progress.phase is Phase.DONE and since_then(facts):
        return Outcome.SKIP
    return Outcome.INCONCLUSIVE if progress.phase is Phase.PAUSED else Outcome.PASS


def since_then(facts: Facts) -> int | None:
    """The version that has all the traffic now, if that is not the one with which a rollout ended."""
    progress = facts.progress
    if progress is None or progress.going:
        return None
    left = progress.version if progress.phase is Phase.DONE else progress.stable
    return facts.live if facts.live != left else None


def sentence(facts: Facts) -> str:
    """The one sentence to read if one reads only one."""
    progress, stage = facts.progress, facts.stage
    if progress is None:
        if facts.live is None:
            return f"{facts.model}: nothing was ever deployed in {stage}"
        return f"{facts.model}: version {facts.live} has all the traffic of {stage}, and no rollout is under way"
    version = f"{facts.model}: version {progress.version}"
    said = progress.why.removeprefix(f"the rollout was aborted at {progress.weight} %: ")
    why, later = f": {said}" if said else "", since_then(facts)
    now = f"; version {later} has all the traffic by now"
    if progress.phase is Phase.DONE:
        had = f"{version} {'got' if later else 'has'} all the traffic of {stage}{why}{_effects(facts, progress)}"
        return had + now if later else had
    if progress.phase is Phase.ABORTED:
        where = f" at {progress.weight} %" if progress.step >= 0 else ""
        back = now if later else f"; all traffic is back on version {progress.stable}"
        return f"{version} was aborted in {stage}{where}{why}{back}"
    if progress.phase is Phase.PAUSED:
        by = f" by {progress.by}" if progress.by else ""
        return f"{version} is paused{by} in {stage}, with {_share(progress)}{why}"
    return f"{version} has {_share(progress)} of {stage}, beside version {progress.stable}; {_so_far(facts)}"


def _effects(facts: Facts, progress: Progress) -> str:
    """What an A/B test found, with the bounds and the sample of each metric; nothing for other strategies."""
    if progress.strategy != "ab" or facts.analysis is None:
        return ""
    said = []
    for judged in facts.analysis.judged:
        scale, unit = scale_of(judged.metric, facts.rollout), unit_of(judged.metric)
        within = scale.span(judged.low, judged.high)
        effect = scale.effect(judged.effect) or "not known"
        bounds = f", between {within}" if within else ""
        said.append(f"{title_of(judged.metric)} {effect}{bounds}, on {many(judged.seen, unit)}")
    return f"; the effect: {'; '.join(said)}" if said else ""


def _share(progress: Progress) -> str:
    if progress.strategy == "shadow":
        return f"a copy of {progress.weight} % of the traffic"
    return f"{progress.weight} % of the traffic"


def _so_far(facts: Facts) -> str:
    if facts.analysis is None:
        return "nothing was measured in this step yet"
    return {
        "pass": "what was measured is enough to go on",
        "fail": "what was measured says that it does harm",
        "insufficient": "what was measured is not enough to decide",
    }[str(facts.analysis.verdict)]


# ---------------------------------------------------------------- what comes next


def coming(facts: Facts) -> list[str]:
    """What happens next, in sentences."""
    progress = facts.progress
    if progress is None:
        return []
    if progress.phase is Phase.DONE:
        if since_then(facts):
            return ["The rollout is history: the traffic moved on since. `mlp-ci history` says who moved it and why."]
        kept = f"Version {progress.stable} stays warm: `mlp-ci rollback` gives it the traffic back in seconds."
        return [kept] if progress.stable and progress.stable != progress.version else []
    if progress.phase is Phase.ABORTED:
        return [
            f"Version {progress.version} is held back by its digest and is not tried again by itself.",
            "Promote another version, or try this one again once the cause is mended.",
        ]
    if progress.phase is Phase.PAUSED:
        return [f"The traffic stays as it is until a person decides; version {progress.stable} answers the rest."]
    if progress.ready:
        return [f"A person asked to promote it: the next tick gives version {progress.version} all the traffic."]
    verdict = str(facts.analysis.verdict) if facts.analysis else "insufficient"
    if verdict == "fail":
        return [f"The next tick gives all traffic back to version {progress.stable} and holds this version back."]
    if verdict == "pass":
        return [_onward(facts, progress)]
    return [*_awaited(facts), *_patience(facts, progress)]


def _onward(facts: Facts, progress: Progress) -> str:
    ahead = progress.steps[progress.step + 1 :]
    goal = f"moves {ahead[0]} % of the traffic to it" if ahead else "settles it with all the traffic"
    began = moment(progress.step_started)
    least = facts.rollout.min_step
    if began and began + least > facts.now:
        until, shortest = at_time(began + least, facts.now), lasting(least)
        return f"The first tick after {until} {goal}; no step is shorter than {shortest}."
    return f"The next tick {goal}."


def _awaited(facts: Facts) -> list[str]:
    """What each undecided metric still needs, the longest wait first."""
    if facts.analysis is None:
        return ["The first tick that finds answers of both versions judges them."]
    open_ones = [j for j in facts.analysis.judged if str(j.verdict) == "insufficient"]
    said = []
    for judged in sorted(open_ones, key=lambda j: -missing(j)):
        left = missing(judged)
        if not left:
            continue
        unit, rate = unit_of(judged.metric), rate_of(facts, judged.seen)
        about = f", about {lasting(left / rate)} as it goes now" if rate else ""
        title = title_of(judged.metric)
        said.append(f"{title[0].upper()}{title[1:]}: {many(left, f'more {unit}')} of the new version{about}.")
    return said or ["More answers of both versions are needed."]


def _patience(facts: Facts, progress: Progress) -> list[str]:
    began = moment(progress.step_started)
    if began is None:
        return []
    end = began + facts.rollout.wait
    then = UNDECIDED[facts.rollout.on_insufficient]
    if end <= facts.now:
        return [f"The step has waited {lasting(facts.rollout.wait)}: at the next tick {then}."]
    return [f"If it still cannot tell at {at_time(end, facts.now)}, {then}."]


def missing(judged: Judged) -> int:
    """How much a verdict still needs of what the new version answers; 0 where that is not known."""
    return max(0, judged.needed - judged.seen) if judged.needed is not None else 0


def rate_of(facts: Facts, seen: int) -> float | None:
    """How much of what was seen of the new version in this step came in a second; None while that cannot be known."""
    began = moment(facts.current.started) if facts.current else None
    if began is None or not seen:
        return None
    seconds = (facts.now - began).total_seconds()
    return seen / seconds if seconds > 0 else None


def commands(facts: Facts) -> list[tuple[str, str]]:
    """What a person can do now: (command, what it does)."""
    progress, at = facts.progress, f"--stage {facts.stage}"
    if progress is None:
        return []
    go = (f"mlp-ci rollout promote {at}", "give it all the traffic now")
    back = (f"mlp-ci rollout abort {at}", f"give all traffic back to version {progress.stable} and hold it back")
    if progress.phase is Phase.RUNNING:
        return [(f"mlp-ci rollout pause {at}", "keep the traffic as it is"), go, back]
    if progress.phase is Phase.PAUSED:
        return [(f"mlp-ci rollout resume {at}", "go on with this step"), go, back]
    if progress.phase is Phase.ABORTED:
        return [(f"mlp-ci rollout retry {at}", "try the same version again, once its quarantine is lifted")]
    return [(f"mlp-ci rollback {at}", "give the traffic back to the version before")]
