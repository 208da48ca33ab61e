"""Rows as CSV (``text/csv``), read by the types of the signature: a text column keeps its leading zeros."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.payload import BadRequest, Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlp_ci.serve.signature import Signature

_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def read_csv(body: bytes, signature: Signature) -> Rows:
    """The rows of a CSV body with a header line; an empty cell is null. Raises BadRequest."""
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"the body is not CSV: {str(error)[:200]}"
        raise BadRequest(msg) from None
    lines = [line for line in lines if line]
    if len(lines) < 2:
        msg = "the CSV needs a line of column names, and then a line for each row"
        raise BadRequest(msg)
    names, *rows = lines
    if len(set(names)) != len(names):
        msg = f"the CSV names the column {next(n for n in names if names.count(n) > 1)!r} twice"
        raise BadRequest(msg)
    for index, row in enumerate(rows):
        if len(row) != len(names):
            msg = f"row {index} of the CSV has {len(row)} values, not {len(names)}"
            raise BadRequest(msg)
    types = {rule.name: rule.type for rule in signature.rules}
    columns = {
        name: _typed(list(values), types.get(name))
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
        if not types or name in types
    }
    return Rows(columns, len(rows))


def _typed(values: list[str], kind: str | None) -> list[Any]:
    """Cells as the values that JSON would have had; a cell that does not fit stays text, for the check to name."""
    if kind is None:
        found = [_or_text(_number, v) for v in values]
        return found if all(not isinstance(v, str) for v in found) else [v or None for v in values]
    return [_or_text(_READ.get(kind, str), v) for v in values]


def _or_text(read: Callable[[str], Any], value: str) -> Any:
    if not value:
        return None
    try:
        return read(value)
    except (ValueError, KeyError):
        return value


def _number(value: str) -> int | float:
    try:
        return int(value)
    except ValueError:
        return float(value)


_READ: Mapping[str, Callable[[str], Any]] = {
    "double": _number,
    "float": _number,
    "integer": _number,
    "long": _number,
    "boolean": lambda value: _TRUTH[value.lower()],
}
