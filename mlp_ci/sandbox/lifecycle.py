"""Bring the sandbox up, take it down, say how it is. Each is a reconcile: run it again and it finishes the first."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import OutsideError
from mlp_ci.process import start_time
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome, Report, Table
from mlp_ci.sandbox import home as homes
from mlp_ci.sandbox.home import Home
from mlp_ci.serve.processes import Process

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

LOGINS = ("alice", "bob", "carol", "dave", "mlp-ci[bot]")
START_SECONDS = 90.0
STOP_SECONDS = 20.0


def up(root: Path, *, instant: datetime | None = None, say: Callable[[str], None] = lambda _: None) -> Home:
    """Make the sandbox in ``root`` if it is not there, start what does not run, and wait until all of it answers.

    ``instant``: put the sandbox's clock at this time instead of following the real one.
    """
    home = homes.read(root) if homes.exists(root) else _create(root)
    _prepare_folders(home)
    if instant is not None and not home.clock_file.exists():
        clock.set_instant(home.clock_file, instant)
    for name, command in _commands(home).items():
        if not _runs(home, name):
            say(f"starting {name}")
            home = home.with_processes(**{name: _start(home, name, command)})
            homes.write(home)
    for name, address in {"forge": f"{home.forge_url}/healthz", "mlflow": f"{home.mlflow_url}/health"}.items():
        _wait_until_it_answers(home, name, address)
    return home


def down(root: Path) -> Report:
    """Stop every process of the sandbox. Its folder stays, so that ``up`` goes on where this left off."""
    home = homes.read(root)
    stopped = []
    for name, process in home.processes.items():
        if process.alive:
            _stop(process)
            stopped.append(name)
    if home.serve_home.exists():  # after the runner, whose deploys bring back what is down
        from mlp_ci.serve.targets.local import local

        stopped += [f"serving of {name}" for name in local.stop_all(home.serve_home)]
    homes.write(Home(**{**vars(home), "processes": {}}))
    headline = f"stopped {', '.join(stopped)}" if stopped else "nothing was running"
    return Report(command="sandbox down", headline=headline, data={"stopped": stopped})


def status(root: Path) -> Report:
    """What runs, and where to look."""
    home = homes.read(root)
    rows, findings = [], []
    for name, address in (("forge", home.forge_url), ("mlflow", home.mlflow_url)):
        running = _runs(home, name)
        pid = home.processes[name].pid if running else None
        rows.append((name, Outcome.PASS if running else Outcome.FAIL, pid, address))
        if not running:
            fix = f"run `mlp-ci sandbox up`; its log is {home.logs / name}.log"
            findings.append(Finding(check="process", outcome=Outcome.FAIL, subject=name, message="is down", fix=fix))
    table = Table(title="", columns=("part", "runs", "pid", "address"), rows=tuple(rows))
    headline = f"the sandbox in {root} is " + ("down" if findings else "up")
    outcome = Outcome.FAIL if findings else Outcome.PASS
    report = Report(command="sandbox status", headline=headline, outcome=outcome, findings=findings, tables=[table])
    report.links = [("repositories", home.forge_url), ("runs and versions", home.mlflow_url)]
    report.data = {"home": str(root), "forge": home.forge_url, "mlflow": home.mlflow_url}
    if home.clock_file.exists():
        report.data["clock"] = clock.instant_of(home.clock_file.read_text(encoding="utf-8")).isoformat()
    return report


def _runs(home: Home, name: str) -> bool:
    return name in home.processes and home.processes[name].alive


def _create(root: Path) -> Home:
    forge_port, mlflow_port = homes.free_ports(2)
    tokens = {login: f"sandbox_{secrets.token_urlsafe(24)}" for login in LOGINS}
    home = Home(root=root.resolve(), forge_port=forge_port, mlflow_port=mlflow_port, tokens=tokens)
    homes.write(home)
    return home


def _prepare_folders(home: Home) -> None:
    for folder in (home.logs, home.user_home, home.data_remote, home.root / "mlflow", home.root / "config" / "dvc"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = home.user_home / ".gitconfig"
    if not config.exists():
        # The jobs' git must not ask for anything and must not read a template of the machine's owner.
        config.write_text("[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n", encoding="utf-8")
    dvc = home.root / "config" / "dvc" / "config"
    if not dvc.exists():
        # One cache for all work trees: what one job fetched, the next one links.
        dvc.write_text(f'[cache]\n    dir = {home.root / "cache" / "dvc"}\n    type = "reflink,hardlink,copy"\n')


def _commands(home: Home) -> dict[str, list[str]]:
    python = [sys.executable, "-m"]
    mlflow = home.root / "mlflow"
    return {
        "mlflow": [
            *(*python, "mlflow", "server", "--host", "127.0.0.1", "--port", str(home.mlflow_port)),
            *("--backend-store-uri", f"sqlite:///{mlflow / 'mlflow.db'}"),
            *("--artifacts-destination", str(mlflow / "artifacts"), "--serve-artifacts", "--workers", "1"),
        ],
        "forge": [*python, "mlp_ci.sandbox.host", str(home.root)],
    }


def _start(home: Home, name: str, command: list[str]) -> Process:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "GH_", "MLFLOW_"))},
        # Two processes and 0.5 GB instead of ten and 2.6 GB.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "GIT_CONFIG_GLOBAL": str(home.user_home / ".gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    if home.clock_file.exists():
        environment["MLP_CLOCK_FILE"] = str(home.clock_file)
    with (home.logs / f"{name}.log").open("ab") as log:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=home.root,
            start_new_session=True,
        )
    return Process(started.pid, start_time(started.pid) or "")


def _wait_until_it_answers(home: Home, name: str, address: str) -> None:
    doing(f"waiting for {name}")
    import httpx

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(address, timeout=2).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
        if not _runs(home, name):
            break
    log = home.logs / f"{name}.log"
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
    msg = f"{name} did not start; the end of {log}:\n{tail}"
    raise OutsideError(msg, fix="mend what the log says and run `mlp-ci sandbox up` again")


def _stop(process: Process) -> None:
    """End a process, politely first, and then whatever is left of the group that it led."""
    process.end(STOP_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
