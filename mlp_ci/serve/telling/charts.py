"""The drawings of a rollout's page: intervals that narrow, samples that fill, what both versions answered.

Each in units of its own; the page stretches a drawing and writes the words beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlp_ci.drawing.axes import Axis, Tick, line
from mlp_ci.serve.telling.standing import OUTCOMES, steps_of
from mlp_ci.serve.telling.words import Scale, at_time, many, moment, scale_of, title_of, unit_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mlp_ci.report import Outcome
    from mlp_ci.serve.analysis import Judged
    from mlp_ci.serve.rollout.progress import Look
    from mlp_ci.serve.telling.facts import Facts

WIDTH, HEIGHT = 400.0, 150.0


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """One metric over the time of a rollout: the interval of the effect, nothing changed, and where harm begins.

    ``band``, ``middle``, ``neutral`` and ``margin`` are SVG paths; ``steps`` marks where each step began. ``filled`` is
    the sample that was seen as a share of what is needed, in per cent; None where nothing is known to be needed.
    """

    metric: str
    title: str
    outcome: Outcome
    reason: str
    stable: str
    canary: str
    effect: str
    span: str
    limit: str
    sample: str
    filled: float | None
    band: str = ""
    middle: str = ""
    neutral: str = ""
    margin: str = ""
    steps: tuple[Tick, ...] = ()
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()
    clipped: bool = False


def narrowings(facts: Facts) -> list[Narrowing]:
    """A drawing for each metric that decides, in the order of model.yaml."""
    judged = facts.analysis.judged if facts.analysis else ()
    return [_narrowing(facts, one) for one in judged]


def _narrowing(facts: Facts, judged: Judged) -> Narrowing:
    scale = scale_of(judged.metric, facts.rollout)
    needed = judged.needed
    unit = unit_of(judged.metric)
    sample = many(judged.seen, unit)
    if needed:
        enough = judged.seen >= needed
        sample = f"{sample}, {needed:,} needed" if enough else f"{judged.seen:,} of {many(needed, unit)}"
    filled = min(100.0, 100.0 * judged.seen / needed) if needed else None
    bare = Narrowing(
        metric=judged.metric,
        title=title_of(judged.metric),
        outcome=OUTCOMES[str(judged.verdict)],
        reason=judged.reason,
        stable=scale.value(judged.stable),
        canary=scale.value(judged.canary),
        effect=scale.effect(judged.effect),
        span=scale.span(judged.low, judged.high),
        limit=scale.limit(judged.margin),
        sample=sample,
        filled=filled,
    )
    return _drawn(bare, facts, judged, scale)


def _drawn(bare: Narrowing, facts: Facts, judged: Judged, scale: Scale) -> Narrowing:
    """With the paths and ticks; without them before there were two looks."""
    looks = [(at, look) for look in _looks(facts, judged.metric) if (at := moment(look.at))]
    if len(looks) < 2:
        return bare
    first, last = looks[0][0], max(looks[-1][0], looks[0][0])
    seconds = max(1e-9, (last - first).total_seconds())
    axis = _height(judged, [look for _, look in looks], scale)
    places = [(WIDTH * min(1.0, max(0.0, (at - first).total_seconds() / seconds)), look) for at, look in looks]
    high = [(x, _down(axis, look.high, axis.high)) for x, look in places]
    low = [(x, _down(axis, look.low, axis.low)) for x, look in places]
    middle = [(x, _down(axis, look.effect, scale.neutral)) for x, look in places if look.effect is not None]
    ends = [look.high for _, look in places] + [look.low for _, look in places]
    return replace(
        bare,
        band=line([*high, *reversed(low)]) + "Z",
        middle=line(middle),
        neutral=_level(axis, scale.neutral),
        margin=_level(axis, judged.margin),
        steps=_steps(facts, first, seconds),
        x_ticks=_times(facts, first, last),
        y_ticks=tuple(Tick(text=_tick(t.text, scale), at=100 - t.at) for t in _ticked(axis, scale).ticks(4)),
        clipped=any(end is None or not axis.low <= end <= axis.high for end in ends),
    )


def _looks(facts: Facts, metric: str) -> list[Look]:
    return [look for look in (facts.progress.looks if facts.progress else ()) if look.metric == metric]


def _height(judged: Judged, looks: Sequence[Look], scale: Scale) -> Axis:
    """An axis that shows nothing changed, where harm begins, and the last intervals whole; early ones may be wider."""
    neutral, margin = scale.neutral, abs(judged.margin - scale.neutral)
    late = looks[len(looks) // 3 :]
    ends = [v for look in late for v in (look.low, look.high, look.effect) if v is not None]
    last = [v for v in (looks[-1].low, looks[-1].high, looks[-1].effect) if v is not None]
    # What is more than six margins away says no more than that it is far away, unless it is the last word.
    near = [min(max(v, neutral - 6 * margin), neutral + 6 * margin) for v in ends]
    values = [neutral - margin / 2, neutral + 1.5 * margin, *near, *last]
    pad = (max(values) - min(values)) * 0.05
    least = 0.0 if scale.ratio or scale.kind == "distance" else None
    low = min(values) - pad
    return Axis(low=low if least is None else max(least, low), high=max(values) + pad, length=HEIGHT)


def _ticked(axis: Axis, scale: Scale) -> Axis:
    """The same axis in the numbers that are written beside it: shares in per cent."""
    factor = 100.0 if scale.kind == "share" else 1.0
    return Axis(low=axis.low * factor, high=axis.high * factor, length=axis.length)


def _tick(text: str, scale: Scale) -> str:
    return f"×{text}" if scale.ratio else text


def _down(axis: Axis, value: float | None, otherwise: float) -> float:
    return HEIGHT - axis.place(otherwise if value is None else value)


def _level(axis: Axis, value: float) -> str:
    return line([(0.0, _down(axis, value, value)), (WIDTH, _down(axis, value, value))])


def _steps(facts: Facts, first: datetime, seconds: float) -> tuple[Tick, ...]:
    """Where each step began, in per cent of the width; the first one at the left edge."""
    ticks = []
    for step in steps_of(facts):
        began = moment(step.began)
        if began is None:
            continue
        share = (began - first).total_seconds() / seconds
        if share < 1.0:
            ticks.append(Tick(text=f"{step.weight} %", at=100 * max(0.0, share)))
    return tuple(ticks)


def _times(facts: Facts, first: datetime, last: datetime) -> tuple[Tick, ...]:
    same = first.date() == last.date() == facts.now.date()
    texts = [f"{when:%H:%M:%S}" if (last - first).total_seconds() < 600 else f"{when:%H:%M}" for when in (first, last)]
    if not same:
        texts = [at_time(when, facts.now).removesuffix(" UTC") for when in (first, last)]
    return (Tick(text=texts[0], at=0.0), Tick(text=f"{texts[1]} UTC", at=100.0))
