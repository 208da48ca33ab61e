"""``mlp-ci data infer``: what it makes of a file, that it holds on that file, and how it renews a model.yaml."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_ci.data.checks.judge import judge_file
from mlp_ci.data.describe.flow_infer import Wanted, infer_file
from mlp_ci.data.describe.infer import Known, Suggestion, infer
from mlp_ci.data.describe.infer_text import document, edit
from mlp_ci.data.describe.patterns import pattern_of
from mlp_ci.data.describe.survey import Surveyor
from mlp_ci.data.engines.duck import open_file
from mlp_ci.data.plan import types_wanted
from mlp_ci.errors import InputError, SpecError
from mlp_ci.report import Outcome
from mlp_ci.spec.data import Data
from mlp_ci.spec.load import load_model

NOW = datetime(2013, 7, 1, tzinfo=UTC)
MODEL = """\
apiVersion: mlp-ci/v1
name: toy
team: growth
# who reads this
data:
  train: train.parquet # tracked
  test: test.parquet
  key: [id]
  target: late
{columns}
train: {{command: "true"}} # trains
evaluate: {{gates: [{{metric: roc_auc, min: 0.5}}]}}
"""


def written(folder: Path, select: str, name: str = "data.parquet") -> Path:
    kind = "parquet" if name.endswith(".parquet") else "csv"
    duckdb.connect().execute(f"COPY ({select}) TO '{folder / name}' (FORMAT {kind})")
    return folder / name


def inferred(file: Path, *, margin: float = 0.1, known: Known | None = None) -> tuple[dict[str, Any], str]:
    """The ``data`` section as parsed, and the text."""
    with open_file(file, file.name, {}) as opened:
        suggestion = infer(Surveyor(opened), margin=margin, now=NOW, known=known)
    text = document(suggestion, file.name)
    return yaml.safe_load(text)["data"], text


def column(tmp_path: Path, expression: str, *, name: str = "c", rows: int = 1000, csv: bool = False) -> dict[str, Any]:
    select = f'SELECT {expression} AS "{name}" FROM range({rows}) t(i)'
    found, _ = inferred(written(tmp_path, select, "data.csv" if csv else "data.parquet"))
    described = found["columns"][name]
    assert isinstance(described, dict)
    return described


# ---------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("i", "int"),
        ("i * 1.5::DOUBLE", "float"),
        ("CASE WHEN i % 7 > 0 THEN i::DOUBLE END", "int"),  # whole numbers with gaps, as pandas stores them
        ("i::DOUBLE", "float"),
        ("i % 2 = 0", "bool"),
        ("TIMESTAMP '2013-01-01' + INTERVAL 1 HOUR * i", "timestamp"),
        ("TIMESTAMP '2013-01-01' + INTERVAL 1 DAY * i", "date"),
        ("DATE '2013-01-01' + i::INT", "date"),
        ("'n' || i", "string"),
        ("i::VARCHAR", "string"),  # numbers in text are text to whoever reads the file
    ],
)
def test_types_of_a_parquet_file(tmp_path: Path, expression: str, kind: str) -> None:
    assert column(tmp_path, expression)["type"] == kind


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("i", "int"),
        ("i || '.0'", "int"),
        ("i / 7", "float"),
        ("printf('%05d', i)", "string"),  # 00501 is a code
        ("strftime(TIMESTAMP '2013-01-01' + INTERVAL 1 HOUR * i, '%Y-%m-%dT%H:%M:%SZ')", "timestamp"),
        ("DATE '2013-01-01' + i::INT", "date"),
        ("['True', 'False'][i % 2 + 1]", "bool"),
        ("['yes', 'no'][i % 2 + 1]", "string"),
        ("CASE WHEN i = 77 THEN 'broken' ELSE i::VARCHAR END", "string"),
        ("CASE WHEN i % 5 = 0 THEN 'NA' ELSE i::VARCHAR END", "int"),
    ],
)
def test_types_in_a_csv(tmp_path: Path, expression: str, kind: str) -> None:
    assert column(tmp_path, expression, csv=True)["type"] == kind


def test_what_is_wrong_with_text_is_said(tmp_path: Path) -> None:
    select = "SELECT i::VARCHAR AS n, CASE WHEN i = 7 THEN 'x' ELSE i::VARCHAR END AS m, [i] AS l FROM range(500) t(i)"
    _, text = inferred(written(tmp_path, select))
    assert "whole numbers written as text: store them as int" in text
    assert "all but 1 are whole numbers: mend it and declare `int`" in text
    assert "# l: BIGINT[] in 500 rows: nested and binary values cannot be checked" in text


# ---------------------------------------------------------------- bounds


def test_bounds_leave_a_tenth_of_the_range_and_respect_zero(tmp_path: Path) -> None:
    found = column(tmp_path, "(80 + i * 4.9)::DOUBLE", name="distance")
    assert (found["min"], found["max"]) == (0, 5500)
    found = column(tmp_path, "(250 + i % 61)::DOUBLE", name="kelvin")
    assert (found["min"], found["max"]) == (244, 316)


def test_a_heavy_tail_gets_more_room_than_its_range(tmp_path: Path) -> None:
    found = column(tmp_path, "exp(3 * sqrt(-2 * ln((i + 0.5) / 1000)) * cos(2.39996 * i))", name="amount")
    largest = duckdb.sql(
        "SELECT max(exp(3 * sqrt(-2 * ln((i + 0.5) / 1000)) * cos(2.39996 * i))) FROM range(1000) t(i)"
    )
    assert found["min"] == 0
    assert found["max"] > 2 * largest.fetchall()[0][0]


@pytest.mark.parametrize(
    ("name", "expression", "low", "high"),
    [
        ("click_rate", "0.3 * i / 1000", 0, 1),
        ("hour", "5 + i % 18", 0, 23),
        ("pickup_month", "1 + i % 11", 1, 12),
        ("lat", "40.5 + i / 1000", -90, 90),
        ("discount_pct", "i % 40", 0, 100),
    ],
)
def test_a_name_can_stand_for_a_range(tmp_path: Path, name: str, expression: str, low: float, high: float) -> None:
    found = column(tmp_path, expression, name=name)
    assert (found["min"], found["max"]) == (low, high)


def test_margin_zero_allows_what_was_seen_and_no_more(tmp_path: Path) -> None:
    select = (
        "SELECT 80 + i % 399 AS d, CASE WHEN i % 8 > 0 THEN i * 0.1 END AS f, 'a' || i % 3 AS s FROM range(400) t(i)"
    )
    found, _ = inferred(written(tmp_path, select), margin=0)
    columns = found["columns"]
    assert (columns["d"]["min"], columns["d"]["max"]) == (80, 478)
    assert columns["f"]["nulls"] == 0.125
    assert columns["s"]["in"] == ["a0", "a1", "a2"]
    loose, _ = inferred(tmp_path / "data.parquet", margin=0.5)
    assert loose["columns"]["d"]["max"] > 478
    assert loose["columns"]["f"]["nulls"] > 0.125


def test_few_rows_do_not_say_never(tmp_path: Path) -> None:
    assert column(tmp_path, "i * 1.5", rows=40)["nulls"] > 0
    assert column(tmp_path, "i * 1.5", rows=400)["nulls"] == 0


# ---------------------------------------------------------------- sets and forms


def test_a_set_is_closed_only_when_every_level_is_frequent_and_came_early(tmp_path: Path) -> None:
    assert column(tmp_path, "['EWR', 'JFK', 'LGA'][i % 3 + 1]")["in"] == ["EWR", "JFK", "LGA"]
    rare = column(tmp_path, "CASE WHEN i = 3 THEN 'ZZ' ELSE ['AA', 'UA'][i % 2 + 1] END")
    assert "in" not in rare
    late = column(tmp_path, "CASE WHEN i > 900 THEN 'new' ELSE ['a', 'b'][i % 2 + 1] END")
    assert "in" not in late


def test_two_whole_numbers_and_codes_are_sets_amounts_are_not(tmp_path: Path) -> None:
    assert column(tmp_path, "i % 2")["in"] == [0, 1]
    assert column(tmp_path, "[3, 17, 99, 204][i % 4 + 1]")["in"] == [3, 17, 99, 204]
    assert "in" not in column(tmp_path, "i % 7", name="children")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([f"N{i}" for i in range(100, 200)], r"N\d{3}"),
        ([f"N{i}" for i in range(1, 200)], r"N\d+"),
        ([chr(65 + i // 26) + chr(65 + i % 26) for i in range(100)], "[A-Z]{2}"),
        ([f"2013-{i:04}-{chr(65 + i % 26)}" for i in range(100)], r"\d{4}\-\d{4}\-[A-Z]"),
        ([f"word {i}" if i % 2 else f"{i} Words" for i in range(50)], None),
        (["a1", "b2"], None),
    ],
)
def test_texts_of_one_form(values: list[str], expected: str | None) -> None:
    assert pattern_of(values) == expected


def test_a_form_must_hold_in_the_whole_file(tmp_path: Path) -> None:
    found = column(tmp_path, "CASE WHEN i = 29999 THEN 'odd one' ELSE 'N' || (10000 + i) END", rows=30_000)
    assert "regex" not in found


# ---------------------------------------------------------------- keys, times, personal data


def test_key_time_target_and_checks_are_guessed(tmp_path: Path) -> None:
    select = (
        "SELECT 'F' || (1000 + i) AS flight_id, TIMESTAMP '2013-03-01' + INTERVAL 1 HOUR * i AS at, i % 5 AS n, "
        "i % 2 AS delayed FROM range(2800) t(i)"
    )
    _, text = inferred(written(tmp_path, select))
    assert "# key: [flight_id] # a guess" in text
    assert "# time: at # a guess" in text
    assert "# target: delayed # a guess" in text
    assert "    # monotonic: true # at never goes back in 2,800 rows" in text
    found, text = inferred(tmp_path / "data.parquet", known=Known(time="at"))
    assert found["columns"]["flight_id"] == {"type": "string", "nulls": 0.0, "unique": True, "regex": r"F\d{4}"}
    assert found["checks"] == {"rows": {"min": 200}, "duplicates": 0, "freshness": "14d", "monotonic": True}


def test_a_key_of_two_columns(tmp_path: Path) -> None:
    select = "SELECT i % 20 AS store_id, DATE '2013-01-01' + (i // 20)::INT AS day FROM range(2000) t(i)"
    _, text = inferred(written(tmp_path, select))
    assert "# key: [store_id, day] # a guess" in text


def test_personal_data_is_marked_and_none_of_it_is_shown(tmp_path: Path) -> None:
    select = (
        "SELECT 'p' || i || '@example.org' AS contact, 'Mia' || i AS first_name, '+49 170 ' || (100000 + i) AS reach, "
        "i AS age FROM range(300) t(i)"
    )
    found, text = inferred(written(tmp_path, select), known=Known(sensitive=frozenset({"age"})))
    for name in ("contact", "first_name", "reach", "age"):
        assert found["columns"][name]["sensitive"] is True
        assert set(found["columns"][name]) <= {"type", "nulls", "unique", "sensitive"}
    assert "example.org" not in text
    assert "Mia" not in text
    assert "299" not in text


# ---------------------------------------------------------------- it holds


def odd_text() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=12)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "int8": st.integers(-4, 4),
    "double": st.floats(allow_nan=True, allow_infinity=True),
    "float": st.floats(width=32),
    "small": st.floats(0, 1),
    "string": odd_text(),
    "level": st.sampled_from(["no", "1e3", "2013-01-01", "null", "~", "a: b", "#x", ""]),
    "code": st.from_regex(r"[A-Z]{2}\d{3}", fullmatch=True),
    "bool": st.booleans(),
    "timestamp": st.integers(-8_000_000_000, 8_800_000_000).map(
        lambda s: datetime.fromtimestamp(0, UTC) + timedelta(seconds=s)
    ),
    "date": st.dates(),
}
ARROW = {
    "int64": pa.int64(),
    "int8": pa.int8(),
    "double": pa.float64(),
    "float": pa.float32(),
    "small": pa.float64(),
    "string": pa.string(),
    "level": pa.string(),
    "code": pa.string(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
}
ARROW_TIMES = (pa.timestamp("us"), pa.date32())


@st.composite
def frames(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(1, 60)) * draw(st.sampled_from([1, 10]))
    columns: dict[str, pa.Array] = {"y": pa.array([i % 2 for i in range(rows)], pa.int64())}
    names = st.one_of(odd_text(), st.sampled_from(["id", "hour", "rate", "price", "at"])).filter(bool)
    seen = {"y"}
    for name, kind in draw(st.lists(st.tuples(names, st.sampled_from(sorted(VALUES))), max_size=4)):
        if name.strip().lower() in seen or not name.strip() or name.startswith("mlp-ci "):
            continue
        seen.add(name.strip().lower())
        pool = draw(st.lists(st.one_of(VALUES[kind], st.none()), min_size=1, max_size=30))
        columns[name] = pa.array([pool[i * 7 % len(pool)] for i in range(rows)], ARROW[kind])
    return pa.table(columns)


@pytest.mark.slow
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(frames(), st.sampled_from([0.0, 0.1, 2.0]), st.booleans())
def test_what_is_inferred_holds_on_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, frame: pa.Table, margin: float, as_csv: bool
) -> None:
    folder = tmp_path_factory.mktemp("frame")
    as_csv = as_csv and not any(set("\r\n") & set(name) for name in frame.column_names)
    file = folder / ("data.csv" if as_csv else "data.parquet")
    if as_csv:
        from pyarrow import csv

        csv.write_csv(frame, file)
    else:
        pq.write_table(frame, file)
    time = next((name for name in frame.column_names if frame.schema.field(name).type in ARROW_TIMES), "")
    time = time.strip() if as_csv else time  # as pandas users expect, blanks around a header's names do not count
    section, text = inferred(file, margin=margin, known=Known(target="y", time=time))
    named = {"time": time} if time else {}
    data = Data.model_validate({"train": "a", "test": "b", "target": "y", **named, **section})
    with open_file(file, file.name, types_wanted(data)) as opened:
        verdict = judge_file(opened, data)
    broken = [c for c in verdict.checks if c.outcome is Outcome.FAIL and data.severity_of(c.rule, c.column) == "error"]
    assert not broken, f"{broken}\n{text}"


# ---------------------------------------------------------------- in model.yaml


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    select = (
        "SELECT 100 + i AS id, 80.0 + i AS distance, ['UA', 'AA'][i % 2 + 1] AS carrier, i % 3 AS extra, "
        "i % 2 AS late FROM range(1000) t(i)"
    )
    written(tmp_path, select, "train.parquet")
    return tmp_path


def write_into(repo: Path, columns: str) -> str:
    (repo / "model.yaml").write_text(MODEL.format(columns=columns))
    report = infer_file(repo, str(repo / "train.parquet"), Wanted(write=True))
    assert report.outcome is Outcome.PASS
    load_model(repo)
    return (repo / "model.yaml").read_text()


def test_write_adds_the_block_and_keeps_every_other_line(repo: Path) -> None:
    text = write_into(repo, "  # no columns yet")
    assert "    distance: {type: float, nulls: 0.0, min: 0, max: 1180} # 80 … 1,079 in 1,000 rows, 10 % margin" in text
    assert "  checks:\n    rows: {min: 100}" in text
    for line in MODEL.format(columns="  # no columns yet").splitlines():
        assert line in text.splitlines()


def test_write_renews_what_is_named_and_keeps_what_a_person_said(repo: Path) -> None:
    text = write_into(
        repo,
        "  columns: # what it reads\n    # in miles\n    distance: {type: float, min: 1, monitor: false} # as flown\n"
        "    late:\n      type: int\n      severity: warn\n    gone: {type: int} # comes back\n"
        "  checks:\n    rows: {min: 7}\n",
    )
    assert "    # in miles\n" in text
    assert "    # as flown; 80 … 1,079 in 1,000 rows, 10 % margin\n    distance: {type: float" in text
    assert "max: 1180, monitor: false}" in text
    assert "in: [0, 1], severity: warn}" in text
    assert "    gone: {type: int} # comes back\n" in text
    assert "    # not described here: carrier: {type: string" in text
    assert "rows: {min: 7}" in text
    assert "duplicates" not in text
    again = infer_file(repo, str(repo / "train.parquet"), Wanted(write=True))
    assert again.outcome is Outcome.PASS
    assert (repo / "model.yaml").read_text() == text


def test_a_model_that_would_not_be_valid_is_not_written(repo: Path) -> None:
    broken = MODEL.format(columns="").replace("team: growth", "tem: growth")
    (repo / "model.yaml").write_text(broken)
    with pytest.raises(SpecError):
        infer_file(repo, str(repo / "train.parquet"), Wanted(write=True))
    assert (repo / "model.yaml").read_text() == broken
    assert [f.name for f in repo.iterdir() if f.name.startswith(".model")] == []


def test_data_on_one_line_is_refused(repo: Path) -> None:
    (repo / "model.yaml").write_text("data: {train: a, test: b, target: y}\n")
    with pytest.raises(InputError, match="written as a block"):
        infer_file(repo, str(repo / "train.parquet"), Wanted(write=True))


@pytest.fixture
def suggested(repo: Path) -> Suggestion:
    with open_file(repo / "train.parquet", "train.parquet", {}) as opened:
        return infer(Surveyor(opened), margin=0.1, now=NOW, known=Known(target="late", key=("id",)))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["distance", "carrier", "late", "id"]), unique=True),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.lists(st.sampled_from(["# a note", "", "#", "  # indented"]), max_size=3),
)
def test_editing_twice_is_editing_once(
    suggested: Suggestion, names: list[str], newline: str, block: bool, notes: list[str]
) -> None:
    shape = "    {}:\n      type: {}\n" if block else "    {}: {{type: {}}} # mine\n"
    kinds = {"distance": "float", "carrier": "string", "late": "int", "id": "int"}
    columns = "  columns:\n" + "".join(shape.format(n, kinds[n]) for n in names) if names else ""
    text = MODEL.format(columns=columns + "".join(f"  {n}\n" for n in notes)).replace("\n", newline)
    once = edit(text, suggested).text
    assert edit(once, suggested).text == once
    before, after = yaml.safe_load(text), yaml.safe_load(once)
    after["data"].pop("columns")
    before["data"].pop("columns", None)
    after["data"].pop("checks")
    assert after == before
    assert once.count("# mine") == (0 if block else len(names))


# ---------------------------------------------------------------- bad input


def test_bad_arguments_and_missing_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        infer_file(tmp_path, str(tmp_path / "nothing.csv"), Wanted())
    file = written(tmp_path, "SELECT 1 AS x")
    with pytest.raises(InputError, match="--margin"):
        infer_file(tmp_path, str(file), Wanted(margin=math.nan))
    with pytest.raises(InputError, match="--sample"):
        infer_file(tmp_path, str(file), Wanted(sample=0))
    with pytest.raises(InputError, match=r"no model\.yaml"):
        infer_file(tmp_path, str(file), Wanted(write=True))


def test_no_rows_and_one_row(tmp_path: Path) -> None:
    for rows in (0, 1):
        found, _ = inferred(written(tmp_path, f"SELECT i AS a, 'x' AS b FROM range({rows}) t(i)"))
        assert set(found["columns"]) == {"a", "b"}


def test_a_sample_says_that_it_is_one(tmp_path: Path) -> None:
    file = written(tmp_path, "SELECT i AS a FROM range(50000) t(i)")
    report = infer_file(tmp_path, str(file), Wanted(sample=1000))
    assert "a sample of 1,000 rows" in report.document
    assert "in 1,000 sampled rows" in report.document


def test_an_age_in_the_future_asks_for_no_freshness(tmp_path: Path) -> None:
    later = (NOW + timedelta(days=9)).strftime("%Y-%m-%d")
    found, _ = inferred(
        written(tmp_path, f"SELECT TIMESTAMP '{later} 01:00' + INTERVAL 1 HOUR * i AS at FROM range(200) t(i)")
    )
    assert "freshness" not in found["checks"]
