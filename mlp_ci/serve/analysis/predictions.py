"""The distribution of the predictions, against that of the stable version, two-sided.

Numbers are compared by the Kolmogorov-Smirnov distance, the largest difference of the shares up to some value;
categories by the total variation, the largest difference of the shares of some set of them. Both are a maximum over
sets of bins, and each set is a test of two shares (see ``evidence``); the evidence is averaged over the sets.

A new version never predicts quite the same, so the null hypothesis is not equality: a distance up to half of the margin
is harmless.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.serve.analysis import intervals, samples
from mlp_ci.serve.analysis.errors import no_traffic
from mlp_ci.serve.analysis.evidence import Array, Table, log_evidence, pooled
from mlp_ci.serve.analysis.level import Level, rounded
from mlp_ci.serve.analysis.verdict import Judged, Need, Verdict
from mlp_ci.serve.measured import value_of_bin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.serve.measured import Seen
    from mlp_ci.serve.rollout.progress import Stratum
    from mlp_ci.spec.serve import Check

HARMLESS = 0.5  # of the margin
SETS = 40  # values up to which numbers are compared, at most
CATEGORIES = 7  # that are told apart, the rarest together; 63 sets of them, and as many complements
EDGE = 1e-4  # shares of alternatives stay so far from 0 and 1


def judge(check: Check, strata: Sequence[Stratum], level: Level) -> Judged:
    """What the rows of all steps say, and whether those of the last are enough."""
    margin = float(check.max_distance or 0)
    sets = sets_of([s.stable.predictions for s in strata] + [s.canary.predictions for s in strata])
    tables = [table_of(s.stable, s.canary, sets) for s in strata]
    now, used = tables[-1], [t for t in tables if t.both]
    rows = int(now.canary_rows)
    judged = Judged(metric=check.metric, verdict=Verdict.INSUFFICIENT, reason=no_traffic(now), margin=margin, seen=rows)
    if not used:
        return judged
    if not len(sets.members):
        return replace(judged, reason="every prediction is the same: nothing to compare yet")
    effect, low, high = distance(used, margin, level.alpha)
    needed = _needed(margin, float(now.stable_rows / now.canary_rows) if rows else 1.0, 2 * len(sets.members), level)
    judged = replace(judged, effect=effect, low=low, high=high, needed=needed)
    said = f"a {sets.distance} distance of {effect:.2g}"
    if evidence(used, margin) >= math.log(1 / level.alpha):
        reason = f"{said} between the versions' predictions ({sets.where(used)}), {margin:.2g} is allowed"
        return judged.failed(reason, HARMLESS * margin)
    if not now.both:
        return judged
    if len(used) > 1 and evidence([now], margin) >= math.log(1 / level.alpha):
        return judged.begun(said)
    highest = distance([now], margin, level.alpha)[2]
    proven = highest < margin and rows >= samples.LEAST
    ruled_out = f"in this step at most {highest:.2g}, under {margin:.2g}" if proven else ""
    return judged.ended(said, ruled_out, f"{margin:.2g}", "predictions")


def need(check: Check, stable: Seen, others: float, level: Level) -> Need:
    """Predictions of the canary, when ``others`` of the stable version come with each."""
    margin = float(check.max_distance or 0)
    sets = 2 * max(1, len(sets_of([stable.predictions]).members)) if stable.predictions else 2 * SETS
    why = f"predictions that are {margin:.2g} apart"
    return Need(metric=check.metric, requests=_needed(margin, others, sets, level), why=why, unit="predictions")


class Sets:
    """The sets of bins that are looked at: ``members`` of shape (sets, bins), 1 where a bin is in the set."""

    def __init__(self, names: Sequence[Sequence[str]], members: np.ndarray, *, ordered: bool) -> None:
        self.names, self.members, self.ordered = names, members, ordered
        self.distance = "Kolmogorov-Smirnov" if ordered else "total variation"
        self._at = {name: index for index, group in enumerate(names) for name in group}

    def counts(self, predictions: Mapping[str, int]) -> np.ndarray:
        """Rows by bin."""
        found = np.zeros(len(self.names))
        for name, count in predictions.items():
            found[self._at[name]] += max(count, 0)
        return found

    def where(self, tables: Sequence[Table]) -> str:
        """The set in which the versions differ most, and how."""
        canary, stable = intervals.standardised(tables)
        at = int(np.argmax(np.abs(canary - stable)))
        inside = [self.names[i] for i in np.flatnonzero(self.members[at]).tolist()]
        what = (
            f"up to {_value(inside[-1][-1])}"
            if self.ordered
            else "of " + ", ".join(_value(n) for g in inside for n in g[:3])
        )
        return f"{100 * canary[at]:.3g} % {what}, before {100 * stable[at]:.3g} %"


def sets_of(all_counts: Sequence[Mapping[str, int]]) -> Sets:
    """Half-lines of numbers, or all sets of categories, chosen by what both versions predicted together."""
    total: dict[str, int] = {}
    for counts in all_counts:
        for name, count in counts.items():
            total[name] = total.get(name, 0) + max(count, 0)
    rows = sum(total.values())
    if all(_is_number(name) for name in total):
        names = _merged(sorted(total, key=_order), total, rows / (SETS + 1))
        return Sets(names, np.tri(len(names), dtype=float)[:-1], ordered=True)
    common = sorted(total, key=lambda name: (-total[name], name))
    groups = [[name] for name in common[: CATEGORIES - 1]]
    groups += [common[CATEGORIES - 1 :]] if len(common) >= CATEGORIES else []
    return Sets(groups, _subsets(len(groups)), ordered=False)


def evidence(tables: Sequence[Table], margin: float) -> Array:
    """The logarithm of the e-process for a distance of ``margin`` somewhere, in either direction."""
    both = [Table(*_both_ways(t)) for t in tables]
    rate, share = pooled(both)
    stable = np.clip(rate - margin * share, EDGE, 1 - EDGE)
    canary = np.clip(stable + margin, EDGE, 1 - EDGE)
    impossible = canary - stable < 0.9 * margin  # a set that nearly all rows are in cannot gain so much
    stable = np.where(impossible, (1 - margin) / 2, stable)
    canary = np.where(impossible, stable + margin, canary)
    return log_evidence(both, (stable, canary), np.full(len(stable), 1 / len(stable)), HARMLESS * margin)


def distance(tables: Sequence[Table], margin: float, alpha: float) -> tuple[float, float, float]:
    """The distance with its bounds.

    It is the difference of one of the sets, whichever: so the largest upper bound of all, each at alpha, bounds it. A
    lower bound, that of the set in which they differ most, must hold for each that it may have been: alpha is shared.
    """
    found, low, high = intervals.of_difference(tables, margin, alpha / 2, EDGE)
    farthest = np.maximum(np.abs(low), np.abs(high))
    most = int(np.argmax(np.abs(found)))
    one = [Table(t.stable_hits[most], t.stable_rows, t.canary_hits[most], t.canary_rows) for t in tables]
    _, low, high = intervals.of_difference(one, margin, alpha / 2 / len(found), EDGE)
    nearest = 0.0 if low <= 0 <= high else min(abs(float(low)), abs(float(high)))
    return float(np.abs(found[most])), nearest, float(min(1.0, np.max(farthest)))


def table_of(stable: Seen, canary: Seen, sets: Sets) -> Table:
    old, new = (sets.counts(s.predictions) * _weight(s) for s in (stable, canary))
    return Table(sets.members @ old, float(old.sum()), sets.members @ new, float(new.sum()))


def _weight(seen: Seen) -> float:
    """Rows of one request are not independent: together they count for one."""
    rows = sum(max(c, 0) for c in seen.predictions.values())
    return min(1.0, seen.requests / rows) if rows else 1.0


def _needed(margin: float, others: float, tests: int, level: Level) -> int | None:
    """At the middle of the distribution, where a difference is hardest to see."""
    drift_of = samples.of_shares_apart(0.5 - margin / 2, margin, HARMLESS * margin, rounded(others))
    found = samples.first_passage(*drift_of, samples.barrier_of(level.alpha, 1 / tests), level.power)
    return None if found is None else max(samples.LEAST, math.ceil(found))


def _both_ways(table: Table) -> tuple[Array, Array, Array, Array]:
    """Each set and its complement, along the first axis."""
    old, new = table.stable_hits, table.canary_hits
    return (
        np.concatenate([old, table.stable_rows - old]),
        table.stable_rows,
        np.concatenate([new, table.canary_rows - new]),
        table.canary_rows,
    )


def _merged(names: Sequence[str], total: Mapping[str, int], least: float) -> list[list[str]]:
    """Neighbours together, until each bin has about ``least`` rows."""
    groups: list[list[str]] = []
    inside = math.inf
    for name in names:
        if inside + total[name] / 2 > least:
            groups.append([])
            inside = 0.0
        groups[-1].append(name)
        inside += total[name]
    return groups


def _subsets(count: int) -> np.ndarray:
    """One of each pair of a set and its complement; the last category is in none."""
    chosen = [c for size in range(1, count) for c in combinations(range(count - 1), size)]
    found = np.zeros((len(chosen), count))
    for row, members in enumerate(chosen):
        found[row, list(members)] = 1
    return found


_MISSING = ("nan", "none")  # numbers that a model did not give: at the end of the order, and of a size of their own


def _is_number(name: str) -> bool:
    return name in _MISSING or (name[:1] in ("p", "q", "n") and name[1:].isdigit())


def _order(name: str) -> tuple[int, str]:
    return (1, name) if name in _MISSING else (0, name)


def _value(name: str) -> str:
    """About the upper end of a bin of numbers, or the category."""
    value = value_of_bin(name)
    if value is None:
        return name.removeprefix("=")[:40]
    return f"{value + 0.005:.2g}" if name.startswith("p") else f"{value:.3g}".replace("-", "−")
