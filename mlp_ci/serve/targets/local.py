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
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci import clock
from mlp_ci.errors import InputError, NothingToDo, OutsideError, RolloutAborted
from mlp_ci.serve import processes, reach
from mlp_ci.serve import state as states
from mlp_ci.serve.artefacts import folder_of
from mlp_ci.serve.state import Arm, Held, Interval, LiveFact, Place, Reversal, Server, State
from mlp_ci.serve.targets import Counts, Release, Why

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DRAIN_TIMEOUT = 12.0
PORT_ATTEMPTS = 5


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
        running=not state.stopped and reach.runs(place, "gateway") and reach.runs(place, f"v{state.live}"),
        evidence=state.evidence_of(state.live),
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
    return server is not None and reach.answers(server)


def counts(place: Place) -> Mapping[int, Counts]:
    """Requests and errors by version since the gateway started."""
    told = reach.admin(place, "GET", "/admin/state")
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
    python = processes.lasting_interpreter()
    for attempt in range(PORT_ATTEMPTS):
        with states.changing(place) as state:
            server = state.servers.get(release.version)
            known = server is not None and server.digest == release.digest and Path(server.python).exists()
            if server is None or not known or attempt:
                server = Server(
                    version=release.version,
                    digest=release.digest,
                    port=reach.free_port(),
                    artefact=str(release.artefact),
                    python=python,
                )
                state.servers[release.version] = server
            state.log = dict(log)
            _furnish(place, state, python)
        reach.ensure(place)
        try:
            if reach.started(place, server) and reach.gateway_up(place):
                return
        except (InputError, OutsideError):
            withdraw(place, release.version)  # unless it has traffic already
            raise
    msg = f"no free port was found for version {release.version}"
    raise OutsideError(msg, fix="run the same command again")


def try_out(place: Place, version: int, body: bytes) -> str:
    """Ask the version's server directly; empty when it answers with predictions, else what is wrong."""
    state = states.read(place)
    server = state.servers.get(version) if state else None
    if server is None:
        return "its server does not run"
    try:
        code, answer = reach.call(server.port, "POST", "/invocations", body, timeout=30)
        predictions = json.loads(answer).get("predictions") if code == 200 else None
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        return f"it does not answer: {error}"
    return "" if predictions else f"it answers {code}: {answer[:300].decode(errors='replace')}"


def arms(place: Place) -> list[Arm]:
    """How the traffic is split now."""
    state = states.read(place)
    return list(state.arms) if state else []


def shift(place: Place, arms: Sequence[Arm], expected: Sequence[Arm] | None = None) -> None:
    """Split the traffic; on return every new request follows the new split."""
    with states.changing(place) as state:
        _as_expected(place, state, expected)
        missing = [a.version for a in arms if a.version not in state.servers]
        if missing:
            msg = f"version {missing[0]} does not run, so it cannot have traffic"
            raise OutsideError(msg, fix="run `mlp-ci deploy` again")
        state.arms = list(arms)
    reach.follow(place)


def settle(place: Place, release: Release, now: datetime, expected: Sequence[Arm] | None = None) -> None:
    """Give ``release`` everything, keep the one before warm, end all others once they have answered."""
    with states.changing(place) as state:
        _as_expected(place, state, expected)
        state.settle(release.version, release.digest, now, release.evidence)
    reach.follow(place)
    tidy(place)


def tidy(place: Place) -> None:
    """End every version that has no traffic and is not kept warm."""
    state = states.read(place)
    if state is None:
        return
    keep = {state.live, state.previous(), *(a.version for a in state.arms)}
    for version in [v for v in state.servers if v not in keep]:
        withdraw(place, version)


def withdraw(place: Place, version: int) -> None:
    """End a version that has no traffic, once it has answered what it was asked."""
    deadline = time.monotonic() + DRAIN_TIMEOUT
    with contextlib.suppress(OutsideError):  # without a gateway there is nothing to wait for
        while version in reach.admin(place, "GET", "/admin/state")["draining"] and time.monotonic() < deadline:
            time.sleep(0.02)
    with states.changing(place) as state:
        if all(a.version != version for a in state.arms):
            state.servers.pop(version, None)


def turn_back(place: Place, to: int | None, why: Why) -> tuple[Reversal, bool]:
    """Give all traffic to an earlier version (the previous one, if ``to`` is None); see :class:`Target`."""
    warmed, tries = False, PORT_ATTEMPTS
    while True:
        with states.changing(place) as state:
            open_one = state.reversal
            goal = _goal(place, state, to)
            digest = state.digest_of(goal) or ""
            if goal == state.live and state.canary() is None and open_one and open_one.version == goal:
                return open_one, False
            server = state.servers.get(goal)
            if server and (warmed or reach.answers(server)):
                taken, bad = state.taken()
                held = Held(version=taken, digest=bad, reason=why.reason, since=why.now.isoformat())
                reversal = state.reverse(goal, held, why.by)
                break
            log = dict(state.log)
        try:
            prepare(place, Release(version=goal, digest=digest, artefact=folder_of(place.home, digest)), log)
            warmed = True
        except RolloutAborted:  # a deploy that ended in between cleared it away: it is needed all the same
            tries -= 1
            if not tries:
                raise
    reach.follow(place)
    return reversal, True


def _goal(place: Place, state: State, to: int | None) -> int:
    """The version that a rollback leads to; raises InputError when there is none."""
    if state.live is None:
        msg = f"nothing was ever deployed for {place} on this machine"
        raise InputError(msg, fix="run the rollback where the model is served; MLP_SERVE_HOME names its folder")
    unfinished = state.reversal is not None and not state.reversal.finished
    if to is None:
        goal = state.live if state.canary() is not None or unfinished else state.previous()
        if goal is None:
            msg = f"no other version ran before version {state.live} for {place}"
            raise InputError(msg, fix="give one with --to, or promote another version")
        return goal
    ran = sorted({int(h["version"]) for h in state.history})
    if to not in ran:
        msg = f"version {to} never ran for {place}, so it cannot come back by a rollback"
        raise InputError(msg, fix=f"versions that ran here: {', '.join(map(str, ran))}; for another: mlp-ci promote")
    if to == state.live and state.canary() is None and state.reversal is None:
        msg = f"version {to} already has all traffic of {place}"
        raise NothingToDo(msg)
    return to


def reversal(place: Place) -> Reversal | None:
    """The rollback that led to what is live, if one did."""
    state = states.read(place)
    return state.reversal if state else None


def unfinished(place: Place) -> list[Reversal]:
    """The rollbacks whose record is not finished, oldest first."""
    state = states.read(place)
    if state is None:
        return []
    return [*state.overtaken, *([state.reversal] if state.reversal and not state.reversal.finished else [])]


def note(place: Place, reversal: Reversal) -> None:
    """Note how far the record of a rollback is."""
    with states.changing(place) as state:
        state.note(reversal)


def announced(place: Place) -> int | None:
    """The version whose alias and deployment record were made."""
    state = states.read(place)
    return state.announced if state else None


def announce(place: Place, version: int) -> None:
    """Note that they were."""
    with states.changing(place) as state:
        state.announced = version


def held(place: Place) -> list[Held]:
    """Versions that were rolled back here."""
    state = states.read(place)
    return list(state.held) if state else []


def acknowledge(place: Place, digest: str) -> None:
    """Note that git knows of the rollback, so that git alone decides from now on."""
    with states.changing(place) as state:
        state.held = [replace(h, known=True) if h.digest == digest else h for h in state.held]


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


def _as_expected(place: Place, state: State, expected: Sequence[Arm] | None) -> None:
    if expected is not None and list(expected) != state.arms:
        msg = f"another command moved the traffic of {place} during the rollout"
        raise RolloutAborted(msg, why="it knows something that this one does not", fix="run `mlp-ci deploy` again")


def _furnish(place: Place, state: State, python: str) -> None:
    """What a stage needs once: a token, a port for its gateway, the interpreter, the clock."""
    if not place.token_file.exists():
        scratch = place.token_file.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(secrets.token_hex(32))
        scratch.replace(place.token_file)
    state.gateway_port = state.gateway_port or reach.free_port()
    if not Path(state.python or "/nowhere").exists():  # another one would restart what runs
        state.python = python
    state.clock_file = str(Path(os.environ[clock.ENV]).resolve()) if os.environ.get(clock.ENV) else ""
    state.stopped = False
