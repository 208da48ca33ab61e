"""The sandbox's folder: where everything lies, which processes belong to it, who its people are.

``sandbox.json`` (mode 0600, because it holds the tokens) is written once when the sandbox is made and again when
its processes start; everything else in the folder belongs to the part that it is named after.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, NothingToDo
from mlp_ci.serve.processes import Process

if TYPE_CHECKING:
    from collections.abc import Mapping

ORG = "acme"
FILE = "sandbox.json"


@dataclass(frozen=True, kw_only=True)
class Home:
    """One sandbox. ``tokens`` are login → token; ``processes`` are name → process."""

    root: Path
    forge_port: int
    mlflow_port: int
    tokens: Mapping[str, str] = field(repr=False)
    processes: Mapping[str, Process] = field(default_factory=dict)

    @property
    def forge_url(self) -> str:
        return f"http://127.0.0.1:{self.forge_port}"

    @property
    def api_url(self) -> str:
        return f"{self.forge_url}/api/v3"

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def clock_file(self) -> Path:
        return self.root / "clock"

    @property
    def data_remote(self) -> Path:
        return self.root / "dvc-remote"

    @property
    def serve_home(self) -> Path:
        return self.root / "serve"

    @property
    def prediction_log(self) -> Path:
        return self.root / "predictions"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def user_home(self) -> Path:
        """HOME of the jobs and of the demo's people, so that nobody's own settings leak in or get changed."""
        return self.root / "home"

    def with_processes(self, **processes: Process) -> Home:
        return replace(self, processes={**self.processes, **processes})


def default_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the sandbox lives if nobody says otherwise."""
    state = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or "/") / ".local" / "state")
    return Path(environ.get("MLP_SANDBOX_HOME") or Path(state) / "mlp-ci" / "sandbox")


def exists(root: Path) -> bool:
    return (root / FILE).is_file()


def read(root: Path) -> Home:
    """The sandbox in ``root``; raises NothingToDo when there is none."""
    file = root / FILE
    if not file.is_file():
        msg = f"there is no sandbox in {root}"
        raise NothingToDo(msg, fix="start one with `mlp-ci sandbox up`")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        raw["processes"] = {name: Process(**p) for name, p in raw["processes"].items()}
        return Home(root=root, **raw)
    except (ValueError, TypeError, KeyError) as error:
        msg = f"{file} cannot be read: {error}"
        raise InputError(msg, fix=f"remove {root} and start again with `mlp-ci sandbox up`") from error


def write(home: Home) -> None:
    """Keep the state; a reader sees the old or the new file, never half of one, and nobody else may read it."""
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    raw = asdict(home)
    del raw["root"]
    scratch = home.root / f".{FILE}.{os.getpid()}"
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        json.dump(raw, stream, indent=2)
    scratch.replace(home.root / FILE)


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on right now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def job_environment(home: Home) -> dict[str, str]:
    """What a job, or a person at a shell of the sandbox, finds in the environment (without tokens)."""
    import sys

    binaries = str(Path(sys.executable).parent)
    environment = {
        "PATH": f"{binaries}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "HOME": str(home.user_home),
        "GIT_CONFIG_GLOBAL": str(home.user_home / ".gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "MLFLOW_TRACKING_URI": home.mlflow_url,
        "MLP_SERVE_HOME": str(home.serve_home),
        "MLP_PREDICTION_LOG": str(home.prediction_log),
        "MLP_SANDBOX_HOME": str(home.root),
        "XDG_CACHE_HOME": str(home.root / "cache"),
        "XDG_STATE_HOME": str(home.root / "state"),
        "XDG_CONFIG_HOME": str(home.root / "config"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(home.root / "cache" / "dvc-site"),
        "DVC_GLOBAL_CONFIG_DIR": str(home.root / "config" / "dvc"),
    }
    if home.clock_file.exists():
        environment["MLP_CLOCK_FILE"] = str(home.clock_file)
    return environment
