"""A data file, a data section and what comes of judging the one by the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb

from mlp_ci.data.checks.flow_validate import judge
from mlp_ci.data.checks.judge import Check, FileVerdict
from mlp_ci.data.plan import types_wanted
from mlp_ci.data.sources import Source
from mlp_ci.report import Outcome
from mlp_ci.spec.data import Data

if TYPE_CHECKING:
    from pathlib import Path

ROWS = "SELECT i AS id, i % 3 = 0 AS late, ['UA', 'AA'][i % 2 + 1] AS carrier, i * 1.5 AS distance FROM range(20) t(i)"
COLUMNS: dict[str, Any] = {
    "id": {"type": "int", "nulls": 0.0},
    "late": {"type": "bool"},
    "carrier": {"type": "string", "in": ["UA", "AA"]},
    "distance": {"type": "float", "min": 0, "max": 100},
}


def section(columns: dict[str, Any] | None = None, **more: Any) -> Data:
    value = {"train": "a.parquet", "test": "b.parquet", "target": "late", "columns": columns or COLUMNS, **more}
    return Data.model_validate(value)


def write(folder: Path, select: str, suffix: str = ".parquet", name: str = "data") -> Path:
    file = folder / f"{name}{suffix}"
    options = {".csv": "(FORMAT csv, HEADER)", ".csv.gz": "(FORMAT csv, HEADER)", ".jsonl": "(FORMAT json)"}
    duckdb.connect().execute(f"COPY ({select}) TO '{file}' {options.get(suffix, '(FORMAT parquet)')}")
    return file


def look(file: Path, data: Data, others: dict[str, Path] | None = None) -> FileVerdict:
    return judge(file, file.name, data, {name: _source(name, f, data) for name, f in (others or {}).items()})


def look_at_pair(train: Path, test: Path, data: Data) -> FileVerdict:
    """The verdict on the training data, beside the held-out data."""
    others = {name: _source(name, file, data) for name, file in (("train", train), ("test", test))}
    return judge(train, data.train, data, others)


def _source(name: str, file: Path, data: Data) -> Source:
    types = types_wanted(data) if name in ("train", "test") else {}
    return Source.parse(file, shown_as=name, types=types)


def broken(verdict: FileVerdict) -> dict[tuple[str, str], Check]:
    return {(c.rule, c.column): c for c in verdict.checks if c.outcome is Outcome.FAIL}


def held(verdict: FileVerdict, rule: str) -> dict[str, Check]:
    return {c.column: c for c in verdict.checks if c.rule == rule and c.outcome is Outcome.PASS}
