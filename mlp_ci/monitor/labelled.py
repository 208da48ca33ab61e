"""Labels that have arrived, joined with what a version answered, in one read of the labels and of the log.

Labels come late, twice, and sometimes contradict each other: a key with two different labels decides nothing and is
left out; a key with the same label twice, or first without one, counts once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci import dvc
from mlp_ci.data.engines.duck import open_file
from mlp_ci.data.engines.duck_sql import quoted
from mlp_ci.data.plan import microseconds, types_wanted
from mlp_ci.errors import InputError
from mlp_ci.monitor.look import WINDOW, load_rows
from mlp_ci.monitor.windows import Span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlp_ci.evaluate.metrics import Array
    from mlp_ci.spec.model import ModelSpec

REQUEST = "request_id"
JOINED = "labelled_rows"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The labelled answers of one version, in order of time; all arrays have the shape (rows,).

    ``at`` is the time of the answer in microseconds since 1970, ``label`` and ``prediction`` are numbers. ``answered``:
    how many answers the version gave in each of the spans asked for, labelled or not. ``conflicting`` answers have
    labels that contradict each other; ``elsewhere`` says how many labelled answers other versions gave.
    """

    at: Array
    label: Array
    prediction: Array
    answered: tuple[int, ...]
    conflicting: int
    elsewhere: Mapping[int, int]

    def within(self, span: Span) -> tuple[Array, Array]:
        """Labels and predictions of one span."""
        first, last = np.searchsorted(self.at, [microseconds(span.since), microseconds(span.until)])
        return self.label[first:last], self.prediction[first:last]


def join_labels(repo: Path, spec: ModelSpec, parts: Sequence[Path], spans: Sequence[Span], version: int) -> Labelled:
    """Join ``monitor.labels`` with the answers of ``version`` in all ``spans``.

    By ``request_id`` where the labels have it, else by the model's key. Raises InputError when there are no answers,
    or labels and log have nothing in common to join them by; OutsideError when the labels cannot be fetched.
    """
    data, path = spec.data, spec.monitor.labels or ""
    cover = Span(since=min(s.since for s in spans), until=max(s.until for s in spans))
    file = dvc.pull(repo, [path])[path]
    with open_file(file, path, types_wanted(data)) as opened:
        connection = opened.connection
        there = {c.name for c in opened.schema()}
        wanted = ["ts", "prediction", REQUEST, *data.key]
        unreadable = load_rows(connection, list(parts), cover, wanted) if parts else ()
        if len(unreadable) == len(parts):
            msg = "no predictions in this window"
            raise InputError(msg)
        logged = {str(name) for name, *_ in connection.execute(f"DESCRIBE {WINDOW}").fetchall()}
        by = _join_columns(there, logged, data.key, path)
        if data.target not in there:
            msg = f"{path} has no column {data.target}"
            raise InputError(msg)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {JOINED} AS {_join(by, data.target)}")
        found = connection.execute(
            f"SELECT moment, label, prediction FROM {JOINED} WHERE version = {version:d} AND ways = 1 ORDER BY ALL"
        ).fetchnumpy()
        counted = connection.execute(
            f"SELECT version, count(*) FILTER (WHERE ways = 1), count(*) FILTER (WHERE ways > 1) FROM {JOINED} "
            "WHERE version IS NOT NULL GROUP BY version ORDER BY version"
        ).fetchall()
        answered = connection.execute(_answered(spans, version)).fetchone()
    return Labelled(
        at=_plain(found["moment"], np.int64),
        label=_plain(found["label"], float),
        prediction=_plain(found["prediction"], float),
        answered=tuple(int(n) for n in answered),
        conflicting=sum(int(n) for v, _, n in counted if v == version),
        elsewhere={int(v): int(n) for v, n, _ in counted if v != version and n},
    )


def _join(by: Sequence[str], target: str) -> str:
    """Each answer that has a label; ``ways`` is how many different labels its key has."""
    label = f"TRY_CAST({quoted(target)} AS DOUBLE)"
    keys = ", ".join(f"CAST({quoted(c)} AS VARCHAR) AS k{i}" for i, c in enumerate(by))
    names = ", ".join(f"k{i}" for i in range(len(by)))
    on = " AND ".join(f"l.k{i} = CAST(w.{quoted(c)} AS VARCHAR)" for i, c in enumerate(by))
    prediction = "TRY_CAST(w.prediction AS DOUBLE)"
    return (
        f"WITH one AS (SELECT {keys}, CASE WHEN isfinite({label}) THEN {label} END AS label FROM data), "
        f"labels AS (SELECT {names}, count(DISTINCT label) AS ways, min(label) AS label FROM one GROUP BY {names}) "
        f"SELECT epoch_us(w.ts) AS moment, w.version, l.label, {prediction} AS prediction, l.ways "
        f"FROM {WINDOW} w JOIN labels l ON {on} WHERE l.ways > 0 AND isfinite({prediction})"
    )


def _answered(spans: Sequence[Span], version: int) -> str:
    counts = ", ".join(
        f"count(*) FILTER (WHERE epoch_us(ts) >= {microseconds(s.since)} AND epoch_us(ts) < {microseconds(s.until)})"
        for s in spans
    )
    return f"SELECT {counts} FROM {WINDOW} WHERE version = {version:d}"


def _plain(values: Any, kind: Any) -> Array:
    return np.asarray(np.ma.compressed(values), dtype=kind)


def _join_columns(labels: set[str], log: set[str], key: tuple[str, ...], path: str) -> tuple[str, ...]:
    if REQUEST in labels:
        return (REQUEST,)
    if key and labels.issuperset(key) and log.issuperset(key):
        return key
    have = f"{REQUEST} or {', '.join(key)}" if key else REQUEST
    msg = f"{path} and the prediction log cannot be joined: both need {have}"
    raise InputError(msg)
