"""Drift of live data from a version's reference: what is measured, and the decision. Pure functions of counts.

A column has drifted only when all of these hold: there are enough rows; the difference is more than windows of the
reference differ from each other, after correcting for having looked at many columns; it is large enough to matter; and
the windows before showed it as well. docs/explanation/drift.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.data.calibration import Nulls, Variation, nulls_of, variation_of
from mlp_ci.data.groups import Groups, groups_of
from mlp_ci.data.statistics import (
    Distances,
    benjamini_hochberg,
    distances,
    show_p,
    stability_indices,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mlp_ci.data.profile import Profile
    from mlp_ci.data.reference import Reference
    from mlp_ci.data.shapes import ColumnProfile
    from mlp_ci.spec.model import Drift

    Array = NDArray[np.float64]

# What an earlier window must show to confirm a later one: its own nominal evidence. The guarantee on false alarms
# does not rest on it; it keeps a passing blip from being called a change.
CONFIRMING = 0.05


class Decision(StrEnum):
    """What is said about one column."""

    DRIFTED = "drifted"
    SUSPECTED = "suspected"
    STABLE = "stable"
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The rows of one window: all of them, and those of each segment (named as in the reference).

    ``seconds`` is how long the window is; None where nobody knows.
    """

    profile: Profile
    segments: Mapping[str, Profile] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class ColumnDrift:
    """Everything that led to the decision about one column, in all rows or in one ``segment``.

    ``p_value`` is the chance of a PSI at least this large where nothing drifted, ``p_adjusted`` after correcting for
    the number of columns. ``usual`` is the mean PSI where nothing drifted, ``limit`` the PSI from which this column
    alone would count as changed (the larger of the floor and what the test needs after the correction), ``windows`` on
    how many windows of the reference they rest. ``before`` are the PSI of the windows before, the newest first.
    ``importance`` is the share of the model's behaviour that rests on the column, None where unknown.
    """

    column: str
    segment: str = ""
    kind: str
    decision: Decision
    psi: float
    p_value: float
    p_adjusted: float
    usual: float
    limit: float
    windows: int
    before: tuple[float, ...]
    distances: Distances
    importance: float | None
    rows_then: int
    rows_now: int
    nulls_then: float
    nulls_now: float
    reason: str

    @property
    def name(self) -> str:
        """The column, with its segment where it is of one."""
        return f"{self.column} where {self.segment}" if self.segment else self.column

    @property
    def weight(self) -> float:
        """PSI weighed by importance: what probably hurts most has most."""
        return self.psi * (1.0 if self.importance is None else self.importance)


Place = tuple[str, str]  # segment ("" for all rows) and column


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One window, before the decision: one entry a place in every array."""

    psi: Array
    nulls: Nulls
    p_values: Array
    rows: Array

    @staticmethod
    def of(then: Array, now: Array, variations: Sequence[Variation], stretch: float = 1.0) -> Measured:
        """From counts, places × groups on both sides."""
        psi = stability_indices(then, now)
        nulls = nulls_of(then, now, variations, stretch)
        return Measured(psi=psi, nulls=nulls, p_values=nulls.p_values(psi), rows=now.sum(axis=1))


@dataclass(frozen=True, kw_only=True)
class Decided:
    """The decisions on one window: one entry a place. ``enough`` is how many places had enough rows."""

    codes: list[Decision]
    adjusted: Array
    enough: int


def decide(now: Measured, earlier: Sequence[Measured], spec: Drift, risk: float) -> Decided:
    """The decision on every place of a window. ``earlier`` are the windows before, the newest first.

    Significant: p after Benjamini and Hochberg over all places with enough rows at most ``risk``. Where nothing has
    drifted, that alone bounds the chance of any alarm in this window by ``risk``. Large: PSI at least ``spec.psi``.
    Lasting: each of the ``spec.persistence - 1`` windows before with enough rows was as large, at nominal evidence.
    """
    enough = now.rows >= spec.min_rows
    adjusted = np.ones_like(now.psi)
    adjusted[enough] = benjamini_hochberg(now.p_values[enough].tolist())
    changed = enough & (adjusted <= risk) & (now.psi >= spec.psi)
    needed = spec.persistence - 1
    confirmed, denied = np.zeros(now.psi.shape, dtype=int), np.zeros(now.psi.shape, dtype=bool)
    for window in earlier:
        asked = (window.rows >= spec.min_rows) & (confirmed < needed) & ~denied
        shows = (window.psi >= spec.psi) & (window.p_values <= CONFIRMING)
        confirmed += asked & shows
        denied |= asked & ~shows
    lasting = (confirmed >= needed) & ~denied
    codes = np.full(now.psi.shape, Decision.INSUFFICIENT, dtype=object)
    codes[enough] = Decision.STABLE
    codes[changed] = Decision.SUSPECTED
    codes[changed & lasting] = Decision.DRIFTED
    return Decided(codes=codes.tolist(), adjusted=adjusted, enough=int(enough.sum()))


class Yardstick:
    """The reference prepared for many comparisons: places, counts and variation of each."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        known = reference.calibration.columns if reference.calibration else {}
        self.seconds = reference.calibration.seconds if reference.calibration else None
        self.groups: dict[str, Groups] = {}
        variations: dict[str, Variation] = {}
        for name, column in reference.profile.columns.items():
            self.groups[name] = known[name].groups if name in known else groups_of(column)
            variations[name] = variation_of(known[name].counts) if name in known else Variation()
        self.places: list[Place] = [("", name) for name in reference.profile.columns]
        self.places += [(s, name) for s, part in reference.segments.items() for name in part.columns]
        self.variations = [variations[name] for _, name in self.places]
        self.then = self._table([self._column(reference, place) for place in self.places])

    def measure(self, sample: Sample) -> Measured:
        """PSI of every place in a window, and its distribution where nothing drifted."""
        stretch = max(1.0, self.seconds / sample.seconds) if self.seconds and sample.seconds else 1.0
        now = self._table([self._column(sample, place) for place in self.places])
        return Measured.of(self.then, now, self.variations, stretch)

    def counts(self, place: Place, sample: Sample | Reference) -> list[int]:
        """Rows of a place in each of its groups."""
        column = self._column(sample, place)
        return self.groups[place[1]].count(column) if column else []

    def _column(self, side: Sample | Reference, place: Place) -> ColumnProfile | None:
        profile = side.segments.get(place[0]) if place[0] else side.profile
        return profile.columns.get(place[1]) if profile else None

    def _table(self, columns: Sequence[ColumnProfile | None]) -> Array:
        width = max((group.size for group in self.groups.values()), default=1)
        table = np.zeros((len(columns), width))
        for i, column in enumerate(columns):
            if column is not None:
                counts = self.groups[self.places[i][1]].count(column)
                table[i, : len(counts)] = counts
        return table

    def told(self, sample: Sample, windows: Sequence[Measured], decided: Decided, told: Told) -> list[ColumnDrift]:
        """The decisions with everything that led to them; places that the window lacks are left out."""
        now, *past = windows
        limits = np.maximum(told.spec.psi, now.nulls.quantiles(told.risk / max(1, decided.enough)))
        found = []
        for i, place in enumerate(self.places):
            then_column, now_column = self._column(self.reference, place), self._column(sample, place)
            if then_column is None or now_column is None:
                continue
            rows_then, rows_now = int(self.then[i].sum()), int(now.rows[i])
            before = tuple(float(w.psi[i]) for w in past if w.rows[i] >= told.spec.min_rows)
            drift = ColumnDrift(
                column=place[1],
                segment=place[0],
                kind=then_column.kind,
                decision=decided.codes[i],
                psi=float(now.psi[i]),
                p_value=float(now.p_values[i]),
                p_adjusted=float(decided.adjusted[i]),
                usual=float(now.nulls.mean[i]),
                limit=float(limits[i]),
                windows=self.variations[i].windows,
                before=before,
                distances=distances(
                    then_column, now_column, (self.counts(place, self.reference), self.counts(place, sample))
                ),
                importance=self.reference.importance.get(place[1]),
                rows_then=rows_then,
                rows_now=rows_now,
                nulls_then=then_column.nulls / rows_then if rows_then else 0.0,
                nulls_now=now_column.nulls / rows_now if rows_now else 0.0,
                reason="",
            )
            found.append(replace(drift, reason=_reason(drift, told.spec)))
        return found


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a decision was made with."""

    spec: Drift
    risk: float


def compare(
    reference: Reference, now: Sample, spec: Drift, *, earlier: Sequence[Sample] = (), risk: float = 0.01
) -> list[ColumnDrift]:
    """Drift of every column that both sides hold: the drifted first, and among equals what probably hurts most.

    ``earlier`` are the windows before, the newest first. ``risk`` bounds the chance that anything is called changed
    where nothing is. Raises InputError when the profiles do not have the same bins.
    """
    yardstick = Yardstick(reference)
    windows = [yardstick.measure(sample) for sample in (now, *earlier)]
    decided = decide(windows[0], windows[1:], spec, risk)
    return ordered(yardstick.told(now, windows, decided, Told(spec=spec, risk=risk)))


def ordered(drifts: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """The drifted first, all rows before segments, and what probably hurts most before the rest."""
    order = {Decision.DRIFTED: 0, Decision.SUSPECTED: 1, Decision.STABLE: 2, Decision.INSUFFICIENT: 3}
    return sorted(drifts, key=lambda d: (order[d.decision], bool(d.segment), -d.weight, -d.psi, d.column, d.segment))


def _reason(d: ColumnDrift, spec: Drift) -> str:
    large = f"PSI {d.psi:.3f} where {d.usual:.3f} is usual, p {show_p(d.p_adjusted)}"
    match d.decision:
        case Decision.INSUFFICIENT:
            return f"{d.rows_now:,} rows, {spec.min_rows:,} are needed to decide"
        case Decision.DRIFTED:
            return large + (f", for {spec.persistence} windows in a row" if spec.persistence > 1 else "")
        case Decision.SUSPECTED if len(d.before) < spec.persistence - 1:
            return f"{large}; no earlier window with enough rows confirms it yet"
        case Decision.SUSPECTED:
            return f"{large}; the window before did not show it"
        case _ if d.psi < spec.psi:
            return f"small: PSI {d.psi:.3f} is below {spec.psi:g}"
    return f"no more than usual: PSI {d.psi:.3f} where {d.usual:.3f} is usual"
