"""The prediction log's files: what came in and what was answered, as Parquet.

Layout: ``<root>/<model>/stage=<stage>/date=YYYY-MM-DD/hour=HH/part-*.parquet`` with the columns ``ts`` (UTC, without
a zone: DuckDB cannot hand out zoned times unless pytz is there), ``request_id``, ``version``, ``arm``, ``latency_ms``,
the logged input columns, ``prediction``. A part is renamed into place, so a reader never sees half of one.
"""

from __future__ import annotations

import os
import re
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.gateway.bodies import Rows
    from mlp_ci.serve.gateway.plan import LogPlan

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_sequence = iter(range(2**62))
# Pods that share a volume may share process numbers; their names differ.
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:60]


@dataclass(frozen=True, slots=True)
class Written:
    """One answered request, as the log keeps it. ``ts`` is in seconds since the epoch, by the project's clock."""

    ts: float
    request_id: str
    version: int
    arm: str
    latency_ms: float


@dataclass
class Part:
    """The rows of one hour that are not on disk yet, column by column."""

    plan: LogPlan
    count: int = 0
    ts: list[int] = field(default_factory=list)  # microseconds
    request_id: list[str] = field(default_factory=list)
    version: list[int] = field(default_factory=list)
    arm: list[str] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    inputs: dict[str, list[Any]] = field(default_factory=dict)
    prediction: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs = {name: [] for name in self.plan.columns}

    def add(self, one: Written, rows: Rows, predictions: Sequence[Any]) -> None:
        """Take the rows of one request; of its inputs only the agreed columns."""
        n = rows.count
        self.count += n
        self.ts += [round(one.ts * 1e6)] * n
        self.request_id += [one.request_id] if n == 1 else [f"{one.request_id}-{i}" for i in range(n)]
        self.version += [one.version] * n
        self.arm += [one.arm] * n
        self.latency_ms += [one.latency_ms] * n
        self.prediction += predictions
        for name, values in self.inputs.items():
            values.extend(rows.columns.get(name) or (None,) * n)

    def write(self, hour: int) -> None:
        """Write the part of an hour (hours since the epoch); raises OSError where the disk refuses."""
        from pyarrow import parquet

        plan, start = self.plan, _EPOCH + timedelta(hours=hour)
        folder = plan.root / plan.model / f"stage={plan.stage}" / f"date={start:%Y-%m-%d}" / f"hour={start:%H}"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"part-{time.time_ns()}-{_HOST}-{os.getpid()}-{next(_sequence)}.parquet"
        scratch = folder / f".{name}"
        try:
            parquet.write_table(self.table(), scratch, compression="zstd")
            scratch.replace(folder / name)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise

    def table(self) -> Any:
        """An Arrow table whose types come from model.yaml, not from the values, so that all parts agree.

        A value that does not fit its column's type becomes null: the model saw it, and refused or coerced it.
        """
        import pyarrow as pa

        return pa.table(
            {
                "ts": pa.array(self.ts, pa.timestamp("us")),
                "request_id": pa.array(self.request_id, pa.string()),
                "version": pa.array(self.version, pa.int32()),
                "arm": pa.array(self.arm, pa.string()),
                "latency_ms": pa.array(self.latency_ms, pa.float64()),
                **{name: _typed(values, self.plan.columns[name]) for name, values in self.inputs.items()},
                "prediction": _predicted(self.prediction),
            }
        )


def _predicted(values: list[Any]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values, pa.float64())
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        pass
    if all(isinstance(v, int | float) for v in values):  # true and false among them
        return pa.array([float(v) for v in values], pa.float64())
    return pa.array([v if isinstance(v, str) else orjson.dumps(v).decode() for v in values], pa.string())


def _typed(values: list[Any], kind: str) -> Any:
    """The values as their column's type: all at once where they fit, else one by one."""
    import pyarrow as pa

    quick = {"float": pa.float64(), "int": pa.int64(), "bool": pa.bool_(), "string": pa.string()}
    slow = {"timestamp": pa.timestamp("us"), "date": pa.date32()}
    if kind in quick:
        try:
            return pa.array(values, quick[kind])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass
    return pa.array([_fitting(v, kind) for v in values], quick.get(kind) or slow.get(kind) or pa.string())


def _fitting(value: Any, kind: str) -> Any:
    """``value`` as its column's type, or None."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        match kind:
            case "float":
                return float(value) if number else None
            case "int":
                return int(value) if number and value == int(value) and abs(value) < 2**63 else None
            case "bool":
                return value if isinstance(value, bool) else None
            case "timestamp":
                return _instant(value)
            case "date":
                return date.fromisoformat(value[:10]) if len(value) == 10 else datetime.fromisoformat(value).date()
            case _:
                return value if isinstance(value, str) else orjson.dumps(value).decode()
    except (ValueError, TypeError, OverflowError):
        return None


def _instant(value: Any) -> datetime:
    instant = datetime.fromisoformat(value)
    return instant.astimezone(UTC).replace(tzinfo=None) if instant.tzinfo else instant
