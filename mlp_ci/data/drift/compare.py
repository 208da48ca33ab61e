"""Drift of live data from a version's reference: what is measured, and the decision. Pure functions of counts.

A column has drifted only when all of these hold: there are enough rows; the difference is more than windows of the
reference differ from each other, after correcting for having looked at many columns; it is large enough to matter; and
the windows before showed it as well. docs/explanation/drift.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.data.drift.calibration import SCALES, Variation, variations_of
from mlp_ci.data.drift.decision import Decided, Decision, Measured, add_up, decide
from mlp_ci.data.profiles.groups import Groups, groups_of
from mlp_ci.data.profiles.statistics import (
    Distances,
    distances,
    show_p,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mlp_ci.data.drift.reference import Reference
    from mlp_ci.data.profiles.profile import Profile
    from mlp_ci.data.profiles.shapes import ColumnProfile
    from mlp_ci.spec.model import Drift

    Array = NDArray[np.float64]


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

    The decision rests on the last ``scale`` windows together, whose PSI is ``pooled``; one is this window alone.
    ``p_value`` is the chance of a PSI at least that large where nothing drifted, ``p_adjusted`` after correcting for
    the number of columns and of scales. ``usual`` is the mean PSI where nothing drifted, ``limit`` the PSI from which
    this column alone would count as changed (the larger of the floor and what the test needs after the correction),
    ``windows`` on how many windows of the reference they rest. ``before`` are the PSI of the windows before, the newest
    first.
    ``importance`` is the share of the model's behaviour that rests on the column, None where unknown.
    """

    column: str
    segment: str = ""
    kind: str
    decision: Decision
    psi: float
    scale: int
    pooled: float
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


class Yardstick:
    """The reference prepared for many comparisons: places, counts and variation of each."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        known = reference.calibration.columns if reference.calibration else {}
        self.seconds = reference.calibration.seconds if reference.calibration else None
        self.groups: dict[str, Groups] = {}
        scaled: dict[str, dict[int, Variation]] = {}
        for name, column in reference.profile.columns.items():
            self.groups[name] = known[name].groups if name in known else groups_of(column)
            scaled[name] = variations_of(known[name]) if name in known else dict.fromkeys(SCALES, Variation())
        self.places: list[Place] = [("", name) for name in reference.profile.columns]
        self.places += [(s, name) for s, part in reference.segments.items() for name in part.columns]
        self.variations = {scale: [scaled[name][scale] for _, name in self.places] for scale in SCALES}
        self.then = self._table([self._column(reference, place) for place in self.places])

    def measure(self, sample: Sample) -> Measured:
        """PSI of every place in a window, and its distribution where nothing drifted."""
        stretch = max(1.0, self.seconds / sample.seconds) if self.seconds and sample.seconds else 1.0
        now = self._table([self._column(sample, place) for place in self.places])
        return Measured.of(self.then, now, self.variations[1], stretch)

    def together(self, windows: Sequence[Measured], seconds: float | None = None) -> dict[int, Measured]:
        """The newest windows added up (:func:`add_up`); ``seconds`` is how long each is. The newest come first."""
        stretch = max(1.0, self.seconds / seconds) if self.seconds and seconds else 1.0
        return add_up(windows, self.then, self.variations, stretch)

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
        scales = {1: now, **told.together}
        each = told.risk / max(1, decided.enough) / len(scales)
        limits = {scale: np.maximum(told.spec.psi, m.nulls.quantiles(each)) for scale, m in scales.items()}
        found = []
        for i, place in enumerate(self.places):
            then_column, now_column = self._column(self.reference, place), self._column(sample, place)
            if then_column is None or now_column is None:
                continue
            rows_then, rows_now = int(self.then[i].sum()), int(now.rows[i])
            before = tuple(float(w.psi[i]) for w in past if w.rows[i] >= told.spec.min_rows)
            scale = decided.scale[i]
            drift = ColumnDrift(
                column=place[1],
                segment=place[0],
                kind=then_column.kind,
                decision=decided.codes[i],
                psi=float(now.psi[i]),
                scale=scale,
                pooled=float(scales[scale].psi[i]),
                p_value=float(scales[scale].p_values[i]),
                p_adjusted=float(decided.adjusted[i]),
                usual=float(scales[scale].nulls.mean[i]),
                limit=float(limits[scale][i]),
                windows=self.variations[1][i].windows,
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
    together: Mapping[int, Measured] = field(default_factory=dict)


def compare(
    reference: Reference, now: Sample, spec: Drift, *, earlier: Sequence[Sample] = (), risk: float = 0.01
) -> list[ColumnDrift]:
    """Drift of every column that both sides hold: the drifted first, and among equals what probably hurts most.

    ``earlier`` are the windows before, the newest first. ``risk`` bounds the chance that anything is called changed
    where nothing is. Raises InputError when the profiles do not have the same bins.
    """
    yardstick = Yardstick(reference)
    windows = [yardstick.measure(sample) for sample in (now, *earlier)]
    together = yardstick.together(windows, now.seconds)
    decided = decide(windows[0], windows[1:], spec, risk, together)
    return ordered(yardstick.told(now, windows, decided, Told(spec=spec, risk=risk, together=together)))


def ordered(drifts: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """The drifted first, all rows before segments, and what probably hurts most before the rest."""
    order = {Decision.DRIFTED: 0, Decision.SUSPECTED: 1, Decision.STABLE: 2, Decision.INSUFFICIENT: 3}
    return sorted(drifts, key=lambda d: (order[d.decision], bool(d.segment), -d.weight, -d.psi, d.column, d.segment))


def _reason(d: ColumnDrift, spec: Drift) -> str:
    over = f" over {d.scale} windows" if d.scale > 1 else ""
    found = f"PSI {d.pooled:.3f}{over} where {d.usual:.3f} is usual"
    match d.decision:
        case Decision.INSUFFICIENT:
            return f"{d.rows_now:,} rows, {spec.min_rows:,} are needed to decide"
        case Decision.DRIFTED:
            lasting = f", for {spec.persistence} windows in a row" if spec.persistence > 1 and d.scale == 1 else ""
            return f"{found}, p {show_p(d.p_adjusted)}{lasting}"
        case Decision.SUSPECTED if len(d.before) < spec.persistence - 1:
            return f"{found}, p {show_p(d.p_adjusted)}; no earlier window with enough rows confirms it yet"
        case Decision.SUSPECTED if d.scale > 1:
            return f"{found}, p {show_p(d.p_adjusted)}; not each of the last {spec.persistence} windows shows it"
        case Decision.SUSPECTED:
            return f"{found}, p {show_p(d.p_adjusted)}; the window before did not show it"
        case _ if d.psi < spec.psi:
            return f"small: PSI {d.psi:.3f} is below {spec.psi:g}"
    return f"no more than usual: {found}"
