"""What stands in requests and answers, as columns: of MLflow's protocol and of the Open Inference Protocol (v2).

For rules by field, sticky keys and the prediction log; the server behind has checked what is answered, so nothing is
checked twice. What cannot be read as rows is :class:`Unreadable`: it is counted, never guessed.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from enum import IntEnum
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class Form(IntEnum):
    """How a request is written."""

    JSON = 0  # MLflow's /invocations
    CSV = 1
    OIP = 2
    OTHER = 3  # binary or compressed: passed on, not read


class Unreadable(Exception):
    """The body does not hold rows that can be told apart."""


# What reading a body raises that is not as its form wants it.
_NOT_AS_EXPECTED = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Rows:
    """Named columns of equal length; none for a tensor without names."""

    columns: Mapping[str, Any]
    count: int


def rows_of(body: bytes, form: Form) -> Rows:
    """The rows of a request; raises Unreadable."""
    try:
        return _READERS[form](body)
    except _NOT_AS_EXPECTED as error:
        raise Unreadable(str(error)) from error


class Selection:
    """Some columns of requests, row by row. What is not selected is let go of as soon as a body has been read.

    Requests that follow each other mostly name the same columns in the same order: where those stand is looked up once.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._header: Any = None
        self._pick: Callable[[Any], tuple[Any, ...]] = tuple

    def of(self, body: bytes, form: Form) -> list[tuple[Any, ...]]:
        """A tuple for each row, with None for a column that the request does not have; raises Unreadable."""
        if form is not Form.JSON:
            return self._turned(rows_of(body, form))
        try:
            document = orjson.loads(body)
            if "dataframe_split" in document:
                return self._split(document["dataframe_split"])
            return self._turned(_rows(document))
        except _NOT_AS_EXPECTED as error:
            raise Unreadable(str(error)) from error

    def _split(self, split: Any) -> list[tuple[Any, ...]]:
        header, data = split["columns"], split["data"]
        if header != self._header:
            self._look_up(header)
        width = len(header)
        for row in data:
            if len(row) != width:
                msg = "a row has another length than the header"
                raise Unreadable(msg)
        return list(map(self._pick, data))

    def _look_up(self, header: Any) -> None:
        places = {name: place for place, name in enumerate(header)}
        found = [places.get(name) for name in self.names]
        if len(found) > 1 and None not in found:  # of one place, itemgetter makes no tuple
            self._pick = itemgetter(*found)
        else:
            self._pick = lambda row: tuple([None if place is None else row[place] for place in found])
        self._header = header

    def _turned(self, rows: Rows) -> list[tuple[Any, ...]]:
        missing = (None,) * rows.count
        columns = [rows.columns.get(name) or missing for name in self.names]
        return list(zip(*columns, strict=True)) if columns else [()] * rows.count


def first_row(body: bytes, form: Form) -> Mapping[str, Any]:
    """The named values of the first row, without the others being looked at; empty where the body cannot be read."""
    try:
        if form is Form.CSV:
            head = body.split(b"\n", 2)[:2]
            return {name: values[0] for name, values in _csv(b"\n".join(head)).columns.items()}
        if form is Form.OIP:
            inputs = orjson.loads(body)["inputs"]
            return {str(one["name"]): _flat(one["data"][:1])[0] for one in inputs}
        return _first_json(orjson.loads(body)) if form is Form.JSON else {}
    except _NOT_AS_EXPECTED:
        return {}


def _first_json(document: Any) -> Mapping[str, Any]:
    if "dataframe_split" in document:
        split = document["dataframe_split"]
        return dict(zip(split["columns"], split["data"][0], strict=True))
    for name in ("dataframe_records", "inputs", "instances"):
        if name in document:
            given = document[name]
            first = given[0] if isinstance(given, list) else {k: v[0] for k, v in given.items()}
            return first if isinstance(first, dict) else {}
    return {}


def predictions_of(body: bytes, form: Form) -> list[Any]:
    """One prediction per row: a number, text, or whatever JSON holds; raises Unreadable."""
    try:
        document = orjson.loads(body)
        if form is Form.OIP:
            return _outputs(document["outputs"])
        predictions = document["predictions"] if isinstance(document, dict) else document
        if isinstance(predictions, dict):  # named outputs: a row is an object of them
            return list(_records_of(predictions))
        if not isinstance(predictions, list):
            msg = "predictions are no list"
            raise Unreadable(msg)
    except _NOT_AS_EXPECTED as error:
        raise Unreadable(str(error)) from error
    return predictions


def _json(body: bytes) -> Rows:
    return _rows(orjson.loads(body))


def _rows(document: Any) -> Rows:
    if "dataframe_split" in document:
        split = document["dataframe_split"]
        data = split["data"]
        if len(data) == 1:
            return Rows({c: (v,) for c, v in zip(split["columns"], data[0], strict=True)}, 1)
        return Rows(dict(zip(split["columns"], zip(*data, strict=True), strict=True)), len(data))
    if "dataframe_records" in document:
        return _records(document["dataframe_records"])
    given = document["inputs"] if "inputs" in document else document["instances"]
    if isinstance(given, list):
        return _records(given) if given and isinstance(given[0], dict) else Rows({}, len(given))
    columns = {str(k): v if isinstance(v, list) else [v] for k, v in given.items()}
    return Rows(columns, _one_length(columns))


def _records(records: list[dict[str, Any]]) -> Rows:
    if len(records) == 1:
        return Rows({c: (v,) for c, v in records[0].items()}, 1)
    names = dict.fromkeys(name for record in records for name in record)
    return Rows({name: [record.get(name) for record in records] for name in names}, len(records))


def _csv(body: bytes) -> Rows:
    lines = list(csv.reader(io.StringIO(body.decode())))
    names, data = lines[0], [line for line in lines[1:] if line]
    return Rows(dict(zip(names, zip(*map(_plain, data), strict=True), strict=True)), len(data))


def _plain(line: list[str]) -> list[Any]:
    """The cells of a line as JSON would have them: numbers where they are numbers, nothing where there is nothing."""
    return [_cell(text) for text in line]


def _cell(text: str) -> Any:
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _oip(body: bytes) -> Rows:
    inputs = orjson.loads(body)["inputs"]
    counts = {int(one["shape"][0]) for one in inputs}
    if len(counts) != 1:
        msg = "inputs differ in their number of rows"
        raise Unreadable(msg)
    count = counts.pop()
    columns = {str(one["name"]): one["data"] for one in inputs if _size(one["shape"]) == count}
    if any(len(values) != count or any(isinstance(v, list) for v in values) for values in columns.values()):
        columns = {name: _flat(values) for name, values in columns.items()}
        if any(len(values) != count for values in columns.values()):
            msg = "an input has another size than its shape"
            raise Unreadable(msg)
    return Rows(columns, count)


def _outputs(outputs: list[dict[str, Any]]) -> list[Any]:
    """The rows of the one output, or of all as objects."""
    named = {}
    for one in outputs:
        shape, data = [int(n) for n in one["shape"]], _flat(one["data"])
        count = shape[0]
        width = _size(shape) // count
        if len(data) != count * width:
            msg = "an output has another size than its shape"
            raise Unreadable(msg)
        named[str(one["name"])] = data if width == 1 else [data[i : i + width] for i in range(0, len(data), width)]
    return next(iter(named.values())) if len(named) == 1 else list(_records_of(named))


def _records_of(columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    count = _one_length(columns)
    return [{name: values[i] for name, values in columns.items()} for i in range(count)]


def _one_length(columns: Mapping[str, list[Any]]) -> int:
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        msg = "columns differ in length"
        raise Unreadable(msg)
    return lengths.pop()


def _size(shape: list[int]) -> int:
    size = 1
    for n in shape:
        size *= int(n)
    return size


def _flat(data: Any) -> list[Any]:
    """Nested lists as one; the protocol allows tensors both ways."""
    if not data or not isinstance(data[0], list):
        return list(data)
    return [value for part in data for value in _flat(part)]


def _other(_body: bytes) -> Rows:
    msg = "the body is in no form that is read here"
    raise Unreadable(msg)


_READERS: Mapping[Form, Callable[[bytes], Rows]] = {
    Form.JSON: _json,
    Form.CSV: _csv,
    Form.OIP: _oip,
    Form.OTHER: _other,
}
