"""Gateways that people start: from a ``gateway.yaml``, or as a sidecar in front of one server."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.serve.gateway.core import Fixed, Gateway, Source, serve
from mlp_ci.serve.gateway.front import Limits
from mlp_ci.serve.gateway.plan import Plan
from mlp_ci.serve.listening import bind

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from mlp_ci.report import Report
    from mlp_ci.spec.gateway import GatewayLimits, GatewayRoute, GatewaySpec

_SETTLED = ("host", "port", "limits", "token", "expose")  # what a gateway is made with
TYPES = ("float", "int", "string", "bool", "timestamp", "date")


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """One server, and what is kept of its requests. ``columns`` as ``name:type``, separated by commas."""

    upstream: str
    model: str
    stage: str = "production"
    version: int = 0
    arm: str = "stable"
    log: Path | None = None
    sample: float = 1.0
    columns: str = ""
    measured: bool = False

    def plan(self) -> Plan:
        """Raises InputError for what cannot be."""
        log = {"root": str(self.log), "columns": _columns(self.columns), "sample": self.sample} if self.log else {}
        arm = {"version": self.version, "arm": self.arm, "weight": 100, "url": self.upstream}
        try:
            return Plan.from_json({"model": self.model, "stage": self.stage, "arms": [arm], "log": log})
        except ValueError as error:
            raise InputError(str(error), fix="mlp-ci gateway --upstream http://127.0.0.1:8081 --model NAME") from error


def _columns(text: str) -> dict[str, str]:
    found = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, mark, kind = part.rpartition(":")
        if not mark or kind not in TYPES or not name:
            msg = f"--columns: {part!r} is no name:type"
            raise InputError(msg, why=f"types are {', '.join(TYPES)}", fix="--columns distance:float,carrier:string")
        found[name] = kind
    return found


def from_file(file: Path, host: str = "", port: int | None = None) -> tuple[Gateway, socket.socket]:
    """The gateway of a ``gateway.yaml``, and its socket. The routes are read again whenever the file changes."""
    from mlp_ci.spec.load import load_gateway

    spec = load_gateway(file)
    gateway = Gateway(
        Source(file, _reading(spec)),
        file.parent / spec.token if spec.token else None,
        _limits(spec.limits),
        open_measures=spec.expose.measured,
    )
    return gateway, listen(host or spec.host, spec.port if port is None else port)


def _reading(begun: GatewaySpec) -> Callable[[Path], Plan]:
    """What reads the changed file; it says what of it only a gateway takes over that starts anew."""
    from mlp_ci.spec.load import load_gateway

    def read(file: Path) -> Plan:
        spec = load_gateway(file)
        changed = [key for key in _SETTLED if getattr(spec, key) != getattr(begun, key)]
        if changed:
            what = f"{', '.join(changed)} changed, which needs a restart; until then it runs on with what it began with"
            print(f"{file.name}: {what}", file=sys.stderr, flush=True)
        return plan_of(spec)

    return read


def sidecar(given: Sidecar, host: str, port: int) -> tuple[Gateway, socket.socket]:
    """The gateway in front of one server, and its socket."""
    return Gateway(Fixed(given.plan()), open_measures=given.measured), listen(host, port)


def foreground(gateway: Gateway, listener: socket.socket) -> Report:
    """Serve until SIGTERM or Ctrl-C, and say what was done."""
    from mlp_ci.report import Report

    address, port = listener.getsockname()[:2]
    print(f"listening on http://{f'[{address}]' if ':' in address else address}:{port}; Ctrl-C ends it", flush=True)
    serve(gateway, listener)
    asked, missed = sum(gateway.counts.asked.values()), sum(gateway.counts.unanswered.values())
    logs = [log for log in gateway.recording.logs if log.plan]
    logged = f"; {sum(o.written for o in logs)} rows are in the prediction log" if logs else ""
    data = {"asked": asked, "unanswered": missed}
    headline = f"{asked} requests, {missed} without a good answer{logged}."
    return Report(command="gateway", headline=headline, data=data)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; raises OutsideError when the port is taken or the address is not this machine's."""
    try:
        listener = bind(host, port)
        listener.listen(2048)  # two may bind one port; only one may listen
        return listener
    except OSError as error:
        msg = f"{host}:{port} cannot be listened on: {error.strerror}"
        raise OutsideError(
            msg, why="clients are to ask there", fix="end what listens there, or give another --port"
        ) from error


def plan_of(spec: GatewaySpec) -> Plan:
    """What the file says, as the gateway works by it."""
    return Plan.from_json({"generation": 1, "routes": [_route(route, spec.log) for route in spec.routes]})


def _route(route: GatewayRoute, log: str | None) -> dict[str, Any]:
    return {
        "model": route.model,
        "stage": route.stage,
        "match": route.match.model_dump(),
        "arms": [arm.model_dump() for arm in route.arms],
        "sticky": route.sticky,
        "salt": route.salt,
        "timeout": route.timeout.total_seconds(),
        "log": {"root": log, "columns": route.log.columns, "sample": route.log.sample} if log else {},
    }


def _limits(given: GatewayLimits) -> Limits:
    return Limits(
        body=given.body_mb * 2**20,
        head=given.head_kb * 1024,
        connections=given.connections,
        head_time=given.head_time.total_seconds(),
        body_time=given.body_time.total_seconds(),
        idle_time=given.idle_time.total_seconds(),
    )
