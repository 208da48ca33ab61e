"""The gateway as its clients and commands meet it: routes, arms, shadows, measures, the log; real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlp_ci.serve.measured import Seen
from tests.serve.gateways import (
    TOKEN,
    Running,
    Server,
    alive,
    body_of,
    children,
    free_port,
    gateway,
    logged,
    route,
)
from tests.serving import ROW, body, save_model, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Server(value=float(n)).running()) for n in (1, 2, 3)]


def versions(running: Running, users: int, path: str = "/invocations") -> dict[str, str]:
    """Which version each user met."""
    return {f"u{n}": running.ask(path, body_of(user=f"u{n}"))[1]["x-model-version"] for n in range(users)}


def test_a_user_meets_one_arm_and_a_growing_canary_keeps_whom_it_had(tmp_path: Path, servers: list[Server]) -> None:
    def split(weight: int) -> dict[str, object]:
        arms = [(1, "stable", 100 - weight, servers[0].url), (2, "canary", weight, servers[1].url)]
        return route(*(a for a in arms if a[2]), sticky="user", salt="s")

    with gateway(tmp_path / "g", split(20)) as running:
        first = versions(running, 40)
        assert versions(running, 40) == first
        assert 1 <= Counter(first.values())["2"] <= 18
        running.configure(split(60), generation=2)
        grown = versions(running, 40)
        assert all(grown[user] == "2" for user, version in first.items() if version == "2")
        assert Counter(grown.values())["2"] > Counter(first.values())["2"]
        number = running.ask("/invocations", body_of(user=7))[1]["x-model-version"]
        assert running.ask("/invocations", body_of(user="7"))[1]["x-model-version"] == number
        running.ask("/invocations", body_of())  # nobody says who it is
        assert running.metric("mlp_sticky_missing_total") == 1
        running.configure({**split(60), "sticky": "header:X-User"}, generation=3)
        seen = {running.ask(headers={"X-User": "jo"})[1]["x-model-version"] for _ in range(6)}
        assert len(seen) == 1
        running.configure(split(100), generation=4)  # blue-green: everything at once
        assert set(versions(running, 10).values()) == {"2"}


def test_routes_go_by_path_header_field_and_model_name(tmp_path: Path, servers: list[Server]) -> None:
    one, two, three = (s.url for s in servers)
    routes = [
        {**route((1, "stable", 100, one)), "match": {"path": "/flights", "fields": {"carrier": ["UA", 7]}}},
        {**route((2, "stable", 100, two)), "match": {"path": "/flights", "headers": {"x-tenant": "acme"}}},
        {**route((3, "stable", 100, three)), "model": "prices", "match": {"host": "prices.example"}},
        {**route((4, "stable", 100, three)), "model": "other"},
    ]
    oip = {"inputs": [{"name": "distance", "shape": [2], "datatype": "FP64", "data": [1, 2]}]}
    with gateway(tmp_path / "g", *routes) as running:

        def version(path: str, body: bytes, **headers: str) -> str | int:
            status, told, _ = running.ask(path, body, headers)
            return told.get("x-model-version", status)

        assert version("/flights/invocations", body_of()) == "1"
        assert version("/flights/invocations", body_of(carrier=7.0)) == "1"
        assert version("/flights/invocations", body_of(carrier="DL"), **{"X-Tenant": "acme"}) == "2"
        assert version("/flights/invocations", body_of(carrier="DL")) == 404
        assert version("/invocations", body_of(), Host="prices.example:80") == "3"
        assert version("/invocations", body_of()) == "4"
        assert version("/v2/models/prices/infer", json.dumps(oip).encode(), Host="prices.example") == "3"
        assert version("/v2/models/other/versions/4/infer", json.dumps(oip).encode()) == "4"
        paths = {path for s in servers for path, _, _ in s.heard}
        assert paths >= {"/invocations", "/v2/models/prices/infer", "/v2/models/other/versions/4/infer"}
        assert running.ask("/flights/health", None)[2]["routes"][0]["model"] == "flights"
        assert running.ask("/v2/models/other", None)[2] == {"page": "/v2/models/other"}
        assert running.ask("/flights/docs", None, {"X-Tenant": "acme"})[2] == {"page": "/docs"}
        assert running.ask("/nowhere", None)[0] == 404
        assert running.ask("/invocations", None)[0] == 405
        assert running.ask("/v2/health/ready", None)[2] == {"ready": True}
        told = running.admin("/admin/measured?model=prices")
        assert told["versions"]["3"]["requests"] == 2
        assert len(running.admin("/admin/measured")["routes"]) == 3, "two routes are one model"
        assert running.ask("/admin/measured?model=nope", None, {"Authorization": f"Bearer {TOKEN}"})[0] == 404
        assert running.ask("/measured", None)[0] == 404, "only where the configuration opens it"


def test_a_shadow_gets_copies_and_is_compared_and_never_answers_or_delays(
    tmp_path: Path, servers: list[Server]
) -> None:
    stable, shadow, broken = servers
    shadow.value, shadow.delay = 1.04, 0.4
    running = Running(tmp_path / "g")
    plan = route((1, "stable", 100, stable.url), (2, "shadow", 100, shadow.url), log=logged(running))
    with gateway(tmp_path / "g", plan) as running:
        running.ask()
        began = time.monotonic()
        answers = [running.ask() for _ in range(5)]
        assert {a[1]["x-model-version"] for a in answers} == {"1"}
        assert time.monotonic() - began < 5 * shadow.delay, "no answer waits for the shadow"
        wait_until(lambda: running.metric("mlp_shadow_compared_total") == 6)
        told = running.admin("/admin/measured")
        assert told["shadow"]["2"]["different"] == 6
        assert told["shadow"]["2"]["differences"] == {"<=0.05": 6}
        assert Seen.from_json(told["versions"]["2"]).requests == 6
        assert told["versions"]["1"]["predictions"] == {"p99": 6}
        broken.raw = b"garbage\r\n\r\n"
        running.configure(
            route((1, "stable", 100, stable.url), (3, "shadow", 100, broken.url), log=logged(running)), generation=2
        )
        assert [running.ask()[0] for _ in range(3)] == [200] * 3
        wait_until(lambda: running.seen(3)["errors"] == 3)
        assert running.metric("mlp_unanswered_total") == 0
        assert running.stop() == 0
    assert Counter((r["arm"], r["prediction"]) for r in running.rows()) == {("stable", 1.0): 9, ("shadow", 1.04): 6}


def test_measures_are_exact_and_checks_are_no_traffic(tmp_path: Path, servers: list[Server]) -> None:
    running = Running(tmp_path / "g")
    with gateway(tmp_path / "g", route((1, "stable", 100, servers[0].url), log=logged(running))) as running:
        for _ in range(4):
            running.ask()
        servers[0].status = 500
        assert running.ask()[0] == 500
        servers[0].status = 429
        assert running.ask()[0] == 429
        servers[0].status = 400
        assert running.ask()[0] == 400
        assert running.ask(headers={"X-Mlp-Check": "wrong"})[0] == 400
        servers[0].status = 200
        checked = running.ask(headers={"X-Mlp-Check": TOKEN})
        assert checked[0] == 200
        assert "x-mlp-check" not in servers[0].heard[-1][1], "the server must not learn the token"
        wait_until(lambda: running.seen(1)["predictions"] == {"p99": 4})
        seen = Seen.from_json(running.seen(1))
        assert (seen.requests, seen.errors, sum(seen.latency.values())) == (8, 2, 8)
        told = running.admin("/admin/measured")
        assert told["boot"]
        assert 0 < told["seconds"] < 600
        assert running.metric("mlp_asked_total") == 8
        assert running.metric("mlp_unanswered_total") == 2
        assert running.metric("mlp_rejected_total") == 2
        assert running.metric("mlp_predictions_total") == 4
        text = running.ask("/metrics", None)[2]
        assert 'arm="stable",le="0.1"}' in text
        running.stop()
    assert len(running.rows()) == 4


def test_the_log_reads_every_protocol_samples_by_id_and_says_what_it_cannot_read(
    tmp_path: Path, servers: list[Server]
) -> None:
    running = Running(tmp_path / "g")
    oip = {
        "inputs": [
            {"name": "distance", "shape": [2, 1], "datatype": "FP64", "data": [[5.5], [6.5]]},
            {"name": "carrier", "shape": [2], "datatype": "BYTES", "data": ["UA", "AA"]},
            {"name": "ssn", "shape": [2], "datatype": "BYTES", "data": ["1", "2"]},
        ]
    }
    plan = route((1, "stable", 100, servers[0].url), log=logged(running))
    with gateway(tmp_path / "g", plan) as running:
        running.ask("/v2/models/flights/infer", json.dumps(oip).encode(), {"X-Request-Id": "oip"})
        running.ask("/invocations", body_of(distance="far"), {"X-Request-Id": "text"})
        binary = {"Inference-Header-Content-Length": "9", "X-Request-Id": "binary"}
        assert running.ask("/invocations", body_of(), binary)[0] == 200
        wait_until(lambda: running.metric("mlp_log_rows_total") == 3)
        assert running.metric("mlp_log_skipped_total") == 1
        running.configure({**plan, "log": logged(running, sample=0.5)}, generation=2)
        for n in range(60):
            running.ask("/invocations", body_of(), {"X-Request-Id": f"s{n}"})
        running.stop()
    by_id = {row["request_id"]: row for row in running.rows()}
    assert (by_id["oip-1"]["distance"], by_id["oip-1"]["carrier"], by_id["oip-1"]["prediction"]) == (6.5, "AA", 1.0)
    assert "ssn" not in by_id["oip-0"]
    assert by_id["text"]["distance"] is None, "what does not fit its column's type"
    assert 10 < sum(i.startswith("s") for i in by_id) < 50


def test_swaps_under_load_fail_nothing_and_the_log_has_every_row(tmp_path: Path, servers: list[Server]) -> None:
    running = Running(tmp_path / "g")
    failed, done = list[object](), threading.Event()
    asked = Counter[str]()

    def load(name: int) -> None:
        while not done.is_set():
            try:
                status, told, _ = running.ask()
            except OSError as error:
                failed.append(error)
                continue
            asked[told.get("x-model-version", "")] += 1
            if status != 200:
                failed.append(status)

    plans = [route((n + 1, "stable", 100, s.url), log=logged(running)) for n, s in enumerate(servers)]
    with gateway(tmp_path / "g", plans[0]) as started:
        running.port, running.process = started.port, started.process
        clients = [threading.Thread(target=load, args=(n,)) for n in range(4)]
        for client in clients:
            client.start()
        for generation in range(2, 14):
            running.configure(plans[generation % 3], generation=generation)
            time.sleep(0.05)
        done.set()
        for client in clients:
            client.join()
        assert not failed
        assert len(asked) == 3
        assert sum(running.seen(v)["requests"] for v in (1, 2, 3)) == sum(asked.values())
        assert running.stop() == 0
    assert Counter(str(r["version"]) for r in running.rows()) == asked, "SIGTERM loses nothing"


def test_a_killed_gateway_loses_20_ms_and_a_killed_recorder_comes_back(tmp_path: Path, servers: list[Server]) -> None:
    running = Running(tmp_path / "g")
    with gateway(tmp_path / "g", route((1, "stable", 100, servers[0].url), log=logged(running))) as running:
        assert running.process is not None
        running.ask()
        wait_until(lambda: running.metric("mlp_log_rows_total") == 1)
        (recorder,) = children(running.process.pid)
        os.kill(recorder, signal.SIGKILL)
        wait_until(lambda: not alive(recorder))
        wait_until(lambda: bool([c for c in children(running.process.pid) if alive(c)]))
        for _ in range(5):
            assert running.ask()[0] == 200
        wait_until(lambda: running.metric("mlp_log_rows_total") == 6)
        assert running.seen(1)["predictions"] == {"p99": 6}, "sums go on where the dead recorder left them"
        assert running.metric("mlp_log_lost_total") == 0
        (recorder,) = [c for c in children(running.process.pid) if alive(c)]
        for _ in range(4):
            running.ask()
        time.sleep(0.3)
        running.process.kill()
        running.process.wait()
        wait_until(lambda: not alive(recorder))
        assert len(running.rows()) == 10


@pytest.mark.slow
def test_mlflows_own_server_works_as_well_behind_the_gateway(tmp_path: Path) -> None:
    port, own = free_port(), free_port()
    model = save_model(tmp_path / "model")
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    log = tmp_path / "log"
    columns = ("--columns", "distance:float,hour:int,carrier:string")
    sidecar = ("--upstream", f"http://127.0.0.1:{port}", "--model", "flights", "--version", "7", "--log", str(log))
    with (tmp_path / "mlflow.log").open("wb") as said:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            stdout=said,
            stderr=said,
            start_new_session=True,
            env={**os.environ, "PATH": path},
        )
    try:
        with gateway(
            tmp_path / "g", arguments=(*sidecar, *columns, "--expose-measured", "--port", str(own))
        ) as running:
            wait_until(lambda: running.ask("/invocations", body())[0] == 200, 120)
            before = running.ask("/measured", None)[2]["versions"]["7"]["requests"]
            split = {"columns": list(ROW), "data": [list(ROW.values()), [4000.0, 8, "AA"]]}
            status, told, answer = running.ask("/invocations", json.dumps({"dataframe_split": split}).encode())
            assert (status, told["x-model-version"], answer) == (200, "7", {"predictions": [0, 1]})
            table = b"distance,hour,carrier\n4000,7,UA\n"
            status, _, answer = running.ask("/invocations", table, {"Content-Type": "text/csv"})
            assert (status, answer) == (200, {"predictions": [1]})
            assert running.ask("/invocations", b"{}")[0] == 400
            assert running.ask("/measured", None)[2]["versions"]["7"]["requests"] == before + 3
            running.stop()
            logged_rows = [r for r in Running(tmp_path, port=own).rows() if r["distance"] == 4000.0]
            assert [(r["hour"], r["carrier"], r["prediction"]) for r in logged_rows].count((7, "UA", 1.0)) == 1
            assert (8, "AA", 1.0) in [(r["hour"], r["carrier"], r["prediction"]) for r in logged_rows]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
