"""The one stable address of a model in a stage: ``python -m mlp_ci.serve.gateway --state FOLDER (--fd N | --port N)``.

Splits requests over the arms that ``gateway.json`` names, asks again elsewhere when a server is dead, measures, and
hands every answered request to the prediction log. The file is replaced in one step and read again within 50 ms, or
at once on ``POST /admin/reload`` (loopback only, with the token of ``FOLDER/token``); once that call has returned,
every new request goes to the new arms, and what is under way ends where it began.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import random
import re
import socket
import sys
import time
import uuid
from bisect import bisect_left
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlp_ci import clock
from mlp_ci.errors import InputError
from mlp_ci.serve.listening import bind, serve
from mlp_ci.serve.log import Exchange, LogPlan, PredictionLog
from mlp_ci.serve.payload import BODY_LIMIT
from mlp_ci.serve.state import read_json
from mlp_ci.serve.upstream import Answer, Upstream, UpstreamDown, UpstreamSlow

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PATIENCE = 5.0  # how long a request waits for a server that is being restarted
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")


@dataclass
class Counts:
    """What one version answered since the gateway started. ``errors``: its own faults, not bad requests."""

    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))

    def add(self, seconds: float, *, error: bool) -> None:
        self.requests += 1
        self.errors += error
        self.seconds += seconds
        self.buckets[bisect_left(BUCKETS, seconds)] += 1


@dataclass(frozen=True)
class Arm:
    """One share of the traffic, ready to use."""

    version: int
    arm: str
    weight: int
    upstream: Upstream


@dataclass
class Gateway:
    """The ASGI application and what it knows."""

    folder: Path
    arms: list[Arm] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    counts: dict[tuple[int, str], Counts] = field(default_factory=dict)
    draining: list[Arm] = field(default_factory=list)
    unanswered: int = 0
    log: PredictionLog | None = None
    _seen: tuple[int, int] | None = None

    # ------------------------------------------------------------ configuration

    def reload(self) -> None:
        """Take over ``gateway.json`` if it is another file than last time; a broken one changes nothing."""
        file = self.folder / "gateway.json"
        try:
            stat = file.stat()
        except FileNotFoundError:
            return
        if (stat.st_ino, stat.st_mtime_ns) == self._seen:
            return
        plan = read_json(file)
        try:
            self._adopt(plan)
        except (KeyError, TypeError, ValueError) as error:
            print(f"gateway.json is not taken over: {error!r}", file=sys.stderr)
            return
        self._seen = (stat.st_ino, stat.st_mtime_ns)

    def _adopt(self, plan: dict[str, Any]) -> None:
        arms = [
            Arm(int(a["version"]), str(a["arm"]), int(a["weight"]), self.upstreams.get(a["url"]) or Upstream(a["url"]))
            for a in plan["arms"]
        ]
        logging = LogPlan.from_json(plan["log"], plan["model"], plan["stage"])
        if logging and (self.log is None or self.log.plan != logging):
            before, self.log = self.log, PredictionLog(logging)
            self.log.start()
            if before:
                before.close()
        current = {arm.upstream.url: arm.upstream for arm in arms}
        for url, upstream in self.upstreams.items():
            if url not in current:
                upstream.retire()
        self.draining = [a for a in (*self.draining, *self.arms) if a.upstream.retired and a.upstream.in_flight]
        self.arms, self.plan, self.upstreams = arms, plan, current

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.reload()

    # ------------------------------------------------------------ requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        if path == "/invocations":
            if method != "POST":
                await _reply(send, 405, {"error_code": "BAD_REQUEST", "message": "use POST"})
                return
            await self._invoke(scope, receive, send)
        elif path in ("/health", "/ping"):
            ready = bool(self.arms)
            await _reply(
                send, 200 if ready else 503, {"status": "ok" if ready else "nothing is deployed", **self._facts()}
            )
        elif path == "/version":
            await _reply(send, 200, self._facts())
        elif path == "/metrics":
            await _send(send, 200, b"text/plain; version=0.0.4; charset=utf-8", self.metrics().encode())
        elif path == "/admin/reload" and method == "POST" and self._is_admin(scope):
            self.reload()
            await _reply(send, 200, self._state())
        elif path == "/admin/state" and self._is_admin(scope):
            await _reply(send, 200, self._state())
        else:
            await _reply(
                send, 404, {"error_code": "NOT_FOUND", "message": "there is /invocations, /health, /version, /metrics"}
            )

    async def _invoke(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        body = await _read_body(receive)
        if body is None:
            message = f"the body is larger than {BODY_LIMIT // 2**20} MiB; send fewer rows at a time"
            await _reply(send, 413, {"error_code": "BAD_REQUEST", "message": message})
            return
        request_id = _request_id(scope)
        try:
            arm, answer = await self._ask(body)
        except (UpstreamDown, UpstreamSlow) as error:
            self.unanswered += 1
            slow = isinstance(error, UpstreamSlow)
            message = "the model did not answer in time" if slow else "no server of this model answers right now"
            headers = [(b"retry-after", b"1"), (b"x-request-id", request_id.encode())]
            await _reply(send, 504 if slow else 503, {"error_code": "UNAVAILABLE", "message": message}, headers)
            return
        seconds = time.perf_counter() - started
        self._count(arm, seconds, error=answer.status >= 500)
        headers = [(b"x-request-id", request_id.encode()), (b"x-model-version", str(arm.version).encode())]
        await _send(send, answer.status, answer.content_type, answer.body, headers)
        if self.log is not None and answer.status == 200:
            self._record(self.log, (arm, request_id, seconds * 1000), body, answer.body)

    def _record(self, log: PredictionLog, who: tuple[Arm, str, float], body: bytes, answer: bytes) -> None:
        """Hand an answered request to the log; the client has its answer, whatever happens here."""
        arm, request_id, latency = who
        try:
            log.add(Exchange(clock.now(), request_id, arm.version, arm.arm, latency, body, answer))
        except (OSError, InputError):  # the project's clock cannot be read
            log.lost += 1

    async def _ask(self, body: bytes) -> tuple[Arm, Answer]:
        """One arm's answer. Predictions change nothing, so a dead server's request goes to another arm."""
        if not self.arms:
            msg = "nothing is deployed"
            raise UpstreamDown(msg)
        deadline = time.perf_counter() + PATIENCE
        blamed: set[int] = set()
        while True:
            first = _pick(self.arms)
            for arm in [first, *(a for a in self.arms if a is not first)] if first else []:
                try:
                    return arm, await arm.upstream.post(body)
                except UpstreamDown:
                    if arm.version not in blamed:
                        blamed.add(arm.version)
                        self._count(arm, 0.0, error=True)
            if time.perf_counter() > deadline:
                msg = "no server answers"
                raise UpstreamDown(msg)
            await asyncio.sleep(0.05)

    def _count(self, arm: Arm, seconds: float, *, error: bool) -> None:
        self.counts.setdefault((arm.version, arm.arm), Counts()).add(seconds, error=error)

    # ------------------------------------------------------------ what it tells

    def _facts(self) -> dict[str, Any]:
        return {
            "model": self.plan.get("model"),
            "stage": self.plan.get("stage"),
            "generation": self.plan.get("generation"),
            "arms": [{"version": a.version, "arm": a.arm, "weight": a.weight} for a in self.arms],
        }

    def _state(self) -> dict[str, Any]:
        """For the commands: what is configured, what each version answered, what is under way."""
        totals: dict[int, Counts] = {}
        for (version, _), counts in self.counts.items():
            total = totals.setdefault(version, Counts())
            total.requests += counts.requests
            total.errors += counts.errors
        return {
            **self._facts(),
            "counts": {str(v): {"requests": c.requests, "errors": c.errors} for v, c in totals.items()},
            "draining": sorted({a.version for a in self.draining if a.upstream.in_flight}),
            "log": {"written": self.log.written, "lost": self.log.lost} if self.log else None,
        }

    def metrics(self) -> str:
        """All counts in Prometheus' text format."""
        common = f'model="{self.plan.get("model", "")}",stage="{self.plan.get("stage", "")}"'
        lines = ["# TYPE mlp_requests_total counter", "# TYPE mlp_errors_total counter"]
        lines.append("# TYPE mlp_request_seconds histogram")
        for (version, arm), counts in sorted(self.counts.items()):
            labels = f'{common},version="{version}",arm="{arm}"'
            lines.append(f"mlp_requests_total{{{labels}}} {counts.requests}")
            lines.append(f"mlp_errors_total{{{labels}}} {counts.errors}")
            below = 0
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts.buckets, strict=True):
                below += count
                lines.append(f'mlp_request_seconds_bucket{{{labels},le="{bound}"}} {below}')
            lines.append(f"mlp_request_seconds_sum{{{labels}}} {counts.seconds:.6f}")
            lines.append(f"mlp_request_seconds_count{{{labels}}} {counts.requests}")
        lines.append(f"# TYPE mlp_unanswered_total counter\nmlp_unanswered_total{{{common}}} {self.unanswered}")
        flying = sum(a.upstream.in_flight for a in self.arms)
        lines.append(f"# TYPE mlp_in_flight gauge\nmlp_in_flight{{{common}}} {flying}")
        if self.log:
            lines.append(f"# TYPE mlp_log_rows_total counter\nmlp_log_rows_total{{{common}}} {self.log.written}")
            lines.append(f"# TYPE mlp_log_lost_total counter\nmlp_log_lost_total{{{common}}} {self.log.lost}")
        return "\n".join(lines) + "\n"

    def _is_admin(self, scope: Scope) -> bool:
        client = (scope.get("client") or ("",))[0]
        if client not in ("127.0.0.1", "::1"):
            return False
        try:
            token = (self.folder / "token").read_text(encoding="utf-8").strip()
        except OSError:
            return False
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        return bool(token) and hmac.compare_digest(given.encode(), token.encode())

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self.reload()
        watch = asyncio.create_task(self._watch())
        await send({"type": "lifespan.startup.complete"})
        await receive()  # comes once every request is answered
        watch.cancel()
        if self.log:
            self.log.close()
        await send({"type": "lifespan.shutdown.complete"})


def _pick(arms: Sequence[Arm]) -> Arm | None:
    if len(arms) < 2:
        return arms[0] if arms else None
    point = random.random() * sum(arm.weight for arm in arms)
    for arm in arms:
        point -= arm.weight
        if point < 0:
            return arm
    return arms[-1]


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return str(given)
    return str(uuid.uuid4())


async def _read_body(receive: Receive) -> bytes | None:
    """The body, or None as soon as it is too large (or the client has gone)."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_LIMIT:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _reply(send: Send, status: int, value: object, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    await _send(send, status, b"application/json", json.dumps(value).encode(), headers)


async def _send(send: Send, status: int, kind: bytes, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    shown = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": shown})
    await send({"type": "http.response.body", "body": body})


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; then answer what is under way and write the log."""
    parser = argparse.ArgumentParser(prog="mlp_ci.serve.gateway", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder with gateway.json and token")
    parser.add_argument("--fd", type=int, help="a listening socket, inherited")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    listener = socket.socket(fileno=options.fd) if options.fd is not None else bind("127.0.0.1", options.port)
    serve(Gateway(options.state), listener, lifespan=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
