"""Every rule of validation on real files: what holds, what is broken, and what a person reads then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_ci.data.checks.flow_validate import data_digest
from mlp_ci.data.checks.judge import freshness
from mlp_ci.data.engines.duck import connect
from mlp_ci.errors import InputError, MlpError, SpecError
from mlp_ci.report import Outcome
from tests.unit.checked import COLUMNS, ROWS, broken, look, section, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_clean_data_passes_in_every_format(tmp_path: Path, suffix: str) -> None:
    verdict = look(write(tmp_path, ROWS, suffix), section(key=["id"]))
    assert broken(verdict) == {}
    assert verdict.rows == 20
    distance = next(c for c in verdict.columns if c.name == "distance")
    assert (distance.smallest, distance.largest) == ("0", "28.5")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_every_format_finds_the_same_faults(tmp_path: Path, suffix: str) -> None:
    select = (
        "SELECT i AS id, CASE WHEN i <> 4 THEN i % 3 = 0 END AS late, "
        "CASE WHEN i = 7 THEN 'XX' ELSE 'UA' END AS carrier, CASE WHEN i = 9 THEN -5.5 ELSE 1.5 END AS distance "
        "FROM range(20) t(i) UNION ALL SELECT 3, true, 'UA', 101.5"
    )
    bad = broken(look(write(tmp_path, select, suffix), section(key=["id"])))
    assert set(bad) == {("nulls", "late"), ("in", "carrier"), ("min", "distance"), ("max", "distance"), ("key", "id")}
    assert {rule: check.rows for (rule, _), check in bad.items()} == {"nulls": 1, "in": 1, "min": 1, "max": 1, "key": 1}
    assert "'-5.5' (id=9)" in bad["min", "distance"].message
    assert "'XX' (1×)" in bad["in", "carrier"].message
    assert "the target may not be missing" in bad["nulls", "late"].message
    assert "row 4: 3 (2×)" in bad["key", "id"].message


def test_a_key_of_two_columns(tmp_path: Path) -> None:
    select = "SELECT i // 2 AS id, i % 2 = 0 AS late, 'UA' AS carrier, 1.0 AS distance FROM range(10) t(i)"
    assert broken(look(write(tmp_path, select), section(key=["id", "late"]))) == {}
    bad = broken(look(write(tmp_path, select), section(key=["id", "carrier"])))
    assert bad["key", "id, carrier"].rows == 5


def test_rows_are_named_by_number_when_there_is_no_key(tmp_path: Path) -> None:
    file = write(tmp_path, ROWS.replace("i * 1.5", "CASE WHEN i = 11 THEN 500 ELSE i END"))
    assert "'500' (row 12)" in broken(look(file, section()))["max", "distance"].message


def test_exact_duplicates_are_counted_against_the_limit(tmp_path: Path) -> None:
    file = write(tmp_path, f"{ROWS} UNION ALL (SELECT * FROM ({ROWS}) LIMIT 2)")
    assert broken(look(file, section()))["duplicates", ""].rows == 2
    assert broken(look(file, section(checks={"duplicates": 2}))) == {}


def test_unique_column(tmp_path: Path) -> None:
    columns = {**COLUMNS, "id": {"type": "int", "unique": True}}
    assert broken(look(write(tmp_path, ROWS), section(columns))) == {}
    bad = broken(look(write(tmp_path, ROWS.replace("i AS id", "least(i, 17) AS id")), section(columns)))
    assert bad["unique", "id"].rows == 2


def test_nan_counts_as_missing_and_is_said(tmp_path: Path) -> None:
    columns = {**COLUMNS, "distance": {"type": "float", "nulls": 0.0, "max": 100}}
    file = write(tmp_path, ROWS.replace("i * 1.5", "CASE WHEN i < 3 THEN 'nan'::DOUBLE ELSE i * 1.5::DOUBLE END"))
    bad = broken(look(file, section(columns)))
    assert set(bad) == {("nulls", "distance")}
    assert "3 rows of 20 missing (3 of them NaN), 15 %; allowed are 0 %" in bad["nulls", "distance"].message


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_infinities_are_found_even_without_bounds(tmp_path: Path, suffix: str) -> None:
    columns = {**COLUMNS, "distance": {"type": "float"}}
    file = write(tmp_path, ROWS.replace("i * 1.5", "CASE WHEN i = 3 THEN 'inf'::DOUBLE ELSE i END"), suffix)
    verdict = look(file, section(columns, key=["id"]))
    assert "1 value is infinite: 'inf' (id=3)" in broken(verdict)["finite", "distance"].message
    assert next(c for c in verdict.columns if c.name == "distance").largest == "19"


def test_null_share_and_a_column_without_any_value(tmp_path: Path) -> None:
    columns = {**COLUMNS, "carrier": {"type": "string", "nulls": 0.2}}
    file = write(tmp_path, ROWS.replace("['UA', 'AA'][i % 2 + 1]", "NULL::VARCHAR"))
    assert "all 20 values are missing" in broken(look(file, section(columns)))["nulls", "carrier"].message


@pytest.mark.parametrize(
    ("declared", "expression", "fails"),
    [
        ("int", "i * 1.0", False),
        ("int", "i + 0.5", True),
        ("int", "'a' || i", True),
        ("float", "i::INTEGER", False),
        ("float", "i::DECIMAL(9, 2)", False),
        ("string", "i", True),
        ("bool", "i % 2", True),
        ("timestamp", "TIMESTAMP '2013-01-01' + INTERVAL 1 DAY * i", False),
        ("timestamp", "DATE '2013-01-01' + i::INTEGER", False),
        ("timestamp", "'2013-01-01'", True),
        ("date", "DATE '2013-01-01' + i::INTEGER", False),
        ("date", "TIMESTAMP '2013-01-01' + INTERVAL 1 HOUR * i", True),
        ("int", "(i::HUGEINT * 10000000000000000000)::UBIGINT", False),
        ("string", "{'a': i}", True),
        ("float", "[i]", True),
        ("string", "'x'::BLOB", True),
    ],
)
def test_declared_type_against_the_files_type(tmp_path: Path, declared: str, expression: str, fails: bool) -> None:
    select = f"SELECT i AS id, i % 3 = 0 AS late, {expression} AS x FROM range(2) t(i)"
    data = section({"x": {"type": declared}, "id": {"type": "int"}, "late": {"type": "bool"}})
    assert (("type", "x") in broken(look(write(tmp_path, select), data))) is fails


def test_a_value_of_a_csv_that_is_no_number_is_shown_with_its_row(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("id,late,carrier,distance\n1,true,UA,3.0\n2,false,AA,far\n3.5,no,UA,7\n4,0,AA,NA\n")
    bad = broken(look(file, section()))
    assert set(bad) == {("type", "id"), ("type", "distance")}
    assert bad["type", "distance"].message == "1 value cannot be read as float: 'far' (row 2)"
    assert bad["type", "id"].message == "1 value cannot be read as int: '3.5' (row 3)"


def test_times_of_a_csv_keep_their_zone(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("late,at\n1,2013-01-01 05:00:00-05\n0,2013-01-01T02:00:00Z\n")
    verdict = look(file, section({"late": {"type": "bool"}}, time="at"))
    assert verdict.newest == datetime(2013, 1, 1, 10, tzinfo=UTC)


def test_bounds_of_times(tmp_path: Path) -> None:
    select = "SELECT true AS late, TIMESTAMP '2013-06-01 12:00' + INTERVAL 1 DAY * i AS at FROM range(5) t(i)"
    columns = {
        "late": {"type": "bool"},
        "at": {"type": "timestamp", "min": datetime(2013, 6, 2, tzinfo=UTC), "max": datetime(2014, 1, 1, tzinfo=UTC)},
    }
    bad = broken(look(write(tmp_path, select), section(columns, checks={"duplicates": 9})))
    assert bad["min", "at"].rows == 1
    assert "2013-06-02" in bad["min", "at"].message


def test_a_bound_of_another_kind_is_an_error_of_the_file(tmp_path: Path) -> None:
    data = section({**COLUMNS, "distance": {"type": "float", "min": datetime(2013, 1, 1, tzinfo=UTC)}})
    with pytest.raises(SpecError, match=r"distance\.min is a date, but the column is float"):
        look(write(tmp_path, ROWS), data)


def test_sensitive_values_are_never_shown(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "id": {"type": "int", "sensitive": True, "unique": True, "max": 4242},
        "late": {"type": "bool"},
        "carrier": {"type": "string", "sensitive": True, "in": ["UA"]},
        "distance": {"type": "float", "max": 20},
    }
    verdict = look(
        write(tmp_path, f"{ROWS.replace('i AS id', 'i + 777770 AS id')} UNION ALL SELECT 777771, true, 'SECRET', 1"),
        section(columns, key=["id"]),
    )
    shown = repr(verdict)
    assert {("max", "id"), ("in", "carrier"), ("max", "distance"), ("key", "id")} <= set(broken(verdict))
    assert "77777" not in shown.replace("777,770", "77777")
    assert "SECRET" not in shown
    assert "row 15" in broken(verdict)["max", "distance"].message


def test_missing_and_unknown_columns(tmp_path: Path) -> None:
    file = write(tmp_path, ROWS.replace("AS distance", "AS distanze").replace("AS id", "AS idx"))
    bad = broken(look(file, section(key=["id"])))
    assert "did you mean `distanze`" in bad["column", "distance"].fix
    assert bad["column", "id"].severity == "error"
    assert bad["column", ""].severity == "warning"
    assert "idx, distanze" in bad["column", ""].message


def test_zero_rows_and_too_few_rows(tmp_path: Path) -> None:
    assert "0 rows" in broken(look(write(tmp_path, f"{ROWS} LIMIT 0"), section()))["rows", ""].message
    few = broken(look(write(tmp_path, ROWS), section(checks={"rows": {"min": 100}})))["rows", ""]
    assert few.message == "20 rows, at least 100 are needed"
    many = broken(look(write(tmp_path, ROWS), section(checks={"rows": {"max": 10}})))["rows", ""]
    assert many.message == "20 rows, at most 10 are allowed"
    header = tmp_path / "header.csv"
    header.write_text("id,late,carrier,distance\n")
    assert set(broken(look(header, section(checks={"rows": {"min": 0}})))) == {("rows", "")}


def test_freshness_looks_at_the_newest_row_of_all_files() -> None:
    data = section(time="id", checks={"freshness": "30d"})
    now = datetime(2013, 4, 1, tzinfo=UTC)
    old, young = now - timedelta(days=60), now - timedelta(days=3)
    stale = freshness([old, None], data, now)
    assert stale is not None
    assert stale.outcome is Outcome.FAIL
    assert "60d old; allowed are 30d" in stale.message
    fresh = freshness([old, young], data, now)
    assert fresh is not None
    assert fresh.outcome is Outcome.PASS
    assert freshness([old], section(time="id"), now) is None
    nothing = freshness([None], data, now)
    assert nothing is not None
    assert nothing.outcome is Outcome.FAIL
    unnamed = freshness([now], section(checks={"freshness": "30d"}), now)
    assert unnamed is not None
    assert "data.time" in unnamed.message


@pytest.mark.parametrize(
    ("name", "content", "message", "line"),
    [
        ("x.parquet", b"hello", "too small to be a Parquet file", 0),
        ("x.parquet", b"PAR1" + b"\0" * 200 + b"PAR1", "cannot be read", 0),
        ("x.csv", b"id,late\n1,2\n3,4,5\n6,7\n", "Expected Number of Columns: 2 Found: 3", 3),
        ("x.csv", b"id,late\n1,2\n3\n", "Expected Number of Columns: 2 Found: 1", 3),
        ("x.csv", "id,late\n1,é\n".encode("latin-1"), "not in UTF-8", 0),
        ("x.csv", "id,laté\n1,2\n".encode("latin-1"), "not in UTF-8", 0),
        ("x.csv", b"id,id\n1,2\n", "names the column 'id' twice", 1),
        ("x.csv", b"id,ID\n1,2\n", "differ only in case", 1),
        ("x.csv.gz", b"not gzip", "cannot be read", 1),
        ("x.jsonl", b'{"id":1}\n{"id":2,\n{"id":3}\n', "Malformed JSON", 3),
        ("x.xlsx", b"PK", "in a format that mlp-ci does not read", 0),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes, message: str, line: int) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        look(tmp_path / name, section())
    assert caught.value.line == line
    assert caught.value.fix


def test_a_parquet_file_cut_short_in_the_middle(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "SELECT i AS id, i % 3 = 0 AS late, hash(i)::VARCHAR AS carrier, random() AS distance FROM range(50000) t(i)",
    )
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + content[-3000:])
    with pytest.raises(InputError, match=r"data\.parquet cannot be read"):
        look(file, section())


def test_odd_names_and_many_columns(tmp_path: Path) -> None:
    names = ["it's", 'a "quote"', "select", "ключ", *(f"c{i}" for i in range(500))]
    quoted = ", ".join(f'i AS "{n.replace(chr(34), chr(34) * 2)}"' for n in names)
    for suffix in (".parquet", ".csv"):
        file = write(tmp_path, f"SELECT {quoted} FROM range(3) t(i)", suffix)
        data = section({n: {"type": "int", "max": 1} for n in names}, target="c0", key=["it's"])
        bad = broken(look(file, data))
        assert len(bad) == len(names)
        assert bad["max", "it's"].message == "1 value is above 1: '2' (it's=2)"
        assert bad["max", "c499"].message == "1 value is above 1"  # fifty examples a file are enough


def test_digest_depends_on_what_and_not_on_order() -> None:
    digest = data_digest({"a": "md5:1", "b": "md5:2"})
    assert digest == data_digest({"b": "md5:2", "a": "md5:1"})
    assert digest != data_digest({"a": "md5:2", "b": "md5:1"})
    assert digest.startswith("sha256:")


cells = st.one_of(
    st.none(),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.integers(-(10**40), 10**40).map(str),
    st.floats().map(str),
    st.sampled_from(["2013-01-01", "99999-01-01", "true", "1e400", "-infinity", "NaN", "0x10", "1_000", "٣"]),
)
kinds = st.sampled_from(["float", "int", "string", "bool", "timestamp", "date"])


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(cells, cells), max_size=6), kind=kinds, bound=st.floats(allow_nan=False))
def test_no_csv_and_no_check_give_a_traceback(
    tmp_path: Path, rows: list[tuple[str | None, str | None]], kind: str, bound: float
) -> None:
    import csv

    file = tmp_path / "data.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("late", "x"), *rows])
    limits = {"min": bound} if kind in ("float", "int") else {}
    column = {"type": kind, "nulls": 0.0, "unique": True, "in": ["a", 1, True], **limits}
    try:
        verdict = look(file, section({"x": column, "late": {"type": kind}}))
    except MlpError as error:
        assert error.what and error.fix  # noqa: PT018
    else:
        assert verdict.rows >= 0


def test_nothing_but_data_goes_to_stdout() -> None:
    with connect() as connection:
        setting = connection.execute("SELECT current_setting('enable_progress_bar')").fetchone()
    assert setting == (False,)
