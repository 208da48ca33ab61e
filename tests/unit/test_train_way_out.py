"""The way from a container without network to MLflow: the real programs of both sides, without a container."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlp_ci.train.backends import inside, way_out
from tests.conftest import free_port


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = {"path": self.path, "method": self.command, "headers": dict(self.headers), "bytes": len(body)}
        answer = json.dumps(asked).encode()
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def mlflow() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def port(mlflow: int) -> Iterator[int]:
    """Where the command inside reaches MLflow; the process that carries it is ended by its parent's signal."""
    here = free_port()
    with way_out.to_mlflow(f"http://ann:opensesame@127.0.0.1:{mlflow}/base/", {}) as folder:
        place = str(folder / way_out.SOCKET)
        carrier = subprocess.run([sys.executable, inside.__file__, place, str(here)], check=True, timeout=20)
        assert carrier.returncode == 0
        yield here
        end_carrier(place)
    assert not folder.exists()


def end_carrier(place: str) -> None:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode().split("\0")
        except OSError:
            continue
        if inside.__file__ in words and place in words:
            subprocess.run(["kill", process.parent.name], check=True)


def ask(port: int, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, object]]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, body, headers)  # type: ignore[arg-type]
        answer = connection.getresponse()
        raw = answer.read()
        return answer.status, json.loads(raw) if raw else {}


def test_requests_reach_mlflow_and_nothing_else(port: int, mlflow: int) -> None:
    status, seen = ask(port, "GET", "/api/2.0/x?y=1", Host="metadata.internal", Authorization="mine", X_Kind="1")
    assert status == 200
    assert seen["path"] == "/base/api/2.0/x?y=1"
    headers = dict(seen["headers"])  # type: ignore[call-overload]
    assert headers["Host"] == f"127.0.0.1:{mlflow}", "the command chose where to go"
    assert headers["Authorization"].startswith("Basic "), "the credentials of the job are added outside"
    assert headers["X_Kind"] == "1"
    assert ask(port, "GET", "/missing")[0] == 404
    assert ask(port, "HEAD", "/x") == (200, {})
    assert (
        ask(port, "POST", "http://127.0.0.1:1/elsewhere", b"{}")[1]["path"] == "/base" + "http://127.0.0.1:1/elsewhere"
    )


def test_large_bodies_pass_in_both_forms(port: int) -> None:
    size = 3_000_000
    assert ask(port, "PUT", "/file", b"x" * size)[1]["bytes"] == size
    chunks = (b"y" * 100_000 for _ in range(30))
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("PUT", "/file", chunks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        assert json.loads(connection.getresponse().read())["bytes"] == size


def test_many_at_once(port: int) -> None:
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(ask(port, "GET", "/x")[0])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [200] * 20


def test_mlflow_that_is_away_is_an_answer_not_a_silence() -> None:
    here = free_port()
    with way_out.to_mlflow(f"http://127.0.0.1:{free_port()}", {"MLFLOW_TRACKING_TOKEN": "t"}) as folder:
        place = str(folder / way_out.SOCKET)
        subprocess.run([sys.executable, inside.__file__, place, str(here)], check=True, timeout=20)
        began = time.monotonic()
        with closing(http.client.HTTPConnection("127.0.0.1", here, timeout=20)) as connection:
            connection.request("GET", "/x")
            answer = connection.getresponse()
            assert answer.status == 502
            assert b"MLflow cannot be reached" in answer.read()
        assert time.monotonic() - began < 10
        end_carrier(place)
