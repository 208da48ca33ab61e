"""The verdict of one look: everything that was found out, what it says, and its JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlp_ci.data.drift.decision import Decision
from mlp_ci.data.profiles.profile import PREDICTION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.data.drift.compare import ColumnDrift
    from mlp_ci.data.drift.reference import Reference
    from mlp_ci.monitor.estimate import Estimate
    from mlp_ci.monitor.look import Look
    from mlp_ci.monitor.performance import PerformanceLook
    from mlp_ci.monitor.windows import Span
    from mlp_ci.spec.model import ModelSpec
    from mlp_ci.tracking import VersionFact

FORMAT = "mlp-ci/monitor/v2"
PASS, ALARM, INSUFFICIENT = "pass", "alarm", "insufficient"


@dataclass(frozen=True, kw_only=True)
class Past:
    """One window of the timeline. ``psi`` of every column with enough rows, ``drifted`` the names of those that had."""

    span: Span
    rows: int
    outcome: str
    psi: Mapping[str, float]
    drifted: tuple[str, ...]
    suspected: tuple[str, ...]
    missed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "since": self.span.since.isoformat(),
            "until": self.span.until.isoformat(),
            "rows": self.rows,
            "verdict": self.outcome,
            "psi": {name: round(value, 6) for name, value in self.psi.items()},
            "drifted": list(self.drifted),
            "suspected": list(self.suspected),
            "missed": self.missed,
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Everything that one look found out. ``risk`` is the chance of a false alarm that this look runs.

    ``timeline`` are windows of the same length, the oldest first and this one last.
    """

    model: str
    stage: str
    version: VersionFact
    span: Span
    created: datetime
    look: Look
    reference: Reference
    drifts: tuple[ColumnDrift, ...]
    risk: float
    spec: ModelSpec
    timeline: tuple[Past, ...] = ()
    performance: PerformanceLook | None = None
    estimate: Estimate | None = None

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        return tuple(d for d in self.drifts if d.decision is Decision.DRIFTED)

    @property
    def suspected(self) -> tuple[ColumnDrift, ...]:
        return tuple(d for d in self.drifts if d.decision is Decision.SUSPECTED)

    @property
    def decided(self) -> tuple[ColumnDrift, ...]:
        return tuple(d for d in self.drifts if d.decision is not Decision.INSUFFICIENT)

    @property
    def outcome(self) -> str:
        """pass, alarm or insufficient."""
        performance = self.performance.outcome if self.performance else INSUFFICIENT
        if self.drifted or performance == ALARM:
            return ALARM
        return PASS if self.decided or performance == PASS else INSUFFICIENT

    @property
    def file_name(self) -> str:
        """Name of the report without its suffix; the same look repeated has the same name."""
        return f"{self.stage}-{self.span.until.astimezone(UTC):%Y%m%dT%H%M%SZ}"

    @property
    def sentence(self) -> str:
        """The one sentence to read if one reads only one."""
        who = f"{self.model} v{self.version.number} in {self.stage}"
        if self.outcome == INSUFFICIENT:
            needed = self.spec.monitor.drift.min_rows
            return f"{who}: too little to say; {self.look.rows:,} rows came in, {needed:,} are needed"
        parts = drift_parts(self.drifted)
        if self.performance and self.performance.outcome == ALARM:
            parts.append(self.performance.sentence)
        rows = f"{self.look.rows:,} rows"
        if parts:
            return f"{who}: {', and '.join(parts)} ({rows})"
        if self.suspected:
            called = ["the predictions" if d.column == PREDICTION else d.column for d in self.suspected]
            names = names_of(unique(called))
            return f"{who}: no alarm; {names} looked different for the first time ({rows})"
        return f"{who}: no drift in {rows}"

    def as_dict(self) -> dict[str, Any]:
        """Everything that led to the verdict, as plain JSON values."""
        monitor, calibration = self.spec.monitor, self.reference.calibration
        return {
            "format": FORMAT,
            "verdict": self.outcome,
            "drifted": self.outcome == ALARM,
            "sentence": self.sentence,
            "model": self.model,
            "stage": self.stage,
            "version": self.version.number,
            "run_id": self.version.run_id,
            "window": {"since": self.span.since.isoformat(), "until": self.span.until.isoformat()},
            "created": self.created.isoformat(),
            "rows": self.look.rows,
            "rows_per_version": {str(v): n for v, n in self.look.versions.items()},
            "columns": [{**asdict(d), "name": d.name} for d in self.drifts],
            "absent": list(self.look.absent),
            "unreadable": list(self.look.unreadable),
            "timeline": [past.as_dict() for past in self.timeline],
            "decision": {
                "risk": self.risk,
                "psi": monitor.drift.psi,
                "min_rows": monitor.drift.min_rows,
                "persistence": monitor.drift.persistence,
                "false_alarms_per_day": monitor.drift.false_alarms,
                "correction": "Benjamini-Hochberg",
                "reference_window_seconds": calibration.seconds if calibration else None,
            },
            "performance": asdict(self.performance) if self.performance else None,
            "estimate": asdict(self.estimate) if self.estimate else None,
        }


def drift_parts(drifted: Sequence[ColumnDrift]) -> list[str]:
    """What drifted, as parts of a sentence: inputs in all rows, inputs of segments alone, predictions."""
    inputs = unique([d.column for d in drifted if d.column != PREDICTION and not d.segment])
    within = unique([d.name for d in drifted if d.column != PREDICTION and d.segment and d.column not in inputs])
    parts = [f"{names_of(names)} drifted" for names in (inputs, within) if names]
    if any(d.column == PREDICTION for d in drifted):
        parts.append("so did the predictions" if parts else "the predictions drifted")
    return parts


def unique(names: Sequence[str]) -> list[str]:
    """Every name once, in the order in which they came."""
    return list(dict.fromkeys(names))


def names_of(names: Sequence[str], most: int = 4) -> str:
    """Names for a sentence."""
    names = list(names)
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
