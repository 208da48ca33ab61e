"""What is drawn along the windows: PSI of a few columns, and performance with its confidence band.

Every drawing is in the unit square of its own size; the page stretches it and writes the words beside it, so that text
keeps its size on a narrow screen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mlp_ci.data.profiles.profile import PREDICTION
from mlp_ci.monitor.verdict import PASS, names_of
from mlp_ci.monitor.words import show_moment, show_number, show_psi, without_repeats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlp_ci.monitor.performance import PerformanceLook
    from mlp_ci.monitor.promise import WindowPerformance
    from mlp_ci.monitor.verdict import Past, Verdict

WIDTH, HEIGHT = 1000, 180
MOST_LINES = 5
TICKS = (0.02, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# Marks that are nearer than this share of the height would write over each other.
NEAREST_TICKS = 0.13


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A mark on the axis: its text, and how far below the top it is, in per cent."""

    text: str
    top: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line: its name, the path between neighbouring windows, a dot on each window, and its newest value."""

    name: str
    path: str
    dots: str
    newest: str


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One window: where it lies (in units of the drawing), its outcome, and what is said about it."""

    left: float
    width: float
    outcome: str
    span: str
    rows: int
    says: str
    values: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing over the windows; ``ends`` are the texts below its left, middle and right."""

    slots: tuple[Slot, ...]
    ticks: tuple[Tick, ...]
    ends: tuple[str, ...]
    lines: tuple[Line, ...] = ()
    band: str = ""
    floor: float | None = None
    accepted: float | None = None


# ---------------------------------------------------------------- PSI


def drift_chart(verdict: Verdict) -> Chart | None:
    """PSI of the columns that drifted or matter most, on an axis of square roots; None without windows."""
    windows = verdict.timeline
    if not windows:
        return None
    floor = verdict.spec.monitor.drift.psi
    names = _lines_worth_drawing(verdict)
    top = max([w.psi.get(n, 0.0) for w in windows for n in names] + [2 * floor, 0.01]) * 1.06

    def y(value: float) -> float:
        return HEIGHT * (1 - math.sqrt(max(0.0, value) / top))

    lines = tuple(_line(_called(n), [w.psi.get(n) for w in windows], y) for n in names)
    length = windows[-1].span.until - windows[-1].span.since
    return Chart(
        slots=tuple(_slot(w, i, len(windows), names) for i, w in enumerate(windows)),
        lines=lines,
        ticks=_psi_ticks(floor, top),
        floor=y(floor),
        ends=_ends([w.span.since for w in windows], windows[-1].span.until, length),
    )


def _lines_worth_drawing(verdict: Verdict) -> list[str]:
    """The first columns of the report, whose order is what probably hurts most, as far as any window has them."""
    known = {name for w in verdict.timeline for name in w.psi}
    order = [d.column for d in verdict.drifts if not d.segment]
    order += sorted(known - set(order))
    return [name for name in order if name in known][:MOST_LINES]


def _psi_ticks(floor: float, top: float) -> tuple[Tick, ...]:
    chosen: list[float] = [floor]
    for value in (*TICKS[::-1], 0.0):
        at = math.sqrt(value / top)
        if at <= 1 and all(abs(at - math.sqrt(c / top)) >= NEAREST_TICKS for c in chosen):
            chosen.append(value)
    return tuple(Tick(text=f"{c:g}", top=100 * (1 - math.sqrt(c / top))) for c in sorted(chosen))


def _slot(past: Past, i: int, of: int, names: Sequence[str]) -> Slot:
    says = {"pass": "no drift", "alarm": "alarm", "insufficient": "too few rows"}[past.outcome]
    outcome = past.outcome
    if past.missed:
        outcome, says = "missed", "alarm, and nobody looked then"
    if past.drifted:
        says += f": {_some(past.drifted)} drifted"
    elif past.outcome == PASS and past.suspected:
        outcome, says = "suspected", f"{says}; {_some(past.suspected)} suspected"
    return Slot(
        left=WIDTH * i / of,
        width=WIDTH / of,
        outcome=outcome,
        span=str(past.span),
        rows=past.rows,
        says=says,
        values=", ".join(f"{_called(n)} {show_psi(past.psi[n])}" for n in names if n in past.psi),
    )


def _some(names: Sequence[str]) -> str:
    return names_of([_called(n) for n in without_repeats(names)], 3)


def _called(name: str) -> str:
    return "predictions" if name == PREDICTION else name


# ---------------------------------------------------------------- performance


def performance_chart(look: PerformanceLook) -> Chart | None:
    """The metric over the windows with enough labels, its 95 % band, the evidence and what is accepted."""
    windows = look.windows
    known = [w for w in windows if w.value is not None and w.low is not None and w.high is not None]
    if not known:
        return None
    evidence = look.evidence if look.evidence is not None else math.nan
    accepted = evidence - look.max_drop if _higher_is_better(look.metric) else evidence + look.max_drop
    seen = [v for w in known for v in (w.low or 0.0, w.high or 0.0)]
    seen += [v for v in (evidence, accepted) if math.isfinite(v)]
    low, high = min(seen), max(seen)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 0.5
    low, high = low - pad, high + pad

    def y(value: float) -> float:
        return HEIGHT * (high - value) / (high - low)

    length = datetime.fromisoformat(windows[-1].until) - datetime.fromisoformat(windows[-1].since)
    begins = [datetime.fromisoformat(w.since) for w in windows]
    ticks = [low + (high - low) * share for share in (0.06, 0.5, 0.94)]
    return Chart(
        slots=tuple(_labelled_slot(w, i, len(windows)) for i, w in enumerate(windows)),
        lines=(_line(look.metric, [w.value for w in windows], y, digits=3),),
        band=_band(windows, y),
        ticks=tuple(Tick(text=show_number(t), top=100 * y(t) / HEIGHT) for t in ticks),
        floor=y(evidence) if math.isfinite(evidence) else None,
        accepted=y(accepted) if math.isfinite(accepted) else None,
        ends=_ends(begins, datetime.fromisoformat(windows[-1].until), length),
    )


def _higher_is_better(metric: str) -> bool:
    from mlp_ci.evaluate.metrics import METRICS

    known = METRICS.get(metric)
    return known.higher_is_better if known else True


def _labelled_slot(window: WindowPerformance, i: int, of: int) -> Slot:
    since, until = (datetime.fromisoformat(t) for t in (window.since, window.until))
    if window.value is None:
        says = window.reason or "too few labels"
    else:
        says = f"{window.value:.3f} ({window.low:.3f} to {window.high:.3f})"
    return Slot(
        left=WIDTH * i / of,
        width=WIDTH / of,
        outcome=window.outcome,
        span=f"{since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC",
        rows=window.rows,
        says=says,
        values=f"{window.answered:,} answered",
    )


def _band(windows: Sequence[WindowPerformance], y: Callable[[float], float]) -> str:
    """One closed path for every run of neighbouring windows that have an interval."""
    paths, run = [], list[tuple[float, float, float]]()
    for i, window in enumerate([*windows, None]):
        if window is not None and window.low is not None and window.high is not None:
            x = WIDTH * (i + 0.5) / len(windows)
            run.append((x, y(window.high), y(window.low)))
            continue
        if run:
            half = WIDTH / len(windows) * 0.3 if len(run) == 1 else 0.0
            xs = [run[0][0] - half, *(x for x, _, _ in run[1:-1]), run[-1][0] + half]
            ends = run if len(run) > 1 else [run[0], run[0]]
            upper = "L".join(f"{x:.1f} {e[1]:.1f}" for x, e in zip(xs, ends, strict=True))
            lower = "L".join(f"{x:.1f} {e[2]:.1f}" for x, e in zip(reversed(xs), reversed(ends), strict=True))
            paths.append(f"M{upper}L{lower}Z")
        run = []
    return "".join(paths)


# ---------------------------------------------------------------- lines


def _line(name: str, values: Sequence[float | None], y: Callable[[float], float], digits: int = 0) -> Line:
    """Windows without a value break the line."""
    path, dots, pen = [], [], "M"
    for i, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        x, at = WIDTH * (i + 0.5) / len(values), y(value)
        path.append(f"{pen}{x:.1f} {at:.1f}")
        dots.append(f"M{x:.1f} {at:.1f}h0")
        pen = "L"
    newest = values[-1] if values else None
    shown = "" if newest is None else f"{newest:.{digits}f}" if digits else show_psi(newest)
    return Line(name=name, path="".join(path), dots="".join(dots), newest=shown)


def _ends(begins: Sequence[datetime], until: datetime, length: timedelta) -> tuple[str, ...]:
    first, last = show_moment(begins[0], length), show_moment(until, length)
    if len(begins) < 5:
        return (first, last)
    return (first, show_moment(begins[len(begins) // 2], length), last)
