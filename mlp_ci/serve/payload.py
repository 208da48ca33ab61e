"""The request bodies of MLflow's scoring protocol, read into columns. Shared by the server and the prediction log.

Accepted: ``dataframe_split``, ``dataframe_records``, ``inputs`` and ``instances`` as JSON. Outside input: nothing
here trusts it, and every refusal says what is wrong with the body, never with our code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BODY_LIMIT = 16 * 1024 * 1024


class BadRequest(Exception):
    """The client sent something that cannot be answered; becomes a 4xx answer with this message."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Rows:
    """Named columns of equal length; ``tensor`` instead when the body holds nested lists without names."""

    columns: Mapping[str, list[Any]]
    count: int
    tensor: list[Any] | None = None


def parse(body: bytes) -> Rows:
    """The rows of a request body; raises BadRequest."""
    return parse_document(decode(body))


def decode(body: bytes) -> Any:
    """The JSON value of a body; raises BadRequest.

    What strict JSON is not but Python's clients write, NaN and Infinity, is read as MLflow's own server reads it.
    """
    import orjson

    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if not body:
            msg = "the body is not JSON: it is empty"
            raise BadRequest(msg) from None
    try:
        value = json.loads(body)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and UnicodeEncodeError are ValueErrors
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        msg = f"the body is not JSON: {detail[:200]}"
        raise BadRequest(msg) from None
    return value


def parse_document(document: Any) -> Rows:
    """The rows of a decoded body; raises BadRequest."""
    if not isinstance(document, dict):
        msg = f"the body must be a JSON object with one of {', '.join(FORMATS)}, not {_kind(document)}"
        raise BadRequest(msg)
    given = [name for name in FORMATS if name in document]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        msg = f"the body must hold exactly one of {', '.join(FORMATS)}; it holds {found}"
        raise BadRequest(msg)
    return FORMATS[given[0]](document[given[0]], given[0])


def _split(value: Any, name: str) -> Rows:
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("columns"), list)
        or not isinstance(value.get("data"), list)
    ):
        msg = f"{name} must be an object with the lists `columns` and `data`"
        raise BadRequest(msg)
    columns, data = value["columns"], value["data"]
    if not all(isinstance(c, str) for c in columns):
        msg = f"{name}.columns must hold column names"
        raise BadRequest(msg)
    if len(set(columns)) != len(columns):
        twice = next(c for c in columns if columns.count(c) > 1)
        msg = f"{name}.columns names {_short(twice)} twice"
        raise BadRequest(msg)
    width = len(columns)
    for index, row in enumerate(data):
        if not isinstance(row, list) or len(row) != width:
            found = f"{len(row)} values" if isinstance(row, list) else _kind(row)
            msg = f"row {index} of {name}.data must be a list of {width} values, one per column; it is {found}"
            raise BadRequest(msg)
    return Rows({c: [row[i] for row in data] for i, c in enumerate(columns)}, _some(len(data), name))


def _records(value: Any, name: str) -> Rows:
    if not isinstance(value, list):
        msg = f"{name} must be a list of objects, one per row, not {_kind(value)}"
        raise BadRequest(msg)
    names: dict[str, None] = {}
    for index, row in enumerate(value):
        if not isinstance(row, dict):
            msg = f"row {index} of {name} must be an object, not {_kind(row)}"
            raise BadRequest(msg)
        names.update(dict.fromkeys(row))
    return Rows({c: [row.get(c) for row in value] for c in names}, _some(len(value), name))


def _inputs(value: Any, name: str) -> Rows:
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return _records(value, name)
    if isinstance(value, list):
        return Rows({}, _some(len(value), name), tensor=value)
    if not isinstance(value, dict) or not value:
        msg = f"{name} must be a list, or an object of columns, not {_kind(value)}"
        raise BadRequest(msg)
    columns = {c: v if isinstance(v, list) else [v] for c, v in value.items()}
    lengths = {c: len(v) for c, v in columns.items()}
    count = next(iter(lengths.values()))
    for column, length in lengths.items():
        if length != count:
            msg = f"the columns of {name} differ in length: {_short(column)} has {length} values, another {count}"
            raise BadRequest(msg)
    return Rows(columns, _some(count, name))


def _some(count: int, name: str) -> int:
    if not count:
        msg = f"{name} holds no rows"
        raise BadRequest(msg)
    return count


FORMATS: Mapping[str, Callable[[Any, str], Rows]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "inputs": _inputs,
    "instances": _inputs,
}


def _kind(value: Any) -> str:
    """A JSON value's type, in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
