"""What an engine measures, the same on every engine: each case runs on DuckDB, SQLite, PostgreSQL and Spark."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import pytest

from mlp_ci.data.engine import ColumnFacts, Engine, Fault
from mlp_ci.data.plan import Plan, compile_plan, types_wanted
from mlp_ci.errors import InputError
from mlp_ci.spec.data import Data
from tests.conformance.engines import CSV, TYPED
from tests.conformance.stores import Frame, Store

NAN, INF = math.nan, math.inf
at = datetime.fromisoformat
HOSTILE = "we\"i`rd 'na%me:x; --"
DAY = 86_400_000_000
EXCEPT_CSV = pytest.mark.parametrize("store", TYPED, indirect=True)


def section(columns: dict[str, Any], **more: Any) -> Data:
    return Data.model_validate(
        {"train": "a.parquet", "test": "b.parquet", "target": "y", "columns": {"y": {"type": "int"}, **columns}, **more}
    )


def frame(**columns: tuple[str, list[Any]]) -> Frame:
    rows = len(next(iter(columns.values()))[1])
    return Frame({"y": ("int", [0] * rows), **columns})


def named(name: str, kind: str, values: list[Any]) -> Frame:
    return Frame({"y": ("int", [0] * len(values)), name: (kind, values)})


def plan_of(engine: Engine, data: Data) -> Plan:
    return compile_plan(data, engine.schema())


def facts_of(store: Store, data: Data, table: Frame, name: str) -> ColumnFacts:
    with store.open(table, types_wanted(data)) as engine:
        facts = engine.facts(plan_of(engine, data))
    assert facts.rows == len(table.rows)
    return facts.columns[name]


# ---------------------------------------------------------------- facts


@pytest.mark.parametrize("kind", ["int", "float", "decimal"])
def test_bounds_extremes_mean_and_quantiles_of_numbers(store: Store, kind: str) -> None:
    band = {"mean": {"min": 0}, "quantiles": [{"at": q, "min": 0} for q in (0.07, 0.25, 0.5, 0.75, 0.99)]}
    declared = "int" if kind == "int" else "float"
    data = section({"x": {"type": declared, "min": 3, "max": 98, **band}})
    table = frame(x=(kind, [*range(1, 101), None, None]))
    found = facts_of(store, data, table, "x")
    assert (found.nulls, found.nan, found.smallest, found.largest) == (2, 0, 1, 100)
    assert found.faults == {Fault.BELOW: 2, Fault.ABOVE: 2}
    assert found.mean == pytest.approx(50.5, rel=1e-14)
    assert found.quantiles == {0.07: 7, 0.25: 25, 0.5: 50, 0.75: 75, 0.99: 99}


def test_a_bound_is_compared_as_it_is_written(store: Store) -> None:
    data = section({"x": {"type": "float", "min": 0.1, "max": 0.3}})
    values = [0.1, 0.3, 0.30000000000000004, 0.09999999999999999, 0.1 + 0.2]
    found = facts_of(store, data, frame(x=("float", values)), "x")
    assert found.faults == {Fault.BELOW: 1, Fault.ABOVE: 2}
    assert (found.smallest, found.largest) == (0.09999999999999999, 0.30000000000000004)


def test_nan_is_missing_and_infinities_are_a_fault(store: Store) -> None:
    band = {"mean": {"min": 0}, "quantiles": [{"at": 0.5, "min": 0}]}
    data = section({"x": {"type": "float", "min": -5, "max": 5, **band}})
    found = facts_of(store, data, frame(x=("float", [1.0, NAN, INF, -INF, None, 2.5, 9.0])), "x")
    assert found.nulls == 2
    assert found.nan == (1 if store.keeps_nan else 0)
    assert found.faults == {Fault.INFINITE: 2, Fault.ABOVE: 1}
    assert (found.smallest, found.largest) == (1, 9)
    assert found.mean == pytest.approx(12.5 / 3, rel=1e-14)
    assert found.quantiles == {0.5: 2.5}


def test_a_mean_that_no_double_sum_holds(store: Store) -> None:
    data = section({"x": {"type": "float", "mean": {"min": 0}}})
    found = facts_of(store, data, frame(x=("float", [1e308, 1e308, 1e308, 1.0])), "x")
    # DuckDB adds them up and says that it cannot; the others divide first.
    assert found.mean is None or found.mean == pytest.approx(7.5e307, rel=1e-12)


def test_whole_numbers_beyond_doubles_stay_exact(store: Store) -> None:
    data = section({"x": {"type": "int", "max": 9007199254740992, "quantiles": [{"at": 0.5, "min": 0}]}})
    values = [9007199254740993, 9007199254740995, 9007199254740991]
    found = facts_of(store, data, frame(x=("int", values)), "x")
    assert (found.smallest, found.largest) == (9007199254740991, 9007199254740995)
    assert found.faults == {Fault.ABOVE: 2}
    assert found.quantiles == {0.5: 9007199254740993}


def test_nothing_there(store: Store) -> None:
    columns = {"x": {"type": "float", "min": 0, "mean": {"min": 0}, "quantiles": [{"at": 0.5, "min": 0}]}}
    for values in ([], [None, None]):
        found = facts_of(store, section(columns), frame(x=("float", values)), "x")
        assert (found.nulls, found.smallest, found.largest, found.mean) == (len(values), None, None, None)
        assert (found.faults, found.quantiles) == ({}, {})


def test_times_are_microseconds(store: Store) -> None:
    data = section({"x": {"type": "timestamp", "min": at("1970-01-01T00:00:00"), "max": at("2013-01-01T00:00:00")}})
    values = [at("1969-12-31T23:59:59.999999"), at("2013-01-01T00:00:00"), at("2013-01-01T00:00:00.000001"), None]
    found = facts_of(store, data, frame(x=("timestamp", values)), "x")
    assert (found.nulls, found.smallest, found.largest) == (1, -1, 1356998400000001)
    assert found.faults == {Fault.BELOW: 1, Fault.ABOVE: 1}


def test_times_with_a_zone_are_compared_in_utc(store: Store) -> None:
    data = section({"x": {"type": "timestamp", "max": datetime(2013, 1, 1, 5, tzinfo=UTC)}})
    values = [datetime.fromisoformat("2013-01-01T00:30:00-05:00"), datetime(2013, 1, 1, 5, tzinfo=UTC)]
    found = facts_of(store, data, frame(x=("zoned", values)), "x")
    assert (found.smallest, found.largest) == (1357016400000000, 1357018200000000)
    assert found.faults == {Fault.ABOVE: 1}


def test_days(store: Store) -> None:
    data = section({"x": {"type": "date", "min": date(1970, 1, 2)}})
    found = facts_of(store, data, frame(x=("date", [date(1969, 12, 31), date(1970, 1, 2), None])), "x")
    assert (found.nulls, found.smallest, found.largest) == (1, -DAY, DAY)
    assert found.faults == {Fault.BELOW: 1}


@EXCEPT_CSV
def test_a_day_with_a_time_of_day(store: Store) -> None:
    data = section({"x": {"type": "date"}})
    found = facts_of(store, data, frame(x=("timestamp", [at("2013-01-01T00:00:00"), at("2013-01-01T05:00:00")])), "x")
    assert found.faults == {Fault.NOT_MIDNIGHT: 1}


def test_whole_numbers_in_a_column_of_floats(store: Store) -> None:
    data = section({"x": {"type": "int", "max": 3}})
    found = facts_of(store, data, frame(x=("float", [1.0, 2.5, None, 4.0, 1e300])), "x")
    # In a column without types 2.5 cannot be read as a whole number; in one of floats it is a wrong value.
    assert found.faults.get(Fault.NOT_WHOLE, 0) + found.faults.get(Fault.UNREADABLE, 0) >= 1
    assert found.faults[Fault.ABOVE] >= 1
    assert found.nulls == 1


def test_length_and_regex(store: Store) -> None:
    columns = {HOSTILE: {"type": "string", "length": {"min": 2, "max": 3}, "regex": r"[A-Z]{2}\d?|é+x|\w\.b"}}
    values = ["UA", "UA1", "x", "toolong", "éx", "éééx", "a.b", "aXb", None, "UA\n"]
    found = facts_of(store, section(columns), named(HOSTILE, "string", values), HOSTILE)
    assert found.faults == {Fault.TOO_SHORT: 1, Fault.TOO_LONG: 2, Fault.NO_MATCH: 4}
    assert (found.nulls, found.smallest, found.largest) == (1, None, None)


@pytest.mark.parametrize(
    ("pattern", "matching", "strange"),
    [
        ("a|b", ["a", "b"], ["ab", "xa"]),
        ("a.c", ["abc"], ["a\nc", "abcd"]),
        (r"(?i)ab\s?", ["AB", "ab "], ["abx"]),
        (r"[^\d]+", ["ab"], ["a1"]),
        (r"\bx\b", ["x"], ["xx"]),
        (r"(?P<one>a)+", ["aa"], ["b"]),
        (r"^ab$", ["ab"], ["ab\n", "abc"]),
        (r"[]a]+", ["]a"], ["b"]),
        (r"\w+", ["a_1"], ["é"]),
        (r"'%s'", ["'%s'"], ["x"]),
        (r"\$\{HOME\}", ["${HOME}"], ["x"]),
    ],
)
def test_regular_expressions_mean_the_same(store: Store, pattern: str, matching: list[str], strange: list[str]) -> None:
    data = section({"x": {"type": "string", "regex": pattern}})
    found = facts_of(store, data, frame(x=("string", [*matching, *strange])), "x")
    assert found.faults.get(Fault.NO_MATCH, 0) == len(strange)


@EXCEPT_CSV
def test_a_column_of_another_type_is_only_counted(store: Store) -> None:
    data = section({"x": {"type": "int", "min": 3}})
    with store.open(frame(x=("string", ["1", None])), types_wanted(data)) as engine:
        plan = plan_of(engine, data)
        column = plan.column("x")
        assert column is not None
        assert not column.measurable
        found = engine.facts(plan).columns["x"]
    assert (found.nulls, found.smallest, found.faults) == (1, None, {})


@pytest.mark.parametrize("store", CSV, indirect=True)
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("float", ["1.5", " 2 ", "1e3", "-.5", "far", "1,5", "1d", "inf"]),
        ("int", ["1", "2.0", "3.5", "x", "1e2"]),
        ("bool", ["true", "F", "yes", "0", "2", "wahr"]),
        ("timestamp", ["2013-01-01 05:00:00-05", "2013-01-01T02:00:00Z", "2013-01-01", "2013", "noon"]),
        ("date", ["2013-01-01", "2013-02-30", "x"]),
    ],
)
def test_text_is_read_as_what_is_declared(store: Store, kind: str, values: list[str]) -> None:
    unreadable = {"float": 3, "int": 2, "bool": 2, "timestamp": 2, "date": 2}[kind]
    found = facts_of(store, section({"x": {"type": kind}}), frame(x=("string", values)), "x")
    assert found.faults.get(Fault.UNREADABLE) == unreadable
    assert found.nulls == 0


# ---------------------------------------------------------------- values


def test_membership(store: Store) -> None:
    data = section({HOSTILE: {"type": "string", "in": ["UA", "it's", "b\\s", "${HOME}", "%s"]}})
    values = ["UA", "it's", "b\\s", "${HOME}", "%s", "x", "x", "x", "a;b", "a;b", "z", None]
    with store.open(named(HOSTILE, "string", values), types_wanted(data)) as engine:
        column = plan_of(engine, data).column(HOSTILE)
        assert column is not None
        found = engine.membership(column)
        examples = engine.examples(column, Fault.OUTSIDE_SET, ("y",))
    assert (found.rows, found.distinct, found.distinct_outside) == (6, 8, 3)
    assert found.values == (("x", 3), ("a;b", 2), ("z", 1))
    assert len(examples) == 5
    assert {e.value for e in examples} <= {"x", "a;b", "z"}
    assert all(e.key == ("0",) for e in examples)


@pytest.mark.parametrize(
    ("declared", "kind", "values", "allowed", "outside"),
    [
        ("int", "int", [1, 2, 2, None], [1], (("2", 2),)),
        ("int", "float", [1.0, 2.0, 2.0, None], [1], (("2.0", 2),)),
        ("float", "float", [1.0, 2.5, 2.5], [1], (("2.5", 2),)),
        ("bool", "bool", [True, False, False], [True], (("false", 2),)),
        ("date", "date", [date(2013, 1, 1), date(2013, 1, 2)], ["2013-01-01"], (("2013-01-02", 1),)),
        ("string", "string", ["a", "b"], [], (("a", 1), ("b", 1))),
    ],
)
def test_membership_by_type(
    store: Store, declared: str, kind: str, values: list[Any], allowed: list[Any], outside: Any
) -> None:
    data = section({"x": {"type": declared, "in": allowed}})
    with store.open(frame(x=(kind, values)), types_wanted(data)) as engine:
        column = plan_of(engine, data).column("x")
        assert column is not None
        found = engine.membership(column)
    assert found.rows == sum(n for _, n in outside)
    shown = dict(found.values)
    if not store.typed and (declared, kind) == ("int", "float"):
        shown = {f"{float(v)}": n for v, n in shown.items()}
    assert shown == dict(outside)


def test_nan_is_no_value_and_an_infinity_is_one(store: Store) -> None:
    data = section({"x": {"type": "float", "in": [1]}, "s": {"type": "string"}})
    table = frame(x=("float", [1.0, NAN, 2.0, INF, None, 2.0]), s=("string", ["a", "b", "c", "d", "e", "f"]))
    with store.open(table, types_wanted(data)) as engine:
        column = plan_of(engine, data).column("x")
        assert column is not None
        found = engine.membership(column)
        examples = engine.examples(column, Fault.OUTSIDE_SET, ("s",))
        counted = engine.counts("x", 9)
    assert (found.rows, found.distinct, found.distinct_outside) == (3, 3, 2)
    assert found.values == (("2.0", 2), ("inf", 1))
    assert {e.key for e in examples} == {("c",), ("d",), ("f",)}
    assert counted == (("2.0", 2), ("1.0", 1), ("inf", 1))


def test_counts_in_order(store: Store) -> None:
    data = section({"x": {"type": "string"}, "b": {"type": "bool"}, "f": {"type": "float"}, "i": {"type": "int"}})
    table = frame(
        x=("string", ["b", "a", "a", "B", None, "ä"]),
        b=("bool", [True, True, False, None, None, True]),
        f=("float", [1.0, 1.0, 0.1, 2.5, None, 1e20]),
        i=("int", [10, 9, 9, 10, None, 2]),
    )
    with store.open(table, types_wanted(data)) as engine:
        assert engine.counts("x", 3) == (("a", 2), ("B", 1), ("b", 1))
        assert engine.counts("b", 9) == (("true", 3), ("false", 1))
        assert engine.counts("f", 9) == (("1.0", 2), ("0.1", 1), ("1e+20", 1), ("2.5", 1))
        assert engine.counts("i", 9) == (("10", 2), ("9", 2), ("2", 1))


def test_examples_by_row_or_key(store: Store) -> None:
    data = section({"id": {"type": "int"}, "x": {"type": "float", "max": 5}}, key=["id"])
    table = frame(id=("int", list(range(1, 10))), x=("float", [1.0, 7.5, None, 8.5, 1.0, 9.0, 9.0, 9.0, 9.0]))
    with store.open(table, types_wanted(data)) as engine:
        plan = plan_of(engine, data)
        column = plan.column("x")
        assert column is not None
        above = engine.examples(column, Fault.ABOVE, ("id",))
        missing = engine.examples(column, Fault.NULL, ("id",))
    assert [(e.key, e.value) for e in above] == [
        (("2",), "7.5"),
        (("4",), "8.5"),
        (("6",), "9.0"),
        (("7",), "9.0"),
        (("8",), "9.0"),
    ]
    assert [(e.key, e.value) for e in missing] == [(("3",), None)]
    assert [e.row for e in above] == ([2, 4, 6, 7, 8] if store.ordered else [None] * 5)


# ---------------------------------------------------------------- rows


def test_repeats(store: Store) -> None:
    data = section({"a": {"type": "int"}, HOSTILE: {"type": "string"}})
    columns = {
        "y": ("int", [0] * 7),
        "a": ("int", [1, 2, 2, None, None, 2, 1]),
        HOSTILE: ("string", ["x", "y", "y", "z", "z", "q", None]),
    }
    with store.open(Frame(columns), types_wanted(data)) as engine:
        one = engine.repeats(["a"])
        both = engine.repeats(["a", HOSTILE])
        whole = engine.repeats([])
        none = engine.repeats(["y"])
    row = (lambda n: n) if store.ordered else (lambda _: None)
    assert (one.rows, one.examples) == (3, ((row(2), ("2",), 3), (row(1), ("1",), 2)))
    assert (both.rows, both.examples) == (1, ((row(2), ("2", "y"), 2),))
    # A null equals a null where whole rows are compared.
    assert whole.rows == 2
    assert sorted((n, values) for _, values, n in whole.examples) == [(2, ()), (2, ())]
    assert none.rows == 6


def test_time_that_goes_back(store: Store) -> None:
    data = section({"x": {"type": "timestamp"}}, time="x")
    values = [
        at("2013-01-02T00:00:00"),
        None,
        at("2013-01-01T00:00:00"),
        at("2013-01-01T00:00:00"),
        at("2013-01-03T00:00:00"),
    ]
    with store.open(frame(x=("timestamp", values)), types_wanted(data)) as engine:
        time = plan_of(engine, data).column("x")
        assert time is not None
        if not store.ordered:
            with pytest.raises(InputError, match="no order"):
                engine.backwards(time)
            return
        found = engine.backwards(time)
    assert (found.rows, found.columns) == (1, ("x",))
    assert found.examples == ((3, ("2013-01-01 00:00:00",)),)


def test_values_that_another_table_lacks(store: Store) -> None:
    data = section({"x": {"type": "string"}, "i": {"type": "int"}})
    table = frame(x=("string", ["UA", "AA", "ZZ", None, "it's"]), i=("int", [1, 2, 3, 4, None]))
    other = Frame({"x": ("string", ["UA", "UA", None, "it's"]), "i": ("float", [1.0, 2.0, None, 7.5])})
    with store.open(table, types_wanted(data), {"data/o'f.parquet": other}) as engine:
        texts = engine.absent(["x"], "data/o'f.parquet", ["x"])
        numbers = engine.absent(["i"], "data/o'f.parquet", ["i"])
        both = engine.absent(["x", "i"], "data/o'f.parquet", ["x", "i"])
        with pytest.raises(InputError, match="nowhere"):
            engine.absent(["x"], "data/o'f.parquet", ["nowhere"])
    assert (texts.rows, texts.columns) == (2, ("x",))
    assert {values for _, values in texts.examples} == {("AA",), ("ZZ",)}
    assert numbers.rows == 2
    assert {values for _, values in numbers.examples} == {("3",), ("4",)}
    assert both.rows == 2
    assert [row for row, _ in texts.examples] == ([2, 3] if store.ordered else [None, None])


def test_rows_in_both_tables(store: Store) -> None:
    data = section({"x": {"type": "string"}, "i": {"type": "int"}})
    table = frame(x=("string", ["a", "b", None, "d"]), i=("int", [1, 2, None, 4]))
    other = frame(x=("string", ["b", None, "d", "d"]), i=("int", [2, None, 5, 5]))
    strange = Frame({"x": ("string", ["a"])})
    with store.open(table, types_wanted(data), {"test": other, "strange": strange}) as engine:
        keys = engine.shared(["x"], "test")
        whole = engine.shared([], "test")
        assert engine.shared([], "strange").rows == 0
    assert keys.rows == 2
    assert {values for _, values in keys.examples} == {("b",), ("d",)}
    assert whole.rows == 2
    assert all(values == () for _, values in whole.examples)


def test_features_against_the_target(store: Store) -> None:
    data = section({"x": {"type": "float"}, "c": {"type": "string"}, "y": {"type": "int"}})
    table = Frame(
        {
            "y": ("int", [0, 0, 1, 1, 1, None, 0, 1]),
            "x": ("float", [1.0, 1.0, 1.0, 5.0, 6.0, 7.0, NAN, INF]),
            "c": ("string", ["a", "a", "a", "b", "b", "c", "c", None]),
        }
    )
    with store.open(table, types_wanted(data)) as engine:
        plan = plan_of(engine, data)
        number, text = plan.column("x"), plan.column("c")
        assert number is not None
        assert text is not None
        assert engine.crossed(number, "y", 5) == ((0, "0", 2), (0, "1", 1), (3, "1", 1), (4, "1", 1))
        assert engine.crossed(text, "y", 2) == ((0, "0", 2), (0, "1", 1), (1, "0", 1), (1, "1", 2))


# ---------------------------------------------------------------- a team's own SQL


def test_a_query_for_wrong_rows(store: Store) -> None:
    data = section({"i": {"type": "int"}, HOSTILE: {"type": "string"}})
    columns = {"y": ("int", [0] * 3), "i": ("int", [1, 2, 3]), HOSTILE: ("string", ["a", "b", None])}
    other = Frame({"i": ("int", [1])})
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    with store.open(Frame(columns), types_wanted(data), {"known": other}) as engine:
        found = engine.query(f"SELECT i, {quoted} AS v FROM data WHERE i / 2 > 0.7 ORDER BY i -- why\n;")
        joined = engine.query("WITH d AS (FROM data) SELECT i FROM d WHERE i NOT IN (SELECT i FROM known)")
        nothing = engine.query("SELECT * FROM data WHERE i > 5")
    assert (found.rows, found.columns) == (2, ("i", "v"))
    assert [values for _, values in found.examples] == [("2", "b"), ("3", None)]
    assert joined.rows == 2
    assert nothing.rows == 0


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 'a\n FROM data", "line 1, column 8"),
        ("SELECT * FROM data WHERE\n i = = 2", "line 2"),
        ("DELETE FROM data", "SELECT"),
        ("SELECT 1; SELECT 2", "one query"),
        ("SELECT * FROM secrets", "secrets"),
        ("SELECT * FROM read_csv('/etc/passwd')", ""),
        ("SELECT nope FROM data", "nope"),
        ("", "one query"),
    ],
)
def test_a_query_that_cannot_be_run(store: Store, query: str, said: str) -> None:
    data = section({"i": {"type": "int"}})
    with store.open(frame(i=("int", [1])), types_wanted(data)) as engine:
        with pytest.raises(InputError) as refused:
            engine.query(query)
        assert said in refused.value.what
        assert "root:" not in refused.value.what
        # The next query runs all the same.
        assert engine.query("SELECT i FROM data").rows == 1
