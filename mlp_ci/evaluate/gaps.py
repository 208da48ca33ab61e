"""Gates that bound how far a metric may differ between two groups of people (or of anything else).

With v(g) the metric of group g, the gap is the largest |v(g) - v(h)| over all pairs of groups. All groups come from the
same draws of rows, so that clusters which lie in several groups count as they should. The largest of many differences
is large by chance alone; so the interval is a simultaneous one for all pairs, from the distribution of the largest
studentised deviation ("max-t": Westfall & Young, 1993; Romano & Wolf, 2005):

    c = quantile over draws b of  max over pairs |d*_b(pair) - d(pair)| / se(pair)
    interval = [max over pairs (|d| - c·se), max over pairs (|d| + c·se)]

The gate fails when one pair's difference is above the limit, adjusted for all pairs by the same c. It passes when every
pair's 95 % one-sided bounds are below the limit: that needs no correction (an intersection-union test).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.evaluate.bootstrap import Estimate, draws
from mlp_ci.evaluate.decision import Decision, rows_needed
from mlp_ci.evaluate.gates import Part, said_by, shown, undecided
from mlp_ci.evaluate.metrics import value_of
from mlp_ci.report import Outcome

if TYPE_CHECKING:
    from mlp_ci.evaluate.gates import Measured, Rows
    from mlp_ci.evaluate.metrics import Array, Metric
    from mlp_ci.spec import Gate

MOST_GROUPS = 50  # 1,225 pairs
METHOD = "simultaneous over all pairs (max-t bootstrap)"


@dataclass(frozen=True, kw_only=True)
class Gap:
    """``between`` is the largest difference with its simultaneous interval, ``pair`` the two groups it is between."""

    between: Estimate
    pair: tuple[str, str]
    decision: Decision


def judge_gap(gate: Gate, metric: Metric, this: Measured, rows: Rows) -> Part:
    """The largest difference between two values of the column that have enough rows."""
    column = rows.slices[str(gate.gap)]
    names, counts = np.unique(column, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_GROUPS]
    groups: dict[str, dict[str, Any]] = {}
    judged: dict[str, Array] = {}
    for i in order:
        mask = column == names[i]
        value = value_of(metric, this.predictions.take(mask))
        enough = int(counts[i]) >= rows.min_slice_rows and math.isfinite(value)
        groups[str(names[i])] = {"rows": int(counts[i]), "value": value if enough else None}
        judged |= {str(names[i]): mask} if enough else {}
    details: dict[str, Any] = {"groups": groups, "groups_left_out": max(0, len(names) - MOST_GROUPS)}
    small = [f"{name} ({g['rows']})" for name, g in groups.items() if g["value"] is None]
    rest = f"; not judged (too few rows, or one class only): {', '.join(small[:10])}" if small else ""
    if len(judged) < 2:
        message = f"fewer than two groups of {gate.gap} could be judged{rest}"
        return Part(outcome=Outcome.INCONCLUSIVE, message=message, details=details)
    values = {name: float(groups[name]["value"]) for name in judged}
    found = gap_between(values, drawn(metric, this, judged, rows), float(gate.max or 0), rows)
    details |= {"pair": list(found.pair), "value": found.between.value, "method": found.between.method}
    details |= {"low": found.between.low, "high": found.between.high, **said_by(found.decision)}
    message = f"{shown(found.between)} between {found.pair[0]} and {found.pair[1]}"
    message += undecided(found.decision, found.between, rows.design.rows) + rest
    return Part(outcome=found.decision.outcome, message=message, details=details)


def drawn(metric: Metric, this: Measured, groups: dict[str, Array], rows: Rows) -> Array:
    """The metric of each group in each draw of all rows, ``(replicates, groups)``; without draws that lack a group."""
    if metric.values is None:
        return np.empty((0, len(groups)))
    parts = [(mask, this.predictions.take(mask)) for mask in groups.values()]
    found = [
        np.stack([metric.values(p, weights[:, mask]) for mask, p in parts], axis=1)
        for weights in draws(rows.design, rows.settings)
    ]
    values = np.concatenate(found)
    return np.asarray(values[np.isfinite(values).all(axis=1)])


def gap_between(values: dict[str, float], replicates: Array, limit: float, rows: Rows) -> Gap:
    """The largest gap among ``values``; ``replicates`` as :func:`drawn` gives them."""
    names, points = list(values), np.asarray(list(values.values()))
    first, second = (np.asarray(side) for side in zip(*itertools.combinations(range(len(names)), 2), strict=True))
    apart = points[first] - points[second]
    most = int(np.argmax(np.abs(apart)))
    pair, value = (names[first[most]], names[second[most]]), float(abs(apart[most]))
    if len(replicates) < rows.settings.replicates / 2:
        undefined = Decision(outcome=Outcome.INCONCLUSIVE)
        return Gap(between=Estimate(value=value, method="undefined"), pair=pair, decision=undefined)
    # The side on which a pair's difference lies is the side that can exceed the limit.
    sign = np.where(apart < 0, -1.0, 1.0)
    moved = (replicates[:, first] - replicates[:, second]) * sign
    size, spread = np.abs(apart), moved.std(axis=0, ddof=1)
    scale = np.where(spread > 0, spread, np.inf)
    largest = (np.abs(moved - size) / scale).max(axis=1)
    reach = float(np.quantile(largest, rows.settings.confidence)) * spread
    between = Estimate(
        value=value,
        low=max(0.0, float((size - reach).max())),
        high=float((size + reach).max()),
        standard_error=float(spread[most]),
        method=METHOD,
    )
    return Gap(between=between, pair=pair, decision=_decided((size, spread, moved), largest, limit, rows))


def _decided(pairs: tuple[Array, Array, Array], largest: Array, limit: float, rows: Rows) -> Decision:
    size, spread, moved = pairs
    alpha, count = 1 - rows.settings.confidence, len(moved) + 1
    # Both directions of each pair have to be below the limit; the p-value is that of the worst.
    above = np.maximum((moved > limit).sum(axis=0), (-moved > limit).sum(axis=0))
    p_pass = float((above.max() + 1) / count)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(spread > 0, (size - limit) / spread, np.where(size > limit, np.inf, -np.inf))
    p_fail = float(((largest >= excess.max()).sum() + 1) / count)
    if p_fail <= alpha and p_fail < p_pass:
        return Decision(outcome=Outcome.FAIL, p_pass=p_pass, p_fail=p_fail)
    if p_pass <= alpha:
        return Decision(outcome=Outcome.PASS, p_pass=p_pass, p_fail=p_fail)
    most = int(np.argmax(size + spread))
    bounds = tuple(float(b) for b in np.quantile(moved[:, most], [alpha, 1 - alpha]))
    needed = rows_needed(float(size[most]), (bounds[0], bounds[1]), rows.design.rows, (None, limit), 1 - alpha)
    return Decision(outcome=Outcome.INCONCLUSIVE, p_pass=p_pass, p_fail=p_fail, rows_needed=needed)
