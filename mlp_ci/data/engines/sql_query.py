"""A team's own SQL in a warehouse: one SELECT in DuckDB's dialect that reads the data and what it references.

SQLGlot reads the query and writes it for the warehouse, so it runs as it does on a file. It can name the data and its
references and nothing else; the transaction or the account that it runs in should not be able to write either.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engines.measure_sql import read
from mlp_ci.data.engines.sql_dialects import WRITTEN_IN, quoted, translate
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlglot import exp

    from mlp_ci.data.engines.measure_sql import Relation

# The names under which a query gets the number of a row: `SELECT row_number, distance FROM numbered WHERE …`.
NUMBER, NUMBERED = "row_number", "numbered"
_WHY = "a check reads the data and changes nothing"


def prepared(sql: str, tables: Mapping[str, Relation], dialect: str) -> tuple[str, str]:
    """Two queries in ``dialect``: how many rows ``sql`` finds, and the rows.

    Raises InputError, naming line and column, for what is not one query or reads anything but ``tables``.
    """
    query = _parsed(sql)
    _reads_only(query, {*tables, *([NUMBERED] if tables["data"].order else [])}, sql)
    named = []
    for name, table in tables.items():
        columns = ", ".join(
            f"{read(c, table.types.get(c.physical.name))} AS {quoted(c.physical.name)}" for c in table.columns
        )
        named.append(f"{quoted(name)} AS (SELECT {columns} FROM {table.name})")
        if name == "data" and table.order:
            number = f"row_number() OVER (ORDER BY {table.order}) AS {quoted(NUMBER)}"
            named.append(f"{quoted(NUMBERED)} AS (SELECT {number}, {columns} FROM {table.name})")
    with_tables = f"WITH {', '.join(named)} SELECT"
    written = query.sql(dialect=WRITTEN_IN)
    counted = translate(f"{with_tables} count(*) FROM ({written}) AS found", dialect)
    return counted, translate(f"{with_tables} * FROM ({written}) AS found", dialect)


def examples(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[tuple[int | None, tuple[Any, ...]]]:
    """Row number and the other values of each row that a query found."""
    at = names.index(NUMBER) if NUMBER in names else None
    found: list[tuple[int | None, tuple[Any, ...]]] = []
    for values in rows:
        number = None if at is None or not str(values[at]).isdigit() else int(values[at])
        found.append((number, tuple(v for i, v in enumerate(values) if i != at)))
    return found


def _parsed(sql: str) -> exp.Query:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import ParseError, TokenError

    try:
        statements = [s for s in sqlglot.parse(sql, read=WRITTEN_IN) if s is not None]
    except ParseError as error:
        place = error.errors[0]
        reason = f"syntax error at or near {place['highlight']!r}" if place["highlight"] else "syntax error"
        raise _refused(reason, sql, int(place["line"]), int(place["col"])) from error
    except TokenError as error:
        at = _unfinished(sql)
        line, column = sql.count("\n", 0, at) + 1, at - sql.rfind("\n", 0, at)
        msg = "something begins here and does not end"
        raise _refused(msg, sql, line, column) from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        what = "a check must be one query that begins with SELECT, WITH or FROM"
        raise InputError(what, why=_WHY, fix=f"mend {_short(sql)}")
    query = statements[0]
    for number, part in enumerate(query.find_all(exp.Subquery)):
        # Some databases want a name for everything in FROM.
        if isinstance(part.parent, exp.From | exp.Join) and not part.alias:
            part.set("alias", exp.TableAlias(this=exp.to_identifier(f"part_{number}")))
    return query


def _unfinished(sql: str) -> int:
    """Where the quote or comment begins that has no end."""
    from sqlglot.dialects.duckdb import DuckDB
    from sqlglot.errors import TokenError

    for opener in reversed(list(re.finditer(r"['\"`$]|/\*", sql))):
        try:
            DuckDB().tokenize(sql[: opener.start()])
        except TokenError:
            continue
        return opener.start()
    return 0


def _reads_only(query: exp.Query, names: set[str], sql: str) -> None:
    from sqlglot import exp
    from sqlglot.errors import OptimizeError
    from sqlglot.optimizer.scope import traverse_scope

    changes = query.find(exp.DML, exp.DDL, exp.Into, exp.Lock, exp.Command, exp.Merge)
    if changes is not None and not isinstance(changes, exp.Query):
        what = f"the query does more than read: {changes.key.upper()}"
        raise InputError(what, why=_WHY, fix=f"mend {_short(sql)}")
    try:
        # A name that a WITH of the query gives is no table; scopes know where it holds.
        read_tables = [s for scope in traverse_scope(query) for s in scope.sources.values() if isinstance(s, exp.Table)]
    except OptimizeError as error:
        raise _refused(str(error), sql, 0, 0) from error
    for table in read_tables:
        plain = isinstance(table.this, exp.Identifier) and not table.db and not table.catalog
        if not plain or table.name not in names:
            shown = table.copy()
            shown.set("alias", None)
            what = f"the query reads {shown.sql(dialect=WRITTEN_IN)[:80]}, and a check can read only {_listed(names)}"
            raise InputError(what, why="the check cannot be run", fix=f"mend {_short(sql)}")


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names, key=lambda n: (n != "data", n)))


def _refused(reason: str, sql: str, line: int, column: int) -> InputError:
    where = f", line {line}, column {column} of the query" if line else ""
    return InputError(f"{reason}{where}", why="the check cannot be run", fix=f"mend {_short(sql)}")


def _short(sql: str) -> str:
    flat = " ".join(sql.split())
    return f"`{flat if len(flat) <= 80 else flat[:79] + '…'}`"
