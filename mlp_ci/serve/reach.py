"""Reaches what runs: the supervisor of a place, its gateway, its servers; and waits until they answer."""

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci import clock
from mlp_ci.errors import InputError, OutsideError, RolloutAborted
from mlp_ci.serve import processes
from mlp_ci.serve import state as states
from mlp_ci.serve.processes import EXIT_PORT_TAKEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.serve.state import Place, Server, State

START_TIMEOUT = 60.0
CHECK_HEADER = "X-Mlp-Check"  # with the token as its value: our own question, neither counted nor logged
_WHY = "no traffic was moved"


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


def furnish(place: Place, state: State, python: str) -> None:
    """What a stage needs once: a token, a port for its gateway, the interpreter, the clock."""
    if not place.token_file.exists():
        scratch = place.token_file.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(secrets.token_hex(32))
        scratch.replace(place.token_file)
    state.gateway_port = state.gateway_port or free_port()
    if not Path(state.python or "/nowhere").exists():  # another one would restart what runs
        state.python = python
    state.clock_file = str(Path(os.environ[clock.ENV]).resolve()) if os.environ.get(clock.ENV) else ""
    state.stopped = False


def token(place: Place) -> str:
    """What the gateway lets its own commands in with."""
    return place.token_file.read_text(encoding="utf-8").strip()


def stop(place: Place) -> None:
    """End the supervisor and every process that it started, also where it was killed before."""
    told = states.read_json(place.processes_file) or {}
    supervisor = processes.from_json(told.get("supervisor"))
    if supervisor:
        supervisor.end(patience=15)
    told = states.read_json(place.processes_file) or {}
    for child in (told.get("children") or {}).values():
        process = processes.from_json(child.get("process"))
        if process:
            process.end(patience=12)


def runs(place: Place, name: str) -> bool:
    child = ((states.read_json(place.processes_file) or {}).get("children") or {}).get(name) or {}
    process = processes.from_json(child.get("process"))
    return process is not None and process.alive


def answers(server: Server) -> bool:
    try:
        code, body = call(server.port, "GET", "/health")
        told = json.loads(body)
        return code == 200 and (told["version"], told["digest"]) == (server.version, server.digest)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False


def started(place: Place, server: Server) -> bool:
    """Wait until ``server`` answers; False when its port was taken by another program.

    Raises RolloutAborted when another command, a rollback above all, ended it meanwhile.
    """
    name = f"v{server.version}"
    deadline = time.monotonic() + START_TIMEOUT
    while not answers(server):
        require_wanted(place, server)
        child = ((states.read_json(place.processes_file) or {}).get("children") or {}).get(name) or {}
        if str(server.port) in child.get("command", ()) and child.get("permanent"):
            if child["exit"] == EXIT_PORT_TAKEN:
                return False
            raise InputError(_last_words(place, name), why=_WHY, fix=_mend(place, name))
        if time.monotonic() > deadline:
            raise OutsideError(_last_words(place, name), why=_WHY, fix=_mend(place, name))
        time.sleep(0.02)
    return True


def require_wanted(place: Place, server: Server) -> None:
    """Raises RolloutAborted unless ``server`` still is to run: another command may have ended it."""
    state = states.read(place)
    if state is None or state.stopped or state.servers.get(server.version) != server:
        msg = f"another command ended version {server.version} of {place} while this started it"
        raise RolloutAborted(msg, why=_WHY, fix="see what that command says; it has the last word")


def gateway_up(place: Place) -> bool:
    """Wait until the gateway answers; on a stage that serves nobody yet, take another port if this one is taken."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(OutsideError):
            admin(place, "GET", "/admin/state")
            return True
        told = states.read_json(place.processes_file) or {}
        if told.get("problem"):
            with states.changing(place) as state:
                if state.live is not None:
                    fix = "end the program that listens there, then run `mlp-ci deploy` again"
                    raise OutsideError(str(told["problem"]), why="clients know this address", fix=fix)
                state.gateway_port = free_port()
            time.sleep(0.6)
        time.sleep(0.02)
    msg = f"the gateway of {place} does not answer"
    raise OutsideError(msg, fix=f"read {place.folder / 'logs' / 'gateway.log'}")


def follow(place: Place) -> None:
    """Have the gateway follow the state now. A gateway that is down reads it when it comes back."""
    ensure(place)
    state = states.read(place)
    wanted = state.generation if state else 0
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        with contextlib.suppress(OutsideError):
            if (admin(place, "POST", "/admin/reload").get("generation") or 0) >= wanted:
                return
        if time.monotonic() > deadline:
            msg = f"the gateway of {place} does not answer"
            raise OutsideError(
                msg, fix=f"read {place.folder / 'logs' / 'gateway.log'}, then run the same command again"
            )
        time.sleep(0.02)


def admin(place: Place, method: str, path: str) -> Any:
    state = states.read(place)
    try:
        port = state.gateway_port if state else 0
        code, body = call(port, method, path, headers={"Authorization": f"Bearer {token(place)}"})
        if code == 200:
            return json.loads(body)
        reason = f"it answers {code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = str(error)
    msg = f"the gateway of {place} cannot be reached: {reason}"
    raise OutsideError(msg, fix="run the same command again")


def call(
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_words(place: Place, name: str) -> str:
    log = place.folder / "logs" / f"{name}.log"
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    last = lines[-1] if lines else "it wrote no log"
    return f"the server of version {name[1:]} does not start: {last.removeprefix('refused: ')}"


def _mend(place: Place, name: str) -> str:
    return f"read {place.folder / 'logs' / f'{name}.log'}, mend it, then run `mlp-ci deploy` again"
