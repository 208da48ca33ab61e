"""The checks on texts, bands, other files, order, classes and leakage, and a team's own SQL, on real files."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, get_args

import pytest
import yaml

from mlp_ci.clock import now
from mlp_ci.data.checks.acceptance import Acceptance
from mlp_ci.data.checks.earlier import Earlier, schema_check
from mlp_ci.data.checks.validation_report import report_on
from mlp_ci.data.engines import duck_query
from mlp_ci.data.engines.duck import open_file
from mlp_ci.data.engines.duck_file import ROWS_AT_ONCE, SAMPLE
from mlp_ci.data.plan import PhysicalColumn
from mlp_ci.errors import InputError
from mlp_ci.report import Outcome, markdown
from mlp_ci.spec.data import Rule
from tests.unit.checked import COLUMNS, ROWS, broken, held, look, look_at_pair, section, write

if TYPE_CHECKING:
    from mlp_ci.data.checks.judge import FileVerdict
    from mlp_ci.spec.data import Data

FORMATS = [".parquet", ".csv", ".jsonl"]


def columns(**more: Any) -> dict[str, Any]:
    return {name: {**COLUMNS.get(name, {}), **more.get(name, {})} for name in {**COLUMNS, **more}}


# ---------------------------------------------------------------- one column


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_regular_expression_must_match_the_whole_value(tmp_path: Path, suffix: str) -> None:
    select = ROWS.replace(
        "['UA', 'AA'][i % 2 + 1]", "CASE WHEN i < 2 THEN 'UA' || i WHEN i = 2 THEN NULL ELSE 'UA' END"
    )
    data = section(columns(carrier={"type": "string", "in": None, "regex": "[A-Z]{2}"}), key=["id"])
    bad = broken(look(write(tmp_path, select, suffix), data))
    assert set(bad) == {("regex", "carrier")}
    assert bad["regex", "carrier"].message == "2 values do not match '[A-Z]{2}': 'UA0' (id=0), 'UA1' (id=1)"
    assert bad["regex", "carrier"].rows == 2


def test_a_regular_expression_over_few_values_in_many_rows(tmp_path: Path) -> None:
    select = "SELECT i % 2 = 0 AS late, 'level ' || (i % 7) AS carrier FROM range(30000) t(i)"
    data = section({"late": {"type": "bool"}, "carrier": {"type": "string", "regex": "level [0-5]"}})
    data = data.model_copy(update={"checks": data.checks.model_copy(update={"duplicates": 30000})})
    assert broken(look(write(tmp_path, select), data))["regex", "carrier"].rows == 30000 // 7


def test_an_expression_that_is_none_of_re2_is_an_error_of_model_yaml(tmp_path: Path) -> None:
    data = section(columns(carrier={"type": "string", "regex": "(?=U)UA"}))
    with pytest.raises(InputError, match=r"data\.columns\.carrier\.regex .* is no expression of RE2") as caught:
        look(write(tmp_path, ROWS), data)
    assert "look-around" in caught.value.fix


@pytest.mark.parametrize("suffix", FORMATS)
def test_length_counts_characters_and_not_bytes(tmp_path: Path, suffix: str) -> None:
    select = ROWS.replace("['UA', 'AA'][i % 2 + 1]", "CASE i WHEN 0 THEN 'Ä' WHEN 1 THEN 'ÄÖÜß' ELSE 'ÄÖ' END")
    data = section(columns(carrier={"type": "string", "in": None, "length": {"min": 2, "max": 3}}))
    bad = [c for c in look(write(tmp_path, select, suffix), data).checks if c.outcome is Outcome.FAIL]
    assert [c.message for c in bad] == [
        "1 value has fewer than 2 characters: 'Ä' (row 1)",
        "1 value has more than 3 characters: 'ÄÖÜß' (row 2)",
    ]
    assert {c.rule for c in bad} == {"length"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_mean_and_quantiles_of_the_finite_values(tmp_path: Path, suffix: str) -> None:
    select = ROWS.replace("i * 1.5", "CASE i WHEN 19 THEN NULL WHEN 18 THEN 'inf'::DOUBLE ELSE i::DOUBLE END")
    bands = {"mean": {"min": 8.4, "max": 8.6}, "quantiles": [{"at": 0.5, "min": 8, "max": 8}, {"at": 0.9, "max": 15}]}
    data = section(columns(distance={"type": "float", "max": None, **bands}))
    verdict = look(write(tmp_path, select.replace("'inf'::DOUBLE", "17"), suffix), data)
    told = [c.message for c in verdict.checks if c.rule in ("mean", "quantiles")]
    assert told == [
        "the mean is 8.94737; it must be between 8.4 and 8.6",
        "the median is 9; it must be between 8 and 8",
        "the 0.9 quantile is 17; it must be at most 15",
    ]
    if suffix != ".jsonl":  # JSON has no infinity
        verdict = look(write(tmp_path, select, suffix), data)
        assert held(verdict, "mean")["distance"].message == "the mean is 8.5"
        assert held(verdict, "quantiles")["distance"].message == "the median is 8"


def test_bands_where_there_is_nothing_and_where_numbers_overflow(tmp_path: Path) -> None:
    data = section(columns(distance={"type": "float", "min": None, "max": None, "mean": {"min": 0}}))
    empty = look(write(tmp_path, ROWS.replace("i * 1.5", "NULL::DOUBLE")), data)
    assert [c.outcome for c in empty.checks if c.rule == "mean"] == [Outcome.SKIP]
    huge = look(write(tmp_path, ROWS.replace("i * 1.5", "1.7e308::DOUBLE")), data)
    assert "too large to add up" in broken(huge)["mean", "distance"].message


def test_quantiles_of_many_rows_are_exact_without_holding_them_all(tmp_path: Path) -> None:
    rows = ROWS_AT_ONCE + 100_000
    # 1009 has no factor in common with the number of rows, so each value from 0 on is there once.
    file = write(tmp_path, f"SELECT i * 1009 % {rows} AS distance, i % 2 = 0 AS late FROM range({rows}) t(i)")
    asked = {0.001: rows // 1000, 0.07: rows * 7 // 100, 0.5: rows // 2, 0.999: rows // 1000 * 999}
    band = {"type": "int", "quantiles": [{"at": at, "max": -1} for at in asked]}
    checks = look(file, section({"distance": band, "late": {"type": "bool"}})).checks
    told = [c.message for c in checks if c.rule == "quantiles"]
    for rank, message in zip(asked.values(), told, strict=True):
        assert f" is {rank - 1:,};" in message


# ---------------------------------------------------------------- other files


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("other", FORMATS)
def test_references_compare_values_and_not_types(tmp_path: Path, suffix: str, other: str) -> None:
    known = write(tmp_path, "SELECT i AS number, 'x' AS more FROM range(18) t(i)", other, "known")
    select = ROWS.replace("i AS id", "CASE WHEN i = 0 THEN NULL ELSE i END AS id")
    data = section(columns(id={"type": "int", "nulls": 1.0, "references": {"file": "known", "column": "number"}}))
    bad = broken(look(write(tmp_path, select, suffix), data, {"known": known}))
    assert set(bad) == {("references", "id")}
    assert bad["references", "id"].message == (
        "2 rows hold a value that number of known does not have: 18 (row 19); 19 (row 20)"
    )


def test_a_reference_to_a_column_that_is_not_there(tmp_path: Path) -> None:
    known = write(tmp_path, "SELECT 1 AS number", name="known")
    data = section(columns(id={"type": "int", "references": {"file": "known", "column": "nummer"}}))
    check = broken(look(write(tmp_path, ROWS), data, {"known": known}))["references", "id"]
    assert check.message == "known has no column nummer"
    assert "number" in check.fix


def test_rows_of_the_held_out_data_are_found_by_key(tmp_path: Path) -> None:
    train = write(tmp_path, ROWS, name="train")
    test = write(tmp_path, ROWS.replace("i AS id", "i + 18 AS id").replace("i * 1.5", "7.0"), ".csv", "test")
    bad = broken(look_at_pair(train, test, section(key=["id"])))
    assert bad["leakage", "id"].message == "2 rows are also in the held-out data, by id: 18 (row 19); 19 (row 20)"
    assert bad["leakage", "id"].severity == "error"
    apart = write(tmp_path, ROWS.replace("i AS id", "i + 20 AS id"), name="apart")
    assert broken(look_at_pair(train, apart, section(key=["id"]))) == {}
    off = section(key=["id"], checks={"leakage": {"rows": False}})
    assert broken(look_at_pair(train, test, off)) == {}


def test_without_a_key_equal_rows_in_both_are_a_warning(tmp_path: Path) -> None:
    train = write(tmp_path, ROWS.replace("i * 1.5", "CASE WHEN i < 3 THEN NULL ELSE i * 1.5 END"), name="train")
    test = write(
        tmp_path, f"SELECT * REPLACE (id + CASE WHEN id < 2 THEN 0 ELSE 99 END AS id) FROM '{train}'", name="test"
    )
    check = broken(look_at_pair(train, test, section()))["leakage", ""]
    assert check.message == "2 rows are also in the held-out data with all values: row 1; row 2"
    assert check.severity == "warning"


def test_held_out_data_that_lacks_the_key(tmp_path: Path) -> None:
    train = write(tmp_path, ROWS, name="train")
    test = write(tmp_path, ROWS.replace("i AS id", "i AS idx"), name="test")
    assert "test has no column id" in broken(look_at_pair(train, test, section(key=["id"])))["leakage", "id"].message


# ---------------------------------------------------------------- order and classes


@pytest.mark.parametrize("suffix", FORMATS)
def test_time_that_goes_back(tmp_path: Path, suffix: str) -> None:
    at = "TIMESTAMP '2013-01-01' + INTERVAL 1 HOUR * CASE i WHEN 5 THEN 2 WHEN 7 THEN NULL WHEN 8 THEN 5 ELSE i END"
    data = section(time="at", checks={"monotonic": True})
    bad = broken(look(write(tmp_path, ROWS.replace(" FROM range", f", {at} AS at FROM range"), suffix), data))
    found = bad["monotonic", "at"]
    assert found.rows == 2
    assert found.message.startswith("2 rows are earlier than the row above: 2013-01-01")
    assert "(row 6)" in found.message
    assert "(row 9)" in found.message
    sorted_ = ROWS.replace(" FROM range", ", TIMESTAMP '2013-01-01' + INTERVAL 1 HOUR * (i // 2) AS at FROM range")
    assert broken(look(write(tmp_path, sorted_, suffix), data)) == {}


def test_order_without_a_time_column(tmp_path: Path) -> None:
    assert (
        "`data.time`"
        in broken(look(write(tmp_path, ROWS), section(checks={"monotonic": True})))["monotonic", ""].message
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_class_of_the_target_has_its_share(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path, ROWS, suffix)
    assert broken(look(file, section(checks={"balance": {"min": 0.3}}))) == {}
    check = broken(look(file, section(checks={"balance": {"min": 0.4, "max": 0.6}})))["balance", "late"]
    assert check.message == "false: 65 %, true: 35 %; every class must have a share of between 0.4 and 0.6"


def test_a_target_with_too_many_values_has_no_classes(tmp_path: Path) -> None:
    file = write(tmp_path, "SELECT i AS id, i AS late, 'UA' AS carrier, 1.0 AS distance FROM range(500) t(i)")
    data = section(columns(late={"type": "int"}), checks={"balance": {"min": 0.1}})
    assert "no classes to balance" in broken(look(file, data))["balance", "late"].message


# ---------------------------------------------------------------- features that give the target away


def judged_features(tmp_path: Path, features: str, rows: int = 600) -> dict[str, FileVerdict]:
    """Verdict on a file with a two-class target and these features."""
    select = f"SELECT i AS id, hash(i, 1) % 2 = 0 AS late, {features} FROM range({{start}}, {{end}}) t(i)"
    train = write(tmp_path, select.format(start=0, end=rows), name="train")
    test = write(tmp_path, select.format(start=rows, end=2 * rows), name="test")
    return {"train": train, "test": test}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("expression", "kind", "caught"),
    [
        ("CASE WHEN hash(i, 1) % 2 = 0 THEN 1 ELSE 0 END + (hash(i, 2) % 10) / 100", "float", True),
        ("CASE WHEN hash(i, 1) % 2 = 0 THEN 0 ELSE 1 END * 100 + hash(i, 2) % 10", "int", True),
        ("CASE WHEN hash(i, 1) % 2 = 0 THEN 'yes' ELSE 'no' END", "string", True),
        ("hash(i, 1) % 2 = 1", "bool", True),
        ("TIMESTAMP '2013-01-01' + INTERVAL 1 DAY * (hash(i, 1) % 2)", "timestamp", True),
        ("hash(i, 3) % 1000 / 10", "float", False),
        ("'user ' || i", "string", False),  # a value of its own in every row predicts nothing
        ("'group ' || (i // 3)", "string", False),  # a few rows each: some order always fits the rows it came from
        ("NULL::DOUBLE", "float", False),
        ("7", "int", False),
    ],
)
def test_a_feature_that_gives_the_target_away(tmp_path: Path, expression: str, kind: str, caught: bool) -> None:
    files = judged_features(tmp_path, f"{expression} AS x")
    data = section({"late": {"type": "bool"}, "x": {"type": kind}, "id": {"type": "int"}}, key=["id"])
    bad = broken(look_at_pair(files["train"], files["test"], data))  # type: ignore[arg-type]
    assert (set(bad) == {("predictive", "x")}) is caught, bad
    if caught:
        assert bad["predictive", "x"].severity == "warning"
        assert "alone orders late with a ROC AUC of" in bad["predictive", "x"].message


def test_in_a_large_file_a_sample_tells_as_well(tmp_path: Path) -> None:
    rows = 2 * SAMPLE + 10_000
    files = judged_features(tmp_path, "(hash(i, 1) % 2)::DOUBLE AS x, hash(i, 5) % 100 AS y", rows=rows)
    columns_ = {"late": {"type": "bool"}, "x": {"type": "float"}, "y": {"type": "int"}}
    data = section(columns_, key=["id"], checks={"leakage": {"predictive": 0.95}, "severity": {"predictive": "error"}})
    verdict = look_at_pair(files["train"], files["test"], data)  # type: ignore[arg-type]
    assert broken(verdict)["predictive", "x"].severity == "error"
    assert "y" in held(verdict, "predictive")


# ---------------------------------------------------------------- a team's own SQL


def asked(query: str, **more: Any) -> Data:
    return section(checks={"sql": [{"name": "mine", "query": query, **more}]}, key=["id"])


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_query_finds_wrong_rows(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path, ROWS, suffix)
    assert broken(look(file, asked("SELECT * FROM data WHERE distance > 100"))) == {}
    check = broken(look(file, asked("SELECT id, carrier FROM data WHERE distance > 27 ORDER BY id; -- all\n")))[
        "sql", "mine"
    ]
    assert check.rows == 1
    assert check.message == "1 row (id, carrier): 19, AA"
    numbered = "SELECT row_number, distance FROM numbered WHERE distance >= 27 ORDER BY id"
    check = broken(look(file, asked(numbered, severity="warn")))["sql", "mine"]
    assert check.message == "2 rows (distance): 27.0 (row 19); 28.5 (row 20)"
    assert check.severity == "warning"


def test_a_query_may_read_both_files_and_what_columns_reference(tmp_path: Path) -> None:
    train, test = write(tmp_path, ROWS, name="train"), write(tmp_path, f"{ROWS} LIMIT 3", ".csv", "test")
    query = "SELECT * FROM (SELECT (SELECT count(*) FROM train) AS a, (SELECT count(*) FROM test) AS b) WHERE a > 5 * b"
    data = section(checks={"sql": [{"name": "sizes", "query": query}], "leakage": {"rows": False}})
    assert broken(look_at_pair(train, test, data))["sql", "sizes"].message == "1 row (a, b): 20, 3"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "SELECT\n  distanze FROM data",
            'Referenced column "distanze" not found in FROM clause, line 2, column 3 of the query',
        ),
        ("SELECT 'ä', distanze FROM data", "line 1, column 14 of the query"),
        ("SELEC 1", 'syntax error at or near "SELEC", line 1, column 1 of the query'),
        ("SELECT * FROM data; SELECT 1", "must be one query"),
        ("DROP VIEW data", "must be one query"),
        ("COPY data TO 'x.csv'", "must be one query"),
        ("ATTACH 'x.db'", "must be one query"),
        ("SET memory_limit = '9GB'", "must be one query"),
        ("PRAGMA database_list", "must be one query"),
        ("-- nothing", "must be one query"),
        ("SELECT * FROM read_text('/etc/passwd')", "and no other file"),
        ("SELECT * FROM '/etc/passwd'", "/etc/passwd does not exist"),
        ("SELECT * FROM glob('/etc/*')", "and no other file"),
        ("SELECT * FROM nothing", "nothing does not exist"),
        ("SELECT * FROM section", "section does not exist"),
        ("SELECT * FROM data WHERE id = ?", "parameters"),
        ("SELECT id + carrier FROM data", "line 1, column"),
        ("SELECT carrier::INT FROM data", "Could not convert string … to INT32"),
        ("SELECT error('secret ' || carrier) FROM data", "the check|UA|AA|secret"),
    ],
)
def test_a_query_that_cannot_run_or_wants_more_than_to_read(tmp_path: Path, query: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        look(write(tmp_path, ROWS), asked(query))
    assert caught.value.what.startswith("data.checks.sql 'mine': ")
    assert caught.value.fix.startswith("mend `")
    assert "root:" not in caught.value.what


def test_a_query_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    query = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range, b.range) = 1"
    with open_file(write(tmp_path, ROWS), "data", {}) as engine:
        started = monotonic()
        with pytest.raises(InputError, match="was stopped after"):
            duck_query.run(engine.connection, query, engine._views, 5, seconds=0.3)
    assert monotonic() - started < 30


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM data",
        "SELECT carrier FROM data",
        "SELECT carrier AS distance FROM data",
        "SELECT CARRIER AS id FROM data",
        "SELECT upper(carrier) AS x, id FROM data",
        "SELECT d AS whole FROM data d",
        "SELECT d AS id2, row_number FROM numbered d",
    ],
)
def test_a_query_never_shows_values_of_a_sensitive_column(tmp_path: Path, query: str) -> None:
    data = section(
        {**COLUMNS, "carrier": {"type": "string", "sensitive": True}},
        checks={"sql": [{"name": "mine", "query": query}], "duplicates": 20},
    )
    verdict = look(write(tmp_path, ROWS.replace("'UA', 'AA'", "'SECRET1', 'SECRET2'")), data)
    assert broken(verdict)["sql", "mine"].rows == 20
    assert "SECRET" not in repr(verdict)


def test_no_check_shows_values_of_a_sensitive_column(tmp_path: Path) -> None:
    known = write(tmp_path, "SELECT 'OTHER' AS name", name="known")
    secret = {
        "type": "string",
        "sensitive": True,
        "regex": "[a-z]+",
        "length": {"max": 3},
        "references": {"file": "known", "column": "name"},
        "unique": True,
    }
    columns_ = {
        **COLUMNS,
        "carrier": secret,
        "late": {"type": "string", "sensitive": True},
        "distance": {"type": "float", "sensitive": True, "mean": {"min": 1e9}, "quantiles": [{"at": 0.5, "min": 1e9}]},
        "at": {"type": "timestamp", "sensitive": True},
    }
    select = ROWS.replace("'UA', 'AA'", "'SECRET1', 'SECRET2'").replace("i % 3 = 0", "'SECRET' || (i % 2)")
    select = select.replace("i * 1.5", "4242.0 + i").replace(
        " FROM range", ", DATE '1942-01-01' - i::INT AS at FROM range"
    )
    checks = {"balance": {"min": 0.9}, "monotonic": True}
    data = section(columns_, time="at", checks=checks).model_copy(update={"train": "train.parquet"})
    train = write(tmp_path, select, name="train")
    verdict = look(train, data, {"known": known, "test": train})
    rules = {rule for rule, _ in broken(verdict)}
    assert {"regex", "length", "references", "unique", "mean", "quantiles", "balance", "monotonic", "leakage"} <= rules
    shown = repr(verdict.checks) + repr(verdict.columns)
    assert not [text for text in ("SECRET", "4242", "4,24", "4,25", "1942", "1941") if text in shown]


# ---------------------------------------------------------------- schema, severity, suppressions


def physical(**kinds: str) -> tuple[PhysicalColumn, ...]:
    return tuple(PhysicalColumn(name=name, kind="float", shown=shown) for name, shown in kinds.items())


def test_columns_against_those_of_the_version_before() -> None:
    before = Earlier(since="commit 12345678", columns=physical(a="DOUBLE", b="BIGINT", c="VARCHAR"))
    check = schema_check(physical(a="DOUBLE", b="DOUBLE", d="DATE"), before, "warn")
    assert check.message == (
        "the columns changed since commit 12345678: gone: c; new: d; another type: b (BIGINT → DOUBLE)"
    )
    assert check.severity == "warning"
    assert schema_check(before.columns, before, "error").outcome is Outcome.PASS
    assert schema_check(physical(a="X"), before, "error").severity == "error"
    assert schema_check(before.columns, None, "error").outcome is Outcome.PASS
    unknown = schema_check(before.columns, Earlier(missing="it is gone"), "error")
    assert (unknown.outcome, unknown.message) == (Outcome.SKIP, "not compared: it is gone")


def test_severity_by_column_by_check_and_in_general(tmp_path: Path) -> None:
    file = write(tmp_path, ROWS)
    high = {"distance": {"type": "float", "max": 1, "min": 10}}
    high["distance"] |= {"min": 0.5}
    assert broken(look(file, section(columns(**high))))["max", "distance"].severity == "error"
    soft = columns(distance={"max": 1, "severity": "warn"})
    verdict = look(file, section(soft))
    assert broken(verdict)["max", "distance"].severity == "warning"
    assert next(c for c in verdict.columns if c.name == "distance").outcome is Outcome.PASS
    by_check = columns(distance={"max": 1, "min": 0.5, "severity": {"max": "warn"}})
    found = broken(look(file, section(by_check)))
    assert (found["max", "distance"].severity, found["min", "distance"].severity) == ("warning", "error")
    general = section(columns(distance={"max": 1}), checks={"severity": {"max": "warn"}})
    assert broken(look(file, general))["max", "distance"].severity == "warning"


def suppressed(until: str, check: str = "max", column: str | None = "distance") -> dict[str, Any]:
    return {
        "check": check,
        "column": column,
        "reason": "the sensor is being replaced",
        "until": date.fromisoformat(until),
    }


def test_suppressions_hold_until_their_last_day_and_are_said(tmp_path: Path) -> None:
    file = write(tmp_path, ROWS)
    verdict = look(file, section(columns(distance={"max": 1})))
    asked_for = section(checks={"suppress": [suppressed("2026-03-01")]}).checks.suppress
    accepted = Acceptance(asked_for, date(2026, 3, 1)).judge(verdict.checks)
    check = next(c for c in accepted if c.rule == "max")
    assert check.outcome is Outcome.SKIP
    assert check.message.endswith("(accepted until 2026-03-01: the sensor is being replaced)")
    over = Acceptance(asked_for, date(2026, 3, 2)).judge(verdict.checks)
    check = next(c for c in over if c.rule == "max")
    assert check.outcome is Outcome.FAIL
    assert check.message.endswith("(was accepted until 2026-03-01: the sensor is being replaced)")


def test_the_report_counts_what_is_accepted_as_no_failure(tmp_path: Path) -> None:
    file = write(tmp_path, ROWS)
    suppress = [suppressed("2999-01-01"), suppressed("2999-01-01", "nulls", None)]
    data = section(columns(distance={"max": 1}), checks={"suppress": suppress})
    report = report_on("validate", {"a.parquet": look(file, data)}, None, data, now(), 0.1)
    assert report.outcome is Outcome.PASS
    assert "the data is as model.yaml says" in report.headline
    notice = next(f for f in report.findings if f.check == "suppress")
    assert notice.severity == "notice"
    assert notice.message == "`nulls` is suppressed and does not fail: the sensor is being replaced"
    assert next(f for f in report.findings if f.check == "max").outcome is Outcome.SKIP
    assert "accepted until 2999-01-01" in markdown(report)


@pytest.mark.slow
def test_ten_thousand_columns_do_not_flood_the_report(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(10_000)]
    select = ", ".join(f"{i % 7} AS {n}" for i, n in enumerate(names))
    file = write(tmp_path, f"SELECT {select} FROM range(3) t(i)")
    checks = {"duplicates": 9}
    data = section({n: {"type": "int", "max": 5} for n in names}, target="c0", checks=checks)
    verdict = look(file, data)
    report = report_on("validate", {"wide": verdict}, None, data, now(), 0.1)
    assert len(report.tables[0].rows) == 200
    assert report.tables[0].title == "wide: 3 rows; 200 of 10,000 columns, those that fail first"
    assert all(row[-1] is Outcome.FAIL for row in report.tables[0].rows)
    assert "1,328 more checks do not hold" in " ".join(f.message for f in report.findings)
    assert "1,428 failed" in report.headline
    assert len(markdown(report)) < 100_000
    assert len(report.data["files"]["wide"]["columns"]) == 10_000


# ---------------------------------------------------------------- the page


def test_the_page_of_the_checks_names_each_of_them_and_its_examples_are_valid() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/checks.md").read_text(encoding="utf-8")
    headings = {n for line in page.splitlines() if line.startswith("## ") for n in line.removeprefix("## ").split(", ")}
    assert set(get_args(Rule)) <= headings
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(examples) > 15
    for example in examples:
        section(**{"columns": {"late": {"type": "bool"}}, **yaml.safe_load(example)})
