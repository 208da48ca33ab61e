"""The same small table on every engine: a frame of Python values, written as each engine keeps it, and opened."""

from __future__ import annotations

import contextlib
import csv
import math
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol

import duckdb

from mlp_ci.data.engine import Engine
from mlp_ci.data.engines.duck import open_file
from mlp_ci.data.sources import Source

# Types of a frame: int, float, decimal, string, bool, timestamp, zoned, date.
DUCK = {
    "int": "BIGINT",
    "float": "DOUBLE",
    "real": "FLOAT",
    "decimal": "DECIMAL(18, 2)",
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMP",
    "zoned": "TIMESTAMPTZ",
    "date": "DATE",
}
POSTGRES = {**DUCK, "float": "DOUBLE PRECISION", "real": "REAL"}
SQLITE = {
    **DUCK,
    "int": "INTEGER",
    "float": "REAL",
    "real": "REAL",
    "decimal": "NUMERIC",
    "string": "TEXT",
    "zoned": "TIMESTAMP",
}


@dataclass(frozen=True)
class Frame:
    """Columns by name: the type and the values, all of one length; ``None`` is missing."""

    columns: Mapping[str, tuple[str, list[Any]]]

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        return list(zip(*(values for _, values in self.columns.values()), strict=True))


class Store(Protocol):
    """Keeps frames and opens them."""

    name: str
    ordered: bool
    keeps_nan: bool
    typed: bool

    def open(
        self, frame: Frame, types: Mapping[str, str], others: Mapping[str, Frame] = ...
    ) -> contextlib.AbstractContextManager[Engine]: ...


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def write_parquet(frame: Frame, file: Path) -> Path:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    columns = ", ".join(f"{quoted(n)} {DUCK[kind]}" for n, (kind, _) in frame.columns.items())
    connection.execute(f"CREATE TABLE t ({columns})")
    if frame.rows:
        marks = ", ".join("?" for _ in frame.columns)
        connection.executemany(f"INSERT INTO t VALUES ({marks})", frame.rows)
    connection.execute(f"COPY t TO '{file}' (FORMAT parquet)")
    return file


def write_csv(frame: Frame, file: Path) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(frame.columns)
        writer.writerows([[_csv_text(v) for v in row] for row in frame.rows])
    return file


def _csv_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


@dataclass
class Files:
    """Frames as files of one kind; only Parquet keeps types and NaN."""

    folder: Path
    suffix: str = ".parquet"

    @property
    def typed(self) -> bool:
        return self.suffix == ".parquet"

    @property
    def keeps_nan(self) -> bool:
        return self.suffix == ".parquet"

    def write(self, frame: Frame) -> Path:
        file = self.folder / f"{uuid.uuid4().hex}{self.suffix}"
        return write_parquet(frame, file) if self.typed else write_csv(frame, file)


@dataclass
class DuckStore(Files):
    """DuckDB on a file."""

    ordered: bool = True

    @property
    def name(self) -> str:
        return f"duckdb on {self.suffix}"

    @contextlib.contextmanager
    def open(
        self, frame: Frame, types: Mapping[str, str], others: Mapping[str, Frame] | None = None
    ) -> Iterator[Engine]:
        beside = {name: Source.parse(self.write(other), types=types) for name, other in (others or {}).items()}
        with open_file(self.write(frame), "data", types, others=beside) as engine:
            yield engine


@dataclass
class SqliteStore:
    """SQLite, as a warehouse."""

    folder: Path
    name: str = "sqlite"
    ordered: bool = True
    keeps_nan: bool = False
    typed: bool = False

    @contextlib.contextmanager
    def open(
        self, frame: Frame, types: Mapping[str, str], others: Mapping[str, Frame] | None = None
    ) -> Iterator[Engine]:
        from mlp_ci.data.engines.warehouse import open_table

        file = self.folder / f"{uuid.uuid4().hex}.sqlite"
        connection = sqlite3.connect(file)
        for name, one in {"my data": frame, **(others or {})}.items():
            columns = ", ".join(f"{quoted(n)} {SQLITE[kind]}" for n, (kind, _) in one.columns.items())
            connection.execute(f"CREATE TABLE {quoted(name)} ({columns})")
            marks = ", ".join("?" for _ in one.columns)
            rows = [tuple(_sqlite_value(v) for v in row) for row in one.rows]
            connection.executemany(f"INSERT INTO {quoted(name)} VALUES ({marks})", rows)
        connection.commit()
        connection.close()
        tables = {name: quoted(name) for name in others or {}}
        with open_table(f"sqlite:///{file}", '"my data"', types, tables) as engine:
            yield engine


def _sqlite_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, date):
        return value.isoformat()
    return None if isinstance(value, float) and math.isnan(value) else value


@dataclass
class PostgresStore:
    """PostgreSQL, as a warehouse: a schema for each frame."""

    address: str
    name: str = "postgresql"
    ordered: bool = False
    keeps_nan: bool = True
    typed: bool = True

    @contextlib.contextmanager
    def open(
        self, frame: Frame, types: Mapping[str, str], others: Mapping[str, Frame] | None = None
    ) -> Iterator[Engine]:
        import psycopg

        from mlp_ci.data.engines.warehouse import open_table

        schema = f"s{uuid.uuid4().hex}"
        plain = self.address.replace("postgresql+psycopg://", "postgresql://")
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
            for name, one in {"my data": frame, **(others or {})}.items():
                columns = ", ".join(f"{quoted(n)} {POSTGRES[kind]}" for n, (kind, _) in one.columns.items())
                connection.execute(f"CREATE TABLE {schema}.{quoted(name)} ({columns})")
                with connection.cursor().copy(f"COPY {schema}.{quoted(name)} FROM STDIN") as copy:
                    for row in one.rows:
                        copy.write_row(row)
            tables = {name: f"{schema}.{quoted(name)}" for name in others or {}}
            try:
                with open_table(self.address, f'{schema}."my data"', types, tables) as engine:
                    yield engine
            finally:
                connection.execute(f"DROP SCHEMA {schema} CASCADE")


@dataclass
class SparkStore(Files):
    """Spark, on Parquet or CSV files, in the session that is running."""

    ordered: bool = False

    @property
    def name(self) -> str:
        return f"spark on {self.suffix}"

    @contextlib.contextmanager
    def open(
        self, frame: Frame, types: Mapping[str, str], others: Mapping[str, Frame] | None = None
    ) -> Iterator[Engine]:
        from mlp_ci.data.engines.spark import open_spark

        beside = {name: str(self.write(other)) for name, other in (others or {}).items()}
        with open_spark(str(self.write(frame)), types, beside) as engine:
            yield engine
