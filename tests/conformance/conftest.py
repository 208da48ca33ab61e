"""A PostgreSQL and a Spark of the tests' own: one each per test process, and nothing of them left behind."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.engines import CSV, TYPED
from tests.conformance.stores import DuckStore, PostgresStore, SparkStore, SqliteStore, Store

NO_POSTGRES = "PostgreSQL is not on this machine: apt install postgresql"
NO_JAVA = "Java is not on this machine: apt install openjdk-17-jre-headless"


def postgres_programs() -> Path | None:
    """Where initdb and pg_ctl are: Debian keeps them off the path."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


@pytest.fixture(scope="session")
def postgres_address() -> Iterator[str]:
    """A fresh PostgreSQL that only a socket in a folder leads to. It refuses to run as root, who lends it a user."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip(NO_POSTGRES)
    user = pwd.getpwuid(os.getuid()).pw_name
    lent: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="mlp-ci-pg-"))
    if os.getuid() == 0:
        user = "postgres"
        try:
            shutil.chown(folder, user)
        except LookupError:
            folder.rmdir()
            pytest.skip(NO_POSTGRES)
        lent = ["runuser", "-u", user, "--"]
    place = str(folder / "db")
    # Nothing here outlives the tests: no syncing, and a port that only names the socket.
    options = f"-c listen_addresses='' -c fsync=off -c full_page_writes=off -k {folder}"

    def run(*command: str) -> None:
        subprocess.run([*lent, *command], check=True, capture_output=True, cwd=folder, env={"PATH": os.environ["PATH"]})

    try:
        run(str(programs / "initdb"), "-D", place, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
        run(str(programs / "pg_ctl"), "-D", place, "-w", "-l", str(folder / "log"), "-o", options, "start")
        yield f"postgresql+psycopg://{user}@/postgres?host={folder}"
    finally:
        subprocess.run(
            [*lent, str(programs / "pg_ctl"), "-D", place, "-m", "immediate", "-w", "stop"],
            check=False,
            capture_output=True,
            cwd="/",
        )
        for _ in range(50):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.1)


@pytest.fixture(scope="session")
def spark_session() -> Iterator[Any]:
    """One Spark for all tests of a process; what is opened uses the one that runs."""
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'mlp-ci[spark]'")
    from mlp_ci.data.engines import spark

    if not spark.java():
        pytest.skip(NO_JAVA)
    with spark.session() as session:
        # A handful of rows: compiling queries and spreading them out takes longer than running them.
        session.conf.set("spark.sql.shuffle.partitions", "1")
        session.conf.set("spark.sql.codegen.wholeStage", "false")
        session.conf.set("spark.sql.codegen.factoryMode", "NO_CODEGEN")
        session.conf.set("spark.sql.adaptive.enabled", "false")
        yield session


@pytest.fixture(params=[*TYPED, *CSV])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Every engine in turn."""
    match request.param:
        case "duckdb-parquet":
            return DuckStore(tmp_path)
        case "duckdb-csv":
            return DuckStore(tmp_path, ".csv")
        case "sqlite":
            return SqliteStore(tmp_path)
        case "postgres":
            return PostgresStore(request.getfixturevalue("postgres_address"))
        case "spark-parquet":
            request.getfixturevalue("spark_session")
            return SparkStore(tmp_path)
        case _:
            request.getfixturevalue("spark_session")
            return SparkStore(tmp_path, ".csv")
