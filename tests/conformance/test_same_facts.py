"""Any small table and any plan: the same facts on every engine."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_ci.data.engine import ColumnFacts, Facts
from mlp_ci.data.plan import compile_plan, types_wanted
from mlp_ci.spec.data import Data
from tests.conformance.stores import DuckStore, Frame, PostgresStore, SparkStore, SqliteStore, Store

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6)
DAYS = st.dates(date(1, 1, 2), date(9999, 12, 30))
TIMES = st.datetimes(datetime.fromisoformat("0001-01-02"), datetime.fromisoformat("9999-12-30"))
INTS = st.integers(-(2**63) + 1, 2**63 - 1)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-3, 3) | INTS,
    "float": st.integers(-3, 3).map(float) | st.floats(),
    "string": st.sampled_from(["a", "b", "it's", "ab"]) | TEXT,
    "bool": st.booleans(),
    "timestamp": TIMES,
    "date": DAYS,
}
DECLARED = {
    "int": ("int", "float"),
    "float": ("float", "int"),
    "string": ("string",),
    "bool": ("bool",),
    "timestamp": ("timestamp", "date"),
    "date": ("date", "timestamp"),
}
PATTERNS = ["a|b", r"\w+", "[^b]*", r".{0,2}", r"\S+\s?\d*"]


@dataclass(frozen=True)
class Case:
    table: Frame
    data: Data


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rows = draw(st.integers(0, 8))
    names = draw(st.lists(TEXT.filter(str.strip), min_size=1, max_size=3, unique_by=str.lower))
    columns: dict[str, Any] = {}
    values: dict[str, tuple[str, list[Any]]] = {}
    for name in names:
        kind = draw(st.sampled_from(list(VALUES)))
        declared = draw(st.sampled_from(DECLARED[kind]))
        values[name] = (kind, draw(st.lists(st.none() | VALUES[kind], min_size=rows, max_size=rows)))
        columns[name] = {"type": declared, **draw(checks(declared))}
    section = {"train": "a.parquet", "test": "b.parquet", "target": names[0], "columns": columns}
    return Case(Frame(values), Data.model_validate(section))


@st.composite
def checks(draw: st.DrawFn, declared: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if declared in ("int", "float"):
        bounds = st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | INTS
        found = {"mean": {"min": 0}, "quantiles": [{"at": q, "min": 0} for q in draw(st.sets(SHARES, max_size=2))]}
    elif declared in ("timestamp", "date"):
        bounds = TIMES | DAYS  # type: ignore[assignment]
    elif declared == "string":
        return {"regex": draw(st.sampled_from(PATTERNS)), "length": {"min": 1, "max": draw(st.integers(1, 4))}}
    else:
        return found
    lower, upper = draw(st.none() | bounds), draw(st.none() | bounds)
    if lower is not None and (upper is None or type(upper) is not type(lower) or lower <= upper):
        found["min"] = lower
    if upper is not None and "min" not in found:
        found["max"] = upper
    return found


SHARES = st.sampled_from([0.07, 0.25, 0.5, 0.57, 0.9])


def facts_on(store: Store, case: Case) -> Facts:
    with store.open(case.table, types_wanted(case.data)) as engine:
        return engine.facts(compile_plan(case.data, engine.schema()))


def assert_same(facts: Facts, reference: Facts, store: Store) -> None:
    assert facts.rows == reference.rows
    assert facts.columns.keys() == reference.columns.keys()
    for name, found in facts.columns.items():
        expected = reference.columns[name]
        assert without_mean(found, store) == without_mean(expected, store), name
        if found.mean is None or expected.mean is None:
            # A sum that no double holds is None on engines that add before they divide.
            assert found.mean is expected.mean or abs(found.mean or expected.mean or 0) > 1e300
            continue
        largest = max(abs(expected.smallest or 0), abs(expected.largest or 0))
        assert math.isclose(found.mean, expected.mean, rel_tol=1e-12, abs_tol=1e-12 * largest)


def without_mean(found: ColumnFacts, store: Store) -> tuple[Any, ...]:
    nan = found.nan if store.keeps_nan else 0
    return (found.nulls, nan, found.smallest, found.largest, found.faults, found.quantiles)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_sqlite_measures_what_duckdb_measures(case: Case, folder: Path) -> None:
    store = SqliteStore(folder)
    assert_same(facts_on(store, case), facts_on(DuckStore(folder), case), store)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_postgresql_measures_what_duckdb_measures(case: Case, folder: Path, postgres_address: str) -> None:
    store = PostgresStore(postgres_address)
    assert_same(facts_on(store, case), facts_on(DuckStore(folder), case), store)


@pytest.mark.slow
@pytest.mark.xdist_group("spark")
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_spark_measures_what_duckdb_measures(case: Case, folder: Path, spark_session: Any) -> None:
    store = SparkStore(folder)
    assert_same(facts_on(store, case), facts_on(DuckStore(folder), case), store)
