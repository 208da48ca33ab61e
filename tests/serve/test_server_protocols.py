"""One server, every way to ask it: MLflow's bodies and CSV, the Open Inference Protocol, metrics, its description."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving import ask, body

if TYPE_CHECKING:
    from tests.serve.servers import Running

INFER = "/v2/models/flights/infer"


pytestmark = pytest.mark.xdist_group("model-server")


@pytest.fixture
def server(flights_server: Running) -> Running:
    return flights_server


def csv(server: Running, text: str) -> tuple[int, Any]:
    status, _, answer = ask(server.port, text.encode(), headers={"Content-Type": "text/csv; charset=utf-8"})
    return status, answer if status == 200 else answer["message"]


def infer(server: Running, *inputs: dict[str, Any], path: str = INFER, **more: Any) -> tuple[int, Any]:
    status, _, answer = ask(server.port, json.dumps({"inputs": list(inputs), **more}).encode(), path=path)
    return status, answer


def column(name: str, datatype: str, *data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": list(data)}


def test_mlflows_own_client_is_answered(server: Running) -> None:
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client = ScoringServerClient("127.0.0.1", server.port)
    client.wait_server_ready(5, None)
    rows = pd.DataFrame({"distance": [10.0, 4000.0], "hour": [1, 1], "carrier": ["UA", "AA"]})
    assert client.invoke(rows).get_predictions().iloc[:, 0].tolist() == [0.0, 1.0]
    assert client.get_version()


ROWS = (
    column("distance", "FP64", 10.0, 4000.0),
    column("hour", "INT64", 1, 1),
    column("carrier", "BYTES", "UA", "new"),
)


def test_csv_is_read_by_the_signature(server: Running) -> None:
    assert csv(server, 'carrier,hour,distance,flight\r\nUA,1,10.5,x\r\n"new, here",1,4000,y\r\n') == (
        200,
        {"predictions": [0.0, 1.0]},
    )
    assert csv(server, "carrier,hour,distance\n007,1,4000\n\n") == (200, {"predictions": [1.0]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a line of column names"),
        ("distance,hour,carrier\n", "needs a line of column names"),
        ("distance,distance\n1,2\n", "names the column 'distance' twice"),
        ("distance,hour,carrier\n1,2\n", "row 0 of the CSV has 2 values, not 3"),
        ("distance,hour\n1,2\n", "missing column carrier"),
        ("distance,hour,carrier\nfar,1,UA\n", 'column distance, row 0: "far" is not a number'),
        ("distance,hour,carrier\n1,1.5,UA\n", "column hour, row 0: 1.5 is not a whole number"),
        ("distance,hour,carrier\n1,,UA\n", "column hour, row 0: null is not a whole number"),
        ("distance,hour,carrier\ninf,1,UA\n", "column distance, row 0"),
        ('distance,hour,carrier\n"1,1,UA\n', "the body is not CSV"),
        ("distance,hour,carrier\n1,1," + "x" * 200_000 + "\n", "the body is not CSV"),
    ],
)
def test_bad_csv_is_refused_by_its_place(server: Running, text: str, message: str) -> None:
    status, told = csv(server, text)
    assert status == 400
    assert message in told


def test_the_open_inference_protocol_answers_as_mlflows_does(server: Running) -> None:
    status, answer = infer(server, *ROWS, id="a-7")
    assert status == 200
    assert answer == {
        "model_name": "flights",
        "model_version": "3",
        "id": "a-7",
        "outputs": [{"name": "predictions", "shape": [2], "datatype": "FP64", "data": [0.0, 1.0]}],
    }
    nested = [
        column("distance", "FP32", [4000], shape=[1, 1]),
        *(column(n, "BYTES", v) for n, v in (("carrier", "UA"),)),
    ]
    status, answer = infer(
        server,
        *nested,
        column("hour", "INT8", 3),
        path="/v2/models/flights/versions/3/infer",
        outputs=[{"name": "predictions"}],
    )
    assert (status, answer["outputs"][0]["data"]) == (200, [1.0])
    assert "id" not in answer


@pytest.mark.parametrize(
    ("inputs", "more", "message"),
    [
        ((), {}, "the list `inputs`"),
        (({"name": "distance"},), {}, "has no data"),
        (({"name": "distance", "shape": [-1], "datatype": "FP64", "data": []},), {}, "shape must be"),
        (({"name": "distance", "shape": [10**12], "datatype": "FP64", "data": []},), {}, "has 0 values"),
        (({"name": "distance", "shape": [1], "datatype": "FP128", "data": [1]},), {}, "datatype must be one of"),
        ((column("distance", "FP64", 1.0), column("distance", "FP64", 1.0)), {}, "the same name"),
        ((column("distance", "FP64", 1.0), column("hour", "INT64", 1, 2)), {}, "has 2 rows, another 1"),
        ((column("distance", "FP64", 1.0, 2.0, shape=[1, 2]),), {}, "its shape must be [1] or [1, 1]"),
        ((column("distance", "FP64", 1.0),), {}, "missing columns hour, carrier"),
        ((*ROWS[:2], column("carrier", "INT64", 1, 2)), {}, "column carrier, row 0: 1 is not text"),
        (ROWS, {"outputs": [{"name": "nothing"}]}, "there is no output 'nothing'"),
        (ROWS, {"id": 7}, "id must be text"),
        ((column("distance", "FP64", *[[[[[[[[[[[[[[[[[[1.0]]]]]]]]]]]]]]]]]], shape=[1]),), {}, "nested too deeply"),
    ],
)
def test_a_bad_inference_request_is_refused(
    server: Running, inputs: tuple[dict[str, Any], ...], more: dict[str, Any], message: str
) -> None:
    status, answer = infer(server, *inputs, **more)
    assert status == 400
    assert message in answer["error"]


def test_the_protocols_metadata_and_health(server: Running) -> None:
    assert ask(server.port, path="/v2")[2]["extensions"] == []
    told = ask(server.port, path="/v2/models/flights/versions/3")[2]
    assert [(i["name"], i["datatype"]) for i in told["inputs"]] == [
        ("distance", "FP64"),
        ("hour", "INT64"),
        ("carrier", "BYTES"),
    ]
    assert told["outputs"] == [{"name": "predictions", "datatype": "FP64", "shape": [-1]}]
    assert ask(server.port, path="/v2/models/flights/ready")[2] == {"name": "flights", "ready": True}
    assert ask(server.port, path="/v2/health/live")[:3:2] == (200, {"live": True})
    assert ask(server.port, path="/v2/health/ready")[:3:2] == (200, {"ready": True})
    for path in ("/v2/models/trains", "/v2/models/flights/versions/4", "/v2/models/flights/versions/4/ready"):
        status, _, answer = ask(server.port, path=path)
        assert status == 404
        assert "serves flights version 3" in answer["error"]
    assert infer(server, *ROWS, path="/v2/models/trains/infer")[0] == 404


def test_methods_and_paths_that_are_not_there(server: Running) -> None:
    status, headers, answer = ask(server.port, path="/invocations")
    assert (status, headers["allow"]) == (405, "POST")
    assert answer == {"error_code": "METHOD_NOT_ALLOWED", "message": "GET is not for this path"}
    assert ask(server.port, path="/nowhere")[0] == 404
    assert ask(server.port, b"{}", path="/health")[0] == 405


def test_a_body_that_is_packed_or_empty_is_told_what_to_send(server: Running) -> None:
    import gzip

    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    for path, field in (("/invocations", "message"), (INFER, "error")):
        status, headers, answer = ask(server.port, gzip.compress(body()), path=path, headers=packed)
        assert (status, headers["accept-encoding"]) == (415, "identity")
        assert "Content-Encoding: gzip" in answer[field]
        status, _, answer = ask(server.port, b"", path=path)
        assert (status, answer[field]) == (400, "the body is not JSON: it is empty")
    assert ask(server.port, body(), headers={**packed, "Content-Encoding": "identity"})[0] == 200


def test_metrics_count_what_was_asked(server: Running) -> None:
    def counted(name: str) -> float:
        text = ask(server.port, path="/metrics")[2]
        return sum(float(v) for v in re.findall(rf"^mlp_server_{name}(?:{{.*?}})? (\S+)$", text, re.MULTILINE))

    before = {n: counted(n) for n in ("requests_total", "request_seconds_count", "batch_rows_sum", "errors_total")}
    assert ask(server.port, body(*[{"distance": 1, "hour": 1, "carrier": "UA"}] * 5))[0] == 200
    assert ask(server.port, b"{")[0] == 400
    assert infer(server, *ROWS)[0] == 200
    assert counted("requests_total") == before["requests_total"] + 3
    assert counted("request_seconds_count") == before["request_seconds_count"] + 3
    assert counted("batch_rows_sum") == before["batch_rows_sum"] + 7
    assert (counted("errors_total"), counted("in_flight"), counted("ready")) == (0, 0, 1)
    text = ask(server.port, path="/metrics")[2]
    from prometheus_client.parser import text_string_to_metric_families

    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["mlp_server_request_seconds"].type == "histogram"
    assert {s.labels["code"] for s in families["mlp_server_requests"].samples} >= {"200", "400"}


def test_its_description_is_openapi_and_its_page_needs_nothing_from_outside(server: Running) -> None:
    from jsonschema import Draft202012Validator

    described = ask(server.port, path="/openapi.json")[2]
    assert described["openapi"].startswith("3.1")
    schema = {**described["components"]["schemas"]["Rows"], "components": described["components"]}
    Draft202012Validator.check_schema(schema)
    example = described["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert not list(Draft202012Validator(schema).iter_errors(example))
    assert ask(server.port, json.dumps(example).encode())[0] == 200
    page = ask(server.port, path="/docs")
    front = ask(server.port, path="/")
    assert (front[0], front[1]["location"]) == (307, "docs")
    assert page[0] == 200
    assert "default-src 'none'" in page[1]["content-security-policy"]
    assert "distance" in page[2]
    assert not re.findall(r"https?://", page[2])
