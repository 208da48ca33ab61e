"""``mlp-ci data check`` on tables, and what openers say when something is wrong; never a word of the credentials."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlp_ci.data.checks.flow_check import check
from mlp_ci.data.engines.warehouse import open_table
from mlp_ci.errors import InputError, MlpError, OutsideError
from mlp_ci.report import Outcome

MODEL = """\
apiVersion: mlp-ci/v1
name: toy
team: growth
data:
  train: data/train.parquet
  test: data/test.parquet
  key: [id]
  time: at
  target: late
  columns:
    distance: {type: float, min: 0, max: 100, nulls: 0.0}
    carrier: {type: string, in: [UA, AA], references: {file: data/carriers.csv, column: code}}
    email: {type: string, sensitive: true, regex: "[^@]+@[^@]+"}
    late: {type: int, min: 0, max: 1}
  checks:
    rows: {min: 3}
    monotonic: true
    sql:
      - {name: far and late, query: "SELECT id FROM data WHERE distance > 90 AND late = 1"}
      - {name: known keys, query: "SELECT id FROM data WHERE id NOT IN (SELECT id FROM train)"}
train: {command: "true"}
evaluate: {gates: [{metric: roc_auc, min: 0.5}]}
"""
TABLE = (
    "CREATE TABLE flights (id INTEGER, at TIMESTAMP, distance REAL, carrier TEXT, email TEXT, late INTEGER)",
    (
        "INSERT INTO flights VALUES (1, '2013-01-01 05:00', 10, 'UA', 'a@b', 0), "
        "(2, '2013-01-02', 20, 'AA', 'c@d', 1), "
        "(3, '2013-01-03', 30, 'AA', 'e@f', 0), (4, '2013-01-04', 40, 'UA', NULL, 1)"
    ),
)
SECRET = "hunter2"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "model.yaml").write_text(MODEL)
    return folder


@pytest.fixture
def address(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "warehouse.sqlite") as connection:
        for statement in TABLE:
            connection.execute(statement)
    connection.close()
    return f"sqlite:///{tmp_path / 'warehouse.sqlite'}"


def change(address: str, statement: str) -> None:
    with sqlite3.connect(address.removeprefix("sqlite:///")) as connection:
        connection.execute(statement)
    connection.close()


def test_a_table_as_the_model_says(repo: Path, address: str) -> None:
    report = check(repo, "table:flights", "auto", address)
    assert report.outcome is Outcome.PASS, report.findings
    assert report.data["engine"] == "sql"
    skipped = {f.check for f in report.findings if f.outcome is Outcome.SKIP}
    assert skipped == {"references", "sql"}  # a file and train are not in the warehouse, and that is said


def test_what_is_wrong_in_a_table_is_shown_by_key(repo: Path, address: str) -> None:
    change(
        address,
        "INSERT INTO flights VALUES (4, '2013-01-02', 95, 'ZZ', 'secret-mail', 1), (6, NULL, 'far', 'UA', '', 7)",
    )
    report = check(repo, "table:main.flights", "sql", address)
    said = {f.check: f.message for f in report.findings if f.outcome is Outcome.FAIL and f.severity == "error"}
    assert set(said) == {"type", "in", "regex", "max", "key", "monotonic", "sql"}
    assert "1 value cannot be read as float: 'far' (id=6)" in said["type"]
    assert "'ZZ' (1×)" in said["in"]
    assert "id=4" in said["regex"]
    assert "secret-mail" not in repr(report)


def test_the_command(repo: Path, address: str, cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = cli("data", "check", "table:flights", "--path", repo, MLP_CI_WAREHOUSE=address)
    assert done.returncode == 0, done.stdout + done.stderr
    change(address, "UPDATE flights SET distance = 500")
    done = cli("data", "check", "table:flights", "--path", repo, MLP_CI_WAREHOUSE=address)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "above 100" in done.stdout
    done = cli("data", "check", "table:flights", "--path", repo)
    assert done.returncode == 2
    assert "MLP_CI_WAREHOUSE" in done.stderr


@pytest.mark.parametrize(
    ("source", "engine", "said"),
    [
        ("table:flihgts", "sql", "no table flihgts"),
        ("table:nowhere.flights", "sql", "nowhere"),
        ("table:", "sql", "no name of a table"),
        ('table:a"b', "sql", "no name of a table"),
        ("flights.parquet", "sql", "reads tables"),
        ("table:flights", "duckdb", "is a table"),
        ("table:flights", "oracle", "no engine oracle"),
    ],
)
def test_what_cannot_be_opened(repo: Path, address: str, source: str, engine: str, said: str) -> None:
    with pytest.raises(MlpError) as refused:
        check(repo, source, engine, address)
    assert said in refused.value.what
    assert refused.value.fix


@pytest.mark.parametrize(
    "bad",
    [
        f"postgresql://u:{SECRET}@/db?host=/nowhere/at/all",
        f"postgresql://u:p@/db?host=/nowhere/at/all&options={SECRET}",
        f"{SECRET} is no address",
        f"wonder://u:{SECRET}@host/db",
        f"mysql://u:{SECRET}@host/db",
        f"sqlite:////nowhere/at/all.sqlite?password={SECRET}",
    ],
)
def test_credentials_are_never_shown(bad: str) -> None:
    with pytest.raises(MlpError) as refused, open_table(bad, "flights", {}):
        pass
    shown = f"{refused.value} {refused.value.fix} {refused.value.why} {refused.getrepr(chain=True, style='short')}"
    assert SECRET not in f"{refused.value} {refused.value.fix} {refused.value.why}"
    # A traceback, were one printed, names no cause that could hold the address.
    assert refused.value.__cause__ is None or SECRET not in repr(refused.value.__cause__), shown


def test_nothing_is_made_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not there"), open_table(f"sqlite:///{tmp_path}/new.sqlite", "flights", {}):
        pass
    assert not list(tmp_path.iterdir())


def test_nothing_can_be_written_through_a_check(postgres_address: str) -> None:
    import psycopg

    plain = postgres_address.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("CREATE SEQUENCE IF NOT EXISTS public.counter")
    with open_table(postgres_address, "pg_catalog.pg_class", {}) as engine:
        with pytest.raises(InputError, match="read-only transaction"):
            engine.query("SELECT nextval('public.counter') FROM data")
        with pytest.raises(InputError, match="does more than read"):
            engine.query("SELECT * FROM data FOR UPDATE")
        assert engine.query("SELECT relname FROM data WHERE relname = 'pg_class'").rows == 1


def test_a_view_and_types_that_are_no_values(postgres_address: str) -> None:
    import psycopg

    plain = postgres_address.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA odd")
        connection.execute("CREATE TYPE odd.mood AS ENUM ('ok', 'sad')")
        connection.execute(
            "CREATE VIEW odd.view AS SELECT 1 AS y, 'ok'::odd.mood AS mood, '{\"a\": 1}'::json AS doc, "
            "ARRAY[1, 2] AS list, 'infinity'::timestamp AS at, gen_random_uuid() AS u, 'NaN'::numeric AS n "
            "UNION ALL SELECT 1, 'ok', '{\"a\": 1}', ARRAY[1, 2], 'infinity', NULL, NULL"
        )
        try:
            with open_table(postgres_address, "odd.view", {"mood": "string", "at": "timestamp"}) as engine:
                kinds = {c.name: c.kind for c in engine.schema()}
                assert kinds == {
                    "y": "int",
                    "mood": "string",
                    "doc": "other",
                    "list": "other",
                    "at": "timestamp",
                    "u": "string",
                    "n": "float",
                }
                assert engine.repeats(["y", "doc", "list"]).rows == 1
                assert engine.counts("mood", 5) == (("ok", 2),)
        finally:
            connection.execute("DROP SCHEMA odd CASCADE")


def test_a_database_that_is_not_there_can_be_tried_again() -> None:
    with pytest.raises(OutsideError) as refused, open_table("postgresql:///x?host=/nowhere/at/all", "flights", {}):
        pass
    assert "MLP_CI_WAREHOUSE" in refused.value.fix


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.xdist_group("spark")
def test_spark_is_quiet_and_leaves_nothing_behind(tmp_path: Path, spark_session: object) -> None:
    """In a process of its own: no Java on the terminal, no folders, and errors in our words."""
    script = tmp_path / "script.py"
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3\n")
    (tmp_path / "good.csv").write_text("a,b\n1,2\n")
    script.write_text(
        "from mlp_ci.data.engines.spark import open_spark\n"
        "from mlp_ci.errors import InputError, OutsideError\n"
        "from mlp_ci.data.plan import Plan\n"
        "with open_spark('good.csv', {'a': 'int'}) as engine:\n"
        "    print(engine.counts('a', 1))\n"
        "    try:\n"
        "        engine.query('SELECT nope FROM data')\n"
        "    except InputError as error:\n"
        "        print('refused', error)\n"
        "for bad in ('bad.csv', 'missing.parquet', 'table:missing'):\n"
        "    try:\n"
        "        with open_spark(bad, {'a': 'int'}) as engine:\n"
        "            engine.counts('a', 1)\n"
        "    except (InputError, OutsideError) as error:\n"
        "        print('refused', error)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "(('1', 1),)"
    assert [line.startswith("refused") for line in lines[1:]] == [True] * 4
    assert "nope" in lines[1]
    assert "Exception" not in done.stdout
    assert {p.name for p in tmp_path.iterdir()} == {"script.py", "bad.csv", "good.csv"}
