"""An evaluation as tables: the same ones in the job's summary, the comment, the page and the model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.data.words import cut
from mlp_ci.report import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.evaluate.telling.facts import Facts, Fairness, GateFact, MetricFact, Number, SliceFact

LONGEST_NAME = 80
LONGEST_MESSAGE = 600
_BAD_FIRST = {Outcome.FAIL: 0, Outcome.INCONCLUSIVE: 1, None: 2, Outcome.PASS: 3, Outcome.SKIP: 4}


def headline(facts: Facts) -> str:
    """The one sentence: how many gates passed, and what did not."""
    gates = facts.gates
    passed = sum(g.outcome is Outcome.PASS for g in gates)
    judged = sum(g.outcome is not Outcome.SKIP for g in gates)
    said = f"{facts.model}: {passed} of {judged} gates passed on {facts.rows:,} held-out rows"
    parts = [f"{len(facts.failed)} failed"] if facts.failed else []
    parts += [f"{len(facts.undecided)} undecided"] if facts.undecided else []
    return said + (f"; {', '.join(parts)}" if parts else "")


def shown(value: float | None, *, signed: bool = False) -> str:
    """A number in four digits; nothing for None."""
    if value is None:
        return ""
    text = (
        format(value, "+.4g" if signed else ".4g")
        if abs(value) < 10_000
        else format(value, "+,.0f" if signed else ",.0f")
    )
    return text.replace("-", "−")


def span(found: Number, *, signed: bool = False) -> str:
    """The interval: ``0.81 to 0.85``; nothing where there is none."""
    if not found.has_interval:
        return ""
    return f"{shown(found.low, signed=signed)} to {shown(found.high, signed=signed)}"


def with_span(found: Number, *, signed: bool = False) -> str:
    """``0.83 (0.81 to 0.85)``."""
    within = span(found, signed=signed)
    return shown(found.value, signed=signed) + (f" ({within})" if within else "")


# ---------------------------------------------------------------- against production


def comparison(facts: Facts, most: int | None = None) -> Table:
    """Every metric with its interval, beside each champion on the same rows; those of gates first."""
    stages = stages_of(facts)
    columns = ["metric", "this", f"{facts.level} interval"]
    for stage in stages:
        columns += [champion_name(facts, stage), "difference"]
    rows = []
    ordered = by_interest(facts)
    for metric in ordered[:most]:
        row: list[Any] = [cut(metric.name, LONGEST_NAME), shown(metric.this.value) or "–", span(metric.this)]
        for stage in stages:
            theirs, difference = metric.champions.get(stage), metric.differences.get(stage)
            row.append(shown(theirs.value) if theirs else "")
            row.append(with_span(difference, signed=True) + _direction(metric, difference) if difference else "")
        rows.append((*row, metric.outcome or ""))
    more = len(ordered) - len(rows)
    title = f"Held-out data, {facts.rows:,} rows" + (f" ({more} more metrics are in the report)" if more else "")
    return Table(title=title, columns=(*columns, "verdict"), rows=tuple(rows))


def stages_of(facts: Facts) -> list[str]:
    """The stages that any metric is compared with."""
    return sorted({stage for m in facts.metrics for stage in m.champions})


def champion_name(facts: Facts, stage: str) -> str:
    number = facts.champions.get(stage)
    return f"{stage} (v{number})" if number is not None else stage


def by_interest(facts: Facts) -> list[MetricFact]:
    """Metrics in the order of the gates that name them, then the others as they come, what was measured last."""
    order = {name: i for i, name in reversed(list(enumerate(g.metric for g in facts.gates)))}
    return sorted(facts.metrics, key=lambda m: (order.get(m.name, len(facts.gates)), m.measured))


def _direction(metric: MetricFact, difference: Number) -> str:
    """Better or worse, where the whole interval says so and it is known which way is better."""
    better = higher_is_better(metric.name)
    if better is None or difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return ""
    return ", better" if (difference.low > 0) == better else ", worse"


def higher_is_better(name: str) -> bool | None:
    """None for a metric that mlp-ci does not know."""
    from mlp_ci.errors import InputError
    from mlp_ci.evaluate.metrics import metric_called

    try:
        return metric_called(name).higher_is_better
    except InputError:
        return None


# ---------------------------------------------------------------- gates and slices


def gates(found: Sequence[GateFact]) -> Table:
    rows = tuple((cut(g.gate, 2 * LONGEST_NAME), g.outcome, why(g)) for g in found)
    return Table(title="Gates", columns=("gate", "verdict", "why"), rows=rows)


def why(gate: GateFact) -> str:
    """The reason, and how many rows would probably decide an undecided gate."""
    said = cut(gate.message, LONGEST_MESSAGE)
    needed = gate.rows_needed
    if gate.outcome is Outcome.INCONCLUSIVE and needed and f"{needed:,}" not in said and str(needed) not in said:
        said += f"; about {needed:,} rows in all would probably decide it"
    return said


def worst_slices(facts: Facts, most: int) -> list[SliceFact]:
    """Failed and undecided ones first, then those that are furthest below the whole."""
    return sorted(facts.slices, key=lambda s: (_BAD_FIRST[s.outcome], -_behind(facts, s), s.where))[:most]


def _behind(facts: Facts, found: SliceFact) -> float:
    whole = whole_value(facts, found)
    if whole is None or found.this.value is None:
        return float("-inf")
    better = False if found.rest is not None else higher_is_better(found.metric)
    return whole - found.this.value if better in (True, None) else found.this.value - whole


def whole_value(facts: Facts, found: SliceFact) -> float | None:
    """The metric of a slice over all rows; for a slice that the search found by its loss, the loss of the others."""
    if found.rest is not None:
        return found.rest
    return next((m.this.value for m in facts.metrics if m.name == found.metric), None)


def slices(facts: Facts, found: Sequence[SliceFact]) -> Table:
    left = len(facts.slices) - len(found)
    title = "Slices" if not left else f"The worst {len(found)} of {len(facts.slices)} slices"
    rows = [
        (
            cut(s.where, LONGEST_NAME) + how_found(s),
            s.rows,
            cut(s.metric, LONGEST_NAME),
            with_span(s.this) or "–",
            shown(whole_value(facts, s)) + (" elsewhere" if s.rest is not None else ""),
            s.outcome or "",
        )
        for s in found
    ]
    return Table(title=title, columns=("slice", "rows", "metric", "value", "against", "verdict"), rows=tuple(rows))


def how_found(found: SliceFact) -> str:
    """Beside the name of a slice that nobody declared: that it was searched for, and how sure that is."""
    if not found.found:
        return ""
    return " (found by the search" + (f", p {found.p_value:.2g})" if found.p_value is not None else ")")


def fairness(found: Fairness) -> Table:
    """One metric in each group of a column."""
    rows = tuple((cut(name, LONGEST_NAME), count, shown(value) or "–") for name, count, value in found.groups)
    title = f"{found.metric} by {found.column}: the largest difference is {with_span(found.gap) or 'not known'}"
    return Table(title=cut(title, 200), columns=(cut(found.column, LONGEST_NAME), "rows", found.metric), rows=rows)
