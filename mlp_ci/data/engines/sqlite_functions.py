"""What SQLite lacks for the checks, as functions of a connection: times, exact floats, regular expressions."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from mlp_ci.data.engines.regexes import spaces
from mlp_ci.data.plan import microseconds

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def register(connection: Any) -> None:
    """Give an ``sqlite3`` connection the functions that :mod:`mlp_ci.data.engines.sql_dialects` writes."""
    one = {
        "mlp_ci_micros": _micros,
        "mlp_ci_time": _time,
        "mlp_ci_date": _date,
        "mlp_ci_double": float,
        "mlp_ci_text": _text,
    }
    for name, function in one.items():
        connection.create_function(name, 1, function, deterministic=True)
    connection.create_function("mlp_ci_matches", 2, _matches, deterministic=True)


def _instant(value: Any) -> datetime | None:
    """A time as people and libraries write it: ISO 8601, with a zone or in UTC."""
    if not isinstance(value, str) or not _DATE.match(value.strip()):
        return None
    try:
        found = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)


def _micros(value: Any) -> int | None:
    found = _instant(value)
    return None if found is None else microseconds(found)


def _time(value: Any) -> str | None:
    found = _instant(value)
    if found is None:
        return None
    return found.isoformat(sep=" ").rstrip("0") if found.microsecond else found.isoformat(sep=" ")


def _date(value: Any) -> str | None:
    """The day, or the time where it is not midnight."""
    found = _time(value)
    return found.removesuffix(" 00:00:00") if found else None


def _text(value: Any) -> str | None:
    return None if value is None else str(float(value))


def _matches(value: Any, pattern: str) -> bool | None:
    return None if value is None else _compiled(pattern).fullmatch(str(value)) is not None


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(spaces(pattern), re.ASCII)
