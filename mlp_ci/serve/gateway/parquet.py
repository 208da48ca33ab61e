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
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.gateway.plan import LogPlan

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_sequence = iter(range(2**62))
# Pods that share a volume may share process numbers; their names differ.
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:60]

# One answered request: its moment in seconds since the epoch (by the project's clock), id, version, arm, milliseconds.
Fact = tuple[float, str, int, str, float]


@dataclass
class Part:
    """The rows of one hour that are not on disk yet, as they came; they become columns all at once, at the end."""

    plan: LogPlan
    facts: list[Fact] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # rows of each request
    inputs: list[tuple[Any, ...]] = field(default_factory=list)  # the agreed columns of each row
    predictions: list[Any] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.predictions)

    def add(self, fact: Fact, rows: Sequence[tuple[Any, ...]], predictions: Sequence[Any]) -> None:
        """Take the rows of one request, of each the agreed columns."""
        self.facts.append(fact)
        self.sizes.append(len(rows))
        self.inputs += rows
        self.predictions += predictions

    def write(self, hour: int) -> None:
        """Write the part of an hour (hours since the epoch); raises OSError where the disk refuses."""
        from pyarrow import parquet

        plan, start = self.plan, _EPOCH + timedelta(hours=hour)
        folder = plan.root / plan.model / f"stage={plan.stage}" / f"date={start:%Y-%m-%d}" / f"hour={start:%H}"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"part-{time.time_ns()}-{_HOST}-{os.getpid()}-{next(_sequence)}.parquet"
        scratch = folder / f".{name}"
        try:
            # Ids and measured numbers hardly ever come twice: a dictionary of them would only cost time.
            alike = ["version", "arm", *(name for name, kind in plan.columns.items() if kind != "float")]
            parquet.write_table(self.table(), scratch, compression="zstd", use_dictionary=alike)
            scratch.replace(folder / name)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise

    def table(self) -> Any:
        """An Arrow table whose types come from model.yaml, not from the values, so that all parts agree.

        A value that does not fit its column's type becomes null: the model saw it, and refused or coerced it.
        """
        import numpy as np
        import pyarrow as pa

        def each(place: int, kind: type) -> Any:
            """The requests' facts, once for each of their rows."""
            return np.repeat(np.fromiter(map(itemgetter(place), self.facts), kind, len(self.facts)), self.sizes)

        columns = enumerate(self.plan.columns.items())
        return pa.table(
            {
                "ts": pa.array(np.rint(each(0, float) * 1e6).astype(np.int64).view("datetime64[us]")),
                "request_id": pa.array(self._ids(), pa.string()),
                "version": pa.array(each(2, int), pa.int32()),
                "arm": pa.array(each(3, object), pa.string()),
                "latency_ms": pa.array(each(4, float)),
                **{name: _typed(list(map(itemgetter(n), self.inputs)), kind) for n, (name, kind) in columns},
                "prediction": _predicted(self.predictions),
            }
        )

    def _ids(self) -> list[str]:
        """The requests' ids; rows that came together have their number behind it."""
        found: list[str] = []
        for fact, size in zip(self.facts, self.sizes, strict=True):
            if size == 1:
                found.append(fact[1])
            else:
                found += [f"{fact[1]}-{n}" for n in range(size)]
        return found


def _predicted(values: list[Any]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values, pa.float64())
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        pass
    if all(v is None or isinstance(v, int | float) for v in values):  # true and false among them
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    texts = [v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for v in values]
    return pa.array(texts, pa.string())


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
