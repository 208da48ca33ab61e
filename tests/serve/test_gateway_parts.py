"""The gateway's pure parts: outliers, sticky users, what bodies hold, how predictions differ, its configuration."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_ci.serve.gateway import ejecting
from mlp_ci.serve.gateway.bodies import Form, Selection, Unreadable, first_row, predictions_of, rows_of
from mlp_ci.serve.gateway.exchange import sampled
from mlp_ci.serve.gateway.front import Client, Front
from mlp_ci.serve.gateway.parquet import Part
from mlp_ci.serve.gateway.plan import LogPlan, Plan
from mlp_ci.serve.gateway.recorder import Frames, Recorder, difference_bin, framed
from mlp_ci.serve.gateway.request import Request
from mlp_ci.serve.gateway.routing import pick, share_of
from mlp_ci.serve.measured import LABELS, OTHER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def arms(*weights: float) -> list[Any]:
    return [Mock(plan=Mock(weight=w)) for w in weights]


@given(st.text(max_size=20), st.text(max_size=20), st.integers(0, 100), st.integers(0, 100))
def test_a_canary_that_grows_keeps_every_user_it_had(salt: str, key: str, one: int, other: int) -> None:
    small, large = sorted((one, other))
    point = share_of(salt, key)
    assert 0 <= point < 1

    def on_canary(weight: int) -> bool:
        split = arms(weight, 100 - weight)
        return pick(split, point * 100) is split[0]

    assert not on_canary(small) or on_canary(large)
    assert not on_canary(0)
    assert on_canary(100)


def test_users_are_spread_as_the_weights_say() -> None:
    split = arms(10, 90)
    share = sum(pick(split, share_of("salt", f"user-{n}") * 100) is split[0] for n in range(20_000)) / 20_000
    assert abs(share - 0.1) < 0.01
    kept = sum(sampled(f"id-{n}", 0.25) for n in range(20_000)) / 20_000
    assert abs(kept - 0.25) < 0.015


def health(requests: int = 0, failed: int = 0, silent: int = 0) -> ejecting.Health:
    made = ejecting.Health()
    for n in range(requests):
        made.note(100.0, failed=n < failed, silent=n < silent)
    if silent:
        made.silent = silent
    return made


@pytest.mark.parametrize(
    ("one", "other", "ejected"),
    [
        (health(5, 5, silent=5), health(5), True),
        (health(4, 4, silent=4), health(5), False),
        (health(5, 5, silent=5), health(5, 5, silent=5), False),  # nobody would be left
        (health(30, 30), health(30), True),
        (health(30, 30), health(30, 29), False),  # the requests are bad, not the version
        (health(30, 30), health(3), False),  # too little is known of the other
        (health(19, 19), health(30), False),
        (health(100, 30), health(100), False),
    ],
)
def test_outliers_fail_alone(one: ejecting.Health, other: ejecting.Health, ejected: bool) -> None:
    assert ejecting.outliers([one, other], 100.5) == ([one] if ejected else [])
    assert ejecting.outliers([one], 100.5) == []


def test_each_further_ejection_is_longer_and_old_failures_are_forgotten() -> None:
    one, rests = health(30, 30), []
    for _ in range(6):
        one.eject(200.0)
        rests.append(one.until - 200.0)
        one.back(200.0)
    assert rests == [5, 10, 20, 40, 60, 60]
    one.eject(200.0 + 2 * ejecting.LONGEST_REST + 1)
    assert one.until - (200.0 + 2 * ejecting.LONGEST_REST + 1) == 5
    assert ejecting.outliers([health(30, 30), health(30)], 100.0 + ejecting.WINDOW + 1) == []


numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
cells = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5))
documents = st.recursive(cells, lambda part: st.lists(part) | st.dictionaries(st.text(max_size=9), part), max_leaves=9)
tables = st.integers(1, 4).flatmap(
    lambda n: st.dictionaries(st.text(min_size=1, max_size=4), st.lists(cells, min_size=n, max_size=n), min_size=1)
)


def written(table: dict[str, list[Any]]) -> list[tuple[bytes, Form]]:
    """A table in every way that a request can hold it."""
    count = len(next(iter(table.values())))
    records = [{name: values[i] for name, values in table.items()} for i in range(count)]
    split = {"columns": list(table), "data": [list(record.values()) for record in records]}
    kinds = [{"dataframe_split": split}, {"dataframe_records": records}, {"inputs": table}, {"instances": records}]
    bodies = [(json.dumps(kind).encode(), Form.JSON) for kind in kinds]
    tensors = [{"name": n, "shape": [count], "datatype": "BYTES", "data": v} for n, v in table.items()]
    return [*bodies, (json.dumps({"inputs": tensors}).encode(), Form.OIP)]


@given(tables)
def test_all_ways_to_write_a_table_are_read_alike(table: dict[str, list[Any]]) -> None:
    for body, form in written(table):
        rows = rows_of(body, form)
        assert {k: list(v) for k, v in rows.columns.items()} == table
        assert rows.count == len(next(iter(table.values())))
        assert first_row(body, form) == {name: values[0] for name, values in table.items()}


@given(st.lists(tables, min_size=1, max_size=4), st.lists(st.text(max_size=4), unique=True, max_size=4), st.randoms())
def test_of_requests_only_the_selected_columns_are_kept(
    found: list[dict[str, list[Any]]], others: list[str], random: Any
) -> None:
    """Whatever columns the request before had, and in whatever order."""
    names = [name for name in [*found[0], *others] if random.random() < 0.7]
    selection = Selection(dict.fromkeys(names))
    shuffled = {name: found[0][name] for name in random.sample(list(found[0]), len(found[0]))}
    for table in (*found, shuffled, found[0]):
        count = len(next(iter(table.values())))
        columns = [table.get(name, [None] * count) for name in selection.names]
        for body, form in written(table):
            assert selection.of(body, form) == ([*zip(*columns, strict=True)] if columns else [()] * count)


@pytest.mark.parametrize("data", [[[1]], [[1, 2], [3]], [[1, 2, 3]], [{"a": 1, "b": 2}], [7], 7, None])
def test_rows_that_do_not_fit_their_header_are_not_guessed(data: Any) -> None:
    selection = Selection(["b"])
    good = json.dumps({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}}).encode()
    assert selection.of(good, Form.JSON) == [(2,), (4,)]
    with pytest.raises(Unreadable):
        selection.of(json.dumps({"dataframe_split": {"columns": ["a", "b"], "data": data}}).encode(), Form.JSON)
    assert selection.of(good, Form.JSON) == [(2,), (4,)]


@given(st.one_of(st.binary(max_size=60), documents))
def test_no_body_breaks_the_readers(value: Any) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    for form in Form:
        first_row(body, form)
        for read in (rows_of, predictions_of, Selection("ab").of):
            refuses(read, body, form)
    for name in ("dataframe_split", "dataframe_records", "inputs", "instances", "outputs", "predictions"):
        if not isinstance(value, bytes):
            wrapped = json.dumps({name: value}).encode()
            first_row(wrapped, Form.JSON)
            for read in (rows_of, Selection("ab").of):
                refuses(read, wrapped, Form.JSON)
                refuses(read, wrapped, Form.OIP)
            refuses(predictions_of, wrapped, Form.OIP)


def refuses(read: Callable[[bytes, Form], Any], body: bytes, form: Form) -> None:
    """Reads it, or says that it cannot."""
    with contextlib.suppress(Unreadable):
        read(body, form)


def test_csv_and_predictions_of_other_servers() -> None:
    rows = rows_of(b"a,b,c\n1,x,\n2.5,true,y\n", Form.CSV)
    assert {k: list(v) for k, v in rows.columns.items()} == {"a": [1, 2.5], "b": ["x", True], "c": [None, "y"]}
    assert first_row(b"a,b\n1,x\n2,y\n", Form.CSV) == {"a": 1, "b": "x"}
    assert predictions_of(b'{"predictions": {"a": [1, 2], "b": [3, 4]}}', Form.JSON) == [
        {"a": 1, "b": 3},
        {"a": 2, "b": 4},
    ]
    two = {"outputs": [{"name": "p", "shape": [2, 2], "data": [1, 2, 3, 4]}]}
    assert predictions_of(json.dumps(two).encode(), Form.OIP) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        (1.0, 1, "same"),
        (1.0, 1.0000001, "same"),
        (0.5, 0.505, "<=0.01"),
        (0, 7, ">1"),
        ("late", "late", "same"),
        ("late", "early", "other"),
        (1, None, "other"),
        (True, 0.5, "other"),
        ([0.1, 0.9], [0.1, 0.6], "<=0.5"),
        ([1], [1, 2], "other"),
    ],
)
def test_how_far_predictions_are_apart(one: Any, other: Any, name: str) -> None:
    assert difference_bin(one, other) == name == difference_bin(other, one)


def test_the_recorder_survives_what_nobody_thought_of_and_bounds_labels(tmp_path: Path) -> None:
    recorder = Recorder()
    recorder.try_to_take(("plan", 0, str(tmp_path), {"a": "float"}, "m", "s"))
    request = b'{"dataframe_records": [{"a": 1}]}'
    for n in range(LABELS + 50):
        answer = json.dumps({"predictions": [f"text {n}"]}).encode()
        recorder.try_to_take(("x", 0, 1, "stable", 0, request, answer, (1e9 + n * 3600, f"r{n}", 1.0), None))
    recorder.try_to_take(("x", 0, 1))
    recorder.try_to_take(("x", 0, 1, "stable", 0, request, b'{"predictions": [1, 2]}', (1e9, "two", 1.0), None))
    bins = recorder.bins[0, 1, "stable"]
    assert bins[OTHER] == 50
    assert recorder.books[0].lost == 1
    assert recorder.books[0].skipped == 1, "two predictions for one row cannot be told apart"
    recorder.flush()
    assert recorder.books[0].written == LABELS + 50
    assert len(list(tmp_path.rglob("hour=*"))) == LABELS + 50, "a clock that jumps: every row goes to its own hour"


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 7))
def test_frames_come_out_as_they_went_in(payloads: list[bytes], size: int) -> None:
    import marshal

    stream = b"".join(framed(marshal.dumps(p)) for p in payloads)
    frames, found = Frames(), []
    for start in range(0, len(stream), size):
        found += frames.feed(stream[start : start + size])
    assert found == payloads


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"arms": [{"version": "x", "arm": "stable", "weight": 1, "url": "http://h:1"}]},
        {"arms": [{"version": 1, "arm": "stable", "weight": -1, "url": "http://h:1"}]},
        {"arms": [{"version": 1, "arm": "stable", "weight": float("nan"), "url": "http://h:1"}]},
        {"arms": [{"version": 1, "arm": "stable", "weight": 1, "url": "h:1"}]},
        {"arms": [], "match": {"path": "x"}},
        {"arms": [], "timeout": -1},
        {"arms": [], "log": {"root": "/x", "columns": {}, "sample": 2}},
        {"routes": 7},
    ],
)
def test_a_broken_configuration_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Plan.from_json(raw)


def test_both_formats_of_the_configuration_are_read() -> None:
    arm = {"version": 3, "arm": "canary", "weight": 10, "url": "http://127.0.0.1:9"}
    stable = {"version": 2, "arm": "stable", "weight": 90, "url": "http://127.0.0.1:8"}
    old = {
        "generation": 4,
        "model": "m",
        "stage": "s",
        "arms": [stable, arm],
        "log": {"root": "/l", "columns": {"ts": "int"}},
    }
    plan = Plan.from_json(old)
    new = {"generation": 4, "routes": [{k: v for k, v in old.items() if k != "generation"}]}
    assert Plan.from_json(new) == plan
    assert [a.arm for a in plan.routes[0].arms] == ["canary", "stable"]
    assert plan.routes[0].log
    assert isinstance(plan.routes[0].log, LogPlan)
    assert plan.routes[0].log.columns == {}, "the log's own columns are its own"


class Wire:
    """What a client's connection would get."""

    def __init__(self) -> None:
        self.sent, self.closed, self.paused = b"", False, False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def get_extra_info(self, _name: str) -> None:
        return None

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def fed(chunks: list[bytes]) -> tuple[Wire, list[Request]]:
    """A client that sends these pieces to a front that answers each request later, in its own time."""
    got, wire = list[Request](), Wire()

    def handle(client: Client, request: Request) -> None:
        got.append(request)
        asyncio.get_running_loop().call_soon(client.tell, 200, {"n": len(got)})

    client = Client(Front(handle))
    client.connection_made(cast(Any, wire))
    for chunk in chunks:
        while wire.paused:
            await asyncio.sleep(0)
        if wire.closed:
            break
        client.data_received(chunk)
    for _ in range(50):
        await asyncio.sleep(0)
    client.connection_lost(None)
    return wire, got


bodies = st.lists(st.binary(max_size=30), min_size=1, max_size=6)
cuts = st.lists(st.integers(1, 400), max_size=12)


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    points = sorted({0, *(c % (len(stream) + 1) for c in at), len(stream)})
    return [stream[a:b] for a, b in itertools.pairwise(points) if a < b]


@given(bodies, cuts)
def test_requests_arrive_whole_however_they_are_cut(payloads: list[bytes], at: list[int]) -> None:
    heads = [b"POST /invocations HTTP/1.1\r\nHost: x\r\nX-Request-Id: r%d\r\n" % n for n in range(len(payloads))]
    plain = [b"%bContent-Length: %d\r\n\r\n%b" % (h, len(p), p) for h, p in zip(heads, payloads, strict=True)]
    wire, got = asyncio.run(fed(cut(b"".join(plain), at)))
    assert [r.body for r in got] == payloads
    assert [r.identity() for r in got] == [f"r{n}" for n in range(len(payloads))]
    assert [int(n) for n in re.findall(rb'"n": (\d+)', wire.sent)] == list(range(1, len(payloads) + 1)), "in turn"
    assert not wire.closed


@given(st.binary(max_size=300), st.binary(max_size=40), cuts)
def test_no_bytes_break_the_front(garbage: bytes, more: bytes, at: list[int]) -> None:
    good = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    for stream in (garbage, good[: len(garbage) % len(good)] + more + good, good + garbage):
        wire, _ = asyncio.run(fed(cut(stream, at)))
        answers = re.findall(rb"HTTP/1\.1 (\d+) ", wire.sent)
        assert all(status in (b"100", b"200", b"400", b"413", b"431") for status in answers)


@pytest.mark.parametrize(
    ("predictions", "logged"),
    [
        ([0.5, None], [0.5, None]),
        ([True, None, False], [1.0, None, 0.0]),
        (["late", None], ["late", None]),
        ([["a", "b"], None], ['["a","b"]', None]),
    ],
)
def test_a_prediction_that_is_missing_is_logged_as_missing(
    predictions: list[Any], logged: list[Any], tmp_path: Path
) -> None:
    part = Part(LogPlan(tmp_path, "flights", "production", {}))
    part.add((0.0, "id", 1, "stable", 2.0), [()] * len(predictions), predictions)
    assert part.table()["prediction"].to_pylist() == logged
