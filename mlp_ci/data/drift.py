"""Drift between two profiles: statistics, and the decision. Pure functions of counts; no data is touched.

A column has drifted only when three things hold: there are enough rows, the difference is more than chance (after
correcting for having looked at many columns), and it is large enough to matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mlp_ci.data.profile import CategoryProfile, ColumnProfile, NumberProfile, Profile
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.spec.model import Drift

# PSI grows with the number of groups by about (groups - 1)(1/n + 1/m) where nothing drifted (Yurdakul 2018), so
# few groups are used; ten is what its usual thresholds (0.1, 0.2, 0.25) were made for.
PSI_GROUPS = 10
CATEGORY_GROUPS = 20
# Half an observation in every group (Jeffreys' prior): PSI stays finite for a group that one side lacks.
SMOOTHING = 0.5
FEWEST_EXPECTED = 5.0
ALPHA = 0.01


class Decision(StrEnum):
    """What is said about one column."""

    DRIFTED = "drifted"
    STABLE = "stable"
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True, kw_only=True)
class ColumnDrift:
    """Everything that led to the decision about one column.

    ``statistic`` is the KS distance for numbers and the Jensen-Shannon divergence (base 2) for categories, both in
    0…1. ``p_value`` is that of the column's own test, ``p_adjusted`` after correcting for the number of columns.
    """

    column: str
    kind: str
    decision: Decision
    psi: float
    test: str
    statistic: float
    p_value: float
    p_adjusted: float
    rows_then: int
    rows_now: int
    nulls_then: float
    nulls_now: float
    reason: str


def compare(reference: Profile, current: Profile, spec: Drift, *, alpha: float = ALPHA) -> list[ColumnDrift]:
    """Drift of every column that both profiles hold, the worst first.

    ``alpha`` bounds the chance that anything is called drifted when nothing is (Benjamini-Hochberg over the columns
    with enough rows). Raises InputError when the profiles do not have the same bins.
    """
    names = [name for name in reference.columns if name in current.columns]
    measured = [_measure(name, reference.columns[name], current.columns[name]) for name in names]
    enough = [min(m.rows_then, m.rows_now) >= spec.min_rows for m in measured]
    corrected = iter(benjamini_hochberg([m.p_value for m, ok in zip(measured, enough, strict=True) if ok]))
    decided = [_decide(m, next(corrected) if ok else 1.0, spec, alpha) for m, ok in zip(measured, enough, strict=True)]
    order = {Decision.DRIFTED: 0, Decision.STABLE: 1, Decision.INSUFFICIENT: 2}
    return sorted(decided, key=lambda d: (order[d.decision], -d.psi, d.column))


@dataclass(frozen=True, kw_only=True)
class _Measured:
    column: str
    kind: str
    psi: float
    test: str
    statistic: float
    p_value: float
    rows_then: int
    rows_now: int
    nulls_then: float
    nulls_now: float


def _decide(m: _Measured, p_adjusted: float, spec: Drift, alpha: float) -> ColumnDrift:
    fewest = min(m.rows_then, m.rows_now)
    if fewest < spec.min_rows:
        decision = Decision.INSUFFICIENT
        reason = f"{fewest:,} rows, {spec.min_rows:,} are needed to decide"
    elif p_adjusted > alpha:
        decision, reason = Decision.STABLE, "the difference may be chance"
    elif m.psi < spec.psi:
        decision = Decision.STABLE
        reason = f"small: PSI {m.psi:.3f} is below {spec.psi:g}"
    else:
        decision = Decision.DRIFTED
        reason = f"large: PSI {m.psi:.3f} is at least {spec.psi:g}; not chance: p {show_p(p_adjusted)}"
    return ColumnDrift(
        column=m.column,
        kind=m.kind,
        decision=decision,
        psi=m.psi,
        test=m.test,
        statistic=m.statistic,
        p_value=m.p_value,
        p_adjusted=p_adjusted,
        rows_then=m.rows_then,
        rows_now=m.rows_now,
        nulls_then=m.nulls_then,
        nulls_now=m.nulls_now,
        reason=reason,
    )


def _measure(name: str, then: ColumnProfile, now: ColumnProfile) -> _Measured:
    nulls = (then.nulls, now.nulls)
    if isinstance(then, NumberProfile) and isinstance(now, NumberProfile) and then.edges == now.edges:
        groups = grouped(then.counts, now.counts, PSI_GROUPS)
        statistic, p_value = kolmogorov_smirnov(then.counts, now.counts)
        test = "KS"
    elif isinstance(then, CategoryProfile) and isinstance(now, CategoryProfile):
        every = category_counts(then, now)
        groups = largest(*every, CATEGORY_GROUPS)
        statistic, p_value = jensen_shannon(*every), chi_square(*every)
        test = "chi-square"
    else:
        msg = f"the profiles of {name} cannot be compared: they have different bins"
        raise InputError(msg, fix="profile both against the same reference, or register the version again")
    if any(nulls):
        # Missing values are a group of their own for PSI, and a second test, paid for by doubling the smaller p.
        groups = ([*groups[0], nulls[0]], [*groups[1], nulls[1]])
        p_value = min(1.0, 2 * min(p_value, chi_square((then.count, nulls[0]), (now.count, nulls[1]))))
    rows_then, rows_now = then.count + nulls[0], now.count + nulls[1]
    return _Measured(
        column=name,
        kind=then.kind,
        psi=population_stability_index(*groups),
        test=test,
        statistic=statistic,
        p_value=p_value,
        rows_then=rows_then,
        rows_now=rows_now,
        nulls_then=nulls[0] / rows_then if rows_then else 0.0,
        nulls_now=nulls[1] / rows_now if rows_now else 0.0,
    )


# ---------------------------------------------------------------- grouping


def grouped(then: Sequence[int], now: Sequence[int], groups: int) -> tuple[list[int], list[int]]:
    """Neighbouring bins joined until each holds about 1/groups of the reference; at most ``groups`` of them."""
    total = sum(then)
    joined_then, joined_now = [0], [0]
    for a, b in zip(then, now, strict=True):
        if total and joined_then[-1] * groups >= total and len(joined_then) < groups:
            joined_then.append(0)
            joined_now.append(0)
        joined_then[-1] += a
        joined_now[-1] += b
    if len(joined_then) > 1 and joined_then[-1] * 2 * groups < total:
        # A remainder with less than half a share would count for more than it is.
        joined_then[-2:] = [sum(joined_then[-2:])]
        joined_now[-2:] = [sum(joined_now[-2:])]
    return joined_then, joined_now


def category_counts(then: CategoryProfile, now: CategoryProfile) -> tuple[list[int], list[int]]:
    """Counts of the reference's categories on both sides, and of everything else as one more."""
    names = list(then.counts)
    known = [now.counts.get(n, 0) for n in names]
    return [*then.counts.values(), then.other], [*known, now.count - sum(known)]


def largest(then: Sequence[int], now: Sequence[int], groups: int) -> tuple[list[int], list[int]]:
    """The groups with the most rows on either side; the rest as one more."""
    a, b = max(1, sum(then)), max(1, sum(now))
    order = sorted(range(len(then)), key=lambda i: -max(then[i] / a, now[i] / b))
    keep, rest = order[: groups - 1], order[groups - 1 :]
    return [*(then[i] for i in keep), sum(then[i] for i in rest)], [*(now[i] for i in keep), sum(now[i] for i in rest)]


# ---------------------------------------------------------------- statistics


def population_stability_index(then: Sequence[int], now: Sequence[int]) -> float:
    """PSI = Σ (q - p) ln(q / p) over groups with shares p then and q now (Siddiqi 2006, Credit Risk Scorecards).

    Half an observation is added to every group that either side has; 0 when a side has no rows.
    """
    pairs = [(a, b) for a, b in zip(then, now, strict=True) if a or b]
    if not sum(a for a, _ in pairs) or not sum(b for _, b in pairs):
        return 0.0
    total_then = sum(a + SMOOTHING for a, _ in pairs)
    total_now = sum(b + SMOOTHING for _, b in pairs)
    shares = [((a + SMOOTHING) / total_then, (b + SMOOTHING) / total_now) for a, b in pairs]
    return max(0.0, sum((q - p) * math.log(q / p) for p, q in shares))


def kolmogorov_smirnov(then: Sequence[int], now: Sequence[int]) -> tuple[float, float]:
    """Two-sample KS distance between binned counts, and its asymptotic p-value.

    The distance is that of the samples at the edges of the bins, so at most one bin's mass below the true one. The
    p-value is Kolmogorov's distribution with Stephens' (1970) correction for finite samples; ties make it larger.
    """
    n, m = sum(then), sum(now)
    if not n or not m:
        return 0.0, 1.0
    distance, a, b = 0.0, 0, 0
    for x, y in zip(then, now, strict=True):
        a, b = a + x, b + y
        distance = max(distance, abs(a / n - b / m))
    root = math.sqrt(n * m / (n + m))
    return distance, kolmogorov_tail((root + 0.12 + 0.11 / root) * distance)


def kolmogorov_tail(x: float) -> float:
    """P(K > x) of Kolmogorov's distribution: 2 Σ (-1)^(k-1) exp(-2 k² x²), for small x by its theta transform."""
    if x < 1e-9:
        return 1.0
    if x < 1.0:
        scale = math.sqrt(2 * math.pi) / x
        below = scale * sum(math.exp(-((2 * k - 1) ** 2) * math.pi**2 / (8 * x * x)) for k in range(1, 6))
        return min(1.0, max(0.0, 1.0 - below))
    return min(1.0, max(0.0, 2 * sum((1 if k % 2 else -1) * math.exp(-2 * k * k * x * x) for k in range(1, 8))))


def chi_square(then: Sequence[int], now: Sequence[int]) -> float:
    """p-value of Pearson's chi-square test that two rows of counts come from one distribution.

    Groups with an expected count under five are joined first (Cochran 1954), as the approximation needs.
    """
    n, m = sum(then), sum(now)
    if not n or not m:
        return 1.0
    smaller = min(n, m) / (n + m)
    kept = [(a, b) for a, b in zip(then, now, strict=True) if (a + b) * smaller >= FEWEST_EXPECTED]
    rest = (n - sum(a for a, _ in kept), m - sum(b for _, b in kept))
    rest_rows = rest[0] + rest[1]
    if rest_rows * smaller >= FEWEST_EXPECTED or (rest_rows and not kept):
        kept.append(rest)
    elif rest_rows:
        least = min(range(len(kept)), key=lambda i: sum(kept[i]))
        kept[least] = (kept[least][0] + rest[0], kept[least][1] + rest[1])
    if len(kept) < 2:
        return 1.0
    statistic = 0.0
    for a, b in kept:
        expected_then, expected_now = (a + b) * n / (n + m), (a + b) * m / (n + m)
        statistic += (a - expected_then) ** 2 / expected_then + (b - expected_now) ** 2 / expected_now
    return upper_gamma((len(kept) - 1) / 2, statistic / 2)


def upper_gamma(a: float, x: float) -> float:
    """The regularised upper incomplete gamma function Q(a, x); the tail of chi-square is Q(df / 2, x / 2).

    Series below a + 1, Lentz's continued fraction above (Press et al., Numerical Recipes, 6.2).
    """
    if x <= 0:
        return 1.0
    factor = math.exp(-x + a * math.log(x) - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        k = a
        while abs(term) > abs(total) * 1e-15:
            k += 1
            term *= x / k
            total += term
        return min(1.0, max(0.0, 1.0 - total * factor))
    tiny = 1e-300
    b = x + 1 - a
    c = 1 / tiny
    d = 1 / b
    h = d
    for i in range(1, 10_000):
        numerator = -i * (i - a)
        b += 2
        d = 1 / ((numerator * d + b) or tiny)
        c = (b + numerator / c) or tiny
        change = d * c
        h *= change
        if abs(change - 1) < 1e-15:
            break
    return min(1.0, max(0.0, factor * h))


def jensen_shannon(then: Sequence[int], now: Sequence[int]) -> float:
    """Jensen-Shannon divergence of two rows of counts, base 2, 0…1 (Lin 1991); 0 when a side has no rows."""
    n, m = sum(then), sum(now)
    if not n or not m:
        return 0.0
    total = 0.0
    for a, b in zip(then, now, strict=True):
        p, q = a / n, b / m
        middle = (p + q) / 2
        total += (p * math.log2(p / middle) if p else 0.0) + (q * math.log2(q / middle) if q else 0.0)
    return min(1.0, max(0.0, total / 2))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that a bound on them bounds the false discovery rate (Benjamini & Hochberg 1995)."""
    count = len(p_values)
    adjusted = [1.0] * count
    running = 1.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: -p_values[i])):
        running = min(running, p_values[index] * count / (count - rank))
        adjusted[index] = running
    return adjusted


def show_p(p_value: float) -> str:
    """A p-value for people."""
    if p_value < 1e-6:
        return "< 1e-6"
    return f"{p_value:.2g}" if p_value < 0.01 else f"{p_value:.2f}"
