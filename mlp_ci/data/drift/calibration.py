"""What differs where nothing has drifted: windows of the reference itself, against the rest of it.

Rows of live data are not independent: hours, weekdays and weather move all of them together. How much is measured, not
assumed. The reference is cut into windows as long as those that will be judged; how far they lie from the whole, beyond
what their size explains, is the variation between windows. It enters the test as a second component of variance, in the
manner of Rao and Scott's (1981, 1984) correction of chi-square tests for clustered samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.data.profiles.groups import Groups
from mlp_ci.data.profiles.shapes import finite_number, natural
from mlp_ci.data.profiles.statistics import SMOOTHING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# A window of the reference with fewer rows says more about its size than about time.
FEWEST_ROWS = 30
# A variance estimated from fewer windows is not known well enough to be taken off or added.
FEWEST_WINDOWS = 4
# How many windows are judged together: one alone, and longer stretches for changes that are small but stay.
SCALES = (1, 2, 4, 8)
# From fewer stretches of a length their variation is carried over from the half of that length.
FEWEST_STRETCHES = 8


@dataclass(frozen=True, kw_only=True)
class Series:
    """One column in the windows of the reference: ``counts[w][g]`` rows of window w lie in group g.

    ``run`` windows follow each other without a gap, then the next run begins.
    """

    groups: Groups
    counts: tuple[tuple[int, ...], ...]
    run: int = 1

    def together(self, windows: int) -> list[tuple[int, ...]]:
        """The counts of so many neighbouring windows added up."""
        table = np.asarray(self.counts, dtype=int).reshape(-1, self.groups.size)
        found = []
        for start in range(0, len(table), self.run):
            run = table[start : start + self.run]
            whole = run[: len(run) // windows * windows].reshape(-1, windows, self.groups.size).sum(axis=1)
            found += [tuple(int(n) for n in row) for row in whole]
        return found


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The windows of the reference. ``seconds`` is how long each is, None where the data has no time."""

    seconds: float | None
    columns: Mapping[str, Series]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_json` reads them back."""
        columns = {
            name: {"groups": series.groups.to_json(), "run": series.run, "counts": [list(c) for c in series.counts]}
            for name, series in self.columns.items()
        }
        return {"seconds": self.seconds, "columns": columns}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Calibration:
        """Read what :meth:`to_json` wrote; raises KeyError, TypeError or ValueError for anything else."""
        columns = {}
        for name, series in value["columns"].items():
            groups = Groups.from_json(series["groups"])
            counts = tuple(tuple(natural(n) for n in row) for row in series["counts"])
            if any(len(row) != groups.size for row in counts):
                msg = f"the windows of {name} do not have its groups"
                raise ValueError(msg)
            columns[str(name)] = Series(groups=groups, counts=counts, run=max(1, natural(series["run"])))
        seconds = None if value["seconds"] is None else finite_number(value["seconds"])
        if seconds is not None and seconds <= 0:
            msg = "windows have a length"
            raise ValueError(msg)
        return Calibration(seconds=seconds, columns=columns)


@dataclass(frozen=True, kw_only=True)
class Variation:
    """The variation of one column between windows of the reference, in shares.

    With z = (q - p)/√p per group, smoothed as PSI is, ``between`` is the mean of |z|² over the windows beyond what
    their size explains, ``squared`` the trace of the squared covariance of z that remains, ``observed`` the mean of
    |z|² itself with ``freedom`` degrees of freedom behind it. ``windows`` is how many there are; 0 when nothing is
    known.
    """

    windows: int = 0
    between: float = 0.0
    squared: float = 0.0
    observed: float = 0.0
    freedom: float = 0.0


def variation_of(counts: Sequence[Sequence[int]]) -> Variation:
    """The variation between windows, from the counts of a column's groups in each of them.

    Moments of Gaussian quadratic forms: E|z|² = tr C and Var |z|² = 2 tr C², for the covariance C of z. Neighbouring
    windows that resemble each other count for less than one each (Bayley & Hammersley 1946).
    """
    table = np.asarray([row for row in counts if sum(row) >= FEWEST_ROWS], dtype=float)
    if len(table) < FEWEST_WINDOWS:
        return Variation(windows=len(table))
    groups = int(np.count_nonzero(table.sum(axis=0))) - 1
    if groups < 1:
        return Variation(windows=len(table))
    z, own = _residuals(table)
    squares = np.sum(z**2, axis=1)
    observed = float(squares.mean())
    if observed <= 0:
        return Variation(windows=len(table))
    between = max(0.0, float(np.mean(squares - own)))
    effective = _independent(z)
    whole = _trace_of_square(z, effective)
    # What is left of tr C² after the sampling part s·I: tr (C - sI)² = tr C² - 2 s tr C + s² groups.
    s = float(own.mean()) / groups
    squared = whole - 2 * s * (between + groups * s) + s * s * groups
    squared = min(max(squared, between**2 / groups), between**2)
    return Variation(
        windows=len(table),
        between=between,
        squared=squared,
        observed=observed,
        freedom=effective * observed**2 / max(whole, observed**2 / groups),
    )


def variations_of(series: Series) -> dict[int, Variation]:
    """The variation of one column between stretches of so many windows.

    Two halves of a stretch that have nothing to do with each other halve the variation; halves that are alike, by
    the correlation ρ of neighbours, leave (1 + ρ) / 2 of it. That is how it is carried over to lengths of which the
    reference has too few. Windows that stand alone say nothing about neighbours, and ρ counts as 1.
    """
    found: dict[int, Variation] = {}
    likeness = 1.0
    for windows in SCALES:
        counts = series.together(windows)
        if windows == 1 or len(counts) >= FEWEST_STRETCHES:
            found[windows] = variation_of(counts)
            likeness = _likeness(counts) if series.run > windows else 1.0
            continue
        half, share = found[windows // 2], (1 + likeness) / 2
        found[windows] = replace(
            half, between=half.between * share, squared=half.squared * share**2, observed=half.observed * share
        )
    return found


def _likeness(counts: Sequence[Sequence[int]]) -> float:
    """The correlation of neighbouring windows, beyond what their size explains; 0…1."""
    table = np.asarray([row for row in counts if sum(row) >= FEWEST_ROWS], dtype=float)
    if len(table) < FEWEST_WINDOWS:
        return 1.0
    z, own = _residuals(table)
    between = float(np.mean(np.sum(z**2, axis=1) - own))
    if between <= 0:
        return 0.0
    return min(1.0, max(0.0, float(np.mean(np.sum(z[1:] * z[:-1], axis=1))) / between))


def _residuals(table: Array) -> tuple[Array, Array]:
    """z of every window against all other windows together, and the mean |z|² that its size alone explains.

    Without smoothing the latter is (1/n + 1/m)(groups - 1). Rare groups, which smoothing damps, explain less; counted
    in full they would be taken off what the others vary.
    """
    there = table[:, table.sum(axis=0) > 0]
    rows = there.sum(axis=1, keepdims=True)
    rest = there.sum(axis=0) - there
    others = rest.sum(axis=1, keepdims=True)
    added = SMOOTHING / np.minimum(rows, others)
    damped = (rest / others + added) * (1 + there.shape[1] * added)
    z = (there / rows - rest / others) / np.sqrt(damped)
    share = there.sum(axis=0) / there.sum()
    return z, np.sum(share * (1 - share) / damped, axis=1) * (1 / rows + 1 / others)[:, 0]


def _independent(z: Array) -> float:
    """How many independent windows these are worth when a variance is estimated from them."""
    windows = len(z)
    total = float(np.sum(z**2))
    likeness = float(np.sum(z[1:] * z[:-1])) / total if total else 0.0
    likeness = min(0.95, max(0.0, likeness))
    worth = windows * (1 - likeness**2) / (1 + likeness**2)
    return max(float(FEWEST_WINDOWS), worth)


def _trace_of_square(z: Array, effective: float) -> float:
    """tr C² of the covariance C of z, without the bias that few windows give the plain estimate."""
    sample = z.T @ z / len(z)
    plain, squared_trace = float(np.sum(sample**2)), float(np.trace(sample)) ** 2
    k = effective
    unbiased = (plain - squared_trace / k) / (1 + 1 / k - 2 / k**2)
    return float(min(max(unbiased, squared_trace / sample.shape[0]), squared_trace))


# Variances that may lie behind an estimated one, as normal deviates, and the weight of each.
STEP = 0.75
DEVIATES = np.arange(-3, 9) * STEP


@dataclass(frozen=True, kw_only=True)
class Nulls:
    """The distribution of PSI where nothing has drifted; ``mean`` has one entry a column.

    A mixture over what the variation between windows may be, given its estimate: with the chance ``weights[k]``, (PSI -
    ``shift[k]``) / ``scale[k]`` has a chi-square distribution with ``freedom[k]`` degrees. A ``mean`` of 0 is a column
    about which nothing can be said.
    """

    mean: Array
    weights: Array
    shift: Array
    scale: Array
    freedom: Array

    def p_values(self, psi: Array) -> Array:
        """The chance of a PSI at least this large where nothing has drifted."""
        from scipy.special import chdtrc

        tails = chdtrc(self.freedom, np.maximum(psi - self.shift, 0.0) / self.scale)
        return np.where(self.mean > 0, np.minimum(1.0, self.weights @ tails), 1.0)

    def quantiles(self, chance: float) -> Array:
        """The PSI that is exceeded with this chance where nothing has drifted."""
        from scipy.special import chdtri

        high: Array = np.max(self.shift + chdtri(self.freedom, chance) * self.scale, axis=0)
        low = np.zeros_like(high)
        for _ in range(40):
            middle = (low + high) / 2
            above = self.p_values(middle) > chance
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return high


def nulls_of(then: Array, now: Array, variations: Sequence[Variation], stretch: float = 1.0) -> Nulls:
    """The null distributions of the PSI of columns; ``then`` and ``now`` are columns × groups, padded with zeros.

    Where nothing drifted, PSI is a quadratic form of Gaussians with mean s·df + between for s = 1/n + 1/m (Yurdakul
    2018 without the second term). It is matched by a shifted and scaled chi-square of the same first three moments
    (Pearson's approximation, Imhof 1961), which keeps to the far tail where one direction varies most. The second term
    is an estimate: ``observed`` times a chi-square over its degrees of freedom, whose inverse is integrated over
    (normal in the cube root, Wilson and Hilferty 1931). ``stretch`` is how much longer the reference's windows are than
    the one judged: the variation between shorter windows is larger by at most that, unless longer ones cancel a rhythm.
    """
    from scipy.special import ndtr

    table = np.array([(v.between, v.squared, v.observed, v.freedom) for v in variations], dtype=float).reshape(-1, 4)
    estimate, squared, observed, freedom = table.T
    g = np.where(freedom > 0, 2 / (9 * np.maximum(freedom, 1.0)), 0.0)
    times = np.maximum(0.01, 1 - g - DEVIATES[:, None] * np.sqrt(g)) ** -3.0
    between = stretch * np.maximum(0.0, estimate + observed * (times - 1))
    # How far one direction outweighs the others is taken as it was measured; where nothing was, it is all there is.
    alone = np.divide(squared, estimate**2, out=np.ones_like(estimate), where=estimate**2 > 0)
    n, m = then.sum(axis=1), now.sum(axis=1)
    df = np.count_nonzero((then > 0) | (now > 0), axis=1) - 1.0
    usable = (n > 0) & (m > 0) & (df >= 1)
    s = 1 / np.maximum(n, 1) + 1 / np.maximum(m, 1)
    df = np.maximum(df, 1.0)
    # Sums of powers of the eigenvalues; for the third only a bound is known, that of a single direction.
    root = np.sqrt(np.minimum(1.0, alone)) * between
    mean, second = df * s + between, df * s**2 + 2 * s * between + root**2
    third = df * s**3 + 3 * s**2 * between + 3 * s * root**2 + root**3
    degrees = np.clip((second / third) ** 2 * second, 1.0, df)
    scale = third / second * degrees
    edges = np.concatenate([[-np.inf], (DEVIATES[1:] + DEVIATES[:-1]) / 2, [np.inf]])
    return Nulls(
        mean=np.where(usable, df * s + stretch * estimate, 0.0),
        weights=np.diff(ndtr(edges)),
        shift=np.maximum(0.0, mean - scale),
        scale=scale / degrees,
        freedom=degrees,
    )
