"""Keeps the processes of one model and stage running: ``python -m mlp_ci.serve.supervisor FOLDER``.

Detaches at once, so that it outlives the command (and the CI job) that started it. Runs what ``state.json`` asks for,
restarts with back-off what ends, and adopts what an earlier supervisor left running. It holds the gateway's listening
socket, so while a gateway restarts its clients wait instead of being refused. Only one runs per folder (a lock says).
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mlp_ci.errors import OutsideError
from mlp_ci.process import start_time
from mlp_ci.serve import processes
from mlp_ci.serve.processes import Process
from mlp_ci.serve.state import Place, State, read, read_json, write_json

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

TURN = 0.05
DRAIN = 12.0  # a little more than the servers' own ten seconds
BACKOFF = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY = 30.0  # a process that ran this long starts again at once
LOG_LIMIT = 10 * 1024 * 1024
GATEWAY = "gateway"


@dataclass
class Child:
    """One process that should run. ``exit`` is the code of its last end; ``permanent``: no use to try again."""

    command: list[str]
    process: Process | None = None
    popen: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    started_at: float = 0.0
    retry_at: float = 0.0
    exit: int | None = None
    permanent: bool = False
    kill_at: float | None = None

    def ended(self) -> bool:
        """Whether it ran and has ended since; notes the exit code where it is known."""
        if self.process is None:
            return False
        if self.popen is not None:
            code = self.popen.poll()
            if code is None:
                return False
            self.exit = code
        elif self.process.alive:
            return False
        return True


@dataclass
class Supervisor:
    place: Place
    listener: socket.socket | None = None
    problem: str = ""
    children: dict[str, Child] = field(default_factory=dict)
    stopping: bool = False
    written: Any = None

    def adopt(self) -> None:
        """Take over what an earlier supervisor started and is still alive."""
        for name, raw in ((read_json(self.place.processes_file) or {}).get("children") or {}).items():
            process = processes.from_json(raw.get("process"))
            if process and process.alive:
                self.children[name] = Child(raw["command"], process, started_at=time.monotonic())

    def turn(self, state: State) -> None:
        """One look at what should run and what does."""
        wanted = {} if self.stopping or state.stopped else self._commands(state)
        for name, child in list(self.children.items()):
            if child.ended():
                self._note_end(child)
            if wanted.get(name) != child.command:
                self._end(name, child)
        for name, command in wanted.items():
            child = self.children.setdefault(name, Child(command))
            if child.process is None and not child.permanent and time.monotonic() >= child.retry_at:
                self._start(name, child, state)
        self._write()

    def _commands(self, state: State) -> dict[str, list[str]]:
        wanted = {
            f"v{server.version}": [
                *(server.python, "-m", "mlp_ci.serve.server"),
                *("--model", server.artefact, "--digest", server.digest, "--port", str(server.port)),
                *("--name", state.model, "--version", str(server.version)),
                *(str(part) for option in server.options.items() for part in option),
            ]
            for server in state.servers.values()
            if not server.image  # the engine keeps a container running
        }
        if state.gateway_port:
            wanted[GATEWAY] = [state.python, "-m", "mlp_ci.serve.gateway", "--state", str(self.place.folder)]
        return wanted

    def _start(self, name: str, child: Child, state: State) -> None:
        command, passed = child.command, []
        if name == GATEWAY:
            if not self._listen(state.gateway_port):
                child.retry_at = time.monotonic() + 0.5
                return
            assert self.listener is not None
            passed = [self.listener.fileno()]
            command = [*command, "--fd", str(passed[0])]
        extra = {"MLP_CLOCK_FILE": state.clock_file} if state.clock_file else {}
        try:
            with self._log(name) as log:
                child.popen = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=passed,
                    cwd=self.place.folder,
                    env=processes.environment(extra),
                )
        except OSError as error:  # the interpreter is gone, the disk is full: later may be better
            print(f"{name} cannot be started: {error}", file=sys.stderr)
            self._note_end(child)
            return
        child.process = Process(child.popen.pid, start_time(child.popen.pid) or "")
        child.started_at = time.monotonic()

    def _listen(self, port: int) -> bool:
        if self.listener is not None and self.listener.getsockname()[1] == port:
            return True
        from mlp_ci.serve.listening import bind

        try:
            self.listener = bind("127.0.0.1", port)
            self.listener.listen(2048)
        except OSError as error:
            self.problem = f"the gateway's port {port} cannot be used: {error.strerror}"
            return False
        self.problem = ""
        return True

    def _log(self, name: str) -> IO[bytes]:
        file = self.place.folder / "logs" / f"{name}.log"
        file.parent.mkdir(exist_ok=True)
        if file.exists() and file.stat().st_size > LOG_LIMIT:
            file.replace(file.with_suffix(".log.1"))
        return file.open("ab")

    def _note_end(self, child: Child) -> None:
        ran = time.monotonic() - child.started_at
        child.process = child.popen = None
        child.permanent = child.exit in (processes.EXIT_REFUSED, processes.EXIT_PORT_TAKEN)
        child.restarts = 1 if ran > STEADY else child.restarts + 1
        child.retry_at = time.monotonic() + BACKOFF[min(child.restarts - 1, len(BACKOFF) - 1)]

    def _end(self, name: str, child: Child) -> None:
        """Ask a process that is no longer wanted to end; it is forgotten once it has."""
        if child.process is None:
            del self.children[name]
            return
        if child.kill_at is None:
            child.process.send(signal.SIGTERM)
            child.kill_at = time.monotonic() + DRAIN
        elif time.monotonic() > child.kill_at:
            child.process.send(signal.SIGKILL)

    def _write(self) -> None:
        value = {
            "supervisor": asdict(Process(os.getpid(), start_time(os.getpid()) or "")),
            "problem": self.problem,
            "children": {
                name: {
                    "process": asdict(child.process) if child.process else None,
                    "command": child.command,
                    "restarts": child.restarts,
                    "exit": child.exit,
                    "permanent": child.permanent,
                }
                for name, child in self.children.items()
            },
        }
        if value != self.written:
            write_json(self.place.processes_file, value)
            self.written = value


def supervise(place: Place) -> None:
    """Turn until told to stop and nothing runs any more, or until the folder is gone."""
    supervisor = Supervisor(place)

    def stop(_number: int, _frame: object) -> None:
        supervisor.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervisor.adopt()
    seen, state = 0, None
    while True:
        if not place.state_file.exists():
            for child in supervisor.children.values():
                if child.process:
                    child.process.send(signal.SIGKILL)
            return
        try:
            changed = place.state_file.stat().st_mtime_ns
            if changed != seen:
                state = read(place) or state
                seen = changed
            problem = ""
        except (OSError, OutsideError) as error:
            problem = str(error)
        if supervisor.stopping:
            state = state or State(model=place.model, stage=place.stage)
        problem = problem if state is None else _turn(supervisor, state) or problem
        if problem:  # a full disk, a broken file: what runs must go on
            print(f"trying again: {problem}", file=sys.stderr)
            time.sleep(1)
        if (supervisor.stopping or (state and state.stopped)) and not supervisor.children:
            return
        time.sleep(TURN)


def _turn(supervisor: Supervisor, state: State) -> str:
    """One turn; what stood in its way."""
    try:
        supervisor.turn(state)
    except OSError as error:
        return str(error)
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Detach, become the one supervisor of the folder, and supervise."""
    folder = Path((sys.argv[1:] if arguments is None else arguments)[0]).resolve()
    if os.fork():
        return 0
    os.setsid()
    with (folder / "supervisor.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os._exit(0)
        (folder / "logs").mkdir(exist_ok=True)
        with (folder / "logs" / "supervisor.log").open("ab") as log, Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        supervise(Place(folder.parent.parent, folder.parent.name, folder.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
