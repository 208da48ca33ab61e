"""Marks in per cent of a width: metrics against champions and limits, slices against the whole, a confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.data.words import cut
from mlp_ci.drawing.axes import Axis, axis_over
from mlp_ci.evaluate.telling.facts import Number, listed, mapping, text, whole
from mlp_ci.evaluate.telling.tables import (
    champion_name,
    higher_is_better,
    shown,
    stages_of,
    whole_value,
    with_span,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.evaluate.telling.facts import Facts, MetricFact, SliceFact

MOST_CLASSES = 20
LABEL = 24


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A confusion matrix: ``rows`` of (actual class, counts, shares of the row)."""

    classes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[int, float], ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One row of a forest: intervals and limits on a line, in per cent of its width."""

    name: str
    this: Number
    shown: str
    intervals: tuple[tuple[str, float, float, float], ...]  # (style, low, value, high)
    limits: tuple[tuple[str, float], ...]  # (what is said, where)
    others: tuple[str, ...] = ()
    less_is_better: bool = False


# ---------------------------------------------------------------- confusion


def matrix(facts: Facts) -> Matrix | None:
    """The confusion matrix; None where there is none, or too many classes to read."""
    found = mapping(mapping(facts.plots.get("this")).get("confusion"))
    classes = [cut(text(c), LABEL) for c in listed(found.get("classes"))]
    counts = [[whole(c) or 0 for c in listed(row)] for row in listed(found.get("counts"))]
    if not 2 <= len(classes) <= MOST_CLASSES or [len(r) for r in counts] != [len(classes)] * len(classes):
        return None
    rows = tuple(
        (name, tuple((c, c / sum(row) if sum(row) else 0.0) for c in row))
        for name, row in zip(classes, counts, strict=True)
    )
    return Matrix(classes=tuple(classes), rows=rows)


# ---------------------------------------------------------------- forests


def forest(facts: Facts, metrics: Sequence[MetricFact]) -> list[Mark]:
    """Each metric on a line of its own: this model, the champions, and what the gates ask for."""
    return [m for m in (_metric_mark(facts, metric) for metric in metrics) if m]


def _metric_mark(facts: Facts, metric: MetricFact) -> Mark | None:
    others = [(stage, metric.champions[stage]) for stage in stages_of(facts) if stage in metric.champions]
    known = [n for _, n in others if n.value is not None]
    if metric.this.value is None or not (metric.this.has_interval or known or metric.limits):
        return None
    limits = [limit for _, limit in metric.limits]
    axis = axis_over(
        [v for n in (metric.this, *known) for v in (n.value, n.low, n.high) if v is not None] + limits, 100.0
    )
    return Mark(
        name=cut(metric.name, 60),
        this=metric.this,
        shown=with_span(metric.this),
        intervals=(*(_placed("then", n, axis) for n in known), _placed("now", metric.this, axis)),
        limits=tuple((f"{sign} {shown(limit)}", axis.place(limit)) for sign, limit in metric.limits),
        less_is_better=higher_is_better(metric.name) is False,
        others=tuple(f"{champion_name(facts, stage)} {with_span(n)}" for stage, n in others if n.value is not None),
    )


def slice_marks(facts: Facts, found: Sequence[SliceFact]) -> list[Mark | None]:
    """A mark for each slice, on one scale for all slices of a metric, with the value over all rows as the limit."""
    axes: dict[str, Axis] = {}
    for name in {s.metric for s in found}:
        group = [s for s in found if s.metric == name]
        values = [v for s in group for v in (s.this.value, s.this.low, s.this.high, whole_value(facts, s))]
        axes[name] = axis_over([v for v in values if v is not None], 100.0)
    return [_slice_mark(facts, s, axes[s.metric]) for s in found]


def _slice_mark(facts: Facts, found: SliceFact, axis: Axis) -> Mark | None:
    if found.this.value is None:
        return None
    everywhere = whole_value(facts, found)
    limits = (("all rows", axis.place(everywhere)),) if everywhere is not None else ()
    placed = (_placed("now", found.this, axis),)
    return Mark(name=found.where, this=found.this, shown=with_span(found.this), intervals=placed, limits=limits)


def _placed(style: str, found: Number, axis: Axis) -> tuple[str, float, float, float]:
    value = found.value or 0.0
    low, high = (found.low, found.high) if found.has_interval else (value, value)
    return (style, axis.place(low or 0.0), axis.place(value), axis.place(high or 0.0))
