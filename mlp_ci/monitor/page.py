"""The drift report as one HTML file that needs no network: the verdict on top, then what happened when, then why.

The drawings are SVG made here (:mod:`mlp_ci.monitor.charts`, :mod:`mlp_ci.monitor.plots`); the layout is
``report.html.jinja`` beside this file. Every name and value comes from data, so the template escapes all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci import __version__
from mlp_ci.data.drift.decision import Decision
from mlp_ci.data.profiles.profile import PREDICTION
from mlp_ci.data.profiles.statistics import show_p
from mlp_ci.data.words import round_share
from mlp_ci.drawing.template import fill
from mlp_ci.monitor import charts, plots
from mlp_ci.monitor.words import show_number, show_psi
from mlp_ci.spec.quantities import show_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.data.drift.compare import ColumnDrift
    from mlp_ci.monitor.estimate import Estimate
    from mlp_ci.monitor.verdict import Verdict

TEMPLATE = Path(__file__).parent / "report.html.jinja"
# A page stays small enough for a mail however many columns there are; the table has all of them.
MOST_PLOTS = 40
# Of the segments, those rows that were worst; the JSON of the verdict has the rest.
MOST_SEGMENT_ROWS = 120
MOST_MAP_ROWS = 15
# Bars of PSI end here, in limits: a column that is far beyond must not make the others invisible.
LONGEST_BAR = 4.0
SHORTEST_BAR = 2.0


@dataclass(frozen=True, kw_only=True)
class Bullet:
    """PSI beside what is usual and where the limit lies, all in per cent of the width."""

    psi: float
    usual: float
    limit: float
    beyond: bool


@dataclass(frozen=True, kw_only=True)
class SegmentMap:
    """Columns × segments: the drift of each, None where there is none."""

    segments: tuple[str, ...]
    rows: tuple[tuple[str, tuple[ColumnDrift | None, ...]], ...]
    hidden: int


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate on a line, in per cent of its width."""

    low: float
    value: float
    high: float
    evidence: float


def render(verdict: Verdict) -> str:
    """The whole page."""
    everywhere = [d for d in verdict.drifts if not d.segment]
    drawn = _worth_drawing(verdict.drifts)[:MOST_PLOTS]
    longest = _longest(verdict.drifts)
    values = {
        "v": verdict,
        "everywhere": everywhere,
        "plots": [(plots.plot(verdict, d), bullet(d, longest)) for d in drawn],
        "hidden": max(0, len(everywhere) - sum(not d.segment for d in drawn)),
        "rows": _table_rows(verdict.drifts),
        "segments": segment_map(verdict),
        "chart": charts.drift_chart(verdict),
        "performance": charts.performance_chart(verdict.performance) if verdict.performance else None,
        "interval": interval_of(verdict.estimate) if verdict.estimate else None,
        "floor": verdict.spec.monitor.drift.psi,
        "settings": verdict.spec.monitor.drift,
        "decided": len(verdict.decided),
        "window": show_duration(verdict.span.until - verdict.span.since),
        "windows": _reference_windows(verdict),
        "prediction": PREDICTION,
        "sizes": {"plot": (plots.WIDTH, plots.HEIGHT), "chart": (charts.WIDTH, charts.HEIGHT)},
        "program": __version__,
    }
    filters = {"share": round_share, "number": show_number, "p": show_p, "psi": show_psi}
    return fill(TEMPLATE, filters, values)


def _worth_drawing(drifts: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """Every column once: in all rows, or in the segments where it changed although all rows together did not."""
    changed = {d.column for d in drifts if not d.segment and _changed(d)}
    alone = [d for d in drifts if d.segment and _changed(d) and d.column not in changed]
    first = [d for d in drifts if not d.segment and _changed(d)]
    return [*first, *alone, *(d for d in drifts if not d.segment and not _changed(d))]


def _changed(drift: ColumnDrift) -> bool:
    return drift.decision in (Decision.DRIFTED, Decision.SUSPECTED)


def _table_rows(drifts: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    segments = [d for d in drifts if d.segment][:MOST_SEGMENT_ROWS]
    kept = {id(d) for d in segments}
    return [d for d in drifts if not d.segment or id(d) in kept]


# ---------------------------------------------------------------- marks


def _longest(drifts: Sequence[ColumnDrift]) -> float:
    """How many limits all bars of the page are wide, so that the limit stands at the same place in each."""
    worst = max((d.pooled / d.limit for d in drifts if d.limit > 0), default=0.0)
    return min(LONGEST_BAR, max(SHORTEST_BAR, worst * 1.05))


def bullet(drift: ColumnDrift, longest: float) -> Bullet | None:
    """The mark of one column; None where nothing was decided."""
    if drift.decision is Decision.INSUFFICIENT or drift.limit <= 0:
        return None
    whole = drift.limit * longest
    psi, usual = drift.pooled / whole, drift.usual / whole
    return Bullet(psi=100 * min(1.0, psi), usual=100 * min(1.0, usual), limit=100 / longest, beyond=psi > 1.0)


def segment_map(verdict: Verdict) -> SegmentMap | None:
    """The columns that differ most in any segment, beside all rows; None without segments."""
    found: dict[str, dict[str, ColumnDrift]] = {}
    for drift in verdict.drifts:
        found.setdefault(drift.column, {})[drift.segment] = drift
    segments = tuple(s for s in verdict.reference.segments if any(s in places for places in found.values()))
    if not segments:
        return None
    order = sorted(found, key=lambda name: (-_worst(found[name]), name))
    rows = tuple((name, tuple(found[name].get(s) for s in ("", *segments))) for name in order[:MOST_MAP_ROWS])
    return SegmentMap(segments=segments, rows=rows, hidden=max(0, len(order) - MOST_MAP_ROWS))


def _worst(places: dict[str, ColumnDrift]) -> float:
    return max((2.0 * _changed(d) + d.pooled / max(d.limit, 1e-9) for d in places.values()), default=0.0)


def interval_of(estimate: Estimate) -> Interval | None:
    """Where the estimate, its interval and the evidence stand on a line; None where nothing was estimated."""
    value, low, high, evidence = estimate.value, estimate.low, estimate.high, estimate.evidence
    if value is None or low is None or high is None or evidence is None:
        return None
    least, most = min(low, evidence), max(high, evidence)
    pad = (most - least) * 0.12 or 0.05
    least, most = least - pad, most + pad
    low, value, high, evidence = (100 * (v - least) / (most - least) for v in (low, value, high, evidence))
    return Interval(low=low, value=value, high=high, evidence=evidence)


def _reference_windows(verdict: Verdict) -> dict[str, Any]:
    """How many windows of the reference the decision rests on, and how long they are, for the words on the page."""
    counts = sorted(d.windows for d in verdict.drifts)
    calibration = verdict.reference.calibration
    seconds = calibration.seconds if calibration else None
    # Windows end where rows do: 6 days, 23 hours and 59 minutes are a week to a reader.
    step = 3600 if seconds and seconds >= 86400 else 60
    return {
        "fewest": counts[0] if counts else 0,
        "most": counts[-1] if counts else 0,
        "length": show_duration(timedelta(seconds=max(1, round(seconds / step)) * step)) if seconds else "",
    }
