"""What files can be: odd, broken, or changing while they are read. Always a verdict or an error, never a traceback."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from contextlib import redirect_stdout
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlp_ci.clock import now
from mlp_ci.data.checks.flow_validate import judge
from mlp_ci.data.checks.judge import judge_file
from mlp_ci.data.checks.validation_report import report_on
from mlp_ci.data.engines.duck import open_file
from mlp_ci.data.plan import types_wanted
from mlp_ci.data.sources import Source
from mlp_ci.errors import InputError, MlpError, OutsideError
from mlp_ci.report import Outcome, markdown, print_json, print_text
from mlp_ci.spec.data import Data
from tests.unit.checked import COLUMNS, ROWS, broken, look, look_at_pair, section, write


def columns(**more: Any) -> dict[str, Any]:
    return {name: {**COLUMNS.get(name, {}), **more.get(name, {})} for name in {**COLUMNS, **more}}


# ---------------------------------------------------------------- broken files


@pytest.mark.parametrize("zipped", [False, True])
def test_a_ragged_row_is_named_by_its_line(tmp_path: Path, zipped: bool) -> None:
    lines = ["id,late,carrier,distance", *(f'{i},true,"U\nA",{i}' for i in range(5000)), "5000,true,UA", "1,true,UA,1"]
    content = "\n".join(lines).encode()
    file = tmp_path / ("x.csv.gz" if zipped else "x.csv")
    file.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(InputError, match="Expected Number of Columns: 4 Found: 3") as caught:
        look(file, section())
    assert caught.value.line == 10_002  # two lines for each of the rows before
    assert caught.value.file == file.name


@pytest.mark.parametrize("content", ["id,late\n1,ä\n".encode("utf-16"), b"id,late\n" + b"1,2\n" * 50_000 + b"3,\xe4\n"])
def test_another_encoding_deep_in_a_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.csv (is not in UTF-8|cannot be read)") as caught:
        look(tmp_path / "x.csv", section())
    assert caught.value.fix


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".arrow"])
def test_a_file_that_is_gone(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        look(tmp_path / f"x{suffix}", section())


def test_a_header_whose_name_spans_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('"dis\ntance",b\n1,2\n')
    with (
        pytest.raises(InputError, match="name spans lines: 'dis tance"),
        open_file(file, "a.csv", {}) as _,
    ):
        pass


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    select = (
        "SELECT i AS id, i % 3 = 0 AS late, hash(i)::VARCHAR AS carrier, random() AS distance FROM range(300000) t(i)"
    )
    file = write(tmp_path, select)
    data = section(columns(carrier={"type": "string", "in": ["UA"]}), key=["id"])
    with (
        pytest.raises(InputError, match=r"data\.parquet cannot be read"),
        open_file(file, "data.parquet", types_wanted(data)) as engine,
    ):
        engine.schema()
        with file.open("r+b") as stream:
            stream.truncate(file.stat().st_size // 3)
        judge_file(engine, data)


def test_a_disk_without_room_is_no_fault_of_the_data(tmp_path: Path) -> None:
    select = "SELECT i AS id, true AS late, hash(i)::VARCHAR AS carrier, 1.0 AS distance FROM range(400000) t(i)"
    file = write(tmp_path, select)
    data = section(key=["id", "carrier"])
    with (
        pytest.raises(OutsideError, match="does not fit") as caught,
        open_file(file, "data.parquet", types_wanted(data), "20MB") as engine,
    ):
        engine.connection.execute("SET max_temp_directory_size = '1MB'")
        judge_file(engine, data)
    assert "TMPDIR" in caught.value.fix


# ---------------------------------------------------------------- odd values


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_one_row_and_constant_columns(tmp_path: Path, suffix: str) -> None:
    one = look(write(tmp_path, f"{ROWS} LIMIT 1", suffix), section(key=["id"]))
    assert broken(one) == {}
    assert one.rows == 1
    select = ROWS.replace("i * 1.5", "7.0").replace("i % 3 = 0", "true")
    bands = {"distance": {"mean": {"min": 7, "max": 7}, "quantiles": [{"at": 0.5, "min": 7, "max": 7}]}}
    assert broken(look(write(tmp_path, select, suffix), section(columns(**bands), key=["id"]))) == {}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_every_check_on_columns_without_a_value(tmp_path: Path, suffix: str) -> None:
    select = (
        "SELECT i AS id, NULL::BOOLEAN AS late, NULL::VARCHAR AS carrier, NULL::DOUBLE AS distance FROM range(9) t(i)"
    )
    more = {
        "late": {"nulls": 1.0},
        "carrier": {"regex": "[A-Z]+", "length": {"min": 1}, "unique": True},
        "distance": {"mean": {"min": 1}, "quantiles": [{"at": 0.5, "min": 1}], "unique": True},
    }
    verdict = look(write(tmp_path, select, suffix), section(columns(**more), checks={"balance": {"min": 0.1}}))
    assert {rule for rule, _ in broken(verdict)} <= {"nulls", "type"}  # JSON without a value has no type
    assert ("nulls", "late") in broken(verdict)


@pytest.mark.parametrize("expression", ["{'a': i}", "[i]", "MAP {'k': i}", "[{'a': [i]}]", "'x'::BLOB"])
@pytest.mark.parametrize("declared", ["float", "int", "string", "bool", "timestamp", "date"])
def test_nested_and_binary_columns(tmp_path: Path, expression: str, declared: str) -> None:
    file = write(tmp_path, f"SELECT i AS id, i % 3 = 0 AS late, {expression} AS x FROM range(20) t(i)")
    data = section({"id": {"type": "int"}, "late": {"type": "bool"}, "x": {"type": declared, "nulls": 0.0}})
    bad = broken(look_at_pair(file, write(tmp_path, f"FROM '{file}' LIMIT 5", name="test"), data))
    assert {("type", "x"), ("leakage", "")} == set(bad)
    assert "nested and binary values cannot be checked" in bad["type", "x"].fix


def test_times_with_mixed_zones(tmp_path: Path) -> None:
    """The same instants, written in several zones, are the same key, in order, and within the same bounds."""
    at = "TIMESTAMPTZ '2013-06-01 12:00:00+00' + INTERVAL 1 HOUR * i"
    select = f"SELECT i AS id, true AS late, {at} AS at FROM range(4) t(i)"
    train = write(tmp_path, select, name="train")
    rows = [
        "id,late,at",
        "0,true,2013-06-01T14:00:00+02:00",
        "1,true,2013-06-01 08:00:00-05",
        "2,true,2013-06-01 14:00:00",
    ]
    (tmp_path / "test.csv").write_text("\n".join(rows) + "\n")
    bounds = {"min": datetime(2013, 6, 1, 12, tzinfo=UTC), "max": datetime(2013, 6, 1, 15, tzinfo=UTC)}
    data = section(
        {"id": {"type": "int"}, "late": {"type": "bool"}, "at": {"type": "timestamp", **bounds}},
        key=["at"],
        time="at",
        checks={"monotonic": True},
    )
    assert set(broken(look(tmp_path / "test.csv", data))) == set()
    assert broken(look_at_pair(train, tmp_path / "test.csv", data))["leakage", "at"].rows == 3


def test_integers_beyond_64_bits(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(f"id,late\n{2**64 + 3},true\n{2**64 + 5},true\n5,true\n")
    data = section({"id": {"type": "int", "min": 6, "unique": True}, "late": {"type": "bool"}})
    bad = broken(look(file, data))
    assert bad["min", "id"].message == "1 value is below 6: '5' (row 3)"
    assert ("unique", "id") not in bad
    file.write_text(f"id,late\n{10**60},true\n7,true\n")
    assert "1 value cannot be read as int: '1000000" in broken(look(file, data))["type", "id"].message
    lines = tmp_path / "x.jsonl"  # JSON's numbers are floats beyond 64 bits, for every reader
    lines.write_text(f'{{"id": {2**64 + 3}, "late": true}}\n{{"id": 5, "late": true}}\n')
    assert set(broken(look(lines, data))) == {("min", "id")}


def test_unsigned_and_decimal_integers_of_parquet(tmp_path: Path) -> None:
    select = "SELECT 18446744073709551615::UBIGINT AS id, true AS late, 99999999999999999999::DECIMAL(38, 0) AS x"
    columns_ = {"id": {"type": "int", "max": 2**64 - 2}, "late": {"type": "bool"}, "x": {"type": "int", "max": 10**19}}
    bad = broken(look(write(tmp_path, select), section(columns_)))
    assert set(bad) == {("max", "id"), ("max", "x")}
    assert "18446744073709551615" in bad["max", "id"].message


def test_a_category_with_more_levels_than_memory_holds(tmp_path: Path) -> None:
    """Spills to disk: ten million levels were tried by hand with 300 MB."""
    level = "repeat(md5(i::VARCHAR), 1) || (i % 500000)"
    file = write(
        tmp_path, f"SELECT i AS id, i % 2 = 0 AS late, {level} AS carrier, 1.0 AS distance FROM range(500000) t(i)"
    )
    regex = {"carrier": {"type": "string", "in": ["UA", "AA"], "regex": "[0-9a-f]+", "unique": True}}
    data = section(columns(**regex), key=["id"])
    with open_file(file, "x", types_wanted(data), "120MB") as engine:
        verdict = judge_file(engine, data)
    assert broken(verdict)["in", "carrier"].rows == 500_000
    assert "500,000 values" in broken(verdict)["in", "carrier"].message


@pytest.mark.parametrize(
    "name", ["mlp-ci row", "mlp-ci raw id", "file_row_number", "row", "v", "n", "h", "data", "x\ny", " "]
)
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_columns_named_like_ours(tmp_path: Path, name: str, suffix: str) -> None:
    quoted = '"' + name + '"'
    file = write(tmp_path, f"SELECT i AS id, i % 2 = 0 AS late, 'a' || (i % 3) AS {quoted} FROM range(9) t(i)", suffix)
    data = section(
        {"id": {"type": "int"}, "late": {"type": "bool"}, name: {"type": "string", "in": ["a0", "a1"], "unique": True}},
        checks={"sql": [{"name": "mine", "query": "SELECT * FROM data WHERE id = 3"}]},
    )
    try:
        bad = broken(look_at_pair(file, file, data))
    except MlpError as error:
        refused = ("file_row_number", "mlp-ci row", "mlp-ci raw id", *(["x\ny"] if suffix == ".csv" else []))
        assert name in refused, error
        assert error.fix
        return
    if (name, suffix) != (" ", ".csv"):  # a blank name in a header is none
        assert bad["in", name].rows == 3
        assert bad["unique", name].rows == 6


# ---------------------------------------------------------------- any frame, any checks

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
instants = st.datetimes(datetime(1, 1, 1), datetime(9999, 1, 1))  # noqa: DTZ001
near = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001
NAMES = st.one_of(st.sampled_from(["late", "id", "at", "x", "y"]), texts)


def arrow_columns() -> st.SearchStrategy[tuple[Any, list[Any]]]:
    """An Arrow type and values of it."""
    import pyarrow as pa

    kinds: list[tuple[Any, st.SearchStrategy[Any]]] = [
        (pa.int8(), st.integers(-128, 127)),
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.uint64(), st.integers(0, 2**64 - 1)),
        (pa.float32(), st.floats(width=32)),
        (pa.float64(), st.floats()),
        (pa.decimal128(38, 3), st.decimals(-(10**30), 10**30, places=3)),
        (pa.decimal128(38, 0), st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal)),
        (pa.string(), texts),
        (pa.large_string(), texts),
        (pa.binary(), st.binary(max_size=4)),
        (pa.bool_(), st.booleans()),
        (pa.date32(), st.dates()),
        (pa.timestamp("us"), instants),
        (pa.timestamp("ns"), near),
        (pa.timestamp("us", "UTC"), near.map(lambda t: t.replace(tzinfo=UTC))),
        (pa.timestamp("ms", "America/New_York"), near.map(lambda t: t.replace(tzinfo=UTC))),
        (pa.time64("us"), st.times()),
        (pa.list_(pa.int64()), st.lists(st.integers(0, 9), max_size=2)),
        (pa.struct([("a", pa.int64())]), st.fixed_dictionaries({"a": st.integers(0, 9)})),
        (
            pa.map_(pa.string(), pa.float64()),
            st.lists(st.tuples(texts, st.floats()), max_size=2, unique_by=lambda p: p[0]),
        ),
        (pa.dictionary(pa.int32(), pa.string()), texts),
        (pa.null(), st.none()),
    ]
    return st.sampled_from(kinds).flatmap(
        lambda kind: st.tuples(st.just(kind[0]), st.lists(st.one_of(st.none(), kind[1]), min_size=12, max_size=12))
    )


numbers = st.one_of(st.integers(-(10**20), 10**20), st.floats(allow_nan=False))
bounds = st.one_of(numbers, near.map(lambda t: t.replace(tzinfo=UTC)), st.dates())
column_specs = st.fixed_dictionaries(
    {"type": st.sampled_from(["float", "int", "string", "bool", "timestamp", "date"])},
    optional={
        "min": bounds,
        "max": bounds,
        "in": st.lists(st.one_of(texts, st.integers(-5, 5), st.booleans()), max_size=3),
        "nulls": st.sampled_from([0.0, 0.5, 1.0]),
        "unique": st.booleans(),
        "regex": st.sampled_from(["a*", "(", "(?=x)", "[^\n]*", "\\d+", "ä|'"]),
        "length": st.fixed_dictionaries({"min": st.sampled_from([0, 2, 2.5, -1])}),
        "mean": st.fixed_dictionaries({"min": numbers}),
        "quantiles": st.lists(
            st.fixed_dictionaries({"at": st.sampled_from([1e-9, 0.07, 0.5]), "max": numbers}), max_size=2
        ),
        "references": st.fixed_dictionaries({"file": st.just("test"), "column": NAMES.filter(bool)}),
        "severity": st.sampled_from(["warn", {"nulls": "warn"}]),
        "sensitive": st.booleans(),
    },
)
QUERIES = [
    "SELECT * FROM data",
    "SELECT count(*) FROM test HAVING count(*) > 3",
    "SELECT row_number, x + 1 FROM numbered",
    "SELECT CAST(x AS INT) FROM train",
    "oops",
]
check_specs = st.fixed_dictionaries(
    {"duplicates": st.integers(0, 3)},
    optional={
        "monotonic": st.booleans(),
        "balance": st.just({"min": 0.2, "max": 0.9}),
        "schema": st.just("error"),
        "rows": st.just({"min": 5, "max": 9}),
        "sql": st.lists(st.sampled_from(QUERIES), max_size=1).map(lambda qs: [{"name": "q", "query": q} for q in qs]),
        "leakage": st.just({"predictive": 0.6}),
    },
)


@st.composite
def cases(draw: Any) -> tuple[dict[str, tuple[Any, list[Any]]], int, Data]:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    frame = {name: draw(arrow_columns()) for name in names}
    declared = {
        name: draw(column_specs) for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
    }
    value = {
        "train": "train",
        "test": "test.x",
        "target": draw(st.sampled_from([*names, "late"])),
        "key": draw(st.lists(st.sampled_from(names), max_size=2, unique=True)),
        "time": draw(st.sampled_from([None, *names])),
        "columns": declared,
        "checks": draw(check_specs),
    }
    try:
        return frame, draw(st.integers(0, 12)), Data.model_validate(value)
    except ValidationError:
        value["columns"] = {name: {"type": spec["type"]} for name, spec in declared.items()}
        value["target"] = value["target"] or "late"
        return frame, draw(st.integers(0, 12)), Data.model_validate(value)


def judged(train: Path, test: Path, data: Data) -> None:
    """A report, or an error of ours that says what and how to mend it."""
    types = types_wanted(data)
    try:
        others = {
            name: Source.parse(file, shown_as=name, types=types) for name, file in (("train", train), ("test", test))
        }
        verdict = judge(train, data.train, data, others)
    except MlpError as error:
        assert error.what
        assert error.fix
        return
    report = report_on("validate", {"train": verdict}, None, data, now(), 0.1)
    assert report.outcome in (Outcome.PASS, Outcome.FAIL)
    markdown(report)
    with redirect_stdout(io.StringIO()) as said:
        print_text(report)
        print_json(report.as_dict())
    assert said.getvalue()


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_no_frame_and_no_checks_give_a_traceback(case: tuple[dict[str, tuple[Any, list[Any]]], int, Data]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    frame, rows, data = case
    with tempfile.TemporaryDirectory() as folder:
        whole = pa.table([pa.array(values, kind) for kind, values in frame.values()], names=list(frame))
        train, test = Path(folder, "train.parquet"), Path(folder, "test.parquet")
        parquet.write_table(whole.slice(0, rows), train)
        parquet.write_table(whole.slice(6), test)
        judged(train, test, data)
        for file, start, end in (("train.csv", 0, rows), ("test.csv", 6, 12)):
            with Path(folder, file).open("w", newline="", encoding="utf-8") as stream:
                texts_ = [["" if v is None else str(v) for v in values[start:end]] for _, values in frame.values()]
                csv.writer(stream).writerows([list(frame), *zip(*texts_, strict=True)])
        judged(Path(folder, "train.csv"), Path(folder, "test.csv"), data)
