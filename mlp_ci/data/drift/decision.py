"""The decision about the places of a window: pure functions of counts, vectorised over places.

A place is a column, in all rows or in one segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.data.drift.calibration import SCALES, Nulls, Variation, nulls_of
from mlp_ci.data.profiles.statistics import benjamini_hochberg, stability_indices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

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
class Measured:
    """One window, or several together, before the decision: one entry a place in every array.

    ``counts`` are places × groups.
    """

    counts: Array
    psi: Array
    nulls: Nulls
    p_values: Array
    rows: Array

    @staticmethod
    def of(then: Array, now: Array, variations: Sequence[Variation], stretch: float = 1.0) -> Measured:
        """From counts, places × groups on both sides."""
        psi = stability_indices(then, now)
        nulls = nulls_of(then, now, variations, stretch)
        return Measured(counts=now, psi=psi, nulls=nulls, p_values=nulls.p_values(psi), rows=now.sum(axis=1))


@dataclass(frozen=True, kw_only=True)
class Decided:
    """The decisions on one window: one entry a place. ``enough`` is how many places had enough rows.

    ``scale`` is on how many windows together each decision rests; ``adjusted`` the p-value after all corrections.
    """

    codes: list[Decision]
    adjusted: Array
    scale: list[int]
    enough: int


def decide(
    now: Measured,
    earlier: Sequence[Measured],
    spec: Drift,
    risk: float,
    together: Mapping[int, Measured] | None = None,
) -> Decided:
    """The decision on every place of a window. ``earlier`` are the windows before, the newest first.

    ``together`` are this window and those before it added up, by how many they are: a change that is small beside
    what single windows vary shows in several. Each place is tested with each (Bonferroni), then Benjamini and
    Hochberg over all places with enough rows: where nothing has drifted, that alone bounds the chance of any alarm in
    this window by ``risk``. Large: PSI at least ``spec.psi``. Lasting: see :func:`_lasting`.
    """
    scales = {1: now, **(together or {})}
    usable = np.array([m.rows >= spec.min_rows for m in scales.values()])
    p_values = np.where(usable, [m.p_values for m in scales.values()], 1.0) * np.maximum(1, usable.sum(axis=0))
    enough = usable.any(axis=0)
    smallest = np.minimum(1.0, p_values.min(axis=0))
    adjusted = np.ones_like(smallest)
    adjusted[enough] = benjamini_hochberg(smallest[enough].tolist())
    accepted = enough & (adjusted <= risk)
    # The largest p-value that is accepted: what Benjamini and Hochberg's step ended at, for every scale alike.
    limit = risk * accepted.sum() / enough.sum() if accepted.any() else -1.0
    changed = usable & (p_values <= limit) & np.array([m.psi >= spec.psi for m in scales.values()])
    windows = [now, *earlier]
    stays = [_lasting(scale, windows, spec) & _newest(scale, scales, spec) for scale in scales]
    lasting = changed & np.array(stays)
    drifted, suspected = lasting.any(axis=0), changed.any(axis=0)
    codes = np.full(now.psi.shape, Decision.INSUFFICIENT, dtype=object)
    codes[enough] = Decision.STABLE
    codes[suspected] = Decision.SUSPECTED
    codes[drifted] = Decision.DRIFTED
    # The shortest stretch that shows it, else the one that comes closest.
    shows = np.where(
        drifted, lasting.argmax(axis=0), np.where(suspected, changed.argmax(axis=0), p_values.argmin(axis=0))
    )
    names = list(scales)
    return Decided(
        codes=[Decision(code) for code in codes.tolist()],
        adjusted=adjusted,
        scale=[names[i] for i in shows.tolist()],
        enough=int(enough.sum()),
    )


def _lasting(scale: int, windows: Sequence[Measured], spec: Drift) -> NDArray[np.bool_]:
    """Whether the windows before bear out a change that shows in the last ``scale`` of them; one flag a place.

    In a single window: each of the ``spec.persistence - 1`` before it with enough rows was as large, at nominal
    evidence. In several together, which must be at least ``spec.persistence``: that many of them with enough rows,
    the newest ones, were as large (or none has enough rows, so that no single one carries the whole); that it is no
    chance is shown by all of them together.
    """
    now, *earlier = windows
    needed = spec.persistence if scale > 1 else spec.persistence - 1
    confirmed, denied = np.zeros(now.psi.shape, dtype=int), np.zeros(now.psi.shape, dtype=bool)
    alone = np.zeros(now.psi.shape, dtype=bool)
    for window in windows[:scale] if scale > 1 else earlier:
        alone |= window.rows >= spec.min_rows
        asked = (window.rows >= spec.min_rows) & (confirmed < needed) & ~denied
        shows = window.psi >= spec.psi
        if scale == 1:
            shows &= window.p_values <= CONFIRMING
        confirmed += asked & shows
        denied |= asked & ~shows
    if scale == 1:
        return (confirmed >= needed) & ~denied
    return ~denied & ((confirmed >= needed) | ~alone) & (scale >= spec.persistence)


def _newest(scale: int, scales: Mapping[int, Measured], spec: Drift) -> NDArray[np.bool_]:
    """Whether the newer half of a stretch still shows the change: at least as large as what matters and what is usual.

    Otherwise a change that is over would be an alarm for as long as the stretch remembers it.
    """
    half = scales.get(scale // 2, scales[1])
    return half.psi >= np.maximum(spec.psi, half.nulls.mean)


def add_up(
    windows: Sequence[Measured], then: Array, variations: Mapping[int, Sequence[Variation]], stretch: float = 1.0
) -> dict[int, Measured]:
    """The newest windows together, by how many they are; the newest come first.

    A place counts only where each of the windows has some rows.
    """
    found = {}
    for scale in SCALES[1:]:
        if len(windows) >= scale:
            some = [w.counts for w in windows[:scale]]
            there = np.all([counts.sum(axis=1) > 0 for counts in some], axis=0)
            found[scale] = Measured.of(then, np.sum(some, axis=0) * there[:, None], variations[scale], stretch)
    return found
