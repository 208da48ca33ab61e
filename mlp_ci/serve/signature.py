"""A model's signature, compiled once into a check per column, so that a request costs microseconds.

MLflow's own enforcement builds and casts a DataFrame for each request; here plain values are checked as they come
out of JSON, and the DataFrame is built once for a whole batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlp_ci.serve.payload import BadRequest, Rows

Check = Callable[[str, list[Any]], list[Any]]
_NONE = type(None)


@dataclass(frozen=True)
class ColumnRule:
    """One input column: its name, its MLflow type, and whether a request may leave it out."""

    name: str
    type: str
    required: bool
    check: Check


@dataclass(frozen=True)
class Signature:
    """The compiled input signature. No rules: the model takes any columns (or a tensor) as they come."""

    rules: tuple[ColumnRule, ...] = ()
    tensor: bool = False

    def check(self, rows: Rows) -> dict[str, list[Any]]:
        """The model's columns in its own order; raises BadRequest that names the column. Other columns are ignored."""
        if rows.tensor is not None:
            msg = "the model needs named columns: send dataframe_split, dataframe_records, or inputs as an object"
            raise BadRequest(msg)
        if not self.rules:
            return dict(rows.columns)
        missing = [r.name for r in self.rules if r.required and r.name not in rows.columns]
        if missing:
            plural = "s" if len(missing) > 1 else ""
            msg = (
                f"missing column{plural} {', '.join(missing)}; the model needs {', '.join(r.name for r in self.rules)}"
            )
            raise BadRequest(msg)
        return {
            rule.name: rule.check(rule.name, rows.columns[rule.name])
            for rule in self.rules
            if rule.name in rows.columns
        }

    def frame(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """A DataFrame of checked columns, with the types of the signature."""
        import numpy as np
        import pandas as pd

        types = {rule.name: _NUMPY.get(rule.type) for rule in self.rules}
        return pd.DataFrame(
            {n: np.array(v, dtype=types[n]) if types.get(n) else list(v) for n, v in columns.items()}, copy=False
        )


def compile_signature(inputs: str | None) -> Signature:
    """From the ``signature.inputs`` JSON of an MLmodel file; None for a model without a signature."""
    if not inputs:
        return Signature()
    columns = json.loads(inputs)
    if any(c.get("type") == "tensor" for c in columns):
        named = all(c.get("name") for c in columns)
        return Signature(tuple(_rule(c) for c in columns)) if named else Signature(tensor=True)
    return Signature(tuple(_rule(c) for c in columns))


def _rule(column: Mapping[str, Any]) -> ColumnRule:
    kind = str(column["type"])
    return ColumnRule(str(column["name"]), kind, bool(column.get("required", True)), _CHECKS.get(kind, _anything))


def _refuse(name: str, values: Sequence[Any], allowed: Callable[[Any], bool], expected: str) -> BadRequest:
    index, value = next((i, v) for i, v in enumerate(values) if not allowed(v))
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return BadRequest(f"column {name}, row {index}: {shown} is not {expected}")


def _floats(name: str, values: list[Any]) -> list[Any]:
    if not {float, int, _NONE}.issuperset(map(type, values)):
        raise _refuse(name, values, lambda v: type(v) in (float, int, _NONE), "a number")
    try:
        converted = [math.nan if v is None else float(v) for v in values]
    except OverflowError:
        raise _refuse(name, values, lambda v: v is None or abs(v) < 2**1023, "a number of 64 bits") from None
    if math.inf in converted or -math.inf in converted:
        raise _refuse(name, values, lambda v: v is None or not math.isinf(v), "a finite number")
    return converted


def _integers(bits: int) -> Check:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def allowed(value: Any) -> bool:
        whole = type(value) is int or (type(value) is float and value.is_integer())
        return whole and low <= value <= high

    def check(name: str, values: list[Any]) -> list[Any]:
        if {int}.issuperset(map(type, values)) and low <= min(values) and max(values) <= high:
            return values
        if all(map(allowed, values)):
            return [int(v) for v in values]
        raise _refuse(name, values, allowed, f"a whole number of {bits} bits")

    return check


def _booleans(name: str, values: list[Any]) -> list[Any]:
    if {bool}.issuperset(map(type, values)):
        return values
    raise _refuse(name, values, lambda v: type(v) is bool, "true or false")


def _strings(name: str, values: list[Any]) -> list[Any]:
    if {str, _NONE}.issuperset(map(type, values)):
        return values
    raise _refuse(name, values, lambda v: type(v) in (str, _NONE), "text")


def _instant(value: Any) -> datetime | None:
    if value is None:
        return None
    instant = datetime.fromisoformat(value)  # raises TypeError and ValueError
    return instant.astimezone(UTC).replace(tzinfo=None) if instant.tzinfo else instant


def _instants(name: str, values: list[Any]) -> list[Any]:
    def allowed(value: Any) -> bool:
        try:
            _instant(value)
        except (TypeError, ValueError, OverflowError):
            return False
        return True

    if all(map(allowed, values)):
        return [_instant(v) for v in values]
    raise _refuse(name, values, allowed, "an ISO 8601 time")


def _anything(_name: str, values: list[Any]) -> list[Any]:
    return values


_CHECKS: Mapping[str, Check] = {
    "double": _floats,
    "float": _floats,
    "integer": _integers(32),
    "long": _integers(64),
    "boolean": _booleans,
    "string": _strings,
    "datetime": _instants,
}
_NUMPY: Mapping[str, str] = {
    "double": "float64",
    "float": "float32",
    "integer": "int32",
    "long": "int64",
    "boolean": "bool",
    "datetime": "datetime64[us]",
}
