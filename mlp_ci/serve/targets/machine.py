"""What a target on one machine is: state.json says what should run, a gateway splits the traffic, ``Running`` runs it.

Where the model servers run (as processes, as containers) is the only difference between such targets. Everything is
under ``<home>/<model>/<stage>/``; a version's server listens on a loopback port of its own, and the gateway keeps its
port for ever. Killed anywhere, the next call finds what runs and goes on from there.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mlp_ci.errors import InputError, NothingToDo, OutsideError, RolloutAborted
from mlp_ci.serve import processes, reach
from mlp_ci.serve import state as states
from mlp_ci.serve.artefacts import clear, folder_of
from mlp_ci.serve.measured import Measured, Seen
from mlp_ci.serve.state import Arm, Held, Place, Reversal, Server, State
from mlp_ci.serve.targets import Answer, Release, Settings, Why
from mlp_ci.serve.targets.told import Told

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

DRAIN_TIMEOUT = 12.0
ANSWER_TIMEOUT = 30.0
PORT_ATTEMPTS = 5


class Running(Protocol):
    """Where the model servers of a machine run. What should run is in state.json; every call may be repeated."""

    def entry(self, place: Place, release: Release, settings: Settings, port: int) -> Server:
        """What state.json shall say of a server of ``release``; InputError when it could not run here for long.

        May take its time (make an image): no lock is held, and nothing has been written yet.
        """

    def usable(self, server: Server) -> bool:
        """Whether a server that state.json already names can still be started as it says."""

    def start(self, place: Place, server: Server) -> None:
        """Have it start, unless it runs. Does not wait until it answers."""

    def started(self, place: Place, server: Server) -> bool:
        """Wait until it answers; False when its port was taken by another program. As :func:`reach.started`."""

    def runs(self, place: Place, server: Server) -> bool:
        """Whether it runs, or is being started again by whoever keeps it running."""

    def end(self, place: Place, server: Server) -> None:
        """End it: state.json no longer names it. It has answered what it was asked."""

    def stop(self, place: Place) -> None:
        """End every server of the place, whether state.json names it or not; on return none runs."""

    def changes(self, server: Server | None, release: Release, settings: Settings) -> str:
        """What :meth:`entry` and :meth:`start` would change, for people; "" when nothing."""


@dataclass(frozen=True)
class Machine(Told):
    """A target on this machine; see :class:`mlp_ci.serve.targets.Target` for what each function promises."""

    running: Running

    def runs(self, place: Place, state: State) -> bool:
        """Whether what has the traffic runs, with the gateway in front of it."""
        server = state.servers.get(state.live or 0)
        return server is not None and reach.runs(place, "gateway") and self.running.runs(place, server)

    def healthy(self, place: Place, version: int) -> bool:
        """Whether the server of ``version`` answers, and is that version."""
        state = states.read(place)
        server = state.servers.get(version) if state else None
        return server is not None and reach.answers(server)

    def measured(self, place: Place) -> Measured:
        """What the gateway counted."""
        told = reach.admin(place, "GET", "/admin/measured")
        try:
            versions = {int(v): Seen.from_json(seen) for v, seen in told["versions"].items()}
            return Measured(boot=str(told["boot"]), seconds=float(told.get("seconds") or 0), versions=versions)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"the gateway of {place} answers what this version of mlp-ci does not read: {error!r}"
            raise OutsideError(msg, fix="end the gateway's process; its supervisor starts the installed one") from error

    # ------------------------------------------------------------ running

    def prepare(self, place: Place, release: Release, settings: Settings) -> None:
        """Have ``release`` run and answer, without any traffic."""
        python = processes.lasting_interpreter()
        for attempt in range(PORT_ATTEMPTS):
            server = self._server(place, release)
            made = None
            if server is None or attempt:
                if not release.artefact.is_dir():
                    msg = f"the files of version {release.version} are not on this machine any more"
                    raise InputError(msg, why="no traffic was moved", fix=f"mlp-ci promote {place.stage}")
                made = self.running.entry(place, release, settings, reach.free_port())
            with states.changing(place) as state:
                known = state.servers.get(release.version)
                server = made or (known if known == server else None)
                if server is None:  # another command ended it in between
                    continue
                state.servers[release.version] = server
                state.log, state.labels = dict(settings.log), dict(settings.labels)
                state.serve = settings.serve.model_dump(mode="json")
                reach.furnish(place, state, python)
            reach.ensure(place)
            self.running.start(place, server)
            try:
                if self.running.started(place, server) and reach.gateway_up(place):
                    return
            except (InputError, OutsideError):
                self.withdraw(place, release.version)  # unless it has traffic already
                raise
        msg = f"no free port was found for version {release.version}"
        raise OutsideError(msg, fix="run the same command again")

    def _server(self, place: Place, release: Release) -> Server | None:
        """The server of the release that state.json names, if it can be used."""
        state = states.read(place)
        server = state.servers.get(release.version) if state else None
        return server if server and server.digest == release.digest and self.running.usable(server) else None

    def plan(self, place: Place, release: Release, settings: Settings) -> str:
        """What would change on this machine."""
        state = states.read(place)
        said = self.running.changes(self._server(place, release), release, settings)
        fact = self.live(place)
        if fact is None:
            return f"{said}+ all traffic of {place} to version {release.version}, behind an address of its own\n"
        if fact.version == release.version and state and len(state.arms) == 1:
            return said
        weights = ", ".join(f"{step} %" for step in settings.serve.rollout.weights)
        return (
            f"{said}- all traffic of {place} to version {fact.version}\n"
            f"+ traffic of {place} to version {release.version} at {fact.address}: {weights}\n"
        )

    def ask(self, place: Place, version: int | None, body: bytes) -> Answer:
        """Post to the version's server, or to the gateway."""
        state = states.read(place)
        server = state.servers.get(version) if state and version is not None else None
        port = server.port if server else state.gateway_port if state and version is None else 0
        if not port:
            msg = f"version {version} of {place} does not run" if version else f"nothing serves {place}"
            raise OutsideError(msg, fix="run `mlp-ci deploy` again")
        headers = {reach.CHECK_HEADER: reach.token(place)}  # neither counted nor logged: it is nobody's request
        try:
            return Answer(*reach.call(port, "POST", "/invocations", body, timeout=ANSWER_TIMEOUT, headers=headers))
        except (OSError, http.client.HTTPException) as error:
            msg = f"version {version} of {place} does not answer: {error}"
            raise OutsideError(msg, fix=f"read {place.folder / 'logs'}") from error

    def tidy(self, place: Place) -> None:
        """End every version that has no traffic and is not kept warm."""
        state = states.read(place)
        if state is None:
            return
        keep = state.warm()
        for version in [v for v in state.servers if v not in keep]:
            self.withdraw(place, version)
        clear(place.home)

    def withdraw(self, place: Place, version: int) -> None:
        """End a version that has no traffic, once it has answered what it was asked."""
        deadline = time.monotonic() + DRAIN_TIMEOUT
        with contextlib.suppress(OutsideError):  # without a gateway there is nothing to wait for
            while version in reach.admin(place, "GET", "/admin/state")["draining"] and time.monotonic() < deadline:
                time.sleep(0.02)
        ended = None
        with states.changing(place) as state:
            if all(a.version != version for a in state.arms):
                ended = state.servers.pop(version, None)
        if ended:
            self.running.end(place, ended)

    def stop(self, place: Place) -> None:
        """End everything of ``place``. Facts and logs stay; the next deploy starts it again."""
        if states.read(place) is not None:
            with states.changing(place) as state:
                state.stopped = True
        reach.stop(place)
        self.running.stop(place)

    # ------------------------------------------------------------ traffic

    def shift(self, place: Place, arms: Sequence[Arm], expected: Sequence[Arm] | None = None) -> None:
        """Split the traffic; on return every new request follows the new split."""
        with states.changing(place) as state:
            as_expected(place, state, expected)
            missing = [a.version for a in arms if a.version not in state.servers]
            if missing:
                msg = f"version {missing[0]} does not run, so it cannot have traffic"
                raise OutsideError(msg, fix="run `mlp-ci deploy` again")
            state.arms = list(arms)
        reach.follow(place)

    def settle(self, place: Place, release: Release, now: datetime, expected: Sequence[Arm] | None = None) -> None:
        """Give ``release`` everything, keep the one before warm, end all others once they have answered."""
        with states.changing(place) as state:
            as_expected(place, state, expected)
            state.settle(release.version, release.digest, now, release.evidence)
        reach.follow(place)
        self.tidy(place)

    def turn_back(
        self, place: Place, to: int | None, why: Why, expected: Sequence[Arm] | None = None
    ) -> tuple[Reversal, bool]:
        """Give all traffic to an earlier version (the previous one, if ``to`` is None)."""
        warmed, tries = False, PORT_ATTEMPTS
        while True:
            with states.changing(place) as state:
                open_one = state.reversal
                goal = goal_of(place, state, to)
                digest = state.digest_of(goal) or ""
                if goal == state.live and state.canary() is None and open_one and open_one.version == goal:
                    return open_one, False
                as_expected(place, state, expected)
                server = state.servers.get(goal)
                if server and (warmed or reach.answers(server)):
                    taken, bad = state.taken()
                    held = Held(version=taken, digest=bad, reason=why.reason, since=why.now.isoformat())
                    reversal = state.reverse(goal, held, why.by)
                    break
                settings = settings_of(state)
            release = Release(version=goal, digest=digest, artefact=folder_of(place.home, digest))
            try:
                self.prepare(place, release, settings)
                warmed = True
            except RolloutAborted:  # a deploy that ended in between cleared it away: it is needed all the same
                tries -= 1
                if not tries:
                    raise
        reach.follow(place)
        return reversal, True

    # ------------------------------------------------------------ all models of the machine

    def describe(self, place: Place) -> dict[str, Any] | None:
        """Address, live version, arms and processes of a place; None where nothing ever ran."""
        state, fact = states.read(place), self.live(place)
        if state is None:
            return None
        children = (states.read_json(place.processes_file) or {}).get("children", {})
        return {
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


# ---------------------------------------------------------------- parts


def settings_of(state: State) -> Settings:
    """The settings of the last deploy."""
    from mlp_ci.spec.serve import Serve

    return Settings(serve=Serve.model_validate(state.serve), log=state.log, labels=state.labels)


def as_expected(place: Place, state: State, expected: Sequence[Arm] | None) -> None:
    """Raises RolloutAborted when somebody else moved the traffic."""
    if expected is not None and list(expected) != state.arms:
        msg = f"another command moved the traffic of {place} during the rollout"
        raise RolloutAborted(msg, why="it knows something that this one does not", fix="run `mlp-ci deploy` again")


def goal_of(place: Place, state: State, to: int | None) -> int:
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
