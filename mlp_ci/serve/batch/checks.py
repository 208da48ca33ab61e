"""The checks of a model's signature for columns of many rows: what the server does value by value, done by Arrow.

A row passes here exactly when the server would take it (a test holds the two against each other). What a CSV holds is
text; it is read as what the signature says, and text that does not say such a value is a bad cell.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import pyarrow as pa

# A column's values as the model is to get them, and which of them it cannot get (None: it can get all).
Converted = tuple[Any, Any]
WORDS = {
    "double": "a finite number",
    "float": "a finite number",
    "integer": "a whole number of 32 bits",
    "long": "a whole number of 64 bits",
    "boolean": "true or false",
    "string": "text",
    "datetime": "an ISO 8601 time",
}


class Rule(Protocol):
    """One input column of a signature (:class:`mlp_ci.serve.signature.ColumnRule`)."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class BadCell:
    """The first value of a row that the model cannot be given; ``row`` counts from 0 in the batch."""

    row: int
    column: str
    expected: str
    shown: str = ""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Columns of all rows as wanted; ``good`` says which rows passed (None: all), ``bad`` why the others did not."""

    table: pa.Table
    good: Any
    bad: tuple[BadCell, ...] = ()


def check(batch: pa.RecordBatch, rules: Sequence[Rule], *, text: Collection[str]) -> Checked:
    """Hold a batch against a signature; ``text``: the columns whose values are to be read from text.

    A column that is not there is left out (whether it may be missing is asked of the file, not of each batch).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, Any] = {}
    wrong: dict[str, Any] = {}
    for rule in rules:
        if rule.name not in batch.schema.names:
            continue
        given = plain(batch.column(rule.name))
        convert = _CONVERT.get(rule.type)
        columns[rule.name], bad = (given, None) if convert is None else convert(given, rule.name in text)
        if bad is not None and pc.any(bad).as_py():
            wrong[rule.name] = bad
    table = pa.table(columns) if columns else pa.table({}).slice(0, batch.num_rows)
    if not wrong:
        return Checked(table=table, good=None)
    expected = {rule.name: WORDS[rule.type] for rule in rules if rule.name in wrong}
    good = pc.invert(_either(*wrong.values()))
    return Checked(table=table, good=good, bad=tuple(_cells(batch, wrong, expected)))


def keep(batch: pa.RecordBatch, schema: pa.Schema, *, text: Collection[str]) -> Checked:
    """The columns of ``schema`` as they are written; ``text``: those that are to be read from text. Nulls stay null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: list[Any] = []
    wrong: dict[str, Any] = {}
    for kind in schema:
        if kind.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, kind.type))
            continue
        given = plain(batch.column(kind.name))
        read = next((r for holds, r in _READ if holds(kind.type)), None) if kind.name in text else None
        values, bad = (given, None) if read is None else _each(given, read, kind.type)
        columns.append(values if values.type.equals(kind.type) else values.cast(kind.type, safe=False))
        if bad is not None:
            wrong[kind.name] = bad
    table = pa.Table.from_arrays(columns, schema=schema)
    if not wrong:
        return Checked(table=table, good=None)
    cells = _cells(batch, wrong, {name: f"what it is to be kept as ({schema.field(name).type})" for name in wrong})
    return Checked(table=table, good=pc.invert(_either(*wrong.values())), bad=tuple(cells))


def both(one: Checked, other: Checked) -> tuple[Any, list[BadCell]]:
    """Which rows passed both (None: all), and the first bad cell of each that did not."""
    import pyarrow.compute as pc

    good = other.good if one.good is None else one.good if other.good is None else pc.and_(one.good, other.good)
    cells = {cell.row: cell for cell in (*other.bad, *one.bad)}
    return good, [cells[row] for row in sorted(cells)]


def plain(column: Any) -> Any:
    """A column without a dictionary, and text in one kind of it."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column


def _cells(batch: pa.RecordBatch, wrong: dict[str, Any], expected: dict[str, str]) -> list[BadCell]:
    """The first bad cell of each bad row, in the order of the rows."""
    import pyarrow.compute as pc

    found: dict[int, BadCell] = {}
    for name, bad in wrong.items():
        column = plain(batch.column(name))
        for row in pc.indices_nonzero(bad).to_pylist():
            if row not in found:
                shown = _shown(column[row].as_py())
                found[row] = BadCell(row=row, column=name, expected=expected[name], shown=shown)
    return [found[row] for row in sorted(found)]


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _either(*masks: Any) -> Any:
    import pyarrow.compute as pc

    found = masks[0]
    for mask in masks[1:]:
        found = pc.or_(found, mask)
    return found


# ---------------------------------------------------------------- one function per type of a signature


def _double(column: Any, text: bool) -> Converted:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if text and pa.types.is_string(kind):
        values, bad = _each(column, _number, pa.float64())
    elif _is_number(kind) or pa.types.is_null(kind):
        values, bad = column.cast(pa.float64(), safe=False), None
    else:
        return pa.nulls(len(column), pa.float64()), pc.is_valid(column)
    infinite = pc.fill_null(pc.is_inf(values), False)
    return values, infinite if bad is None else pc.or_(infinite, bad)


def _single(column: Any, text: bool) -> Converted:
    import pyarrow as pa

    values, bad = _double(column, text)
    return values.cast(pa.float32(), safe=False), bad


def _integer(bits: int) -> Callable[[Any, bool], Converted]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def convert(column: Any, text: bool) -> Converted:
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = column.type
        missing = pc.is_null(column)
        if text and pa.types.is_string(kind):
            values, bad = _each(column, _whole, pa.int64())
            bad = missing if bad is None else pc.or_(missing, bad)
        elif pa.types.is_integer(kind):
            values, bad = column, missing
            if pa.types.is_uint64(kind):
                bad = pc.or_(bad, pc.fill_null(pc.greater(column, pa.scalar(2**63 - 1, pa.uint64())), False))
                values = pc.if_else(bad, pa.scalar(0, pa.uint64()), column)
        elif _is_number(kind):
            values, bad = _whole_floats(column.cast(pa.float64(), safe=False))
        else:
            return _all_bad(column, pa.int32() if bits == 32 else pa.int64())
        values = values.cast(pa.int64())
        outside = pc.or_(pc.less(values, low), pc.greater(values, high))
        bad = pc.or_(bad, pc.fill_null(outside, False))
        return pc.if_else(bad, pa.scalar(0, pa.int64()), values).cast(pa.int32() if bits == 32 else pa.int64()), bad

    return convert


def _boolean(column: Any, text: bool) -> Converted:
    import pyarrow as pa
    import pyarrow.compute as pc

    missing = pc.is_null(column)
    if text and pa.types.is_string(column.type):
        values, bad = _each(column, _truth, pa.bool_())
        return values, missing if bad is None else pc.or_(missing, bad)
    if pa.types.is_boolean(column.type):
        return column, missing
    return _all_bad(column, pa.bool_())


def _string(column: Any, text: bool) -> Converted:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type):
        return column, None
    return pa.nulls(len(column), pa.string()), pc.is_valid(column)


def _datetime(column: Any, text: bool) -> Converted:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_string(kind):  # the server gets times as text, too
        return _each(column, _instant, pa.timestamp("us"))
    if pa.types.is_timestamp(kind):  # with a zone or without: the value itself is in UTC
        return column.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.timestamp("us")), None
    if pa.types.is_date(kind) or pa.types.is_null(kind):
        return column.cast(pa.timestamp("us")), None
    return pa.nulls(len(column), pa.timestamp("us")), pc.is_valid(column)


_CONVERT: dict[str, Callable[[Any, bool], Converted]] = {
    "double": _double,
    "float": _single,
    "integer": _integer(32),
    "long": _integer(64),
    "boolean": _boolean,
    "string": _string,
    "datetime": _datetime,
}


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _all_bad(column: Any, kind: Any) -> Converted:
    import pyarrow as pa

    return pa.nulls(len(column), kind), pa.nulls(len(column), pa.bool_()).fill_null(True)


def _whole_floats(values: Any) -> Converted:
    """Floats that are whole numbers as such; the rest, and nulls, are bad.

    So are those beyond 2**53, as at the server: they may stand for another whole number than was written.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    inside = pc.less_equal(pc.abs(values), 2.0**53)
    good = pc.fill_null(pc.and_(inside, pc.equal(values, pc.trunc(values))), False)
    return pc.if_else(good, values, 0.0).cast(pa.int64()), pc.invert(good)


# ---------------------------------------------------------------- text


def _each(column: Any, read: Callable[[Any], Any], kind: Any) -> Converted:
    """Read a column of text; halves of what cannot be read are read again, until the bad cells stand alone."""
    import pyarrow as pa

    try:
        return read(column), None
    except (pa.ArrowInvalid, ValueError, OverflowError):
        if len(column) == 1:
            return pa.nulls(1, kind), pa.array([True])
    middle = len(column) // 2
    parts = [_each(half, read, kind) for half in (column.slice(0, middle), column.slice(middle))]
    bad = [pa.nulls(len(v), pa.bool_()).fill_null(False) if b is None else b for v, b in parts]
    return pa.concat_arrays([v for v, _ in parts]), pa.concat_arrays(bad)


def _number(column: Any) -> Any:
    import pyarrow as pa

    return column.cast(pa.float64())


def _whole(column: Any) -> Any:
    """``7``, and ``7.0`` as pandas writes a column with gaps."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        values, bad = _whole_floats(column.cast(pa.float64()))
        if pc.any(pc.and_(bad, pc.is_valid(column))).as_py():
            raise
        return pc.if_else(pc.is_valid(column), values, pa.scalar(None, pa.int64()))


def _truth(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    lowered = pc.utf8_lower(column)
    known = pc.is_in(lowered, value_set=pa.array(["true", "false", None], pa.string()))
    if not pc.all(known).as_py():
        msg = "neither true nor false"
        raise ValueError(msg)
    return pc.equal(lowered, "true")


def _instant(column: Any) -> Any:
    """Times as Arrow reads them quickly; with zones and in the rarer forms of ISO 8601, as the server reads them."""
    import pyarrow as pa

    try:
        return column.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        return pa.array([_moment(value) for value in column.to_pylist()], pa.timestamp("us"))


def _moment(value: str | None) -> datetime | None:
    if value is None:
        return None
    moment = datetime.fromisoformat(value)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _is(*names: str) -> Callable[[Any], bool]:
    def holds(kind: Any) -> bool:
        import pyarrow as pa

        return any(getattr(pa.types, f"is_{name}")(kind) for name in names)

    return holds


_READ: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (_is("integer"), _whole),
    (_is("floating"), _number),
    (_is("boolean"), _truth),
    (_is("timestamp"), _instant),
)
