"""The values of one column as they come out of JSON, checked by MLflow's types and made into what a model gets."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mlp_ci.serve.payload import BadRequest

Check = Callable[[str, Sequence[Any]], Sequence[Any]]  # the column's name, its values; raises BadRequest
_NONE = type(None)
NUMBERS = frozenset({float, int, _NONE})
FLOAT32_MAX = 3.4028234663852886e38


class _Unfit(BadRequest):
    """A value that does not fit, with its place."""

    def __init__(self, name: str, index: int, said: str) -> None:
        super().__init__(f"column {name}, row {index}: {said}")
        self.index, self.said = index, said


def _refuse(name: str, values: Sequence[Any], allowed: Callable[[Any], bool], expected: str) -> BadRequest:
    index, value = next((i, v) for i, v in enumerate(values) if not allowed(v))
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return _Unfit(name, index, f"{shown} is not {expected}")


def _floats(name: str, values: Sequence[Any]) -> Sequence[Any]:
    if not NUMBERS.issuperset(map(type, values)):
        raise _refuse(name, values, lambda v: type(v) in (float, int, _NONE), "a number")
    try:
        converted = [math.nan if v is None else float(v) for v in values]
    except OverflowError:
        raise _refuse(name, values, lambda v: v is None or abs(v) < 2**1023, "a number of 64 bits") from None
    if math.inf in converted or -math.inf in converted:
        raise _refuse(name, values, lambda v: v is None or not math.isinf(v), "a finite number")
    return converted


def _small_floats(name: str, values: Sequence[Any]) -> Sequence[Any]:
    converted = _floats(name, values)
    if any(abs(v) > FLOAT32_MAX for v in converted):
        raise _refuse(name, values, lambda v: v is None or abs(v) <= FLOAT32_MAX, "a number of 32 bits")
    return converted


def _integers(bits: int) -> Check:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def allowed(value: Any) -> bool:
        # A float beyond 2**53 may stand for another whole number than was written.
        whole = type(value) is int or (type(value) is float and value.is_integer() and abs(value) <= 2**53)
        return whole and low <= value <= high

    def check(name: str, values: Sequence[Any]) -> Sequence[Any]:
        if {int}.issuperset(map(type, values)) and low <= min(values) and max(values) <= high:
            return values
        if all(map(allowed, values)):
            return [int(v) for v in values]
        raise _refuse(name, values, allowed, f"a whole number of {bits} bits")

    return check


def _booleans(name: str, values: Sequence[Any]) -> Sequence[Any]:
    if {bool}.issuperset(map(type, values)):
        return values
    raise _refuse(name, values, lambda v: type(v) is bool, "true or false")


def _strings(name: str, values: Sequence[Any]) -> Sequence[Any]:
    if {str, _NONE}.issuperset(map(type, values)):
        return values
    raise _refuse(name, values, lambda v: type(v) in (str, _NONE), "text")


def _instant(value: Any) -> datetime | None:
    if value is None:
        return None
    instant = datetime.fromisoformat(value)  # raises TypeError and ValueError
    return instant.astimezone(UTC).replace(tzinfo=None) if instant.tzinfo else instant


def _instants(name: str, values: Sequence[Any]) -> Sequence[Any]:
    def allowed(value: Any) -> bool:
        try:
            _instant(value)
        except (TypeError, ValueError, OverflowError):
            return False
        return True

    if all(map(allowed, values)):
        return [_instant(v) for v in values]
    raise _refuse(name, values, allowed, "an ISO 8601 time")


def _bytes(name: str, values: Sequence[Any]) -> Sequence[Any]:
    def decoded(value: Any) -> bytes | None:
        return None if value is None else base64.b64decode("".join(value.split()), validate=True)

    def allowed(value: Any) -> bool:
        try:
            decoded(value)
        except (AttributeError, ValueError):
            return False
        return True

    if all(map(allowed, values)):
        return [decoded(v) for v in values]
    raise _refuse(name, values, allowed, "base64 of bytes")


def _lists(items: Check) -> Check:
    """Lists of one type of values, MLflow's Array."""

    def check(name: str, values: Sequence[Any]) -> Sequence[Any]:
        found: list[Any] = []
        for index, value in enumerate(values):
            if type(value) not in (list, _NONE):
                raise _refuse(name, values, lambda v: type(v) in (list, _NONE), "a list")
            try:
                found.append(None if value is None else list(items(name, value)))
            except _Unfit as error:
                raise _Unfit(name, index, f"item {error.index}: {error.said}") from None
        return found

    return check


def _objects(of: Callable[[str], Check], needed: Sequence[str] = ()) -> Check:
    """Objects, MLflow's Object and Map. ``of`` is the check of a key's value; what it does not know, MLflow refuses."""

    def check(name: str, values: Sequence[Any]) -> Sequence[Any]:
        found: list[Any] = []
        for index, value in enumerate(values):
            if type(value) not in (dict, _NONE):
                raise _refuse(name, values, lambda v: type(v) in (dict, _NONE), "an object")
            found.append(None if value is None else _checked(name, index, value))
        return found

    def _checked(name: str, index: int, value: Mapping[str, Any]) -> dict[str, Any]:
        for key in needed:
            if key not in value:
                raise _Unfit(name, index, f"it has no {key}")
        checked = {}
        for key, inner in value.items():
            try:
                checked[key] = of(key)(name, [inner])[0]
            except _Unfit as error:
                raise _Unfit(name, index, f"{key}: {error.said}") from None
        return checked

    return check


def check_of(spec: Mapping[str, Any]) -> Check:
    """The check of one type in a signature."""
    kind = str(spec["type"])
    if kind == "array":
        return _lists(check_of(spec["items"]))
    if kind == "map":
        values = check_of(spec["values"])
        return _objects(lambda _key: values)
    if kind == "object":
        properties = {key: check_of(one) for key, one in spec["properties"].items()}
        needed = [key for key, one in spec["properties"].items() if one.get("required", True)]
        return _objects(lambda key: properties.get(key, _anything), needed)
    return _CHECKS.get(kind, _anything)


def _anything(_name: str, values: Sequence[Any]) -> Sequence[Any]:
    return values


_CHECKS: Mapping[str, Check] = {
    "double": _floats,
    "float": _small_floats,
    "integer": _integers(32),
    "long": _integers(64),
    "boolean": _booleans,
    "string": _strings,
    "datetime": _instants,
    "binary": _bytes,
}
