"""The forge's memory: SQLite behind typed records. A killed process loses nothing that was committed."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from mlp_ci import clock
from mlp_ci.sandbox.forge.records import Record, Repo, User, ddl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

R = TypeVar("R", bound=Record)


class Refusal(Exception):
    """The forge says no: an HTTP status, GitHub's message and, for 422, its list of errors."""

    def __init__(self, status: int, message: str, errors: list[Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors


def invalid(resource: str, field: str, code: str = "invalid", message: str = "") -> Refusal:
    """GitHub's 422 for one field; ``code``: missing | missing_field | invalid | already_exists | custom."""
    error = {"resource": resource, "field": field, "code": code}
    if message:
        error["message"] = message
    return Refusal(422, "Validation Failed", [error])


def stamp() -> str:
    """The clock's instant as GitHub writes it."""
    return clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_date(text: str) -> str:
    """An ISO 8601 instant from outside, as git takes it; anything else is a 422."""
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError as error:
        raise Refusal(422, f"{text!r} is not a valid date") from error


class Store:
    """Typed access to the SQLite file at ``path``. Safe to share between threads; other processes may open it too."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._lock = threading.RLock()
        self._depth = 0
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(ddl())

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def tx(self) -> Iterator[None]:
        """A write transaction; nested ones join the outer."""
        with self._lock:
            if self._depth == 0:
                self._db.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._db.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._db.execute("COMMIT")

    def find(self, kind: type[R], /, where: str = "1", *args: Any, order: str = "id") -> list[R]:
        """All rows of ``kind`` that match the SQL condition ``where`` (with ``?`` for ``args``)."""
        sql = f"SELECT * FROM {kind.TABLE} WHERE {where} ORDER BY {order}"
        with self._lock:
            rows = self._db.execute(sql, args).fetchall()
        return [_record(kind, row) for row in rows]

    def first(self, kind: type[R], /, where: str, *args: Any, order: str = "id") -> R | None:
        rows = self.find(kind, where, *args, order=f"{order} LIMIT 1")
        return rows[0] if rows else None

    def get(self, kind: type[R], /, id: int) -> R:
        """The row that must exist; a missing one is a bug, not an answer."""
        row = self.first(kind, "id = ?", id)
        if row is None:
            msg = f"{kind.__name__} {id}"
            raise KeyError(msg)
        return row

    def count(self, kind: type[Record], /, where: str = "1", *args: Any) -> int:
        with self._lock:
            sql = f"SELECT COUNT(*) FROM {kind.TABLE} WHERE {where}"
            return int(self._db.execute(sql, args).fetchone()[0])

    def insert(self, kind: type[R], /, **values: Any) -> R:
        columns = ", ".join(values)
        marks = ", ".join("?" * len(values))
        with self.tx():
            sql = f"INSERT INTO {kind.TABLE} ({columns}) VALUES ({marks})"
            row = self._db.execute(sql, _columns(kind, values))
            return self.get(kind, row.lastrowid or 0)

    def update(self, record: R, /, **values: Any) -> R:
        """Change columns of ``record``'s row; gives the row as it is now."""
        kind = type(record)
        sets = ", ".join(f"{name} = ?" for name in values)
        with self.tx():
            sql = f"UPDATE {kind.TABLE} SET {sets} WHERE id = ?"
            self._db.execute(sql, [*_columns(kind, values), record.id])
            return self.get(kind, record.id)

    def delete(self, kind: type[Record], /, where: str, *args: Any) -> int:
        with self.tx():
            sql = f"DELETE FROM {kind.TABLE} WHERE {where}"
            return self._db.execute(sql, args).rowcount

    def user(self, login: str) -> User | None:
        return self.first(User, "login = ? COLLATE NOCASE", login)

    def repo(self, owner: str, name: str) -> Repo | None:
        return self.first(Repo, "owner = ? COLLATE NOCASE AND name = ? COLLATE NOCASE", owner, name)


def _columns(kind: type[Record], values: dict[str, Any]) -> list[Any]:
    coded = {name for name, convert in _converters(kind).items() if convert is json.loads}
    return [json.dumps(v) if name in coded and v is not None else v for name, v in values.items()]


_CONVERTERS: dict[str, dict[str, Callable[[Any], Any]]] = {}


def _converters(kind: type[Record]) -> dict[str, Callable[[Any], Any]]:
    if kind.TABLE not in _CONVERTERS:
        _CONVERTERS[kind.TABLE] = _converters_of(kind)
    return _CONVERTERS[kind.TABLE]


def _converters_of(kind: type[Record]) -> dict[str, Callable[[Any], Any]]:
    by_type: dict[str, Callable[[Any], Any]] = {"bool": bool, "Json": json.loads}
    found = {f.name: by_type.get(str(f.type).partition(" | ")[0]) for f in fields(kind)}
    return {name: convert for name, convert in found.items() if convert is not None}


def _record(kind: type[R], row: sqlite3.Row) -> R:
    values = dict(row)
    for name, convert in _converters(kind).items():
        if values[name] is not None:
            values[name] = convert(values[name])
    return kind(**values)
