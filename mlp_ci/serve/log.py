"""The prediction log: what came in and what was answered, as Parquet, written off the request path.

Layout: ``<root>/<model>/stage=<stage>/date=YYYY-MM-DD/hour=HH/part-*.parquet`` with the columns ``ts`` (UTC, without
a zone: DuckDB cannot hand out zoned times unless pytz is there), ``request_id``, ``version``, ``arm``, ``latency_ms``,
the logged input columns, ``prediction``. A part is written at least every second and renamed into place, so a reader
never sees half of one: a killed gateway loses at most the last second, a terminated one nothing. A disk that refuses
costs rows, counted, never an answer.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.payload import BadRequest, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLUSH_EVERY = 0.9  # seconds; the promise is one
FLUSH_ROWS = 20_000
BYTES_LIMIT = 256 * 1024 * 1024
OWN = ("ts", "request_id", "version", "arm", "latency_ms", "prediction")


@dataclass(frozen=True)
class LogPlan:
    """Where the log is and which input columns it keeps, with their types of model.yaml."""

    root: Path
    model: str
    stage: str
    columns: Mapping[str, str]

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], model: str, stage: str) -> LogPlan | None:
        """From ``gateway.json``; None where nothing is to be logged."""
        if not raw.get("root"):
            return None
        return cls(Path(raw["root"]), model, stage, {k: v for k, v in raw["columns"].items() if k not in OWN})


@dataclass(frozen=True, slots=True)
class Exchange:
    """One answered request, as it went over the wire."""

    ts: datetime
    request_id: str
    version: int
    arm: str
    latency_ms: float
    request: bytes
    answer: bytes


@dataclass
class PredictionLog:
    """Collects exchanges and writes them from a thread of its own."""

    plan: LogPlan
    written: int = 0
    lost: int = 0
    _pending: list[Exchange] = field(default_factory=list)
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wake: threading.Event = field(default_factory=threading.Event)
    _closing: bool = False
    _sequence: int = 0
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write."""
        import pyarrow as _  # noqa: F401, ICN001  # half a second that no request should wait for

        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def add(self, exchange: Exchange) -> None:
        """Take one exchange; never blocks on the disk. What does not fit in memory is lost and counted."""
        size = len(exchange.request) + len(exchange.answer)
        with self._lock:
            if self._bytes + size > BYTES_LIMIT:
                self.lost += 1
                return
            self._pending.append(exchange)
            self._bytes += size
            many = len(self._pending) >= FLUSH_ROWS
        if many:
            self._wake.set()

    def close(self) -> None:
        """Write what is left, and stop."""
        self._closing = True
        self._wake.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(FLUSH_EVERY)
            self._wake.clear()
            self.flush()
        self.flush()

    def flush(self) -> None:
        """Write what has gathered. An exchange that cannot be read or written is counted as lost."""
        with self._lock:
            pending, self._pending, self._bytes = self._pending, [], 0
        hours: dict[datetime, list[dict[str, Any]]] = {}
        for exchange in pending:
            try:
                rows = rows_of(exchange, self.plan.columns)
            except (BadRequest, ValueError, TypeError, KeyError):
                self.lost += 1
                continue
            hours.setdefault(exchange.ts.replace(minute=0, second=0, microsecond=0), []).extend(rows)
        for hour, rows in hours.items():
            try:
                self._write(hour, rows)
                self.written += len(rows)
            except OSError as error:
                self.lost += len(rows)
                print(f"{len(rows)} rows of the prediction log are lost: {error}", file=sys.stderr)

    def _write(self, hour: datetime, rows: Sequence[Mapping[str, Any]]) -> None:
        from pyarrow import parquet

        plan = self.plan
        folder = plan.root / plan.model / f"stage={plan.stage}" / f"date={hour:%Y-%m-%d}" / f"hour={hour:%H}"
        folder.mkdir(parents=True, exist_ok=True)
        self._sequence += 1
        name = f"part-{time.time_ns()}-{os.getpid()}-{self._sequence}.parquet"
        scratch = folder / f".{name}"
        try:
            parquet.write_table(table_of(rows, plan.columns), scratch, compression="zstd")
            scratch.replace(folder / name)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise


def rows_of(exchange: Exchange, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """The log's rows of one exchange; of the inputs only ``columns``."""
    request = parse(exchange.request)
    predictions = json.loads(exchange.answer)["predictions"]
    if len(predictions) != request.count:
        msg = "as many predictions as rows are expected"
        raise ValueError(msg)
    kept = {name: request.columns[name] for name in columns if name in request.columns}
    many = request.count > 1
    return [
        {
            "ts": exchange.ts,
            "request_id": f"{exchange.request_id}-{index}" if many else exchange.request_id,
            "version": exchange.version,
            "arm": exchange.arm,
            "latency_ms": exchange.latency_ms,
            **{name: values[index] for name, values in kept.items()},
            "prediction": prediction,
        }
        for index, prediction in enumerate(predictions)
    ]


def table_of(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Any:
    """An Arrow table whose types come from model.yaml, not from the values, so that all parts agree.

    A value that does not fit its column's type becomes null: the model saw it, and refused or coerced it.
    """
    import pyarrow as pa

    types = {
        "float": pa.float64(),
        "int": pa.int64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us"),
        "date": pa.date32(),
    }
    predictions = [row["prediction"] for row in rows]
    numeric = all(isinstance(p, int | float) for p in predictions)
    fields = [
        ("ts", pa.timestamp("us"), [row["ts"].astimezone(UTC).replace(tzinfo=None) for row in rows]),
        ("request_id", pa.string(), [row["request_id"] for row in rows]),
        ("version", pa.int32(), [row["version"] for row in rows]),
        ("arm", pa.string(), [row["arm"] for row in rows]),
        ("latency_ms", pa.float64(), [row["latency_ms"] for row in rows]),
        *(
            (name, types.get(kind, pa.string()), [_fitting(row.get(name), kind) for row in rows])
            for name, kind in columns.items()
        ),
        (
            "prediction",
            pa.float64() if numeric else pa.string(),
            [float(p) for p in predictions]
            if numeric
            else [p if isinstance(p, str) else json.dumps(p) for p in predictions],
        ),
    ]
    return pa.table({name: pa.array(values, type=kind) for name, kind, values in fields})


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
                return datetime.fromisoformat(value).date()
            case _:
                return value if isinstance(value, str) else json.dumps(value)
    except (ValueError, TypeError, OverflowError):
        return None


def _instant(value: Any) -> datetime:
    instant = datetime.fromisoformat(value)
    return instant.astimezone(UTC).replace(tzinfo=None) if instant.tzinfo else instant
