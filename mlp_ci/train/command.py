"""Runs a command in a process group of its own: with a time limit, stopped gently, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Protocol, TextIO

from mlp_ci.process import start_time
from mlp_ci.train.relay import Mask, Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

# Long enough to write a checkpoint, short enough for a machine that is taken away: Kubernetes, GCP and Azure give 30 s
# and AWS two minutes, and what was written must still be saved.
GRACE_SECONDS = 20.0
# A cancelled job of GitHub gets SIGINT, SIGTERM 7.5 s later, and is killed 2.5 s after that.
GRACE_SECONDS_IN_JOB = 6.0
RUNNING_FILE = "running.json"


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to run and where; ``notes`` is a folder that outlives this process.

    ``argv`` is started instead of a shell with ``line``, where a back end wraps it. ``sweep`` is a command line that
    ends what is not in the process group (a container); it must do no harm when there is nothing left to end.
    """

    line: str
    argv: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()
    folder: Path
    environ: Mapping[str, str]
    timeout: float
    notes: Path
    log: Path
    grace: float = GRACE_SECONDS


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its exit code (negative for a signal); ``why`` is exit, timeout, interrupted or watchdog.

    ``said`` is what the watchdog saw; ``oom`` whether a container is known to have run out of memory; ``tags`` are what
    the back end has to say about it in the run.
    """

    code: int
    why: str
    seconds: float
    said: str = ""
    oom: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def signal_name(self) -> str:
        """The signal that ended it; a shell reports its child's as 128 + number."""
        number = -self.code if self.code < 0 else self.code - 128 if 128 < self.code < 160 else 0
        with contextlib.suppress(ValueError):
            return signal.Signals(number).name
        return ""


class Watch(Protocol):
    """Looks at a command while it runs: measures it, saves its checkpoints, says when it should end."""

    def begin(self, roots: Callable[[], Sequence[int]]) -> None:
        """The command runs; ``roots`` gives the ids of the processes whose trees are the command, now."""
        ...

    def look(self, quiet: float) -> str:
        """Called several times a second; must return at once. ``quiet``: seconds since its last output.

        Returns the reason to end the command, or an empty text.
        """
        ...

    def end(self) -> None:
        """The command has ended, or is about to be killed."""
        ...


class Unwatched:
    """Watches nothing."""

    def begin(self, roots: Callable[[], Sequence[int]]) -> None:
        pass

    def look(self, quiet: float) -> str:
        return ""

    def end(self) -> None:
        pass


def run(
    command: Command,
    stream: TextIO,
    mask: Mask,
    watch: Watch | None = None,
    roots: Callable[[], Sequence[int]] | None = None,
) -> Ended:
    """Run the command and relay its output to ``stream`` and to the command's log file.

    SIGTERM and SIGINT to this process, like the timeout and a word of ``watch``, are passed on to the whole group as
    SIGTERM; what still runs after the grace period, or when this process is asked a second time, is killed. ``roots``
    gives the processes whose trees are the command, where that is not the process started here.
    """
    started = time.monotonic()
    watch = watch or Unwatched()
    with asked_to_stop() as asked:
        process = subprocess.Popen(
            command.argv or ["sh", "-c", command.line],
            cwd=command.folder,
            env=dict(command.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _note(command, process.pid)
            relay = Relay(_output(process), command.log, stream, mask, command.timeout)
            relay.start()
            watch.begin(roots or (lambda: [process.pid]))
            why, said = _wait(process, asked, started + command.timeout, lambda: watch.look(relay.quiet))
            end = time.monotonic() + command.grace
            if why != "exit":
                _stop(process, asked, end)
            watch.end()
            if why != "exit":
                _wait_for_rest(process, asked, end)
        finally:
            _kill_group(process.pid)
            process.wait()
            _sweep(command.sweep)
        relay.finish(5.0)
        if relay.lost:
            stream.write(f"mlp-ci: the log of the command could not be kept whole: {relay.lost}\n")
    (command.notes / RUNNING_FILE).unlink(missing_ok=True)
    return Ended(code=process.returncode, why=why, seconds=time.monotonic() - started, said=said)


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        msg = "the command's output was not captured"
        raise RuntimeError(msg)
    return process.stdout


def _wait(process: subprocess.Popen[bytes], asked: Asked, deadline: float, look: Callable[[], str]) -> tuple[str, str]:
    """Why the waiting ended, and what the watch said. The process is not reaped: its times can still be read."""
    pause = 0.005
    while not _is_over(process):
        if asked.once.wait(pause):
            return "interrupted", ""
        pause = min(pause * 1.5, 0.1)
        if time.monotonic() >= deadline:
            return "timeout", ""
        if said := look():
            return "watchdog", said
    return "interrupted" if asked.once.is_set() else "exit", ""


def _is_over(process: subprocess.Popen[bytes]) -> bool:
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _stop(process: subprocess.Popen[bytes], asked: Asked, deadline: float) -> None:
    """SIGTERM to the group, then wait until its first process is over, the deadline has come or somebody asks again."""
    _signal_group(process.pid, signal.SIGTERM)
    asked.again.clear()
    while time.monotonic() < deadline and not _is_over(process):
        if asked.again.wait(0.05):
            return


def _wait_for_rest(process: subprocess.Popen[bytes], asked: Asked, deadline: float) -> None:
    """What the first process started may still be writing."""
    while time.monotonic() < deadline and not asked.again.is_set():
        if process.poll() is not None and not _group_lives(process.pid):
            return
        time.sleep(0.05)


def _kill_group(group: int) -> None:
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _sweep(line: Sequence[str]) -> None:
    """End what is not in the process group; that it cannot be ended is found out by whoever starts it next."""
    if line:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(list(line), capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=30)


class Asked:
    """Whether this process was asked to stop: ``once``, and ``again`` (GitHub's SIGTERM after its SIGINT)."""

    def __init__(self) -> None:
        self.once = threading.Event()
        self.again = threading.Event()

    def ask(self, number: int, frame: FrameType | None) -> None:
        (self.again if self.once.is_set() else self.once).set()


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """Takes SIGTERM and SIGINT, instead of ending this process in the middle of something."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, asked.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------- after a kill -9 of mlp-ci itself


def _note(command: Command, group: int) -> None:
    command.notes.mkdir(parents=True, exist_ok=True)
    noted = {"group": group, "born": start_time(group) or "", "sweep": list(command.sweep)}
    (command.notes / RUNNING_FILE).write_text(json.dumps(noted))


def stop_left_over(notes: Path) -> bool:
    """End a command that outlived the mlp-ci which started it, so that two never write to one folder.

    Only a process that provably is the one noted (same id, same moment of birth) is touched.
    """
    file = notes / RUNNING_FILE
    try:
        noted = json.loads(file.read_text())
        group, born = int(noted["group"]), str(noted["born"])
        sweep = [str(word) for word in noted.get("sweep", [])]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    alive = bool(born) and start_time(group) == born
    if alive:
        _kill_group(group)
        deadline = time.monotonic() + 10
        while _group_lives(group) and time.monotonic() < deadline:
            time.sleep(0.05)
    _sweep(sweep)
    file.unlink(missing_ok=True)
    return alive
