"""The drawings of a rollout's page: intervals that narrow, samples that fill, what both versions answered.

Each in units of its own; the page stretches a drawing and writes the words beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlp_ci.drawing.axes import Axis, Tick, line
from mlp_ci.serve.telling.standing import OUTCOMES, steps_of
from mlp_ci.serve.telling.words import Scale, many, moment, scale_of, title_of, unit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.report import Outcome
    from mlp_ci.serve.analysis import Judged
    from mlp_ci.serve.rollout.progress import Look
    from mlp_ci.serve.telling.facts import Facts

WIDTH, HEIGHT = 400.0, 150.0


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """One metric as its sample grows: the interval of the effect, nothing changed, and where harm begins.

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
    x_label: str = ""
    y_ticks: tuple[Tick, ...] = ()
    clipped: str = ""


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
    """With the paths and ticks, over how much of the new version was seen; without them before there were two looks."""
    looks = _placed(facts, judged.metric)
    samples = [sample for sample, _, _ in looks]
    known = any(v is not None for _, look, _ in looks for v in (look.effect, look.low, look.high))
    if not known or len(looks) < 2 or samples[-1] <= samples[0]:
        return bare
    along = Axis(low=0.0, high=float(samples[-1]), length=WIDTH)
    axis = _height(judged, [look for _, look, _ in looks], scale)
    places = [(along.place(sample), look) for sample, look, _ in looks]
    high = [(x, _down(axis, look.high, axis.high)) for x, look in places]
    low = [(x, _down(axis, look.low, axis.low)) for x, look in places]
    middle = [(x, _down(axis, look.effect, scale.neutral)) for x, look in places if look.effect is not None]
    return replace(
        bare,
        band=line([*high, *reversed(low)]) + "Z",
        middle=line(middle),
        neutral=_level(axis, scale.neutral),
        margin=_level(axis, judged.margin),
        steps=_marks(looks, along),
        x_ticks=along.ticks(4),
        x_label=f"{unit_of(judged.metric)}s of the new version",
        y_ticks=tuple(Tick(text=_tick(t.text, scale), at=100 - t.at) for t in _ticked(axis, scale).ticks(4)),
        clipped=_clipped(axis, [look for _, look in places]),
    )


def _placed(facts: Facts, metric: str) -> list[tuple[int, Look, int]]:
    """(sample since the rollout began, the look, the step's share in per cent), in the order of the looks.

    A look counts the sample of its step alone; what the steps before had comes on top.
    """
    begun = [(when, step.weight) for step in steps_of(facts) if (when := moment(step.began))]
    found: list[tuple[int, Look, int]] = []
    before, last, weight = 0, 0, None
    for look in facts.progress.looks if facts.progress else ():
        at = moment(look.at)
        if look.metric != metric or at is None:
            continue
        # A look at the very moment at which a step begins is the last one of the step before.
        here = max((b for b in begun if b[0] < at), default=min(begun, default=(at, 0)))[1]
        if here != weight or look.seen < last:
            before, last, weight = before + last, 0, here
        found.append((before + look.seen, look, here))
        last = look.seen
    return found


def _marks(looks: Sequence[tuple[int, Look, int]], along: Axis) -> tuple[Tick, ...]:
    """Where each step began, in per cent of the width."""
    ticks, before, weight = [], 0, None
    for sample, _, here in looks:
        if here != weight:
            ticks.append(Tick(text=f"{here} %", at=along.per_cent(float(before))))
            weight = here
        before = sample
    return tuple(ticks)


def _height(judged: Judged, looks: Sequence[Look], scale: Scale) -> Axis:
    """An axis that shows nothing changed, where harm begins, and the later intervals; early ones may be wider."""
    neutral, margin = scale.neutral, abs(judged.margin - scale.neutral)
    late = looks[len(looks) // 3 :]
    ends = [v for look in late for v in (look.low, look.high, look.effect) if v is not None]
    # A bound that is more than six margins away says no more than that it is far away; what was seen is shown.
    near = [min(max(v, neutral - 6 * margin), neutral + 6 * margin) for v in ends]
    seen = [v for v in (looks[-1].effect,) if v is not None]
    values = [neutral - margin / 2, neutral + 1.5 * margin, *near, *seen]
    pad = (max(values) - min(values)) * 0.05
    least = 0.0 if scale.ratio or scale.kind == "distance" else None
    low = min(values) - pad
    return Axis(low=low if least is None else max(least, low), high=max(values) + pad, length=HEIGHT)


def _clipped(axis: Axis, looks: Sequence[Look]) -> str:
    """What to say of bounds that are wider than the drawing."""
    beyond = [any(v is None or not axis.low <= v <= axis.high for v in (look.low, look.high)) for look in looks]
    if beyond[-1]:
        return "The bounds are wider than is drawn."
    return "At first the bounds were wider than is drawn." if any(beyond) else ""


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
