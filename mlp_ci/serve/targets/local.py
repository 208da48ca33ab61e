"""The local target: processes on this machine, under a supervisor that survives the command.

Everything is under ``<home>/<model>/<stage>/``; a version's server listens on a loopback port of its own, and the
gateway keeps its port for ever. Killed anywhere, the next call finds what runs and goes on from there.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci import clock
from mlp_ci.errors import InputError, OutsideError
from mlp_ci.serve import processes
from mlp_ci.serve import state as states
from mlp_ci.serve.state import Arm, Interval, LiveFact, Place, Server, State
from mlp_ci.serve.targets import Counts, Release

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_TIMEOUT = 60.0
DRAIN_TIMEOUT = 12.0
PORT_ATTEMPTS = 5
_EXIT_PORT_TAKEN = 98


# ---------------------------------------------------------------- looking


def live(place: Place) -> LiveFact | None:
    """The version that has the traffic of ``place``."""
    state = states.read(place)
    if state is None or state.live is None:
        return None
    interval = state.history[-1]
    return LiveFact(
        version=state.live,
        digest=str(interval["digest"]),
        since=datetime.fromisoformat(interval["started"]),
        address=state.address,
        previous=state.previous(),
        running=not state.stopped and _runs(place, "gateway") and _runs(place, f"v{state.live}"),
    )


def history(home: Path, model: str) -> list[Interval]:
    """All intervals of all stages of ``model``, by start."""
    intervals = []
    for file in sorted((home / model).glob("*/state.json")):
        stage = file.parent.name
        state = states.read(Place(home, model, stage))
        intervals += [
            Interval(
                stage=stage,
                version=int(h["version"]),
                digest=str(h["digest"]),
                started=datetime.fromisoformat(h["started"]),
                ended=datetime.fromisoformat(h["ended"]) if h["ended"] else None,
            )
            for h in (state.history if state else [])
        ]
    return sorted(intervals, key=lambda i: (i.started, i.stage))


def healthy(place: Place, version: int) -> bool:
    """Whether the server of ``version`` answers, and is that version."""
    state = states.read(place)
    server = state.servers.get(version) if state else None
    return server is not None and _answers(server)


def counts(place: Place) -> Mapping[int, Counts]:
    """Requests and errors by version since the gateway started."""
    told = _admin(place, "GET", "/admin/state")
    return {int(v): Counts(c["requests"], c["errors"]) for v, c in told["counts"].items()}


def status(home: Path) -> list[dict[str, Any]]:
    """One entry per model and stage: address, live version, arms, processes."""
    found = []
    for file in sorted(home.glob("*/*/state.json")):
        place = Place(home, file.parent.parent.name, file.parent.name)
        state, fact = states.read(place), live(place)
        if state is None:
            continue
        children = (states.read_json(place.processes_file) or {}).get("children", {})
        found.append(
            {
                "model": place.model,
                "stage": place.stage,
                "address": state.address,
                "version": state.live,
                "running": bool(fact and fact.running),
                "arms": [{"version": a.version, "weight": a.weight, "arm": a.arm} for a in state.arms],
                "processes": {
                    name: {"pid": (c["process"] or {}).get("pid"), "restarts": c["restarts"]}
                    for name, c in children.items()
                },
                "logs": str(place.folder / "logs"),
            }
        )
    return found


# ---------------------------------------------------------------- running


def prepare(place: Place, release: Release, log: Mapping[str, Any]) -> None:
    """Have ``release`` run and answer, without any traffic."""
    for attempt in range(PORT_ATTEMPTS):
        with states.changing(place) as state:
            server = state.servers.get(release.version)
            if server is None or server.digest != release.digest or attempt:
                server = Server(
                    version=release.version, digest=release.digest, port=_free_port(), artefact=str(release.artefact)
                )
                state.servers[release.version] = server
            state.log = dict(log)
            _furnish(place, state)
        ensure(place)
        if _started(place, server) and _gateway_up(place):
            return
    msg = f"no free port was found for version {release.version}"
    raise OutsideError(msg, fix="run the same command again")


def ensure(place: Place) -> None:
    """Have a supervisor, if none runs. It brings back whatever should run."""
    raw = (states.read_json(place.processes_file) or {}).get("supervisor")
    supervisor = processes.from_json(raw)
    if supervisor and supervisor.alive:
        return
    environment = processes.environment({})
    # A CI runner ends every process that carries its job's id when the job ends; `environment` leaves that id out.
    subprocess.run(
        [sys.executable, "-m", "mlp_ci.serve.supervisor", str(place.folder)],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=place.folder,
    )


def try_out(place: Place, version: int, body: bytes) -> str:
    """Ask the version's server directly; empty when it answers with predictions, else what is wrong."""
    state = states.read(place)
    server = state.servers.get(version) if state else None
    if server is None:
        return "its server does not run"
    try:
        code, answer = _http(server.port, "POST", "/invocations", body, timeout=30)
        predictions = json.loads(answer).get("predictions") if code == 200 else None
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        return f"it does not answer: {error}"
    return "" if predictions else f"it answers {code}: {answer[:300].decode(errors='replace')}"


def shift(place: Place, arms: Sequence[Arm]) -> None:
    """Split the traffic; on return every new request follows the new split."""
    with states.changing(place) as state:
        missing = [a.version for a in arms if a.version not in state.servers]
        if missing:
            msg = f"version {missing[0]} does not run, so it cannot have traffic"
            raise OutsideError(msg, fix="run `mlp-ci deploy` again")
        state.arms = list(arms)
    _apply(place)


def settle(place: Place, release: Release, now: datetime) -> None:
    """Give ``release`` everything, keep the one before warm, end all others once they have answered."""
    with states.changing(place) as state:
        state.hand_over(release.version, release.digest, now)
        state.held = [h for h in state.held if h.digest != release.digest]
        keep = {state.live, state.previous()}
        extra = [v for v in state.servers if v not in keep]
    _apply(place)
    for version in extra:
        withdraw(place, version)


def withdraw(place: Place, version: int) -> None:
    """End a version that has no traffic, once it has answered what it was asked."""
    deadline = time.monotonic() + DRAIN_TIMEOUT
    with contextlib.suppress(OutsideError):  # without a gateway there is nothing to wait for
        while version in _admin(place, "GET", "/admin/state")["draining"] and time.monotonic() < deadline:
            time.sleep(0.02)
    with states.changing(place) as state:
        if all(a.version != version for a in state.arms):
            state.servers.pop(version, None)


def stop(place: Place) -> None:
    """End everything of ``place``. Facts and logs stay; the next deploy starts it again."""
    if states.read(place) is not None:
        with states.changing(place) as state:
            state.stopped = True
    told = states.read_json(place.processes_file) or {}
    supervisor = processes.from_json(told.get("supervisor"))
    if supervisor:
        supervisor.end(patience=15)
    told = states.read_json(place.processes_file) or {}
    for child in (told.get("children") or {}).values():  # left by a supervisor that was killed
        process = processes.from_json(child.get("process"))
        if process:
            process.end(patience=12)


def stop_all(home: Path) -> list[str]:
    """End everything that runs under ``home``; returns what was stopped, as ``<model> in <stage>``."""
    places = [Place(home, f.parent.parent.name, f.parent.name) for f in sorted(home.glob("*/*/state.json"))]
    for place in places:
        stop(place)
    return [str(place) for place in places]


# ---------------------------------------------------------------- parts


def _furnish(place: Place, state: State) -> None:
    """What a stage needs once: a token, a port for its gateway, the interpreter, the clock."""
    if not place.token_file.exists():
        scratch = place.token_file.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(secrets.token_hex(32))
        scratch.replace(place.token_file)
    state.gateway_port = state.gateway_port or _free_port()
    state.python = sys.executable
    state.clock_file = str(Path(os.environ[clock.ENV]).resolve()) if os.environ.get(clock.ENV) else ""
    state.stopped = False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _runs(place: Place, name: str) -> bool:
    child = ((states.read_json(place.processes_file) or {}).get("children") or {}).get(name) or {}
    process = processes.from_json(child.get("process"))
    return process is not None and process.alive


def _answers(server: Server) -> bool:
    try:
        code, body = _http(server.port, "GET", "/health")
        told = json.loads(body)
        return code == 200 and (told["version"], told["digest"]) == (server.version, server.digest)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False


def _started(place: Place, server: Server) -> bool:
    """Wait until ``server`` answers; False when its port was taken by another program."""
    name = f"v{server.version}"
    deadline = time.monotonic() + START_TIMEOUT
    while not _answers(server):
        child = ((states.read_json(place.processes_file) or {}).get("children") or {}).get(name) or {}
        if str(server.port) in child.get("command", ()) and child.get("permanent"):
            if child["exit"] == _EXIT_PORT_TAKEN:
                return False
            _give_up(place, server, InputError)
        if time.monotonic() > deadline:
            _give_up(place, server, OutsideError)
        time.sleep(0.02)
    return True


def _give_up(place: Place, server: Server, kind: type[InputError] | type[OutsideError]) -> None:
    log = place.folder / "logs" / f"v{server.version}.log"
    withdraw(place, server.version)
    last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it wrote no log"])[-1]
    msg = f"the server of version {server.version} does not start: {last.removeprefix('refused: ')}"
    raise kind(msg, why="no traffic was moved", fix=f"read {log}, mend it, then run `mlp-ci deploy` again")


def _gateway_up(place: Place) -> bool:
    """Wait until the gateway answers; on a stage that serves nobody yet, take another port if this one is taken."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(OutsideError):
            _admin(place, "GET", "/admin/state")
            return True
        told = states.read_json(place.processes_file) or {}
        if told.get("problem"):
            with states.changing(place) as state:
                if state.live is not None:
                    fix = "end the program that listens there, then run `mlp-ci deploy` again"
                    raise OutsideError(str(told["problem"]), why="clients know this address", fix=fix)
                state.gateway_port = _free_port()
            time.sleep(0.6)
        time.sleep(0.02)
    msg = f"the gateway of {place} does not answer"
    raise OutsideError(msg, fix=f"read {place.folder / 'logs' / 'gateway.log'}")


def _apply(place: Place) -> None:
    """Have the gateway follow the state now. A gateway that is down reads it when it comes back."""
    ensure(place)
    state = states.read(place)
    wanted = state.generation if state else 0
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        with contextlib.suppress(OutsideError):
            if (_admin(place, "POST", "/admin/reload").get("generation") or 0) >= wanted:
                return
        if time.monotonic() > deadline:
            msg = f"the gateway of {place} does not answer"
            raise OutsideError(
                msg, fix=f"read {place.folder / 'logs' / 'gateway.log'}, then run the same command again"
            )
        time.sleep(0.02)


def _admin(place: Place, method: str, path: str) -> Any:
    state = states.read(place)
    try:
        token = place.token_file.read_text(encoding="utf-8").strip()
        port = state.gateway_port if state else 0
        code, body = _http(port, method, path, headers={"Authorization": f"Bearer {token}"})
        if code == 200:
            return json.loads(body)
        reason = f"it answers {code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = str(error)
    msg = f"the gateway of {place} cannot be reached: {reason}"
    raise OutsideError(msg, fix="run the same command again")


def _http(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    timeout: float = 5.0,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        given = {"Content-Type": "application/json", **(headers or {})}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
