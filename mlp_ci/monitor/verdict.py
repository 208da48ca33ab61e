"""The verdict of one look: everything that was found out, what it says, and its JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlp_ci.data.drift import ColumnDrift, Decision
from mlp_ci.data.profile import PREDICTION, Profile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.monitor.look import Look
    from mlp_ci.monitor.performance import PerformanceLook
    from mlp_ci.monitor.windows import Span
    from mlp_ci.spec.model import ModelSpec
    from mlp_ci.tracking import VersionFact

FORMAT = "mlp-ci/monitor/v1"
PASS, ALARM, INSUFFICIENT = "pass", "alarm", "insufficient"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Everything that one look found out. ``alpha`` is the risk of a false alarm that this look runs."""

    model: str
    stage: str
    version: VersionFact
    span: Span
    created: datetime
    look: Look
    reference: Profile
    drifts: tuple[ColumnDrift, ...]
    alpha: float
    spec: ModelSpec
    performance: PerformanceLook | None = None

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        return tuple(d for d in self.drifts if d.decision is Decision.DRIFTED)

    @property
    def outcome(self) -> str:
        """pass, alarm or insufficient."""
        performance = self.performance.outcome if self.performance else INSUFFICIENT
        if self.drifted or performance == ALARM:
            return ALARM
        decided = [d for d in self.drifts if d.decision is not Decision.INSUFFICIENT]
        return PASS if decided or performance == PASS else INSUFFICIENT

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
        inputs = [d.column for d in self.drifted if d.column != PREDICTION]
        predictions = len(inputs) < len(self.drifted)
        parts = [f"{names_of(inputs)} drifted"] if inputs else []
        if predictions:
            parts.append("so did the predictions" if inputs else "the predictions drifted")
        if self.performance and self.performance.outcome == ALARM:
            parts.append(self.performance.sentence)
        if not parts:
            return f"{who}: no drift in {self.look.rows:,} rows"
        return f"{who}: {', and '.join(parts)} ({self.look.rows:,} rows)"

    def as_dict(self) -> dict[str, Any]:
        """Everything that led to the verdict, as plain JSON values."""
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
            "columns": [asdict(d) for d in self.drifts],
            "absent": list(self.look.absent),
            "unreadable": [p.name for p in self.look.unreadable],
            "decision": {
                "alpha": self.alpha,
                "psi": self.spec.monitor.drift.psi,
                "min_rows": self.spec.monitor.drift.min_rows,
                "false_alarms_per_day": self.spec.monitor.drift.false_alarms,
                "correction": "Benjamini-Hochberg",
            },
            "performance": asdict(self.performance) if self.performance else None,
        }


def names_of(names: Sequence[str], most: int = 4) -> str:
    """Names for a sentence."""
    names = list(names)
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
