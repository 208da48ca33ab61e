"""Processes that outlive the command that started them: recognised by pid and start time, so a reused pid is no one."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlp_ci.errors import InputError
from mlp_ci.process import start_time

# How a model server ends when there is no use in starting it again as it was.
EXIT_REFUSED = 2
EXIT_PORT_TAKEN = 98
# What a served model may see of the environment: no tokens, no addresses of the platform.
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
)


@dataclass(frozen=True)
class Process:
    """A process that ran at some time; ``started`` is its start time in the kernel's own unit."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started

    def send(self, number: int) -> None:
        """Signal it, if it still runs."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return  # it ended between the two lines

    def end(self, patience: float) -> None:
        """Ask it to end; after ``patience`` seconds make it."""
        self.send(signal.SIGTERM)
        deadline = time.monotonic() + patience
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.01)
        self.send(signal.SIGKILL)
        while self.alive:
            time.sleep(0.005)


def from_json(raw: Any) -> Process | None:
    """A process from a state file; None for anything else."""
    if isinstance(raw, Mapping) and isinstance(raw.get("pid"), int):
        return Process(raw["pid"], str(raw.get("started")))
    return None


def lasting_interpreter() -> str:
    """The Python that runs this; raises InputError when it is no place from which anything can be served for long."""
    job = os.environ.get("RUNNER_TEMP")
    if job and Path(sys.prefix).resolve().is_relative_to(Path(job).resolve()):
        msg = "mlp-ci was installed for this job only, and the local target serves beyond the job"
        fix = "run `uv tool install 'mlp-ci[serve]'` on the machine that serves, as the user of its runner"
        raise InputError(msg, why="the runner deletes the job's files, and the model servers with them", fix=fix)
    missing = [m for m in ("uvicorn", "starlette", "httptools", "orjson", "pyarrow", "pandas") if find_spec(m) is None]
    if missing:
        msg = f"this Python cannot serve models: {', '.join(missing)} missing"
        raise InputError(msg, fix="pip install 'mlp-ci[serve]'")
    return sys.executable


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a served process: the few variables it needs, and ``extra``."""
    own = {k: os.environ[k] for k in PASSED_ON if k in os.environ}
    # One thread per prediction: a team of threads for a single row costs more than the row.
    return {"OMP_NUM_THREADS": "1", **own, "PYTHONUNBUFFERED": "1", **extra}
