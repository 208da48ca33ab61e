"""Guards and fixtures for all tests: no real home, no GitHub environment, no network but loopback."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.forks import Forks

# Several test processes share few processors: threads of numerical libraries would only wait for each other, spinning.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

# How long an example takes says more about the machine than about the code.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")

LOOPBACK = {"127.0.0.1", "::1", "localhost", "0.0.0.0"}
_HOMES = itertools.count()
OUR_NETS = ["127."]  # and those that a test gives this machine for a while


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep tests of one `xdist_group` in one process: pytest 9.2 has the id elsewhere than xdist 3.8 writes it."""
    if not config.getoption("loadgroup", default=False):
        return
    try:
        from _pytest.nodeid import coerce_node_id
    except ImportError:
        return  # an older pytest, where xdist's own way works
    for item in items:
        groups = sorted({str(mark.args[0]) for mark in item.iter_markers("xdist_group")})
        ending = f"@{'_'.join(groups)}"
        if groups and not item.nodeid.endswith(ending):
            item._id = coerce_node_id(item.nodeid + ending)  # type: ignore[attr-defined]


class ReachedTheNetwork(Exception):
    """A test tried to leave this machine."""


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        ours = isinstance(address, tuple) and str(address[0]).startswith(tuple(OUR_NETS))
        if isinstance(address, tuple) and address[0] not in LOOPBACK and not ours:
            msg = f"a test connected to {address[0]}"
            raise ReachedTheNetwork(msg)
        connect(self, address)  # type: ignore[arg-type]

    socket.socket.connect = guarded  # type: ignore[method-assign]
    yield
    socket.socket.connect = connect  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in list(os.environ):
        if name.startswith(("GITHUB_", "GH_", "MLFLOW_", "MLP_", "DVC_", "RUNNER_", "ACTIONS_")):
            monkeypatch.delenv(name)
    home = tmp_path_factory.getbasetemp() / f"home-{next(_HOMES)}"  # `mktemp` would look at all that are there
    home.mkdir(mode=0o700)
    config = home / ".gitconfig"
    config.write_text(
        "[user]\nname = Test\nemail = test@example.com\n[init]\ndefaultBranch = main\n"
        "[core]\nfsync = none\n[gc]\nauto = 0\n[maintenance]\nauto = false\n"
    )
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_TERMINAL_PROMPT", "0")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(home / "dvc-site"))
    monkeypatch.setenv("MLP_SERVE_HOME", str(home / "serve"))
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """What runs the command line without importing it anew each time."""
    waiting = Forks()
    yield waiting
    waiting.close()


@pytest.fixture
def cli(forks: Forks) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command line in a process of its own: ``cli("lint", "--path", folder)``."""

    def call(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return forks.run([str(a) for a in arguments], {**os.environ, **env})

    return call


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server on SQLite; one per test process, so use names of your own in it."""
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts", "--workers", "1"),
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health", server, folder / "log")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240  # on a machine that others keep busy; in peace it takes four seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            pytest.fail(f"MLflow did not start:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("MLflow did not answer within four minutes")
