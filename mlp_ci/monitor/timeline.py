"""Windows back in time from the one that is judged: what confirms a drift, and what nobody looked at yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mlp_ci.data.drift.calibration import SCALES
from mlp_ci.data.drift.compare import Sample, Yardstick
from mlp_ci.data.drift.decision import Decided, Decision, Measured, decide
from mlp_ci.monitor.verdict import ALARM, INSUFFICIENT, PASS, Past
from mlp_ci.monitor.windows import Span, first_hour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.monitor.look import Log, Look
    from mlp_ci.spec.model import Drift

MOST_WINDOWS = 30
# However long windows are, a look does not go further back than this, beyond what confirms a drift.
LONGEST = timedelta(days=120)
HOUR = timedelta(hours=1)


def spans_back(log: Log, span: Span, persistence: int) -> list[Span]:
    """The span and those before it, the newest first: as long as it, whole hours, back to the log's first hour."""
    first = first_hour(log.folder, log.model, log.stage)
    length = max(HOUR, timedelta(hours=-(-(span.until - span.since) // HOUR)))
    # Twice as many as confirm a drift, since windows with too few rows do not count; and all that are judged together.
    most = max(2 * persistence, SCALES[-1], min(MOST_WINDOWS, LONGEST // length))
    spans, end = [span], span.since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    while len(spans) < most and first is not None and end > first:
        spans.append(Span(since=end - length, until=end))
        end -= length
    return spans


def sample_of(look: Look) -> Sample:
    """A look as what drift is measured in."""
    seconds = (look.span.until - look.span.since).total_seconds()
    return Sample(profile=look.profile, segments=look.segments, seconds=seconds)


def timeline_of(
    yardstick: Yardstick, looks: Sequence[Look], measured: Sequence[Measured], spec: Drift, risk: float
) -> list[Past]:
    """Every window judged as if one had looked at its end; oldest first."""
    found = []
    for i, look in enumerate(looks):
        together = yardstick.together(measured[i:], (look.span.until - look.span.since).total_seconds())
        decided = decide(measured[i], measured[i + 1 :], spec, risk, together)
        found.append(_past(yardstick, look, measured[i], decided))
    return found[::-1]


def _past(yardstick: Yardstick, look: Look, measured: Measured, decided: Decided) -> Past:
    names = [f"{name} where {segment}" if segment else name for segment, name in yardstick.places]
    codes = list(zip(names, decided.codes, strict=True))
    drifted = tuple(name for name, code in codes if code is Decision.DRIFTED)
    psi = {
        name: float(measured.psi[i])
        for i, (segment, name) in enumerate(yardstick.places)
        if not segment and decided.codes[i] is not Decision.INSUFFICIENT
    }
    return Past(
        span=look.span,
        rows=look.rows,
        outcome=ALARM if drifted else PASS if decided.enough else INSUFFICIENT,
        psi=psi,
        drifted=drifted,
        suspected=tuple(name for name, code in codes if code is Decision.SUSPECTED),
    )


def missed(past: Past, looked_until: datetime | None) -> bool:
    """Whether an alarm was never told: nobody has looked at the end of its window or later."""
    return past.outcome == ALARM and looked_until is not None and past.span.until > looked_until
