"""Engines of the tests' own: a Docker daemon and a Ray on this machine, one each for all tests of a process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conformance_train.cluster import ClusterStandIn, node_environment, serve
from tests.conformance_train.image import python_image
from tests.conftest import free_port

IMAGE = "mlp-ci-test/python:1"
NO_ENGINE = "no Docker engine: apt install docker.io, and run the tests as root"


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[str]:
    """The address of a Docker engine that has IMAGE; nothing of it is left afterwards."""
    if not (shutil.which("dockerd") and shutil.which("docker") and os.getuid() == 0):
        pytest.skip(NO_ENGINE)
    folder = Path(tempfile.mkdtemp(prefix="mlp-ci-docker-"))
    address = f"unix://{folder}/docker.sock"
    # No bridge and no rules of a firewall: what the machine has stays as it is.
    options = ["--iptables=false", "--ip6tables=false", "--bridge=none", "--host", address]
    places = [f"--{name}={folder / name}" for name in ("data-root", "exec-root", "pidfile")]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(["dockerd", *options, *places], stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(address, daemon, folder / "log")
        subprocess.run(
            ["docker", "--host", address, "import", "--change", "ENV PATH=/usr/bin:/bin", "-", IMAGE],
            input=python_image(),
            check=True,
            capture_output=True,
        )
        yield address
    finally:
        subprocess.run(["docker", "--host", address, "system", "prune", "--force"], capture_output=True, check=False)
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(address: str, daemon: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if daemon.poll() is not None:
            pytest.skip(f"the Docker engine does not run on this machine:\n{log.read_text()[-1000:]}")
        if subprocess.run(["docker", "--host", address, "version"], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    pytest.skip(f"the Docker engine did not answer within 30 seconds:\n{log.read_text()[-1000:]}")


@pytest.fixture
def docker(docker_engine: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The engine, as ``docker`` finds it."""
    monkeypatch.setenv("DOCKER_HOST", docker_engine)
    return docker_engine


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of the job API of a Ray on this machine alone."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mlp-ci[ray]'")
    folder = Path(tempfile.mkdtemp(prefix="mlp-ci-ray-"))
    port, dashboard = free_port(), free_port()
    command = [
        *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address", "127.0.0.1", "--port", str(port), "--num-cpus", "2"),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)),
        *("--dashboard-agent-listen-port", str(free_port()), "--ray-client-server-port", str(free_port())),
        *("--object-store-memory", "100000000", "--temp-dir", str(folder / "ray")),
    ]
    environ = {**node_environment(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    with (folder / "log").open("wb") as log:
        head = subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_until_answered(f"{address}/api/jobs/", head, folder / "log")
        yield address
    finally:
        _end_with_children(head)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_answered(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            pytest.fail(f"Ray did not start:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("Ray did not answer within a minute")


def _end_with_children(process: subprocess.Popen[bytes]) -> None:
    """Ray's daemons are in groups of their own; nothing that this process did not start is ended."""
    family = [process.pid]
    for pid in family:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                family += map(int, (task / "children").read_text().split())
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterStandIn]:
    """A stand-in of a Kubernetes cluster; its kubeconfig lies in its folder."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    stand_in = ClusterStandIn(folder, node_environment(folder))
    server = serve(stand_in)
    yield stand_in
    for name in list(stand_in.pods):
        stand_in.delete(name)
    server.shutdown()
    server.server_close()
