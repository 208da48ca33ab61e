"""``mlp-ci data diff``: rows by key, columns, distributions, and what it says of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_ci.context import Context
from mlp_ci.data.describe.flow_diff import Asked, diff
from mlp_ci.errors import InputError
from mlp_ci.report import Outcome, Report, markdown


def context(repo: Path) -> Context:
    return Context(repo=repo, work=repo / ".mlp", serve_home=repo / "serve", prediction_log=repo / "log")


def write(folder: Path, name: str, select: str) -> str:
    kind = "csv" if name.endswith(".csv") else "parquet"
    duckdb.connect().execute(f"COPY ({select}) TO '{folder / name}' (FORMAT {kind})")
    return str(folder / name)


def compared(folder: Path, a: str, b: str, *, key: tuple[str, ...] = ()) -> tuple[Report, dict[str, Any]]:
    report = diff(context(folder), Asked(a=a, b=b, key=key))
    (found,) = report.data["compared"]
    return report, found


def column(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(c for c in found["columns"] if c["name"] == name)


BEFORE = "SELECT i AS id, i * 1.0 AS x, ['UA', 'AA'][i % 2 + 1] AS carrier FROM range(1000) t(i)"
NOW = (
    "SELECT i AS id, CASE WHEN i < 50 THEN NULL WHEN i < 100 THEN -1.0 ELSE i * 1.0 END AS x, "
    "CASE WHEN i > 1000 THEN 'ZZ' ELSE ['UA', 'AA'][i % 2 + 1] END AS carrier, true AS fresh FROM range(20, 1100) t(i)"
)


def test_rows_by_key_columns_and_values(tmp_path: Path) -> None:
    report, found = compared(tmp_path, write(tmp_path, "a.parquet", BEFORE), write(tmp_path, "b.parquet", NOW))
    assert found["rows"] == {"before": 1000, "now": 1080, "added": 100, "removed": 20, "changed": 80, "key": ("id",)}
    assert found["key_guessed"] is True
    assert column(found, "fresh")["schema"] == "added"
    assert column(found, "x")["changed_rows"] == 80
    assert column(found, "x")["nulls"] == [0.0, 30 / 1080]
    assert column(found, "carrier")["new_values"] == {"count": 1, "most": {"ZZ": 99}}
    assert "1,000 → 1,080 rows, 100 added, 20 removed, 80 changed" in report.headline
    assert report.outcome is Outcome.PASS
    assert report.outputs == {"changed": "true"}


def test_without_a_key_rows_are_compared_as_a_whole(tmp_path: Path) -> None:
    a = write(tmp_path, "a.parquet", "SELECT i % 5 AS v FROM range(100) t(i)")
    b = write(tmp_path, "b.parquet", "SELECT i % 4 AS v FROM range(100) t(i)")
    _, found = compared(tmp_path, a, b)
    assert found["rows"]["key"] == ()
    assert (found["rows"]["added"], found["rows"]["removed"], found["rows"]["changed"]) == (20, 20, None)


def test_the_same_data_in_another_format_and_order_is_the_same(tmp_path: Path) -> None:
    a = write(tmp_path, "a.parquet", BEFORE)
    b = write(tmp_path, "b.csv", f"SELECT * FROM ({BEFORE}) ORDER BY hash(id)")
    report, found = compared(tmp_path, a, b)
    assert found["changed"] is False
    assert report.outputs == {"changed": "false"}
    assert "holds what" in report.headline


def test_what_moved_most_comes_first(tmp_path: Path) -> None:
    columns = ", ".join(f"(hash(i, {n}) % 1000)::DOUBLE AS c{n}" for n in range(6))
    a = write(tmp_path, "a.parquet", f"SELECT i AS id, {columns} FROM range(5000) t(i)")
    b = write(tmp_path, "b.parquet", f"SELECT * REPLACE (c3 * 2 AS c3, c4 + 100 AS c4) FROM '{a}'")
    report, found = compared(tmp_path, a, b)
    assert [c["name"] for c in found["columns"]][:2] == ["c3", "c4"]
    assert column(found, "c3")["mean"][1] == pytest.approx(2 * column(found, "c3")["mean"][0])
    assert "2 of 7 distributions moved (PSI: c3 " in report.headline


def test_few_rows_are_no_evidence_of_a_move(tmp_path: Path) -> None:
    a = write(tmp_path, "a.parquet", "SELECT i * 1.5 AS v FROM range(20) t(i)")
    b = write(tmp_path, "b.parquet", "SELECT i * 1.7 AS v FROM range(20) t(i)")
    report, _ = compared(tmp_path, a, b)
    assert "no distribution moved" in report.headline


def test_sensitive_columns_show_nothing_but_nulls(tmp_path: Path) -> None:
    people = "SELECT i AS id, 'mia' || i || '@example.org' AS contact, {} AS salary FROM range(500) t(i)"
    a = write(tmp_path, "a.parquet", people.format("40000 + i"))
    b = write(tmp_path, "b.parquet", people.format("CASE WHEN i > 9 THEN 77123000 + i END"))
    (tmp_path / "model.yaml").write_text("data:\n  columns:\n    salary: {type: int, sensitive: true}\n")
    report, found = compared(tmp_path, a, b)
    assert column(found, "salary") == {
        "name": "salary",
        "schema": None,
        "type": ["BIGINT", "BIGINT"] if column(found, "salary")["type"][0] == "BIGINT" else ["INTEGER", "INTEGER"],
        "sensitive": True,
        "nulls": [0.0, 0.02],
    }
    everything = json.dumps(report.as_dict(), default=str) + markdown(report)
    assert "example.org" not in everything
    assert "77123" not in everything


def test_retyped_columns_are_said_and_compared_by_value(tmp_path: Path) -> None:
    a = write(tmp_path, "a.parquet", "SELECT i AS id, i::INT AS n, i::VARCHAR AS s FROM range(300) t(i)")
    b = write(tmp_path, "b.parquet", "SELECT i AS id, i::DOUBLE AS n, i AS s FROM range(300) t(i)")
    _, found = compared(tmp_path, a, b)
    assert column(found, "n")["type"] == ["INTEGER", "DOUBLE"]
    assert column(found, "s")["schema"] == "retyped"
    assert found["rows"]["changed"] == 0


def test_a_hostile_value_stays_in_its_cell(tmp_path: Path) -> None:
    a = write(tmp_path, "a.parquet", "SELECT 'x' AS s FROM range(10)")
    b = write(tmp_path, "b.parquet", "SELECT '| @all <b>\n::error::' AS s FROM range(10)")
    report, _ = compared(tmp_path, a, b)
    text = markdown(report)
    assert "<b>" not in text
    assert "@all" not in text
    assert not any(line.startswith("::") for line in text.splitlines())


@pytest.mark.parametrize(
    ("a", "b", "key", "said"),
    [
        ("nothing.parquet", "a.parquet", (), "there is no"),
        ("a.parquet", "a.parquet", ("nope",), "no column nope"),
        ("a.parquet@main", "", (), "names a revision"),
    ],
)
def test_bad_input_says_what_to_do(tmp_path: Path, a: str, b: str, key: tuple[str, ...], said: str) -> None:
    import subprocess

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "commit", "-q", "--allow-empty", "-m", "Start"], check=True)
    write(tmp_path, "a.parquet", BEFORE)
    named = [str(tmp_path / name) if name and "@" not in name else name for name in (a, b)]
    with pytest.raises(InputError, match=said):
        diff(context(tmp_path), Asked(a=named[0], b=named[1], key=key))


def test_no_rows_on_either_side(tmp_path: Path) -> None:
    full, empty = write(tmp_path, "a.parquet", BEFORE), write(tmp_path, "b.parquet", BEFORE + " WHERE i < 0")
    for a, b, added, removed in ((full, empty, 0, 1000), (empty, full, 1000, 0), (empty, empty, 0, 0)):
        _, found = compared(tmp_path, a, b)
        assert (found["rows"]["added"], found["rows"]["removed"]) == (added, removed)


ROWS = st.lists(
    st.tuples(
        st.integers(0, 12), st.one_of(st.none(), st.floats(allow_infinity=False)), st.sampled_from(["a", "b", None])
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, ROWS, st.booleans())
def test_counts_are_those_of_a_comparison_row_by_row(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[tuple[Any, ...]],
    now: list[tuple[Any, ...]],
    by_key: bool,
) -> None:
    folder = tmp_path_factory.mktemp("diff")
    if by_key:
        before, now = (list({row[0]: row for row in rows}.values()) for rows in (before, now))
    for name, rows in (("a", before), ("b", now)):
        columns = list(zip(*rows, strict=True)) or [[], [], []]
        kinds = (pa.int64(), pa.float64(), pa.string())
        table = {n: pa.array(c, k) for n, c, k in zip(("k", "x", "s"), columns, kinds, strict=True)}
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    _, found = compared(folder, str(folder / "a.parquet"), str(folder / "b.parquet"), key=("k",) if by_key else ())
    counts = found["rows"]
    # repr: NaN equals NaN here, and -0.0 equals 0.0 as in SQL.
    one, two = (
        [repr(tuple(0.0 if v == 0 and isinstance(v, float) else v for v in row)) for row in r] for r in (before, now)
    )
    if by_key:
        a, b = ({row[0]: text for row, text in zip(r, texts, strict=True)} for r, texts in ((before, one), (now, two)))
        assert counts["added"] == len(b.keys() - a.keys())
        assert counts["removed"] == len(a.keys() - b.keys())
        assert counts["changed"] == sum(a[k] != b[k] for k in a.keys() & b.keys())
    else:
        assert counts["added"] == (Counter(two) - Counter(one)).total()
        assert counts["removed"] == (Counter(one) - Counter(two)).total()
