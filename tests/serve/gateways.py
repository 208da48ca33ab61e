"""A real gateway process in front of servers that behave as a test wants, for the tests of the gateway."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import duckdb

from tests.serving import slowness, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "t0ken"
BODY = {"dataframe_split": {"columns": ["distance", "carrier", "user"], "data": [[100.0, "UA", "u1"]]}}


class Quiet(ThreadingHTTPServer):
    """A model server by the standard library; clients that go away are no news."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@dataclass
class Server:
    """Answers every row with ``value``; ``status``, ``delay`` and ``raw`` make it misbehave."""

    value: float = 1.0
    status: int = 200
    delay: float = 0.0
    raw: bytes | None = None  # sent instead of an answer, and the connection closed
    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str, body: bytes) -> Any:
        document = json.loads(body)
        if "/infer" in path:
            count = document["inputs"][0]["shape"][0]
            return {"outputs": [{"name": "p", "datatype": "FP64", "shape": [count], "data": [self.value] * count}]}
        rows = document.get("dataframe_records") or document["dataframe_split"]["data"]
        return {"predictions": [self.value] * len(rows)}

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        server = Quiet(("127.0.0.1", self.port), _handler(self))
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._say(200, {"page": self.path})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            server.heard.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            time.sleep(server.delay)
            if server.raw is not None:
                self.wfile.write(server.raw)
                self.close_connection = True
            elif server.status != 200:
                self._say(server.status, {"error_code": "X", "message": "no"})
            else:
                self._say(200, server.answer(self.path, body))

        def _say(self, status: int, value: Any) -> None:
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@dataclass
class Running:
    """A gateway process and its folder."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def configure(self, *routes: dict[str, Any], generation: int = 1) -> None:
        """Write gateway.json, and have it followed if the gateway runs."""
        scratch = self.folder / ".gateway.json"
        scratch.write_text(json.dumps({"generation": generation, "routes": list(routes)}))
        scratch.replace(self.folder / "gateway.json")
        if self.process is not None:
            assert self.admin("/admin/reload", post=True)["generation"] == generation

    def admin(self, path: str, *, post: bool = False) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        status, _, answer = self.ask(path, None if not post else b"", headers=headers)
        assert status == 200, answer
        return answer

    def ask(
        self, path: str = "/invocations", body: bytes | None = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """One request on a connection of its own; a body of one row if none is given."""
        sent = json.dumps(BODY).encode() if body == b"" and path.endswith("/invocations") else body
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30 * slowness())
        try:
            method = "GET" if sent is None else "POST"
            connection.request(method, path, sent, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        with contextlib.suppress(ValueError):
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(text)
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, text

    def seen(self, version: int) -> Any:
        return self.admin("/admin/measured")["versions"][str(version)]

    def rows(self) -> list[dict[str, Any]]:
        """The prediction log, by request id."""
        if not list(self.log.rglob("part-*.parquet")):
            return []
        # A column may be called as a folder of the log is, such as hour: what counts is the file.
        how = "union_by_name = true, hive_partitioning = false"
        found = duckdb.sql(f"SELECT * FROM read_parquet('{self.log}/**/part-*.parquet', {how})")
        names = [d[0] for d in found.description]
        return sorted((dict(zip(names, row, strict=True)) for row in found.fetchall()), key=lambda r: r["request_id"])

    def metric(self, name: str) -> float:
        """The sum of a metric over all its labels."""
        lines = [
            line for line in self.ask("/metrics", None)[2].splitlines() if line.startswith((f"{name}{{", f"{name} "))
        ]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20 * slowness())


@contextlib.contextmanager
def gateway(folder: Path, *routes: dict[str, Any], arguments: tuple[str, ...] = ()) -> Iterator[Running]:
    """A gateway that has begun to answer; ended at the end, with its recorder."""
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(TOKEN)
    made = Running(folder)
    if routes:
        made.configure(*routes)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        made.port = listener.getsockname()[1]
        own = () if arguments else ("--state", str(folder), "--fd", str(listener.fileno()))
        made.port = int(arguments[arguments.index("--port") + 1]) if arguments else made.port
        with (folder / "gateway.log").open("wb") as log:
            made.process = subprocess.Popen(
                [sys.executable, "-m", "mlp_ci.serve.gateway", *own, *arguments],
                pass_fds=[listener.fileno()],
                stderr=log,
            )
    try:
        wait_until(lambda: _answers(made))
        yield made
    finally:
        recorders = children(made.process.pid)
        if made.process.poll() is None:
            made.stop()
        wait_until(lambda: not any(alive(pid) for pid in recorders))


def _answers(made: Running) -> bool:
    assert made.process is not None
    assert made.process.poll() is None, (made.folder / "gateway.log").read_text()
    try:
        return made.ask("/v2/health/live", None)[0] == 200
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """The processes that ``pid`` started."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123
            return [int(p) for p in file.read().split()]
    except FileNotFoundError:
        return []


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def route(*arms: tuple[int, str, float, str], **more: Any) -> dict[str, Any]:
    """A route of gateway.json; an arm is version, name, weight and address."""
    made = [{"version": v, "arm": a, "weight": w, "url": u} for v, a, w, u in arms]
    return {"model": "flights", "stage": "production", "arms": made, **more}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def logged(running: Running, sample: float = 1.0) -> dict[str, Any]:
    """The log part of a route."""
    return {"root": str(running.log), "columns": {"distance": "float", "carrier": "string"}, "sample": sample}


def body_of(**values: Any) -> bytes:
    """A request of one record."""
    return json.dumps({"dataframe_records": [{"distance": 1.0, "carrier": "UA", **values}]}).encode()
