"""The checks of batches and those of requests are the same rule: a row passes here exactly if the server takes it."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlp_ci.serve.batch.checks import check
from mlp_ci.serve.payload import BadRequest, Rows
from mlp_ci.serve.signature import compile_signature

TYPES = ("double", "float", "integer", "long", "boolean", "string", "datetime")
# One Arrow column has one type; a request's column may mix them, so both get columns of one kind.
KINDS: dict[str, tuple[Any, Any]] = {
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "int32": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float64": (pa.float64(), st.floats() | st.integers(-(2**66), 2**66).map(float)),
    "bool": (pa.bool_(), st.booleans()),
    "string": (pa.string(), st.sampled_from(["UA", "", "1", "2013-01-01", "2013-01-01T10:00:00Z", "2013-W01-1", "x"])),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["UA", "AA"])),
    "null": (pa.null(), st.none()),
}


@st.composite
def columns(draw: Any) -> tuple[str, str, list[Any]]:
    kind = draw(st.sampled_from(sorted(KINDS)))
    return draw(st.sampled_from(TYPES)), kind, draw(st.lists(KINDS[kind][1] | st.none(), min_size=1, max_size=6))


@given(columns())
@example(("long", "float64", [2.0**53, 2.0**53 + 2, -(2.0**53) - 2]))
def test_a_row_passes_exactly_when_the_server_takes_it_and_means_the_same(drawn: tuple[str, str, list[Any]]) -> None:
    kind, arrow, values = drawn
    signature = compile_signature(json.dumps([{"type": kind, "name": "c", "required": True}]))
    found = check(pa.record_batch({"c": pa.array(values, KINDS[arrow][0])}), signature.rules, text=())
    taken = []
    for value in values:
        try:
            taken.append(next(iter(signature.check(Rows({"c": [value]}, 1)).values()))[0])
        except BadRequest:
            taken.append(BadRequest)
    good = [True] * len(values) if found.good is None else found.good.to_pylist()
    assert good == [value is not BadRequest for value in taken]
    assert [cell.row for cell in found.bad] == [n for n, value in enumerate(taken) if value is BadRequest]
    for ours, theirs in zip(found.table["c"].to_pylist(), taken, strict=True):
        if theirs is BadRequest:
            continue
        if isinstance(theirs, float) and math.isnan(theirs):
            assert ours is None or math.isnan(ours)  # pandas has one thing for both
        elif kind == "float" and theirs is not None:
            single = pa.scalar(theirs).cast(pa.float32(), safe=False).as_py()
            assert ours == single
        else:
            assert ours == theirs


@given(st.lists(st.text(max_size=4) | st.floats().map(str) | st.integers().map(str), min_size=1, max_size=20))
def test_text_is_read_cell_by_cell_wherever_the_bad_ones_stand(values: list[str]) -> None:
    signature = compile_signature(json.dumps([{"type": "double", "name": "c", "required": True}]))
    together = check(pa.record_batch({"c": pa.array(values)}), signature.rules, text={"c"})
    alone = [check(pa.record_batch({"c": pa.array([v])}), signature.rules, text={"c"}) for v in values]
    bad = {cell.row for cell in together.bad}
    assert bad == {n for n, one in enumerate(alone) if one.bad}
    for n, one in enumerate(alone):
        if n not in bad:
            assert str(together.table["c"][n]) == str(one.table["c"][0])


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("double", ["1", "-1.5e3", "nan", None], ["x", "inf", "1,5", " 1"]),
        ("long", ["1", "2.0", "-7"], ["1.5", "x", None, "9223372036854775808"]),
        ("integer", ["2147483647"], ["2147483648", "1e40"]),
        ("boolean", ["true", "False"], ["1", "yes", None]),
        ("string", ["anything", None], []),
        ("datetime", ["2013-01-31", "2013-01-31T12:00:00+02:00", None], ["yesterday", "2013-02-30"]),
    ],
)
def test_text_of_a_csv(kind: str, good: list[Any], bad: list[Any]) -> None:
    signature = compile_signature(json.dumps([{"type": kind, "name": "c", "required": True}]))
    found = check(pa.record_batch({"c": pa.array([*good, *bad], pa.string())}), signature.rules, text={"c"})
    assert [cell.row for cell in found.bad] == list(range(len(good), len(good) + len(bad)))
    if kind == "datetime":
        assert found.table["c"].to_pylist()[:2] == [datetime(2013, 1, 31), datetime(2013, 1, 31, 10)]  # noqa: DTZ001


def test_times_with_a_zone_are_brought_to_utc() -> None:
    signature = compile_signature(json.dumps([{"type": "datetime", "name": "c", "required": True}]))
    noon = datetime(2013, 1, 31, 12, tzinfo=UTC)
    for column in (pa.array([noon], pa.timestamp("ns", "Europe/Berlin")), pa.array([noon.isoformat()])):
        found = check(pa.record_batch({"c": column}), signature.rules, text=())
        assert found.table["c"].to_pylist() == [noon.replace(tzinfo=None)]
    later = (noon + timedelta(hours=1)).date()
    found = check(pa.record_batch({"c": pa.array([later])}), signature.rules, text=())
    assert found.table["c"].to_pylist() == [datetime(2013, 1, 31)]  # noqa: DTZ001
