"""How far two shapes of one column lie apart. Pure functions of counts; docs/reference/statistics.md has the formulas.

Every function takes the reference first. Shares are p (then) and q (now); both sides must have the same bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.data.profiles.shapes import ColumnProfile, NumberProfile, TextProfile
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Half an observation of the smaller side in every group that either side has (Jeffreys' prior): logarithms stay finite.
# The same share on both sides: the same count would make a rare group look different wherever the sizes differ.
SMOOTHING = 0.5
FEWEST_EXPECTED = 5.0
Counts = Sequence[int] | Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Distances:
    """The statistics of one column; None where one makes no sense for its kind.

    ``ks`` and ``wasserstein`` are of numbers only, the latter in the column's own unit; ``js`` is in base 2, 0…1;
    ``kl`` in nats; ``chi_square`` is a p-value.
    """

    psi: float
    kl: float
    js: float
    hellinger: float
    chi_square: float
    ks: float | None = None
    ks_p: float | None = None
    wasserstein: float | None = None


def distances(then: ColumnProfile, now: ColumnProfile, groups: tuple[Counts, Counts]) -> Distances:
    """All statistics of a column. ``groups`` are the counts that PSI, KL, JS, Hellinger and chi-square look at.

    KS and Wasserstein use every bin. Raises InputError when the two cannot be compared.
    """
    a, b = groups
    whole = None
    if isinstance(then, TextProfile) and isinstance(now, TextProfile):
        then, now = then.length, now.length
    if isinstance(then, NumberProfile) and isinstance(now, NumberProfile):
        require_same_bins(then, now)
        whole = kolmogorov_smirnov(then.counts, now.counts)
    return Distances(
        psi=population_stability_index(a, b),
        kl=kullback_leibler(a, b),
        js=jensen_shannon(a, b),
        hellinger=hellinger(a, b),
        chi_square=chi_square(a, b),
        ks=whole[0] if whole else None,
        ks_p=whole[1] if whole else None,
        wasserstein=wasserstein(then, now)
        if isinstance(then, NumberProfile) and isinstance(now, NumberProfile)
        else None,
    )


def psi(then: ColumnProfile, now: ColumnProfile) -> float:
    """The population stability index of a column, over the groups that drift is decided on."""
    from mlp_ci.data.profiles.groups import groups_of

    groups = groups_of(then)
    return population_stability_index(groups.count(then), groups.count(now))


def require_same_bins(then: NumberProfile, now: NumberProfile) -> None:
    """Raise InputError when two profiles of numbers were counted in different bins."""
    if then.edges != now.edges:
        msg = "the profiles cannot be compared: they have different bins"
        raise InputError(msg, fix="profile both against the same reference, or register the version again")


def _shares(then: Counts, now: Counts) -> tuple[Array, Array] | None:
    a, b = np.asarray(then, dtype=float), np.asarray(now, dtype=float)
    if not a.sum() or not b.sum():
        return None
    return a / a.sum(), b / b.sum()


def _smoothed(then: Counts, now: Counts) -> tuple[Array, Array] | None:
    a, b = np.asarray(then, dtype=float), np.asarray(now, dtype=float)
    if not a.sum() or not b.sum():
        return None
    there = (a > 0) | (b > 0)
    added = SMOOTHING / min(a.sum(), b.sum())
    p, q = a[there] / a.sum() + added, b[there] / b.sum() + added
    return p / p.sum(), q / q.sum()


def population_stability_index(then: Counts, now: Counts) -> float:
    """PSI = Σ (q - p) ln(q / p) (Siddiqi 2006, Credit Risk Scorecards); 0 when a side has no rows.

    Half an observation of the smaller side, as a share, is added on both sides to every group that either side has.
    PSI = KL(p‖q) + KL(q‖p).
    """
    return float(stability_indices(np.asarray([then], dtype=float), np.asarray([now], dtype=float))[0])


def stability_indices(then: Array, now: Array) -> Array:
    """PSI of many columns at once: both sides are columns × groups, padded with zeros."""
    there = (then > 0) | (now > 0)
    n, m = then.sum(axis=1, keepdims=True), now.sum(axis=1, keepdims=True)
    filled = (n > 0) & (m > 0)
    added = np.where(there, SMOOTHING / np.maximum(np.minimum(n, m), 1.0), 0.0)
    whole = 1.0 + added.sum(axis=1, keepdims=True)
    p, q = (then / np.maximum(n, 1.0) + added) / whole, (now / np.maximum(m, 1.0) + added) / whole
    counted = there & filled
    terms = (q - p) * np.log(np.divide(q, p, out=np.ones_like(p), where=counted), where=counted, out=np.zeros_like(p))
    indices: Array = np.maximum(0.0, terms.sum(axis=1))
    return indices


def kullback_leibler(then: Counts, now: Counts) -> float:
    """KL(q‖p) = Σ q ln(q / p) in nats: what is lost by taking the new data for the old (Kullback & Leibler 1951).

    Smoothed as PSI is; 0 when a side has no rows.
    """
    shares = _smoothed(then, now)
    if shares is None:
        return 0.0
    p, q = shares
    return max(0.0, float(np.sum(q * np.log(q / p))))


def jensen_shannon(then: Counts, now: Counts) -> float:
    """Jensen-Shannon divergence in base 2, 0…1: the mean KL divergence from the middle of both (Lin 1991)."""
    shares = _shares(then, now)
    if shares is None:
        return 0.0
    total = 0.0
    middle = (shares[0] + shares[1]) / 2
    for side in shares:
        there = side > 0
        total += float(np.sum(side[there] * np.log2(side[there] / middle[there])))
    return min(1.0, max(0.0, total / 2))


def hellinger(then: Counts, now: Counts) -> float:
    """Hellinger distance √(½ Σ (√p - √q)²), 0…1 (Hellinger 1909)."""
    shares = _shares(then, now)
    if shares is None:
        return 0.0
    p, q = shares
    return min(1.0, float(np.sqrt(np.sum((np.sqrt(p) - np.sqrt(q)) ** 2) / 2)))


def kolmogorov_smirnov(then: Counts, now: Counts) -> tuple[float, float]:
    """Two-sample KS distance between binned counts, and its asymptotic p-value.

    The distance is that of the samples at the edges of the bins: never above the true one, and below it by at most the
    largest share that either side has in one bin. The p-value is Kolmogorov's distribution with Stephens' (1970)
    correction for finite samples; ties make it larger.
    """
    from scipy.special import kolmogorov

    shares = _shares(then, now)
    if shares is None:
        return 0.0, 1.0
    distance = min(1.0, float(np.max(np.abs(np.cumsum(shares[0]) - np.cumsum(shares[1])))))
    n, m = float(np.sum(then)), float(np.sum(now))
    root = float(np.sqrt(n * m / (n + m)))
    return distance, float(kolmogorov((root + 0.12 + 0.11 / root) * distance))


def wasserstein(then: NumberProfile, now: NumberProfile) -> float | None:
    """Wasserstein-1 distance ∫ |F - G| dx in the unit of the column (Kantorovich 1942); None without values.

    Values are spread evenly inside their bin, so each side is misplaced by at most half the mean width of the bins that
    its values lie in. Where the mean says that they lie nearer to the upper edges of their bins, as few distinct
    values do, they are put there.
    """
    if not then.count or not now.count or then.smallest is None or now.smallest is None:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        xs, left = _cumulative(then)
        ys, right = _cumulative(now)
        points = np.unique(np.concatenate([xs, ys]))
        gap = np.interp(points, xs, left, left=0, right=1) - np.interp(points, ys, right, left=0, right=1)
        widths = np.diff(points)
        a, b = np.abs(gap[:-1]), np.abs(gap[1:])
        # Where the difference changes sign inside a step, two triangles stand for one trapezium.
        crossed = gap[:-1] * gap[1:] < 0
        areas = np.where(crossed, (a**2 + b**2) / np.where(crossed, a + b, 1.0), a + b) / 2
        distance = float(np.sum(areas * widths))
    return distance if np.isfinite(distance) else None


def _cumulative(profile: NumberProfile) -> tuple[Array, Array]:
    """Points and the share of values at or below each; a jump where the edges are the values themselves."""
    low, high = float(profile.smallest or 0.0), float(profile.largest or 0.0)
    jumps = _at_edges(profile, low, high)
    xs, shares, below = [low], [0.0], 0
    for edge, count in zip((*profile.edges, high), profile.counts, strict=True):
        if not count:
            if low < edge < high:
                xs.append(edge)
                shares.append(below / profile.count)
            continue
        if jumps:
            xs.append(min(max(edge, low), high))
            shares.append(below / profile.count)
        below += count
        xs.append(min(max(edge, low), high))
        shares.append(below / profile.count)
    points, values = np.asarray(xs), np.asarray(shares)
    # The same point twice is a jump; interpolation needs rising points, so the jump is a step as narrow as can be.
    for i in range(1, points.size):
        if points[i] <= points[i - 1]:
            points[i] = np.nextafter(points[i - 1], np.inf)
    return points, values


def _at_edges(profile: NumberProfile, low: float, high: float) -> bool:
    """Whether the values lie at the upper edges of their bins rather than all over them.

    No value lies above the upper edge of its bin, so moving all of them there displaces them, on average, by exactly
    as much as it raises the mean. Spreading them evenly lowers the mean raised so by half a mean width; where less than
    half of that is needed, it displaces them more.
    """
    if profile.mean is None:
        return False
    edges = np.clip(np.asarray((*profile.edges, high)), low, high)
    shares = np.asarray(profile.counts, dtype=float) / profile.count
    widths = np.diff(edges, prepend=low)
    return bool(float(shares @ edges) - profile.mean <= float(shares @ widths) / 4)


def chi_square(then: Counts, now: Counts) -> float:
    """p-value of Pearson's chi-square test that two rows of counts come from one distribution (Pearson 1900).

    Groups with an expected count under five are joined first (Cochran 1954), as the approximation needs.
    """
    from scipy.special import chdtrc

    table = np.asarray([then, now], dtype=float)
    if not table.sum(axis=1).all():
        return 1.0
    table = _joined(table)
    if table.shape[1] < 2:
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float(np.sum((table - expected) ** 2 / expected))
    return float(chdtrc(table.shape[1] - 1, statistic))


def _joined(table: Any) -> Any:
    """The table with its rare groups as one; that joined to the smallest group where it is still too rare."""
    smaller = table.sum(axis=1).min() / table.sum()
    rare = table.sum(axis=0) * smaller < FEWEST_EXPECTED
    if not rare.any():
        return table
    kept, rest = table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)
    if rest.sum() * smaller >= FEWEST_EXPECTED or not kept.size:
        return np.hstack([kept, rest])
    kept[:, [int(np.argmin(kept.sum(axis=0)))]] += rest
    return kept


def benjamini_hochberg(p_values: Counts) -> list[float]:
    """p-values adjusted so that a bound on them bounds the false discovery rate (Benjamini & Hochberg 1995)."""
    p = np.asarray(p_values, dtype=float)
    if not p.size:
        return []
    order = np.argsort(-p, kind="stable")
    ranks = np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum.accumulate(p[order] * p.size / ranks)
    return [min(1.0, float(value)) for value in adjusted]


def show_p(p_value: float) -> str:
    """A p-value for people."""
    if p_value < 1e-6:
        return "< 1e-6"
    return f"{p_value:.2g}" if p_value < 0.01 else f"{p_value:.2f}"
