"""Opens a table of an SQL database or warehouse, through SQLAlchemy, and measures it there.

The address holds credentials, so it is never shown: not in messages, not in errors, not in a log. Everything runs in
one read-only transaction where the database has them, so that all numbers speak of the same state of the table.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engines import sqlite_functions
from mlp_ci.data.engines.measure_sql import Relation, SqlColumn
from mlp_ci.data.engines.sql_dialects import DIALECT_OF, quoted
from mlp_ci.data.engines.sql_table import Answer, SqlTable
from mlp_ci.data.plan import HOLDS, PhysicalColumn
from mlp_ci.errors import InputError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

VARIABLE = "MLP_CI_WAREHOUSE"
EXAMPLE = "postgresql://user:password@host/database"
_PACKAGES = "pip install 'mlp-ci[sql]'"
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_PART = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')


@contextlib.contextmanager
def open_table(
    address: str, table: str, types: Mapping[str, str], others: Mapping[str, str] | None = None
) -> Iterator[SqlTable]:
    """Open ``table`` (``schema.name``) of the database at ``address``, an address of SQLAlchemy.

    ``types`` says what the columns are declared as; ``others`` are further tables, each under the name by which checks
    call it, whose columns of the same name are taken as declared the same. Raises InputError for a bad address, a
    missing package and a missing table, OutsideError where the database does not answer.
    """
    engine = _engine(address)
    try:
        with _connected(engine, address) as connection:
            dialect = DIALECT_OF.get(engine.dialect.name, engine.dialect.name)
            _known(dialect)
            database = _Database(connection, dialect, _secrets(engine.url))
            data = database.relation(table, types)
            beside = {name: database.relation(other, types) for name, other in (others or {}).items()}
            yield SqlTable(database.run, dialect, data, beside)
    finally:
        engine.dispose()


def _engine(address: str) -> Any:
    try:
        import sqlalchemy
        import sqlglot  # noqa: F401 (needed as soon as something is measured)
    except ImportError as error:
        what = f"checking a table needs the package {error.name}, which is not installed"
        raise InputError(what, fix=_PACKAGES) from error
    if not address:
        msg = f"{VARIABLE} is not set"
        raise InputError(msg, fix=f"export {VARIABLE}={EXAMPLE}")
    try:
        url = sqlalchemy.make_url(address)
        url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    except Exception:
        what = f"{VARIABLE} is no address of a database"
        raise InputError(what, fix=f"write it as {EXAMPLE}") from None
    if url.get_backend_name() == "sqlite":
        _there(url)
    try:
        return sqlalchemy.create_engine(url, **_snapshot(url))
    except ImportError as error:
        what = f"{url.get_backend_name()} needs the package {error.name}, which is not installed"
        raise InputError(what, fix=_PACKAGES if "psycopg" in str(error) else f"pip install {error.name}") from None
    except sqlalchemy.exc.NoSuchModuleError:
        what = f"SQLAlchemy knows no database called {url.drivername}"
        raise InputError(what, fix="install its SQLAlchemy dialect, or correct the address") from None


def _there(url: Any) -> None:
    """SQLite makes a database where there is none."""
    known = url.database and url.database != ":memory:" and not url.database.startswith("file:")
    if known and not Path(url.database).is_file():
        what = f"{VARIABLE} names an SQLite file that is not there"
        raise InputError(what, fix="correct the path")


def _snapshot(url: Any) -> dict[str, Any]:
    """One state of the data for all queries, and no writing."""
    if url.get_backend_name() == "postgresql":
        return {"execution_options": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}}
    return {}


@contextlib.contextmanager
def _connected(engine: Any, address: str) -> Iterator[Any]:
    import sqlalchemy

    try:
        # What is sent is complete: a percent sign or a colon in it is no parameter.
        connection = engine.connect().execution_options(no_parameters=True)
    except sqlalchemy.exc.SQLAlchemyError as error:
        what = f"{engine.url.get_backend_name()} does not answer: {_reason(error, _secrets(engine.url))}"
        raise OutsideError(what, fix=f"check {VARIABLE}, the network and the account") from None
    try:
        if engine.dialect.name == "sqlite":
            sqlite_functions.register(connection.connection.driver_connection)
            connection.exec_driver_sql("PRAGMA query_only = ON")
            connection.exec_driver_sql("BEGIN")
        elif engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")
            connection.exec_driver_sql("SET LOCAL DateStyle = 'ISO'")
            connection.exec_driver_sql("SET LOCAL standard_conforming_strings = on")
        yield connection
    finally:
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
            connection.rollback()
        connection.close()


def _known(dialect: str) -> None:
    from sqlglot import Dialect

    if dialect not in Dialect.classes:
        what = f"mlp-ci cannot write SQL for {dialect}: SQLGlot does not know it"
        raise InputError(what, fix="export the table as Parquet and check the file")


def _secrets(url: Any) -> list[str]:
    """What of an address may not be shown, as written and as it stands in the address."""
    from urllib.parse import quote, quote_plus

    values = [url.password, *(v for vs in url.normalized_query.values() for v in vs)]
    found = {form for v in values if v for form in (str(v), quote(str(v), safe=""), quote_plus(str(v)))}
    return sorted((s for s in found if len(s) > 2), key=len, reverse=True)


def _reason(error: BaseException, secrets: Sequence[str]) -> str:
    """The first line of what the driver says, without secrets, and without the query that SQLAlchemy adds."""
    told = getattr(error, "orig", None) or error
    lines = [line.strip() for line in str(told).splitlines() if line.strip()]
    text = lines[0] if lines else type(told).__name__
    for secret in secrets:
        text = text.replace(secret, "…")
    text = re.sub(r"(://[^/@\s:]*):[^/@\s]*@", r"\1:…@", text)
    return text[:300]


class _Database:
    """A connection, and what its tables look like."""

    def __init__(self, connection: Any, dialect: str, secrets: Sequence[str]) -> None:
        import sqlalchemy

        self._connection = connection
        self._dialect = dialect
        self._secrets = secrets
        self._inspector = sqlalchemy.inspect(connection)

    def run(self, sql: str, most: int) -> Answer:
        """Run a query; ``most`` rows of it, or all (0). Raises OutsideError where the database refuses it."""
        import sqlalchemy

        try:
            # A refused query must not end the transaction that the next ones run in.
            with self._connection.begin_nested() if self._dialect == "postgres" else contextlib.nullcontext():
                result = self._connection.exec_driver_sql(sql)
                rows = result.fetchmany(most) if most else result.fetchall()
                names = tuple(map(str, result.keys()))
                result.close()
        except (sqlalchemy.exc.SQLAlchemyError, ValueError, OverflowError) as error:
            what = f"the database refuses a query: {_reason(error, self._secrets)}"
            raise OutsideError(what, fix="check that the account may read the table, and try again") from None
        return Answer(names, [tuple(row) for row in rows])

    def relation(self, table: str, types: Mapping[str, str]) -> Relation:
        import sqlalchemy

        schema, name = self._place(table)
        try:
            with warnings.catch_warnings():
                # A type that SQLAlchemy does not know is one that cannot be checked, and the check says so.
                warnings.simplefilter("ignore", sqlalchemy.exc.SAWarning)
                described = self._inspector.get_columns(name, schema=schema)
        except sqlalchemy.exc.NoSuchTableError:
            described = []
        except sqlalchemy.exc.SQLAlchemyError as error:
            what = f"{table} cannot be read: {_reason(error, self._secrets)}"
            raise OutsideError(what, fix="check that the account may read it") from None
        if not described:
            raise self._missing(table, schema, name)
        shown = [(str(c["name"]), c["type"]) for c in described]
        if self._dialect == "sqlite":
            columns = tuple(_sqlite_column(n, str(_declared(t)), types.get(n)) for n, t in shown)
        else:
            columns = tuple(_column(n, t) for n, t in shown)
        parts = [*(schema.split(".") if schema else []), name]
        return Relation(
            name=".".join(quoted(p) for p in parts),
            shown_as=table,
            columns=columns,
            types=types,
            order=self._order(schema, name),
        )

    def _place(self, table: str) -> tuple[str | None, str]:
        parts = [m[1].replace('""', '"') if m[1] else m[2] for m in _PART.finditer(table)]
        if not parts or _PART.sub("", table).strip(".") or len(parts) > 3:
            what = f"{table!r} is no name of a table"
            raise InputError(what, fix='write table:name or table:schema.name, with "…" around a part that has a dot')
        schema = ".".join(parts[:-1]) or self._inspector.default_schema_name
        return schema, parts[-1]

    def _order(self, schema: str | None, name: str) -> str:
        """SQLite numbers the rows of its tables, but not of views; others keep no order."""
        if self._dialect != "sqlite" or name in self._inspector.get_view_names(schema=schema):
            return ""
        try:
            self.run(f"SELECT max(rowid) FROM {'.'.join(quoted(p) for p in (schema or 'main', name))}", 0)
        except OutsideError:
            return ""
        return "rowid"

    def _missing(self, table: str, schema: str | None, name: str) -> InputError:
        import sqlalchemy

        there: list[str] = []
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
            there = [*self._inspector.get_table_names(schema=schema), *self._inspector.get_view_names(schema=schema)]
        close = difflib.get_close_matches(name, there, n=1, cutoff=0.6)
        what = f"there is no table {table}" + ("" if there else f", and nothing else in {schema or 'the database'}")
        fix = f"did you mean {close[0]}?" if close else "name it with its schema: table:schema.name"
        return InputError(what, fix=fix)


def _declared(kind: Any) -> str:
    """The type of a column as its table declares it."""
    return "" if type(kind).__name__ == "NullType" else str(kind)


def _column(name: str, kind: Any) -> SqlColumn:
    form = _form(kind)
    physical = PhysicalColumn(
        name=name,
        kind=_KINDS.get(form, form),
        shown=_shown_type(kind),
        # PostgreSQL's numeric holds NaN and infinities as well.
        nan=form in ("float", "real", "decimal"),
    )
    return SqlColumn(physical, form)


_KINDS = {"real": "float", "decimal": "float", "zoned": "timestamp"}


def _shown_type(kind: Any) -> str:
    try:
        return str(kind).lower()
    except Exception:
        return type(kind).__name__.lower()


def _form(kind: Any) -> str:
    from sqlalchemy import types

    if type(kind).__name__ == "DOMAIN":
        kind = kind.data_type
    checks: list[tuple[Any, Callable[[], str]]] = [
        (types.Boolean, lambda: "bool"),
        (types.Integer, lambda: "int"),
        (types.Float, lambda: "real" if type(kind).__name__ == "REAL" else "float"),
        (types.Numeric, lambda: "decimal"),
        (types.DateTime, lambda: "zoned" if kind.timezone else "timestamp"),
        (types.Date, lambda: "date"),
        ((types.String, types.Uuid), lambda: "string"),
    ]
    return next((form() for parent, form in checks if isinstance(kind, parent)), "other")


def _sqlite_column(name: str, shown: str, declared: str | None) -> SqlColumn:
    """By SQLite's own rules of affinity, but for booleans and times, which it has none for.

    Where the column can hold what is declared, each value is looked at: its type is its own.
    """
    upper = shown.upper()
    if not shown:
        form = declared or "other"
    elif "BOOL" in upper:
        form = "bool"
    elif "DATETIME" in upper or "TIMESTAMP" in upper:
        form = "timestamp"
    elif upper == "DATE":
        form = "date"
    elif "INT" in upper:
        form = "int"
    elif any(word in upper for word in ("CHAR", "CLOB", "TEXT")):
        form = "string"
    elif "BLOB" in upper:
        form = "other"
    else:
        form = "float"
    text = declared is not None and (not shown or form in HOLDS[declared])
    physical = PhysicalColumn(
        name=name, kind=form, shown=shown.lower() or "no type", text=text, nan=form in ("float", "int")
    )
    return SqlColumn(physical, form)
