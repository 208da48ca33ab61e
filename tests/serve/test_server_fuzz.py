"""Requests that nobody thought of: made from the server's own OpenAPI page by schemathesis, and by Hypothesis."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving import ask, body

if TYPE_CHECKING:
    from tests.serve.servers import Running


pytestmark = pytest.mark.xdist_group("model-server")


@pytest.fixture
def server(flights_server: Running) -> Running:
    return flights_server


@pytest.mark.slow
def test_what_the_description_allows_is_answered_and_what_it_forbids_is_refused(
    server: Running, tmp_path: Path
) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"http://127.0.0.1:{server.port}/openapi.json",
    ]
    command += ["--max-examples", "30", "--request-timeout", "60", "--no-color", "--generation-database", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert ask(server.port, body())[0] == 200
    assert "Traceback" not in server.log.read_text()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
_columns = st.fixed_dictionaries(
    {
        "distance": st.one_of(st.floats(), st.none(), _json),
        "hour": st.one_of(st.integers(), _json),
        "carrier": st.one_of(st.text(), st.none(), _json),
    }
)
_tensor = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["distance", "hour", "carrier", "x"]),
        "shape": st.lists(st.integers(-1, 3), max_size=3),
        "datatype": st.sampled_from(["FP64", "INT64", "BYTES", "BOOL", ""]),
        "data": st.lists(_json, max_size=4),
    }
)
_requests = st.one_of(
    st.tuples(st.just("/invocations"), st.binary(max_size=50)),
    st.tuples(st.just("/invocations"), _json.map(lambda v: json.dumps(v).encode())),
    st.tuples(
        st.just("/invocations"),
        st.tuples(st.sampled_from(["dataframe_records", "instances", "inputs"]), st.lists(_columns, max_size=3)).map(
            lambda pair: json.dumps({pair[0]: pair[1]}).encode()
        ),
    ),
    st.tuples(
        st.just("/v2/models/flights/infer"),
        st.lists(_tensor, max_size=4).map(lambda tensors: json.dumps({"inputs": tensors}).encode()),
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=_requests, kind=st.sampled_from(["application/json", "application/json", "text/csv"]))
def test_whatever_comes_in_no_500_goes_out(server: Running, request: tuple[str, bytes], kind: str) -> None:
    path, content = request
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("POST", path, content, {"Content-Type": kind})
        answer = connection.getresponse()
        told = json.loads(answer.read())
    finally:
        connection.close()
    assert answer.status in (200, 400, 415), told
    assert answer.status == 200 or told.get("message") or told.get("error")
