"""The gateway: its configuration, what it does with a request, what it tells, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import signal
import sys
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from mlp_ci import clock
from mlp_ci.errors import InputError
from mlp_ci.serve.gateway import ejecting
from mlp_ci.serve.gateway.bodies import Form
from mlp_ci.serve.gateway.counting import Counts, exposition, family, labels, totals
from mlp_ci.serve.gateway.exchange import Exchange, Page, sampled
from mlp_ci.serve.gateway.front import TEXT, Front, Limits
from mlp_ci.serve.gateway.plan import Plan
from mlp_ci.serve.gateway.recording import Recording
from mlp_ci.serve.gateway.routing import Arm, Kind, Route, Table, divided
from mlp_ci.serve.gateway.upstream import Upstream, UpstreamDown, UpstreamSlow

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from mlp_ci.serve.gateway.front import Client
    from mlp_ci.serve.gateway.plan import RoutePlan
    from mlp_ci.serve.gateway.request import Request
    from mlp_ci.serve.gateway.upstream import Answer

LOOK_EVERY = 0.05  # seconds between looks at the configuration
SWEEP_EVERY = 0.25
PROBE_PATIENCE = 2.0
GRACE = 10.0  # seconds that requests under way have at the end
LOOPBACK = ("127.0.0.1", "::1")


@dataclass
class Source:
    """Where the configuration is, how it is read, and what the file was when it was last read."""

    file: Path
    read: Callable[[Path], Plan]
    seen: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The file's, for messages."""
        return self.file.name

    def changed(self) -> Plan | None:
        """The plan, if the file is another one than last time; raises KeyError, TypeError, ValueError, InputError."""
        try:
            stat = self.file.stat()
        except FileNotFoundError:
            if self.seen is None:
                return None
            self.seen = None
            msg = "the file is gone"
            raise InputError(msg, fix="bring it back") from None
        if (stat.st_ino, stat.st_mtime_ns) == self.seen:
            return None
        self.seen = (stat.st_ino, stat.st_mtime_ns)
        return self.read(self.file)


@dataclass
class Fixed:
    """A configuration that never changes."""

    plan: Plan | None
    name: str = "the configuration"

    def changed(self) -> Plan | None:
        """The plan, once."""
        plan, self.plan = self.plan, None
        return plan


@dataclass
class Gateway:
    """Everything of one gateway. ``token`` is the file with the administrators' token, if there is one."""

    source: Source | Fixed
    token: Path | None = None
    limits: Limits = field(default_factory=Limits)
    open_measures: bool = False
    boot: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.counts = Counts()
        self.recording = Recording(self.counts)
        self.front = Front(self.handle, self.limits)
        self.table = Table(Plan(), [])
        self.upstreams: dict[str, Upstream] = {}
        self.healths: dict[str, ejecting.Health] = {}
        self.draining: list[Arm] = []
        self.probes: set[asyncio.Task[None]] = set()
        self.stale = False  # whether the file says something that was not taken over
        self.began = time.monotonic()
        self.faked = bool(os.environ.get(clock.ENV))

    # ------------------------------------------------------------ configuration

    def reload(self) -> None:
        """Take over the configuration if it has changed; a broken one changes nothing."""
        try:
            plan = self.source.changed()
        except (KeyError, TypeError, ValueError, AttributeError, OSError, InputError) as error:
            what = error.what if isinstance(error, InputError) else str(error) or repr(error)
            self.stale = True
            print(f"{self.source.name} is not taken over: {what}", file=sys.stderr, flush=True)
            return
        if plan is not None:
            if self.stale:
                print(f"{self.source.name} is taken over", file=sys.stderr, flush=True)
            self.stale = False
            self._adopt(plan)

    def _adopt(self, plan: Plan) -> None:
        upstreams: dict[str, Upstream] = {}
        routes = [self._route(one, upstreams) for one in plan.routes]
        before = [arm for route in self.table.routes for arm in (*route.arms, *route.shadows)]
        for url, upstream in self.upstreams.items():
            if url not in upstreams:
                upstream.retire()
                self.healths.pop(url, None)
        self.draining = [a for a in (*self.draining, *before) if a.upstream.retired and a.upstream.in_flight]
        self.table, self.upstreams = Table(plan, routes), upstreams

    def _route(self, plan: RoutePlan, upstreams: dict[str, Upstream]) -> Route:
        arms = []
        for one in plan.arms:
            upstream = upstreams.get(one.url) or self.upstreams.get(one.url) or Upstream(one.url)
            upstreams[one.url] = upstream
            key = (plan.model, plan.stage, one.version, one.arm)
            health = self.healths.setdefault(one.url, ejecting.Health())
            arms.append(Arm(one, upstream, key, self.counts.tally(key), health))
        return Route(plan, *divided(arms), self.recording.number(plan.model, plan.stage, plan.log))

    # ------------------------------------------------------------ requests

    def handle(self, client: Client, request: Request) -> None:
        """Answer a request, now or later."""
        found = self.table.resolve(request.target)
        if found.kind is Kind.INFER:
            self._infer(client, request)
        elif found.kind is Kind.UNKNOWN:
            self._own_page(client, request)
        elif request.method not in (b"GET", b"HEAD"):
            client.tell(405, _refusal("use GET"), b"allow: GET\r\n")
        elif found.kind is Kind.OWN:
            self._tell_health(client, found.path, [route for route, _ in found.routes])
        else:
            way = self.table.route(found, request)
            if way is None:
                client.tell(404, _refusal("no model is routed here", "NOT_FOUND"))
            else:
                Page(client, way, request).start()

    def _infer(self, client: Client, request: Request) -> None:
        if request.method != b"POST":
            client.tell(405, _refusal("use POST"), b"allow: POST\r\n")
            return
        way = self.table.route(self.table.resolve(request.target), request)
        if way is not None:
            Exchange(self, client, way, request).start()
        elif self.table.routes:
            client.tell(404, _refusal("no route matches this request", "NOT_FOUND"))
        else:
            value = _refusal("no server of this model answers right now", "UNAVAILABLE")
            client.tell(503, value, b"retry-after: 1\r\nx-request-id: %b\r\n" % request.identity().encode())

    def eject(self, route: Route) -> None:
        """After a failure: leave alone who fails alone. A shadow's failures are its own."""
        now = time.monotonic()
        for health in ejecting.outliers([arm.health for arm in route.arms], now):
            health.eject(now)

    def record(self, exchange: Exchange, arm: Arm, answer: Answer, latency: float, beside: bytes | None = None) -> None:
        """Hand an answered request to the recorder; the client has its answer, whatever happens here."""
        if answer.status != 200:
            return
        plan, request = exchange.route.plan, exchange.request
        number, logged = exchange.route.number, None
        form = Form.OTHER if answer.encoded or request.form is Form.OTHER else request.form
        if plan.log is not None and sampled(exchange.request_id, plan.log.sample):
            try:
                logged = (self._now(), exchange.request_id, latency)
            except (OSError, InputError):  # the project's clock cannot be read
                self.recording.logs[number].dropped += 1
        size = len(request.body) + len(answer.body)
        # Without a log the request itself is of no use there; only the predictions are counted.
        body = request.body if logged else b""
        self.recording.add(("x", number, arm.version, arm.plan.arm, int(form), body, answer.body, logged, beside), size)

    def _now(self) -> float:
        return clock.now().timestamp() if self.faked else time.time()

    # ------------------------------------------------------------ what it tells

    def _own_page(self, client: Client, request: Request) -> None:
        path, _, query = request.target.decode("latin-1").partition("?")
        admin = path.startswith("/admin/") and self._is_admin(client, request)
        if path == "/metrics":
            client.answer(200, TEXT, self.metrics().encode())
        elif path == "/admin/reload" and request.method == b"POST" and admin:
            self.reload()
            client.tell(200, self.state())
        elif path == "/admin/state" and admin:
            client.tell(200, self.state())
        elif (path == "/admin/measured" and admin) or (path == "/measured" and self.open_measures):
            asked = parse_qs(query)
            told = self.measured(asked.get("model", [None])[0], asked.get("stage", [None])[0])
            client.tell(*((200, told) if told else (404, _refusal("no such model is routed here", "NOT_FOUND"))))
        else:
            client.tell(404, _refusal("there is /invocations, /v2, /health, /version, /metrics", "NOT_FOUND"))

    def _tell_health(self, client: Client, path: str, routes: list[Route]) -> None:
        """What the path asks for: of the routes that it fits, of all when it is the gateway's own."""
        facts = self._facts(routes)
        ready = bool(routes) and all(route.arms for route in routes)
        if path == "/v2/health/live":
            client.tell(200, {"live": True})
        elif path == "/v2/health/ready":
            client.tell(200 if ready else 503, {"ready": ready})
        elif path == "/version":
            client.tell(200, facts)
        else:
            client.tell(200 if ready else 503, {"status": "ok" if ready else "nothing is deployed", **facts})

    def _facts(self, routes: list[Route]) -> dict[str, Any]:
        told = [
            {
                "model": route.plan.model,
                "stage": route.plan.stage,
                "arms": [{"version": a.version, "arm": a.arm, "weight": _plain(a.weight)} for a in route.plan.arms],
            }
            for route in routes
        ]
        one = told[0] if len(told) == 1 else {"model": None, "stage": None, "arms": [], "routes": told}
        return {**one, "generation": self.table.plan.generation or None}

    def state(self) -> dict[str, Any]:
        """For the commands: what is configured, what each version answered, what is under way."""
        names = self.table.of(None, None)
        logs = [log for log in self.recording.logs if log.plan]
        return {
            **self._facts(self.table.routes),
            "counts": {
                str(v): {"requests": n, "errors": e} for v, (n, e) in sorted(totals(self.counts, names).items())
            },
            "draining": sorted({a.version for a in self.draining if a.upstream.in_flight}),
            "ejected": sorted({a.version for r in self.table.routes for a in r.arms if a.health.ejected}),
            "log": {"written": sum(o.written for o in logs), "lost": sum(o.lost for o in logs)} if logs else None,
        }

    def measured(self, model: str | None, stage: str | None) -> dict[str, Any] | None:
        """What every version did since the start, ready for an analysis; None when nothing such is routed."""
        found = [
            {"model": m, "stage": s, "generation": self.table.plan.generation, **self.counts.measured(m, s)}
            for m, s in self.table.of(model, stage)
        ]
        facts = {"boot": self.boot, "seconds": time.monotonic() - self.began}
        if not found:
            return None if model or stage else {**facts, "versions": {}, "shadow": {}}
        return {**facts, **(found[0] if len(found) == 1 else {"routes": found})}

    def metrics(self) -> str:
        """All counts in Prometheus' text format."""
        lines = exposition(self.counts)
        routes = self.table.routes
        arms = [(arm.key, arm) for route in routes for arm in (*route.arms, *route.shadows)]
        flying: dict[tuple[str, str], int] = {}
        for route in routes:
            under_way = sum(u.in_flight for u in {a.upstream.url: a.upstream for a in route.arms}.values())
            flying[route.name] = flying.get(route.name, 0) + under_way
        named = [(labels(model=m, stage=s), float(n)) for (m, s), n in flying.items()]
        lines += family("mlp_in_flight", "gauge", "Requests under way.", named)
        ejected = [(labels(model=k[0], stage=k[1], version=k[2], arm=k[3]), float(a.health.ejected)) for k, a in arms]
        lines += family("mlp_ejected", "gauge", "1 while a version is left alone because it fails.", ejected)
        lines += family("mlp_connections", "gauge", "Open connections of clients.", [("", len(self.front.clients))])
        stale = [("", float(self.stale))]
        lines += family("mlp_config_stale", "gauge", "1 while the configuration's file is not what is used.", stale)
        lines += family("mlp_refused_total", "counter", "Connections beyond the limit.", [("", self.front.refused)])
        logs: dict[tuple[str, str], list[int]] = {}
        for log in self.recording.logs:
            if log.plan:
                sums = logs.setdefault((log.model, log.stage), [0, 0, 0])
                sums[:] = [sums[0] + log.written, sums[1] + log.lost, sums[2] + log.skipped]
        for index, (name, meaning) in enumerate(_LOG):
            of_log = [(labels(model=m, stage=s), float(sums[index])) for (m, s), sums in logs.items()]
            lines += family(name, "counter", meaning, of_log)
        return "\n".join(lines).replace("{}", "") + "\n"

    def _is_admin(self, client: Client, request: Request) -> bool:
        peer = client.transport.get_extra_info("peername") if client.transport else None
        if not peer or peer[0] not in LOOPBACK:
            return False
        return self.is_token((request.header(b"authorization") or b"").removeprefix(b"Bearer "))

    def is_token(self, given: bytes) -> bool:
        """Whether these bytes are the administrators' token."""
        try:
            token = self.token.read_text(encoding="utf-8").strip() if self.token else ""
        except OSError:
            return False
        return bool(token) and hmac.compare_digest(given, token.encode())

    # ------------------------------------------------------------ from time to time

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self.reload()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            now = time.monotonic()
            self.front.sweep(now)
            for upstream in [*self.upstreams.values(), *(a.upstream for a in self.draining)]:
                upstream.sweep(now)
            self.draining = [a for a in self.draining if a.upstream.in_flight]
            for url, health in self.healths.items():
                if health.ejected and health.until < now and url in self.upstreams:
                    health.until = now + PROBE_PATIENCE + 1
                    task = asyncio.get_running_loop().create_task(_probe(self.upstreams[url], health))
                    self.probes.add(task)
                    task.add_done_callback(self.probes.discard)

    async def run(self, listener: socket.socket) -> None:
        """Serve on the bound socket until SIGTERM or SIGINT, then end in good order."""
        loop = asyncio.get_running_loop()
        self.reload()
        enough = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, enough.set)
        server = await loop.create_server(self.front, sock=listener, backlog=2048)
        chores = [loop.create_task(self._watch()), loop.create_task(self._sweep())]
        await enough.wait()
        server.close()
        await self.front.end(GRACE)
        for chore in chores:
            chore.cancel()
        await self.recording.close()


_LOG = (
    ("mlp_log_rows_total", "Rows of the prediction log."),
    ("mlp_log_lost_total", "Rows that the log could not keep."),
    ("mlp_log_skipped_total", "Requests that cannot be told apart into rows."),
)


async def _probe(upstream: Upstream, health: ejecting.Health) -> None:
    """Ask an ejected server how it is; it comes back when it says that it is well."""
    answered = 0
    with contextlib.suppress(UpstreamDown, UpstreamSlow):
        answered = (await upstream.get("/health", PROBE_PATIENCE)).status
    if 200 <= answered < 500 and answered != 429:  # 404: no such page, but somebody is there
        health.back(time.monotonic())
    else:
        health.still_bad(time.monotonic())


def _plain(weight: float) -> float:
    return int(weight) if weight == int(weight) else weight


def _refusal(message: str, code: str = "BAD_REQUEST") -> dict[str, str]:
    return {"error_code": code, "message": message}


def read_state(file: Path) -> Plan:
    """The plan of ``gateway.json``."""
    return Plan.from_json(json.loads(file.read_text(encoding="utf-8")))


def serve(gateway: Gateway, listener: socket.socket) -> None:
    """Serve until told to end; on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:  # Windows
        asyncio.run(gateway.run(listener))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(gateway.run(listener))
