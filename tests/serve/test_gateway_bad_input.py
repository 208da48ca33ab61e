"""What goes wrong around a gateway: servers that hang or talk nonsense, slow and wrong clients, full disks."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.serve.gateways import Running, Server, body_of, children, free_port, gateway, logged, route
from tests.serving import slowness, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Server(value=float(n)).running()) for n in (1, 2)]


@pytest.mark.slow
def test_an_upstream_that_hangs_costs_its_own_requests_and_is_left_alone(tmp_path: Path, servers: list[Server]) -> None:
    well, hangs = servers
    hangs.delay = 60
    arms = [(1, "stable", 1, well.url), (2, "canary", 99, hangs.url)]
    with gateway(tmp_path / "g", route(*arms, timeout=0.3, sticky="user")) as running:
        statuses = [running.ask("/invocations", body_of(user=f"u{n}")) for n in range(8)]
        slow = [s for s in statuses if s[0] == 504]
        assert len(slow) in (5, 6), "after five silent ones in a row the others go to the arm that answers"
        assert slow[0][2]["message"] == "the model did not answer in time"
        assert running.admin("/admin/state")["ejected"] == [2]
        assert running.seen(2)["errors"] == len(slow)
        assert running.metric("mlp_ejected") == 1
        wait_until(lambda: running.metric("mlp_ejected") == 0)  # its /health answers
        running.configure(route((2, "stable", 100, hangs.url), timeout=0.3), generation=2)
        assert {running.ask()[0] for _ in range(7)} == {504}, "the last one is never ejected"


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage that is no answer\r\n\r\n",
        b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"predic',
        b"",
    ],
    ids=["garbage", "dies mid-answer", "closes"],
)
def test_what_a_bad_upstream_did_not_answer_another_does(tmp_path: Path, servers: list[Server], raw: bytes) -> None:
    servers[1].raw = raw
    arms = [(1, "stable", 50, servers[0].url), (2, "canary", 50, servers[1].url)]
    with gateway(tmp_path / "g", route(*arms)) as running:
        answers = [running.ask() for _ in range(12)]
        assert {(a[0], a[1]["x-model-version"]) for a in answers} == {(200, "1")}
        seen = running.seen(2)
        assert 0 < seen["errors"] == seen["requests"]
        assert seen["latency"] == {}
        assert running.metric("mlp_unanswered_total") == 0


def test_who_fails_alone_is_ejected_and_poison_for_all_is_not(tmp_path: Path, servers: list[Server]) -> None:
    well, fails = servers
    arms = [(1, "stable", 50, well.url), (2, "canary", 50, fails.url)]
    with gateway(tmp_path / "g", route(*arms, sticky="header:X-User")) as running:
        well.status = fails.status = 500
        for n in range(60):
            running.ask(headers={"X-User": f"u{n}"})
        assert running.admin("/admin/state")["ejected"] == []
    fails.status, well.status = 500, 200
    with gateway(tmp_path / "h", route(*arms)) as running:
        for _ in range(70):
            running.ask()
        assert running.admin("/admin/state")["ejected"] == [2]
        assert {running.ask()[0] for _ in range(5)} == {200}


def test_a_server_that_is_restarted_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    with gateway(tmp_path / "g", route((1, "stable", 100, f"http://127.0.0.1:{port}"))) as running:
        late = Server(port=port)
        with ExitStack() as stack:
            asked = subprocess.Popen(
                [
                    *("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", body_of().decode()),
                    *("-H", "content-type: application/json", f"http://127.0.0.1:{running.port}/invocations"),
                ],
                stdout=subprocess.PIPE,
            )
            time.sleep(0.4)
            stack.enter_context(late.running())
            assert asked.communicate(timeout=20 * slowness())[0] == b"200"


def test_a_dead_server_is_waited_for_no_longer_than_an_answer_may_take(tmp_path: Path) -> None:
    dead = {**route((1, "stable", 100, f"http://127.0.0.1:{free_port()}")), "timeout": 0.3}
    with gateway(tmp_path / "g", dead) as running:
        began = time.monotonic()
        status, headers, _ = running.ask()
        assert (status, headers["retry-after"]) == (503, "1")
        assert time.monotonic() - began < 5 * slowness()


def talk(port: int, data: bytes, *, close: bool = False) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=20 * slowness())
    made.sendall(data)
    if close:
        made.shutdown(socket.SHUT_WR)
    return made


def told(made: socket.socket) -> bytes:
    """Everything until the gateway closes."""
    with made:
        parts = []
        while part := made.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_clients_that_are_slow_or_wrong_are_told_and_shown_out(tmp_path: Path, servers: list[Server]) -> None:
    port = free_port()
    config = tmp_path / "gateway.yaml"
    limits = "{body_mb: 1, head_kb: 4, connections: 12, head_time: 500ms, body_time: 500ms, idle_time: 600ms}"
    right = (
        f"apiVersion: mlp-ci/v1\nport: {port}\nlimits: {limits}\nroutes:\n"
        f'  - {{model: flights, arms: [{{version: 1, url: "{servers[0].url}"}}]}}\n'
    )
    config.write_text(right)
    good = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body_of()), body_of())
    arguments = ("--config", str(config), "--port", str(port))
    with gateway(tmp_path / "g", arguments=arguments) as running:
        slow = {
            "head": talk(port, b"POST /invocations HTTP/1.1\r\nhost: x"),
            "body": talk(port, b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"),
            "idle": talk(port, b""),
        }
        assert told(talk(port, b"NONSENSE\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert told(talk(port, b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 431 ")
        assert told(talk(port, b"GET / HTTP/1.1\r\nx: " + b"y" * 9000)).startswith(b"HTTP/1.1 431 ")
        both = b"POST /invocations HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        assert told(talk(port, both)).startswith(b"HTTP/1.1 400 "), "no two lengths: that is how requests are smuggled"
        assert told(talk(port, b"POST /invocations HTTP/1.1\r\ncontent-length: 9999999\r\n\r\n{")).startswith(
            b"HTTP/1.1 413 "
        )
        chunks = (
            b"POST /invocations HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
            + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 17
        )
        assert b"413" in told(talk(port, chunks))[:20]
        assert told(slow["head"]).startswith(b"HTTP/1.1 408 ")
        assert told(slow["body"]).startswith(b"HTTP/1.1 408 ")
        assert told(slow["idle"]) == b"", "a connection without a request is closed"
        half = told(talk(port, good, close=True))
        assert half.startswith(b"HTTP/1.1 200 "), "a client that has said all still gets its answer"
        assert half.count(b"x-model-version: 1") == 1
        many = told(talk(port, good * 5 + good.replace(b"host: x", b"host: x\r\nconnection: close")))
        assert many.count(b"HTTP/1.1 200 ") == 6, "requests in one piece are answered in turn"
        expect = good.replace(b"host: x", b"host: x\r\nexpect: 100-continue\r\nconnection: close")
        assert told(talk(port, expect)).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
        offer = b"host: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk"
        last = good.replace(b"host: x", b"host: x\r\nconnection: close")
        version = b"GET /version HTTP/1.1\r\n" + offer + b"\r\n\r\n"
        passed = told(talk(port, good.replace(b"host: x", offer) + version + last))
        assert re.findall(rb"HTTP/1.1 (\d+)", passed) == [b"200"] * 3, "as Java's client and curl --http2 ask first"
        assert told(talk(port, b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n")).count(b"HTTP/1.1 ") == 1
        old = told(talk(port, good.replace(b"HTTP/1.1", b"HTTP/1.0")))
        assert old.startswith(b"HTTP/1.1 200 ")
        assert told(talk(port, b"HEAD /version HTTP/1.1\r\nconnection: close\r\n\r\n")).endswith(b"\r\n\r\n")
        crowd = [talk(port, b"GET") for _ in range(12)]
        wait_until(lambda: told(talk(port, good)).startswith(b"HTTP/1.1 503 "))
        for one in crowd:
            one.close()
        wait_until(lambda: running.ask("/invocations", body_of())[0] == 200)


def test_what_is_not_taken_over_of_a_changed_file_is_said(tmp_path: Path, servers: list[Server]) -> None:
    port, config = free_port(), tmp_path / "gateway.yaml"
    right = (
        f"apiVersion: mlp-ci/v1\nport: {port}\nlimits: {{body_mb: 1}}\nroutes:\n"
        f'  - {{model: flights, arms: [{{version: 1, url: "{servers[0].url}"}}]}}\n'
    )
    config.write_text(right)
    with gateway(tmp_path / "g", arguments=("--config", str(config), "--port", str(port))) as running:
        config.write_text("routes: 7\n")  # a broken file changes nothing, and says so
        said = tmp_path / "g" / "gateway.log"
        wait_until(lambda: b"is not taken over" in said.read_bytes())
        assert running.ask("/invocations", body_of())[0] == 200
        assert running.metric("mlp_config_stale") == 1
        config.unlink()
        wait_until(lambda: b"gateway.yaml is not taken over: the file is gone" in said.read_bytes())
        config.write_text(right)
        wait_until(lambda: b"gateway.yaml is taken over" in said.read_bytes())
        assert running.metric("mlp_config_stale") == 0
        assert b"needs a restart" not in said.read_bytes()
        config.write_text(right.replace("body_mb: 1", "body_mb: 2").replace(f"port: {port}", "port: 1"))
        wait_until(lambda: b"gateway.yaml: port, limits changed, which needs a restart" in said.read_bytes())


def test_a_client_that_does_not_read_holds_up_nobody(tmp_path: Path, servers: list[Server]) -> None:
    rows = json.dumps({"dataframe_records": [{"a": 1.0}] * 60_000}).encode()
    head = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(rows)
    with gateway(tmp_path / "g", route((1, "stable", 100, servers[0].url))) as running:
        deaf = [talk(running.port, head + rows) for _ in range(3)]
        for _ in range(3):
            began = time.monotonic()
            assert running.ask()[0] == 200
            assert time.monotonic() - began < 5 * slowness()
        for one in deaf:
            one.close()


def test_a_full_disk_costs_rows_and_counts_them_and_no_answer(tmp_path: Path, servers: list[Server]) -> None:
    running = Running(tmp_path / "g")
    plan = route((1, "stable", 100, servers[0].url), log={**logged(running), "root": "/dev/full/log"})
    with gateway(tmp_path / "g", plan) as running:
        assert [running.ask()[0] for _ in range(3)] == [200] * 3
        wait_until(lambda: running.metric("mlp_log_lost_total") == 3)
        assert running.metric("mlp_log_rows_total") == 0
        assert "rows of the prediction log are lost" in (tmp_path / "g" / "gateway.log").read_text()


def test_a_stuck_recorder_costs_rows_and_no_answer(tmp_path: Path, servers: list[Server]) -> None:
    running = Running(tmp_path / "g")
    with gateway(tmp_path / "g", route((1, "stable", 100, servers[0].url), log=logged(running))) as running:
        running.ask()
        assert running.process is not None
        wait_until(lambda: running.metric("mlp_log_rows_total") == 1)
        (recorder,) = children(running.process.pid)
        os.kill(recorder, signal.SIGSTOP)
        try:
            assert [running.ask()[0] for _ in range(5)] == [200] * 5
        finally:
            os.kill(recorder, signal.SIGCONT)
        wait_until(lambda: running.metric("mlp_log_rows_total") == 6)


def test_a_port_in_use_and_nonsense_are_said_at_once(tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "mlp_ci", "gateway", *arguments], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = run("--upstream", "http://127.0.0.1:9", "--port", port)
        assert (code, f"127.0.0.1:{port} cannot be listened on: Address already in use" in said) == (7, True)
        own = [sys.executable, "-m", "mlp_ci.serve.gateway", "--upstream", "http://127.0.0.1:9", "--port", port]
        assert subprocess.run(own, capture_output=True, check=False).returncode == 98
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "apiVersion: mlp-ci/v1\nroutes:\n"
        "  - {model: a, arms: [{url: 'http://x:1', wieght: 3}]}\n"
        "  - {model: b, arms: [{url: 'ftp://x'}]}\n"
    )
    code, said = run("--config", str(config))
    assert code == 2
    assert "gateway.yaml:3:" in said
    assert "did you mean `weight`" in said
    assert "gateway.yaml:4:" in said
    assert "an address such as http://127.0.0.1:8081" in said
    assert "^https" not in said
    config.write_text(
        "apiVersion: mlp-ci/v1\nroutes:\n"
        "  - {model: a, arms: [{version: 2, url: 'http://x:1'}, {version: 2, url: 'http://y:1'}]}\n"
    )
    assert "two arms are stable of version 2" in run("--config", str(config))[1]
    config.write_text(
        "apiVersion: mlp-ci/v1\nroutes:\n"
        "  - {model: a, arms: [{url: 'http://x:1'}]}\n"
        "  - {model: b, arms: [{url: 'http://x:1'}]}\n"
    )
    assert "route 2 gets no request: route 1 before it matches all of them" in run("--config", str(config))[1]
    assert run("--upstream", "http://127.0.0.1:9", "--log", "x", "--columns", "a")[0] == 2
