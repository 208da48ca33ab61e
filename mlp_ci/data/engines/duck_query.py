"""A team's own SQL, run so that it can read the data it is about and nothing else.

One SELECT, no file, no network, no change of settings: DuckDB itself holds the query to that.
"""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engine import Found
from mlp_ci.data.engines.duck_sql import ROW, literal, quoted
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlp_ci.data.engines.duck_load import View

SECONDS = 600.0
# The name under which a query gets the number of a row: `SELECT row_number, distance FROM numbered WHERE …`.
NUMBER = "row_number"
NUMBERED = "numbered"
_TABLE = "mlp-ci found"
# Errors of these kinds speak of a value, not of the query.
_ON_VALUES = ("Conversion", "Out of Range", "Invalid Input", "Constraint")


def lock(connection: Any, files: Sequence[str]) -> None:
    """From here on the connection reads these files only, and no query can change that."""
    connection.execute("SET python_enable_replacements = false")
    connection.execute(f"SET allowed_paths = [{', '.join(literal(f) for f in files)}]")
    connection.execute("SET allowed_directories = [current_setting('temp_directory')]")  # what we loaded lies there
    connection.execute("SET enable_external_access = false")
    connection.execute("SET errors_as_json = true")
    connection.execute("SET lock_configuration = true")


def named(sql: str, names: Iterable[str]) -> list[str]:
    """Those of the names that a query may speak of."""
    lowered = sql.lower()
    return sorted(name for name in names if re.search(rf"(?<!\w){re.escape(name.lower())}(?!\w)", lowered))


def run(connection: Any, sql: str, views: Mapping[str, View], examples: int, *, seconds: float = SECONDS) -> Found:
    """Run ``sql`` over ``views``, by name, for ``seconds`` at most.

    Raises InputError for a bad query, with the place that is wrong.
    """
    import duckdb

    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise _refused(error, sql, 0) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        what = "a check must be one query that begins with SELECT, WITH or FROM"
        raise InputError(what, why="a check reads the data and changes nothing", fix=f"mend {_short(sql)}")
    named = ", ".join(f"{quoted(name)} AS NOT MATERIALIZED ({select})" for name, select in _selects(views).items())
    # The query stands on lines of its own, so that a comment at its end ends there.
    before = f"CREATE OR REPLACE TEMP TABLE {quoted(_TABLE)} AS WITH {named} SELECT * FROM (\n"
    asked = _without_end(sql)
    late = threading.Event()

    def stop() -> None:
        late.set()
        connection.interrupt()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        connection.execute(f"{before}{asked}\n)")
        rows = connection.execute(f"SELECT count(*) FROM {quoted(_TABLE)}").fetchone()[0]
        described = connection.execute(f"DESCRIBE {quoted(_TABLE)}").fetchall()
        names = [str(name) for name, *_ in described]
        shown = ", ".join(f"CAST({quoted(n)} AS VARCHAR)" for n in names)
        found = connection.execute(f"SELECT {shown} FROM {quoted(_TABLE)} LIMIT {examples}").fetchall()
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        if late.is_set():
            what = f"the query was stopped after {seconds:.0f} seconds"
            raise InputError(what, why="nobody waits that long for a check", fix=f"mend {_short(sql)}") from error
        raise _refused(error, sql, len(before.encode())) from error
    finally:
        timer.cancel()
    return _found(int(rows), names, found)


def _without_end(sql: str) -> str:
    """The query without the semicolon that may end it."""
    import duckdb

    raw = sql.encode()  # places are counted in bytes
    operators = [at for at, kind in duckdb.tokenize(sql) if kind == duckdb.token_type.operator]
    ends = [at for at in operators if raw[at : at + 1] == b";"]
    return raw[: ends[0]].decode() if ends else sql


def _selects(views: Mapping[str, View]) -> dict[str, str]:
    """What a query sees of each view: its columns as declared, and nothing that we added."""
    columns = {name: ", ".join(quoted(c.name) for c in view.columns) for name, view in views.items()}
    selects = {name: f"SELECT {columns[name]} FROM temp.main.{quoted(name)}" for name in views}
    selects[NUMBERED] = f"SELECT {quoted(ROW)} AS {NUMBER}, {columns['data']} FROM temp.main.data"
    return selects


def _found(rows: int, names: Sequence[str], found: Sequence[Sequence[Any]]) -> Found:
    at = names.index(NUMBER) if NUMBER in names else None
    columns = tuple(n for i, n in enumerate(names) if i != at)
    examples = []
    for values in found:
        number = None if at is None or not str(values[at] or "").isdigit() else int(values[at])
        examples.append((number, tuple(None if v is None else str(v) for i, v in enumerate(values) if i != at)))
    return Found(rows=rows, columns=columns, examples=tuple(examples))


def _refused(error: Exception, sql: str, before: int) -> InputError:
    """What is wrong, and at which line and column of the query."""
    reason, at = str(error), -1
    kind, _, rest = reason.partition(": ")
    try:
        told = json.loads(rest)
        reason = str(told.get("exception_message") or kind)
        at = int(told["position"]) - before if "position" in told else -1
    except ValueError:
        reason = rest or reason
    reason = " ".join(reason.split("\n")[0].split()).rstrip("!.")
    if kind.startswith(_ON_VALUES):
        reason = re.sub(r"(['\"]).*\1|(?<=value )\S+", "…", reason)  # it may quote a value of a sensitive column
    if "are disabled by configuration" in reason:
        reason = "a check reads data and the files it references, and no other file"
    where = ""
    raw = sql.encode()
    if 0 <= at < len(raw):
        upto = raw[:at].decode(errors="replace")
        where = f", line {upto.count(chr(10)) + 1}, column {at - upto.rfind(chr(10))} of the query"
    return InputError(f"{reason}{where}", why="the check cannot be run", fix=f"mend {_short(sql)}")


def _short(sql: str) -> str:
    flat = " ".join(sql.split())
    return f"`{flat if len(flat) <= 80 else flat[:79] + '…'}`"
