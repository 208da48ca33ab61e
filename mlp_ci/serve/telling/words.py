"""How metrics, differences, moments and spans of time of a rollout are written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mlp_ci.data.words import cut
from mlp_ci.report import cell_text

if TYPE_CHECKING:
    from mlp_ci.spec.serve import Rollout

TITLES = {
    "error_rate": "errors",
    "rejection_rate": "rejections",
    "latency_p50_ms": "median latency",
    "latency_p95_ms": "p95 latency",
    "latency_p99_ms": "p99 latency",
    "predictions": "predictions",
}
SHARES = ("error_rate", "rejection_rate")  # of requests
MINUTE, HOUR, DAY = 60, 3600, 86400


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What the numbers of one metric are.

    ``kind`` is share, ms, distance or number; ``ratio`` says that the effect is how many times the old version's value
    the new one's is, so that nothing has changed at 1; else it is a difference, and nothing has changed at 0.
    """

    kind: str
    ratio: bool = False

    @property
    def neutral(self) -> float:
        return 1.0 if self.ratio else 0.0

    def value(self, value: float | None) -> str:
        """What one version has; empty where it is not known."""
        if value is None:
            return ""
        if self.kind == "share":
            return f"{percent(value)} %"
        shown = cell_text(float(value)).replace("-", "−")
        return f"{shown} ms" if self.kind == "ms" else shown

    def effect(self, value: float | None) -> str:
        """How far the new version is from the old one; empty where it is not known."""
        return self._written(value, signed=True)

    def limit(self, margin: float) -> str:
        """Where harm begins."""
        return self._written(margin, signed=False)

    def span(self, low: float | None, high: float | None) -> str:
        """An interval of effects; an end that is not known is open."""
        if low is None and high is None:
            return ""
        if self.ratio and high is None and low == 0:  # which is known of every ratio
            return ""
        if low is None or high is None:
            return f"at least {self.effect(low)}" if high is None else f"at most {self.effect(high)}"
        if self.ratio:
            return f"× {self._bare(low, signed=False)} to {self._bare(high, signed=False)}"
        return f"{self._bare(low, signed=True)} to {self.effect(high)}"

    def _written(self, value: float | None, *, signed: bool) -> str:
        if value is None:
            return ""
        if self.ratio:
            return f"× {self._bare(value, signed=False)}"
        bare = self._bare(value, signed=signed)
        if self.kind == "share":
            return f"{bare} point{'' if bare.lstrip('+−') == '1' else 's'}"
        return f"{bare} ms" if self.kind == "ms" else bare

    def _bare(self, value: float, *, signed: bool) -> str:
        """An effect without its unit."""
        if self.ratio or self.kind == "distance":
            return f"{value:.3g}"
        sign = "−" if value < 0 else "+" if signed and value > 0 else ""
        return sign + (percent(abs(value)) if self.kind == "share" else cell_text(float(abs(value))))


def scale_of(metric: str, rollout: Rollout) -> Scale:
    """The scale of a metric, by the check of model.yaml that asks for it."""
    check = next((c for c in rollout.analysis if c.metric == metric), None)
    ratio = check is not None and check.max_ratio is not None
    if metric in SHARES:
        return Scale(kind="share")
    if metric == "predictions":
        return Scale(kind="distance")
    return Scale(kind="ms" if metric.startswith("latency_") else "number", ratio=ratio)


def title_of(metric: str) -> str:
    return TITLES.get(metric, cut(metric.replace("_", " "), 60))


def unit_of(metric: str) -> str:
    """What a sample of this metric counts: a request may hold several rows, and each row has its prediction."""
    return "request" if metric in SHARES or metric.startswith("latency_") else "row"


def percent(share: float) -> str:
    """A share of one in per cent, in two digits, or three from 1 % on, without the sign."""
    hundredth = share * 100
    if hundredth >= 100:
        return f"{hundredth:,.0f}"
    return f"{hundredth:.3g}" if hundredth >= 1 else f"{hundredth:.2g}"


def moment(iso: str | datetime) -> datetime | None:
    """The instant of an ISO 8601 text; None when it is none."""
    if isinstance(iso, datetime):
        return iso
    try:
        return datetime.fromisoformat(iso)
    except ValueError:
        return None


def at_time(when: str | datetime, now: datetime) -> str:
    """When something was or will be: the time alone on the day of ``now``."""
    instant = moment(when)
    if instant is None:
        return ""
    return f"{instant:%H:%M} UTC" if instant.date() == now.date() else f"{instant:%Y-%m-%d %H:%M} UTC"


def lasting(span: timedelta | float) -> str:
    """How long something takes, in at most two units: ``3 h 20 min``."""
    exact = span.total_seconds() if isinstance(span, timedelta) else span
    if 0 < exact < 1:
        return "less than a second"
    seconds = round(exact)
    if seconds < MINUTE:
        return f"{seconds} s"
    for size, name, less, part in ((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min"), (MINUTE, "min", 1, "s")):
        if seconds >= size:
            whole, rest = divmod(round(seconds / less), size // less)
            return f"{whole} {name}" + (f" {rest} {part}" if rest and whole < 10 else "")
    return ""


def many(count: int, thing: str) -> str:
    """``1 request``, ``2,000 requests``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
