"""A model's signature, compiled once into a check per column, so that a request costs microseconds.

MLflow's own enforcement builds and casts a DataFrame for each request; here plain values are checked as they come
out of JSON, and the DataFrame is built once for a whole batch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.params import Params, compile_params
from mlp_ci.serve.payload import BadRequest, Rows
from mlp_ci.serve.values import FLOAT32_MAX as FLOAT32_MAX  # noqa: PLC0414 (said again for those who import it from here)
from mlp_ci.serve.values import NUMBERS, Check, check_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLOAT64_MAX = 1.7976931348623157e308
_WORDS = {"f": "numbers", "i": "whole numbers that fit", "u": "whole numbers that fit", "b": "true and false"}


@dataclass(frozen=True)
class ColumnRule:
    """One input column: its name, its MLflow type, and whether a request may leave it out.

    ``nullable``: whether a value may be null. ``largest``: the size that a number may have.
    """

    name: str
    type: str
    required: bool
    check: Check
    nullable: bool = True
    largest: float = math.inf

    def values(self, given: Sequence[Any]) -> Sequence[Any]:
        """The column's values as the model gets them; raises BadRequest that names the column."""
        found = self.check(self.name, given)
        if not self.nullable and any(v is None or v != v for v in found):  # noqa: PLR0124 (NaN differs from itself)
            index = next(i for i, v in enumerate(found) if v is None or v != v)  # noqa: PLR0124
            msg = f"column {self.name}, row {index}: null, and this model needs a value"
            raise BadRequest(msg)
        if self.largest != math.inf and any(abs(v) > self.largest for v in found):
            index = next(i for i, v in enumerate(found) if abs(v) > self.largest)
            msg = f"column {self.name}, row {index}: {given[index]} is larger than this model can take"
            raise BadRequest(msg)
        return found


@dataclass(frozen=True)
class TensorRule:
    """One input tensor: its name, its numpy type, and its shape, where -1 stands for any length."""

    name: str
    type: str
    shape: tuple[int, ...]

    def check(self, value: Any) -> Any:
        """``value``, nested lists of numbers, as an array of this type and shape; raises BadRequest."""
        import numpy as np

        named = f"tensor {self.name}" if self.name else "the tensor"
        try:
            found = np.array(value)
        except (ValueError, OverflowError):
            msg = f"{named}: its lists differ in length, or nest too deeply"
            raise BadRequest(msg) from None
        wanted = np.dtype(self.type) if self.type not in ("string", "str", "object") else np.dtype(object)
        if not _castable(found, wanted):
            msg = f"{named} must hold {_WORDS.get(wanted.kind, 'text')}"
            raise BadRequest(msg)
        fits = not self.shape or (
            found.ndim == len(self.shape) and all(w in (-1, n) for w, n in zip(self.shape, found.shape, strict=True))
        )
        if not fits or not found.ndim:
            msg = f"{named} has the shape {list(found.shape)}, not {list(self.shape) or [-1]}"
            raise BadRequest(msg)
        if wanted.kind == "f" and found.dtype.kind in "fiu" and not _within(found, wanted):
            msg = f"{named} holds a number that is not finite in {8 * wanted.itemsize} bits"
            raise BadRequest(msg)
        return found.astype(wanted, copy=False)


@dataclass(frozen=True)
class Signature:
    """The compiled input signature. Nothing in it: the model takes any columns (or a tensor) as they come.

    ``tensor``: one array without a name, of which ``tensors`` holds the rule where one is known; otherwise ``tensors``
    are arrays by name.
    """

    rules: tuple[ColumnRule, ...] = ()
    tensor: bool = False
    tensors: tuple[TensorRule, ...] = ()
    params: Params = field(default_factory=Params)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns in the model's order."""
        return tuple(rule.name for rule in self.rules)

    @cached_property
    def number_type(self) -> str | None:
        """The type that all columns have, if it is a number with a fraction: then rows are one array."""
        kinds = {rule.type if rule.required else "" for rule in self.rules}
        return {"double": "float64", "float": "float32"}.get(kinds.pop()) if len(kinds) == 1 else None

    def check(self, rows: Rows) -> dict[str, Sequence[Any]]:
        """The model's columns in its own order; raises BadRequest that names the column. Other columns are ignored."""
        return {
            name: rule.values(rows.columns[name]) if rule else rows.columns[name]
            for name, rule in self.chosen(rows).items()
        }

    def chosen(self, rows: Rows) -> dict[str, ColumnRule | None]:
        """Which of a request's columns the model gets, in its own order; raises BadRequest when one is missing."""
        if rows.tensor is not None:
            msg = "the model needs named columns: send dataframe_split, dataframe_records, or inputs as an object"
            raise BadRequest(msg)
        if not self.rules:
            return dict.fromkeys(rows.columns)
        missing = [r.name for r in self.rules if r.required and r.name not in rows.columns]
        if missing:
            plural = "s" if len(missing) > 1 else ""
            msg = f"missing column{plural} {', '.join(missing)}; the model needs {', '.join(self.names)}"
            raise BadRequest(msg)
        return {rule.name: rule for rule in self.rules if rule.name in rows.columns}

    def columns(self, rows: Sequence[Sequence[Any]], names: Sequence[str]) -> dict[str, Sequence[Any]]:
        """Checked columns of ``rows``, whose values come in the order of ``names``; raises BadRequest."""
        by_name = self._by_name
        return {
            name: by_name[name].values(values) if name in by_name else values
            for name, values in zip(names, zip(*rows, strict=True), strict=True)
        }

    def matrix(self, rows: Sequence[Sequence[Any]]) -> Any:
        """Rows as one array (rows, columns) of :attr:`number_type`; raises BadRequest."""
        import numpy as np

        if NUMBERS.issuperset(map(type, chain.from_iterable(rows))):
            try:
                found = np.array(rows, dtype=np.float64)
            except (OverflowError, ValueError):
                pass
            else:
                if np.abs(found).max() <= self._largest:  # false for NaN
                    return found.astype(self.number_type, copy=False)
        return np.array(list(self.columns(rows, self.names).values()), dtype=self.number_type).T

    def arrays(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Checked columns as arrays (rows,) with the types of the signature; what has no such type is a list."""
        import numpy as np

        types = self._types
        return {n: np.array(v, dtype=types[n]) if types.get(n) else list(v) for n, v in columns.items()}

    def frame(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """A DataFrame of checked columns, with the types of the signature."""
        import pandas as pd

        return pd.DataFrame(self.arrays(columns), copy=False)

    @cached_property
    def _largest(self) -> float:
        """The size of number that every column takes."""
        whole = FLOAT32_MAX if self.number_type == "float32" else FLOAT64_MAX
        return min(whole, *(rule.largest for rule in self.rules))

    @cached_property
    def _by_name(self) -> dict[str, ColumnRule]:
        return {rule.name: rule for rule in self.rules}

    @cached_property
    def _types(self) -> dict[str, str | None]:
        return {rule.name: _NUMPY.get(rule.type) for rule in self.rules}


def compile_signature(inputs: str | None, params: str | None = None) -> Signature:
    """From what ``signature`` of an MLmodel file holds as JSON; nothing in it for a model without a signature."""
    columns, told = json.loads(inputs) if inputs else [], compile_params(params)
    if any(c.get("type") == "tensor" for c in columns):
        tensors = tuple(_tensor(c) for c in columns)
        return Signature(tensor=not all(t.name for t in tensors), tensors=tensors, params=told)
    if not all(c.get("name") for c in columns):  # lists and series: no columns to speak of
        return Signature(params=told)
    return Signature(tuple(_rule(c) for c in columns), params=told)


def _rule(column: Mapping[str, Any]) -> ColumnRule:
    kind = str(column["type"])
    check = check_of(column)
    required, nullable = bool(column.get("required", True)), kind not in ("integer", "long", "boolean")
    return ColumnRule(str(column["name"]), kind, required, check, nullable)


def _tensor(column: Mapping[str, Any]) -> TensorRule:
    spec = column["tensor-spec"]
    return TensorRule(str(column.get("name") or ""), str(spec["dtype"]), tuple(int(n) for n in spec["shape"]))


def _castable(found: Any, wanted: Any) -> bool:
    """Whether JSON values are of the kind that is wanted: text is no number, and a fraction no whole number."""
    if wanted.kind == "O":
        return found.dtype.kind in "UO"
    if found.dtype.kind == "O":
        return bool(wanted.kind == "f" and all(v is None or type(v) in (int, float) for v in found.flat))
    if wanted.kind == "b":
        return bool(found.dtype.kind == "b")
    if wanted.kind == "f":
        return found.dtype.kind in "fiu"
    if wanted.kind not in "iu" or found.dtype.kind not in "fiu":
        return False
    import numpy as np

    limits = np.iinfo(wanted)
    whole = found.dtype.kind != "f" or bool((found == np.floor(found)).all())
    return whole and (not found.size or bool(found.min() >= limits.min and found.max() <= limits.max))


def _within(found: Any, wanted: Any) -> bool:
    """Whether all numbers fit into a type of floats; NaN, a missing value, does."""
    import numpy as np

    return not (np.abs(found.astype("float64")) > np.finfo(wanted).max).any()


_NUMPY: Mapping[str, str] = {
    "double": "float64",
    "float": "float32",
    "integer": "int32",
    "long": "int64",
    "boolean": "bool",
    "datetime": "datetime64[us]",
}
