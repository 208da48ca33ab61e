"""The gateway in front of a fast server, next to nginx as a proxy: throughput, what it adds at 1,000 req/s, the log.

Needs wrk and nginx. The server is ours with an ONNX model, so that it is not what limits. Besides requests per second:
the processor time that a request costs the proxy (with the process that writes the log), which says the same on a busy
machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from serve import BODY, CONNECTIONS, Measured, _ended, _first_answer, _onnx, _server, measured

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE = 1000  # requests per second where time is measured
PACED_SECONDS = 3
ROUNDS = 3
FIGURES = {"rate": 0, "p50": 2, "p99": 2, "cost": 0}  # of a load, with their digits
NGINX = """\
worker_processes 1;
daemon off;
user root;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_body_buffer_size 64k;
  keepalive_requests 1000000;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""
Running = tuple[subprocess.Popen[bytes], int]


@dataclass
class Row:
    """What the rounds of one proxy gave: under as much load as goes; p50 and p99 in milliseconds at a fixed rate."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    loads: list[Measured] = field(default_factory=list)
    paced: list[tuple[float, float]] = field(default_factory=list)

    def load(self, figure: str) -> float:
        return median(getattr(load, figure) for load in self.loads)

    @property
    def p50(self) -> float:
        return median(p50 for p50, _ in self.paced)


def main() -> None:
    """Measure all in front of the same server, in turn and in rounds, and print the medians with what each adds."""
    if sys.argv[1:2] == ["--paced"]:
        print(json.dumps(asyncio.run(_paced(sys.argv[2]))))
        return
    for tool in ("wrk", "nginx"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not on this machine: apt install {tool}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = _rounds(folder)
        logged = sum(_rows_of(part) for part in (folder / "logged").rglob("part-*.parquet"))
    alone, _, plain, with_log, _ = rows
    print(
        f"{CONNECTIONS} connections, {os.cpu_count()} cores shared with wrk; then {RATE} req/s, paced; {ROUNDS} rounds"
    )
    print(f"{'':30}{'req/s':>8}{'p50 ms':>8}{'p99 ms':>8}{'CPU µs':>8}{'paced p50':>11}{'added':>8}{'p99':>8}")
    for row in rows:
        figures = "".join(f"{row.load(figure):8.{digits}f}" for figure, digits in FIGURES.items())
        figures += f"{row.p50:11.2f}{row.p50 - alone.p50:8.2f}{median(p99 for _, p99 in row.paced):8.2f}"
        print(f"{row.name:30}{figures}")
    shares = sorted(1 - two.rate / one.rate for one, two in zip(plain.loads, with_log.loads, strict=True))
    print(
        f"the log costs {median(shares):.1%} of throughput ({shares[0]:.1%} to {shares[-1]:.1%}); it has {logged} rows"
    )


def _rounds(folder: Path) -> list[Row]:
    """All proxies run all the time, those that nobody asks cost nothing; a busy moment hits one round of one."""
    with contextlib.ExitStack() as stack:
        server, port, began = stack.enter_context(_server(_onnx(folder / "onnx")))
        _first_answer(port, began)
        rows = [Row("the server itself", server, port)]
        for name, running in (
            ("nginx in front", _nginx(port, folder)),
            ("our gateway in front", _gateway(port, folder / "plain")),
            ("… with the prediction log", _gateway(port, folder / "logged", log=True)),
            ("… that splits 90:10 by user", _gateway(port, folder / "split", split=True)),
        ):
            rows.append(Row(name, *stack.enter_context(running)))
        for _ in range(ROUNDS):
            for row in rows:
                row.loads.append(measured(row.process, row.port, time.perf_counter(), folder))
                command = [sys.executable, __file__, "--paced", str(row.port)]
                told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
                row.paced.append((told[0], told[1]))
                if told[2]:
                    print(f"{row.name}: {told[2]} paced requests had no good answer, the machine is too busy")
    return rows


async def _paced(port: str) -> tuple[float, float, int]:
    """Ask at fixed times, whether or not earlier answers have come: p50, p99, and how many had no good answer."""
    from mlp_ci.serve.gateway.upstream import Upstream, UpstreamDown, UpstreamSlow

    upstream, times, body = Upstream(f"http://127.0.0.1:{port}"), list[float](), json.dumps(BODY).encode()
    bad = 0

    async def one() -> None:
        nonlocal bad
        sent = time.perf_counter()
        try:
            bad += (await upstream.post(body)).status != 200
        except (UpstreamDown, UpstreamSlow):
            bad += 1
        times.append((time.perf_counter() - sent) * 1000)

    began, tasks = time.perf_counter(), set[asyncio.Task[None]]()
    for n in range(RATE * PACED_SECONDS):
        if (left := began + n / RATE - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        tasks.add(asyncio.create_task(one()))
        tasks = {task for task in tasks if not task.done()} if n % 64 == 0 else tasks
    await asyncio.gather(*tasks)
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100], bad


@contextlib.contextmanager
def _nginx(upstream: int, folder: Path) -> Iterator[Running]:
    port = _port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, upstream=upstream, port=port))
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(config)], start_new_session=True)
    try:
        yield process, port
    finally:
        _ended(process)


@contextlib.contextmanager
def _gateway(upstream: int, folder: Path, *, log: bool = False, split: bool = False) -> Iterator[Running]:
    folder.mkdir()
    url, port = f"http://127.0.0.1:{upstream}", _port()
    arms = [{"version": 1, "arm": "stable", "weight": 90 if split else 100, "url": url}]
    if split:  # two names of one server: what is measured is the choice
        arms.append({"version": 2, "arm": "canary", "weight": 10, "url": f"http://localhost:{upstream}"})
    logging = {"root": str(folder / "log"), "columns": dict.fromkeys("abcd", "float")} if log else {}
    route: dict[str, Any] = {"model": "bench", "stage": "production", "arms": arms, "log": logging}
    (folder / "gateway.json").write_text(json.dumps({"routes": [{**route, "sticky": "a" if split else None}]}))
    command = [sys.executable, "-m", "mlp_ci.serve.gateway", "--state", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, start_new_session=True)
    _first_answer(port, time.perf_counter())
    while log and not list(folder.rglob("part-*.parquet")):  # what writes the log has been imported
        time.sleep(0.1)
    try:
        yield process, port
    finally:
        process.terminate()  # in good order: the log is to be complete
        process.wait(20)


def _rows_of(part: Path) -> int:
    from pyarrow import parquet

    return int(parquet.read_metadata(part).num_rows)


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
