"""The command line in a process of its own without the second that a fresh Python takes to import it.

A process that has imported mlp-ci waits; each call is a fork of it, with its own environment, folder and output, whose
exit code and signals are those of ``python -m mlp_ci``. What a fresh interpreter reads as it starts (its encoding, its
own options) is asked for by variables; a call that sets one of those gets a fresh interpreter.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What the flows import, without what only some of them do.
WARM = (
    "mlp_ci.cli",
    "mlp_ci.data.checks.flow_validate",
    "mlp_ci.data.engines.duck_load",
    "mlp_ci.train.flow",
    "mlp_ci.sweep.flow",
    "mlp_ci.evaluate.flow",
    "mlp_ci.register",
    "mlp_ci.promote.proposals",
    "mlp_ci.serve.flow_deploy",
    "mlp_ci.monitor.watch",
    "mlp_ci.serve.batch.flow",
    "mlp_ci.tracking",
    "duckdb",
    "numpy",
    "scipy.stats",
    "pandas",
    "pyarrow.csv",
    "pyarrow.parquet",
    "requests",
)
READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_")
Run = subprocess.CompletedProcess[str]


class Forks:
    """The waiting process, started at the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(self, arguments: Sequence[str], env: Mapping[str, str], cwd: str | Path | None = None) -> Run:
        """As ``subprocess.run([python, "-m", "mlp_ci", *arguments], capture_output=True, text=True)``."""
        changed = {name for name in {*env, *os.environ} if env.get(name) != os.environ.get(name)}
        command = [sys.executable, "-m", "mlp_ci", *arguments]
        if any(name.startswith(READ_AT_START) for name in changed):
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                env=dict(env),
                cwd=cwd,
            )
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            asked = {"arguments": list(arguments), "env": dict(env), "cwd": str(cwd or Path.cwd())}
            code = self._ask(asked, out.fileno(), err.fileno())
            out.seek(0)
            err.seek(0)
            return Run(command, code, out.read().decode(), err.read().decode())

    def _ask(self, asked: dict[str, Any], *streams: int) -> int:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(self._address())
            line.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))])
            line.sendall(json.dumps(asked).encode() + b"\n")
            answer = b""
            while piece := line.recv(64):
                answer += piece
        return int(answer)

    def _address(self) -> str:
        with self._lock:
            if self._waiting is None or self._waiting.poll() is not None:
                self._folder = tempfile.TemporaryDirectory(prefix="mlp-forks-")
                address = f"{self._folder.name}/line"
                self._waiting = subprocess.Popen(
                    [sys.executable, "-m", "tests.forks", address],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd=Path(__file__).resolve().parents[1],
                )
                assert self._waiting.stdout
                assert self._waiting.stdout.readline() == b"ready\n", "the process to be forked did not start"
            assert self._folder
            return f"{self._folder.name}/line"

    def close(self) -> None:
        if self._waiting is not None:
            self._waiting.kill()
            self._waiting.communicate()
        if self._folder is not None:
            self._folder.cleanup()


# ---------------------------------------------------------------- the process that waits


def wait(address: str) -> None:
    """Import, then answer each connection with a fork, which stays with its command until that ends."""
    from importlib import import_module

    for name in WARM:
        import_module(name)
    gc.collect()
    gc.freeze()  # else a fork's garbage collector would copy all pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks below; they are no zombies
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen(64)
        os.write(1, b"ready\n")
        parent = os.getppid()
        door.settimeout(5)
        while True:
            try:
                line, _ = door.accept()
            except TimeoutError:
                if os.getppid() != parent:  # the tests were killed
                    return
                continue
            if os.fork() == 0:
                door.close()
                line.settimeout(None)
                _serve(line)  # does not come back
            line.close()


def _serve(line: socket.socket) -> None:
    """Fork once more, for the command itself, and tell how that ended."""
    _, ancillary, _, _ = line.recvmsg(1, socket.CMSG_SPACE(8))
    streams = array.array("i", ancillary[0][2])
    text = b""
    while not text.endswith(b"\n"):
        text += line.recv(65_536)
    asked = json.loads(text)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child:
        _tell_the_end(line, child)
        os._exit(0)
    line.close()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, stream in enumerate((nothing, *streams)):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    _as_a_fresh_python(asked)
    os._exit(_ended())


def _ended() -> int:
    """Run the command, and end as Python does but for taking apart, module by module, what was imported."""
    from mlp_ci.__main__ import main

    code = 0
    try:
        main()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the threads that are no daemons
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 120  # as Python ends when nobody takes its output
    sys.stderr.flush()
    return code


def _tell_the_end(line: socket.socket, child: int) -> None:
    """Its exit code, or the negative signal that ended it. A command for which nobody waits any more is ended."""
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended, line], [], [])
    if ended not in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        line.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _as_a_fresh_python(asked: dict[str, Any]) -> None:
    """What ``python -m mlp_ci`` would have: its words, its name, where it imports from, its streams."""
    import mlp_ci

    sys.argv = [str(Path(mlp_ci.__file__).with_name("__main__.py")), *asked["arguments"]]
    sys.modules["__main__"].__package__ = "mlp_ci"
    sys.path[0] = asked["cwd"]
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    wait(sys.argv[1])
