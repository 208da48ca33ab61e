"""What models return, as one plain JSON value per row: arrays, tables, lists, dictionaries of arrays."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def values_of(function: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    """``function`` with its result as one JSON value per row."""

    def predict(rows: Any) -> list[Any]:
        return plain(function(rows))

    return predict


def plain(result: Any) -> list[Any]:
    """One JSON value per row; a table of several columns becomes objects, of one column its values.

    NaN and infinity stay what they are, and are written as null. Raises TypeError for what is no data.
    """
    if hasattr(result, "toarray"):  # a sparse matrix
        result = result.toarray()
    if hasattr(result, "to_dict") and hasattr(result, "columns"):
        if len(result.columns) == 1:
            return plain(result.iloc[:, 0])
        return _checked(result.to_dict(orient="records"))
    if isinstance(result, Mapping):
        columns = {str(name): plain(values) for name, values in result.items()}
        if len(columns) == 1:
            return next(iter(columns.values()))
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    kind = getattr(getattr(result, "dtype", None), "kind", None)
    values = result.tolist() if hasattr(result, "tolist") else list(result)
    return values if kind is not None and kind in "fiub" else _checked(values)


def require_finite(values: list[Any]) -> None:
    """Raises ValueError where a model answered a row with NaN or infinity, for those to whom that is no prediction."""
    if {float}.issuperset(map(type, values)):
        finite = all(map(math.isfinite, values))
    else:
        try:
            json.dumps(values, allow_nan=False, default=json_value)
            finite = True
        except ValueError:
            finite = False
    if not finite:
        msg = "the model answered with NaN or infinity, which is no prediction"
        raise ValueError(msg)


class Unwritable(Exception):
    """A model's answer holds what JSON has nothing for."""


def encoded(value: Any) -> bytes:
    """JSON, with null for NaN and infinity, which it does not have; raises Unwritable."""
    import orjson

    try:
        return orjson.dumps(value, json_value, orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError as error:
        raise Unwritable(str(error)) from None


def json_value(value: Any) -> Any:
    """What JSON lacks a type for: times as ISO 8601, bytes as base64, numpy's values as Python's, no time as null.

    Raises TypeError for all else.
    """
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if type(value).__name__ in ("NaTType", "NAType"):  # pandas' own, which need not be there
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    msg = f"JSON has nothing for {type(value).__name__}"
    raise TypeError(msg)


def _checked(values: list[Any]) -> list[Any]:
    """Raises TypeError where JSON cannot hold them; slow, so not for arrays of numbers."""
    json.dumps(values, default=json_value)
    return values
