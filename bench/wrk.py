"""wrk as the load: 16 connections that ask without pause, and how many of their requests had no good answer.

Not a benchmark itself. wrk tells two kinds of failure apart: answers that are no 2xx or 3xx, and sockets that broke.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

CONNECTIONS = 16
LONGEST = 120  # seconds; no load goes on for longer, whatever happens to who started it
SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{body}'
"""


@dataclass(frozen=True)
class Told:
    """What wrk said at its end."""

    requests: int
    failed: int
    per_second: float
    text: str


class Load:
    """Load on an address while the ``with`` block runs; ``told`` is there after it."""

    told: Told

    def __init__(self, address: str, body: Any, connections: int = CONNECTIONS) -> None:
        if not shutil.which("wrk"):
            sys.exit("wrk is not on this machine: apt install wrk")
        self.url, self.body, self.connections = f"{address}/invocations", json.dumps(body), connections

    def __enter__(self) -> Load:
        self._folder = tempfile.TemporaryDirectory()
        script = Path(self._folder.name) / "post.lua"
        script.write_text(SCRIPT.format(body=self.body))
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{LONGEST}s", "--timeout", "10s", "-s", str(script)]
        self._process = subprocess.Popen([*command, self.url], stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGINT)  # it ends, and says what it counted
        text = self._process.communicate(timeout=30)[0]
        self._folder.cleanup()
        if kind is None:
            self.told = read(text)


def read(text: str) -> Told:
    """The counts in wrk's report."""
    requests = re.search(r"(\d+) requests in", text)
    if requests is None:
        sys.exit(f"wrk said what cannot be read:\n{text}")
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    answers = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed = sum(map(int, sockets.groups())) if sockets else 0
    failed += int(answers.group(1)) if answers else 0
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    return Told(int(requests.group(1)), failed, float(rate.group(1)) if rate else 0.0, text)
