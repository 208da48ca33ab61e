"""Ten minutes of every kind of request, good and bad: whether the memory of server and gateway stays flat.

``--seconds N`` for another length. Rows one by one and by the hundred, tensors, CSV, wrong columns, broken JSON, pages
and counts, and clients that connect and say nothing. Exits 1 when memory grows, or a good request is not answered.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 16
GOOD = 6 / 11  # share of the requests that are to be answered with 200
WARM = 0.2  # share of the time in which memory may still settle
GROWTH = 0.05  # of its memory that a process may have gained from there to the end
LUA = """\
local kinds = {{{kinds}}}
local turn, counted = 0, {{}}
statuses = ""
function request()
  turn = turn % #kinds + 1
  local kind = kinds[turn]
  return wrk.format(kind[1], kind[2], {{["Content-Type"] = kind[3]}}, kind[4])
end
function response(status)
  counted[status] = (counted[status] or 0) + 1
  statuses = ""
  for code, count in pairs(counted) do statuses = statuses .. code .. ":" .. count .. " " end
end
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function done() for _, thread in ipairs(threads) do print("statuses " .. thread:get("statuses")) end end
"""


@dataclass
class Watch:
    """The memory of processes, once a second, in MB; a name's children count with it."""

    pids: dict[str, int]
    seen: dict[str, list[float]] = field(default_factory=dict)

    def look(self) -> None:
        import psutil

        for name, pid in self.pids.items():
            own = psutil.Process(pid)
            total = sum(p.memory_info().rss for p in (own, *own.children(recursive=True)))
            self.seen.setdefault(name, []).append(total / 2**20)

    def grown(self, name: str) -> float:
        """How much more there is at the end than when it had settled, as a share: medians of a tenth of the time."""
        values = self.seen[name]
        tenth = max(3, len(values) // 10)
        settled = int(len(values) * WARM)
        first = sorted(values[settled : settled + tenth])[tenth // 2]
        last = sorted(values[-tenth:])[tenth // 2]
        return last / first - 1


def requests() -> list[tuple[str, str, str, str]]:
    """Method, path, content type and body of each kind; the first six are good."""
    json_type = "application/json"
    row = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    split = {"columns": list(row), "data": [list(row.values())]}
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": list(row.values())}
    return [
        ("POST", "/invocations", json_type, json.dumps({"dataframe_split": split})),
        ("POST", "/invocations", json_type, json.dumps({"dataframe_records": [row] * 100})),
        ("POST", "/v2/models/model/infer", json_type, json.dumps({"inputs": [tensor]})),
        ("POST", "/invocations", "text/csv", "a,b,c,d\n" + "1,2,3,4\n" * 20),
        ("GET", "/health", json_type, ""),
        ("GET", "/metrics", json_type, ""),
        ("POST", "/invocations", json_type, json.dumps({"inputs": {"a": [random.random()]}})),
        ("POST", "/invocations", json_type, json.dumps({"dataframe_records": [{**row, "a": "far"}]})),
        ("POST", "/invocations", json_type, '{"dataframe_split": '),
        ("POST", "/invocations", json_type, json.dumps({"inputs": "x" * 100_000})),
        ("GET", f"/nowhere/{random.random()}", json_type, ""),
    ]


def load(port: int, seconds: float, folder: Path) -> tuple[int, dict[int, int]]:
    """wrk over all kinds; requests in all, and how often which status came."""
    kinds = ", ".join("{" + ", ".join(json.dumps(part) for part in kind) + "}" for kind in requests())
    script = folder / f"soak-{port}.lua"
    script.write_text(LUA.format(kinds=kinds))
    url = f"http://127.0.0.1:{port}"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", str(script), url]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    statuses = {int(code): int(count) for code, count in re.findall(r"(\d+):(\d+)", text.partition("statuses ")[2])}
    if "Socket errors" in text:
        print(text)
        statuses[0] = 1
    return int(re.findall(r"(\d+) requests in", text)[0]), statuses


def idle_clients(ports: list[int], until: float) -> None:
    """Clients that connect, say half of something or nothing, and are forgotten."""
    held: list[socket.socket] = []
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            one = socket.create_connection(("127.0.0.1", random.choice(ports)), timeout=1)
            one.sendall(random.choice([b"", b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"]))
            held.append(one)
        if len(held) > 50:
            held.pop(0).close()
        time.sleep(0.05)
    for one in held:
        one.close()


@contextlib.contextmanager
def gateway(upstream: int, folder: Path) -> Iterator[tuple[int, int]]:
    """The gateway as a sidecar with a prediction log: its port and process id."""
    from serve import _port

    port = _port()
    command = [sys.executable, "-m", "mlp_ci.serve.gateway", "--upstream", f"http://127.0.0.1:{upstream}"]
    command += ["--port", str(port), "--log", str(folder / "log"), "--columns", "a:float,b:float"]
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(1000):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                yield port, process.pid
                return
            time.sleep(0.02)
        sys.exit(f"the gateway does not listen: {(folder / 'gateway.log').read_text()}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def soak(seconds: float, folder: Path) -> int:
    """Half of the load on the server itself, half through the gateway; 1 when something is wrong."""
    from serve import _first_answer, _model, _server

    model = _model(folder / "model")
    with _server(model) as (process, port, began), gateway(port, folder) as (front, front_pid):
        _first_answer(port, began)
        watch = Watch({"server": process.pid, "gateway": front_pid})
        results: dict[str, Any] = {}

        def ask(name: str, to: int) -> None:
            results[name] = load(to, seconds, folder)

        until = time.monotonic() + seconds
        threads = [threading.Thread(target=ask, args=one) for one in (("server", port), ("gateway", front))]
        threads.append(threading.Thread(target=idle_clients, args=([port, front], until)))
        for thread in threads:
            thread.start()
        while time.monotonic() < until:
            watch.look()
            time.sleep(min(1.0, seconds / 40))
        for thread in threads:
            thread.join()
        return told(watch, results, seconds)


def told(watch: Watch, results: dict[str, Any], seconds: float) -> int:
    """Print the figures; 1 when memory grew or the answers are not those that were to be expected."""
    wrong = 0
    print(f"{seconds:.0f} s, {2 * CONNECTIONS} connections, {os.cpu_count()} cores")
    print(f"{'':10}{'requests':>10}{'MB settled':>12}{'MB at end':>12}{'MB at most':>12}{'grown':>8}  statuses")
    for name, values in watch.seen.items():
        count, statuses = results[name]
        settled, grown = values[int(len(values) * WARM)], watch.grown(name)
        shown = " ".join(f"{code}: {n}" for code, n in sorted(statuses.items()))
        print(f"{name:10}{count:10}{settled:12.1f}{values[-1]:12.1f}{max(values):12.1f}{grown:8.1%}  {shown}")
        if grown > GROWTH:
            print(f"the memory of the {name} grows")
            wrong = 1
        if not statuses or not set(statuses) <= {200, 400, 404} or abs(statuses[200] - count * GOOD) > 2 * CONNECTIONS:
            print(f"the {name} gave other answers than it should have")
            wrong = 1
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not on this machine: apt install wrk")
    with tempfile.TemporaryDirectory() as name:
        return soak(options.seconds, Path(name))


if __name__ == "__main__":
    sys.exit(main())
