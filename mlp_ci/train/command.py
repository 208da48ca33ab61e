"""Runs a command in a process group of its own: with a time limit, stopped gently, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, TextIO

from mlp_ci.process import start_time
from mlp_ci.train.relay import Mask, Relay

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import FrameType

# Long enough to write a checkpoint, short enough not to hold up a cancelled job or a machine that is taken away.
GRACE_SECONDS = 20.0
RUNNING_FILE = "running.json"


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to run and where; ``notes`` is a folder that outlives this process."""

    line: str
    folder: Path
    environ: Mapping[str, str]
    timeout: float
    notes: Path
    log: Path


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its exit code (negative for a signal); ``why`` is exit, timeout or interrupted."""

    code: int
    why: str
    seconds: float

    @property
    def signal_name(self) -> str:
        """The signal that ended it; a shell reports its child's as 128 + number."""
        number = -self.code if self.code < 0 else self.code - 128 if 128 < self.code < 160 else 0
        with contextlib.suppress(ValueError):
            return signal.Signals(number).name
        return ""


def run(command: Command, stream: TextIO, mask: Mask) -> Ended:
    """Run the command and relay its output to ``stream`` and to the command's log file.

    SIGTERM and SIGINT to this process, like the timeout, are passed on to the whole group as SIGTERM; what still runs
    after the grace period is killed.
    """
    started = time.monotonic()
    with _asked_to_stop() as asked:
        process = subprocess.Popen(
            ["sh", "-c", command.line],
            cwd=command.folder,
            env=dict(command.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _note(command.notes, process.pid)
            relay = Relay(_output(process), command.log, stream, mask, command.timeout)
            relay.start()
            why = _wait(process, asked, started + command.timeout)
            if why != "exit":
                _stop(process)
        finally:
            _kill_group(process.pid)
            process.wait()
        relay.finish(5.0)
        if relay.lost:
            stream.write(f"mlp-ci: the log of the command could not be kept whole: {relay.lost}\n")
    (command.notes / RUNNING_FILE).unlink(missing_ok=True)
    return Ended(code=process.returncode, why=why, seconds=time.monotonic() - started)


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        msg = "the command's output was not captured"
        raise RuntimeError(msg)
    return process.stdout


def _wait(process: subprocess.Popen[bytes], asked: threading.Event, deadline: float) -> str:
    pause = 0.005
    while process.poll() is None:
        if asked.wait(pause):
            return "interrupted"
        pause = min(pause * 1.5, 0.1)
        if time.monotonic() >= deadline:
            return "timeout"
    return "interrupted" if asked.is_set() else "exit"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the group, then wait until it is gone or the grace period is over."""
    deadline = time.monotonic() + GRACE_SECONDS
    _signal_group(process.pid, signal.SIGTERM)
    while time.monotonic() < deadline and (process.poll() is None or _group_lives(process.pid)):
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


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM or SIGINT sets, instead of ending this process in the middle of something."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------- after a kill -9 of mlp-ci itself


def _note(notes: Path, group: int) -> None:
    notes.mkdir(parents=True, exist_ok=True)
    (notes / RUNNING_FILE).write_text(json.dumps({"group": group, "born": start_time(group) or ""}))


def stop_left_over(notes: Path) -> bool:
    """End a command that outlived the mlp-ci which started it, so that two never write to one folder.

    Only a process that provably is the one noted (same id, same moment of birth) is touched.
    """
    file = notes / RUNNING_FILE
    try:
        noted = json.loads(file.read_text())
        group, born = int(noted["group"]), str(noted["born"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    alive = bool(born) and start_time(group) == born
    if alive:
        _kill_group(group)
        deadline = time.monotonic() + 10
        while _group_lives(group) and time.monotonic() < deadline:
            time.sleep(0.05)
    file.unlink(missing_ok=True)
    return alive
