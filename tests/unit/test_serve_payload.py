"""Bodies from outside: what is read, what is refused and in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_ci.serve.payload import BadRequest, parse
from mlp_ci.serve.signature import compile_signature

SIGNATURE = compile_signature(
    json.dumps(
        [
            {"type": "double", "name": "distance", "required": True},
            {"type": "long", "name": "hour", "required": True},
            {"type": "string", "name": "carrier", "required": False},
            {"type": "datetime", "name": "at", "required": False},
            {"type": "boolean", "name": "holiday", "required": False},
        ]
    )
)


def _check(**columns: Any) -> dict[str, list[Any]]:
    return SIGNATURE.check(parse(json.dumps({"inputs": columns}).encode()))


def test_the_four_formats_mean_the_same() -> None:
    same = [
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"], [2, "y"]]}},
        {"dataframe_split": {"columns": ["a", "b"], "index": [5, 6], "data": [[1, "x"], [2, "y"]]}},
        {"dataframe_records": [{"a": 1, "b": "x"}, {"b": "y", "a": 2}]},
        {"inputs": {"a": [1, 2], "b": ["x", "y"]}},
        {"instances": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]},
    ]
    for value in same:
        rows = parse(json.dumps(value).encode())
        assert (rows.columns, rows.count) == ({"a": [1, 2], "b": ["x", "y"]}, 2)


def test_a_record_without_a_column_has_null_there() -> None:
    assert parse(b'{"dataframe_records": [{"a": 1}, {"b": 2}]}').columns == {"a": [1, None], "b": [None, 2]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[1]", "must be a JSON object with one of dataframe_split"),
        (b"{}", "it holds none"),
        (b'{"inputs": [1], "instances": [1]}', "it holds inputs, instances"),
        (b'{"dataframe_split": [1]}', "lists `columns` and `data`"),
        (b'{"dataframe_split": {"columns": ["a", "a"], "data": []}}', "names 'a' twice"),
        (b'{"dataframe_split": {"columns": [1], "data": []}}', "must hold column names"),
        (b'{"dataframe_split": {"columns": ["a"], "data": [[1], [1, 2]]}}', "row 1 of dataframe_split.data"),
        (b'{"dataframe_split": {"columns": ["a"], "data": []}}', "holds no rows"),
        (b'{"dataframe_records": {"a": 1}}', "must be a list of objects"),
        (b'{"dataframe_records": [1]}', "row 0 of dataframe_records must be an object, not a number"),
        (b'{"inputs": {"a": [1], "b": [1, 2]}}', "differ in length"),
        (b'{"inputs": null}', "not null"),
    ],
)
def test_a_bad_body_is_refused_in_plain_words(content: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse(content)
    assert message in refusal.value.message
    assert refusal.value.status == 400


def test_columns_come_in_the_models_order_and_others_are_ignored() -> None:
    checked = _check(hour=[3], flight_id=["x"], distance=[2])
    assert list(checked) == ["distance", "hour"]
    assert checked["distance"] == [2.0]


def test_null_is_nan_in_a_number_and_nothing_in_a_whole_number() -> None:
    assert str(_check(distance=[None], hour=[1])["distance"]) == "[nan]"
    with pytest.raises(BadRequest, match="column hour, row 1: null is not a whole number of 64 bits"):
        _check(distance=[1, 2], hour=[1, None])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"hour": [1]}, "missing column distance; the model needs distance, hour, carrier"),
        ({"distance": ["far"], "hour": [1]}, 'column distance, row 0: "far" is not a number'),
        ({"distance": [True], "hour": [1]}, "column distance, row 0: true is not a number"),
        ({"distance": [10**400], "hour": [1]}, "is not a number of 64 bits"),
        ({"distance": [float("inf")], "hour": [1]}, "column distance, row 0: Infinity is not a finite number"),
        ({"distance": [1], "hour": [1.5]}, "column hour, row 0: 1.5 is not a whole number"),
        ({"distance": [1], "hour": [2**63]}, "is not a whole number of 64 bits"),
        ({"distance": [1], "hour": [-(2**63) - 1]}, "is not a whole number of 64 bits"),
        ({"distance": [1], "hour": [1e17]}, "is not a whole number of 64 bits"),
        ({"distance": [1], "hour": [1], "carrier": [7]}, "column carrier, row 0: 7 is not text"),
        ({"distance": [1], "hour": [1], "at": ["soon"]}, 'column at, row 0: "soon" is not an ISO 8601 time'),
        ({"distance": [1], "hour": [1], "holiday": [1]}, "column holiday, row 0: 1 is not true or false"),
    ],
)
def test_a_wrong_value_is_refused_by_its_column(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        _check(**columns)
    assert message in refusal.value.message


def test_whole_floats_are_whole_numbers_and_times_lose_their_zone() -> None:
    checked = _check(distance=[1], hour=[3.0], at=["2013-07-01T12:00:00+02:00"])
    assert checked["hour"] == [3]
    assert checked["at"][0].isoformat() == "2013-07-01T10:00:00"


def test_the_frame_has_the_types_of_the_signature() -> None:
    frame = SIGNATURE.frame(_check(distance=[1, None], hour=[1, 2], carrier=["UA", None], at=[None, "2013-07-01"]))
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert kinds["distance"] == "float64"
    assert kinds["hour"] == "int64"
    assert kinds["at"] == "datetime64[us]"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.one_of(
        st.binary(max_size=60),
        json_values.map(lambda v: json.dumps(v).encode()),
        st.tuples(st.sampled_from(["dataframe_split", "dataframe_records", "inputs", "instances"]), json_values).map(
            lambda pair: json.dumps({pair[0]: pair[1]}).encode()
        ),
        st.fixed_dictionaries(
            {name: st.lists(json_values, min_size=1, max_size=1) for name in ("distance", "hour")},
            optional={name: st.lists(json_values, min_size=1, max_size=1) for name in ("carrier", "at", "holiday")},
        ).map(lambda columns: json.dumps({"inputs": columns}).encode()),
    )
)
def test_nothing_from_outside_makes_anything_but_rows_or_a_refusal(content: bytes) -> None:
    try:
        rows = parse(content)
        columns = SIGNATURE.check(rows)
    except BadRequest as error:
        assert error.message
        assert 400 <= error.status < 500
    else:
        assert len(SIGNATURE.frame(columns)) == rows.count
