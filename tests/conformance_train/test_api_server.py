"""The manifests before a real API server: one of KUBEBUILDER_ASSETS (etcd and kube-apiserver), or of a kubeconfig.

Everything is asked as a dry run: the server judges, and nothing is made.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlp_ci.spec.platform import Kubernetes
from mlp_ci.train.backends import manifests
from mlp_ci.train.backends.cluster import APPLY, PLURALS, Cluster
from tests.conftest import free_port
from tests.unit.test_train_manifests import FULL, wanted

# As they were before the tests took the environment away.
ASSETS = os.environ.get("KUBEBUILDER_ASSETS", "")
KUBECONFIG = os.environ.get("KUBECONFIG", "")
NO_SERVER = "no Kubernetes API server: set KUBEBUILDER_ASSETS (setup-envtest) or KUBECONFIG"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A kubeconfig that leads to an API server."""
    if KUBECONFIG:
        yield Path(KUBECONFIG)
        return
    if not (ASSETS and (Path(ASSETS) / "kube-apiserver").exists() and shutil.which("openssl")):
        pytest.skip(NO_SERVER)
    folder = tmp_path_factory.mktemp("api-server")
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(run_etcd(folder, client := free_port(), free_port()))
        started.append(run_server(folder, client, port := free_port()))
        wait_for(f"https://127.0.0.1:{port}/readyz", folder / "kube-apiserver.log")
        yield write_kubeconfig(folder, port)
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGKILL)
            process.wait()


def run_etcd(folder: Path, client: int, peer: int) -> subprocess.Popen[bytes]:
    here, other = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    return start(
        folder,
        *("etcd", f"--data-dir={folder / 'etcd'}", f"--listen-client-urls={here}", f"--advertise-client-urls={here}"),
        *(
            f"--listen-peer-urls={other}",
            f"--initial-advertise-peer-urls={other}",
            f"--initial-cluster=default={other}",
        ),
    )


def run_server(folder: Path, etcd: int, port: int) -> subprocess.Popen[bytes]:
    key = folder / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text("a-token,admin,1,system:masters\n")
    return start(
        folder,
        *("kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", f"--cert-dir={folder / 'certificates'}"),
        *("--bind-address=127.0.0.1", f"--secure-port={port}", "--authorization-mode=RBAC"),
        *(f"--token-auth-file={folder / 'tokens.csv'}", "--service-account-issuer=https://localhost/"),
        *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
        *("--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount"),
    )


def start(folder: Path, program: str, *options: str) -> subprocess.Popen[bytes]:
    with (folder / f"{program}.log").open("wb") as log:
        return subprocess.Popen([str(Path(ASSETS) / program), *options], stdout=log, stderr=log, start_new_session=True)


def wait_for(address: str, log: Path) -> None:
    trusting = ssl._create_unverified_context()  # it has just made its own certificate
    asked = urllib.request.Request(address, headers={"Authorization": "Bearer a-token"})
    for _ in range(300):
        try:
            with urllib.request.urlopen(asked, timeout=2, context=trusting):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the API server did not start:\n{log.read_text()[-2000:]}")


def write_kubeconfig(folder: Path, port: int) -> Path:
    cluster = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": "a-token"}}],
    }
    (folder / "kubeconfig").write_text(json.dumps(config))
    return folder / "kubeconfig"


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_server_takes_the_manifests(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, nodes: int) -> None:
    from kubernetes import client

    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    cluster = Cluster.connect(Kubernetes.model_validate({"namespace": "default"}))
    minor = int(client.VersionApi(cluster.client).get_code().minor.rstrip("+"))
    if nodes > 1 and minor < 21:
        pytest.skip(f"Kubernetes 1.{minor} knows no Indexed Job; 1.21 is the first that does")
    asked_for = wanted({**FULL, "nodes": nodes}, namespace="default", secret="keys", node_selector={"gpu": "a100"})
    how: dict[str, Any] = {
        "field_manager": "mlp-ci",
        "dry_run": "All",
        "_content_type": APPLY,
        "_preload_content": False,
    }
    job = manifests.job(asked_for)
    name = job["metadata"]["name"]
    answer = client.CustomObjectsApi(cluster.client).patch_namespaced_custom_object(
        "batch", "v1", "default", PLURALS["batch/v1"], name, job, **how
    )
    taken = json.loads(answer.data)
    assert taken["metadata"]["managedFields"][0]["manager"] == "mlp-ci"
    assert taken["spec"]["backoffLimit"] == 0
    assert taken["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert cluster.job("batch/v1", name) is None, "a dry run made something"
    client.CoreV1Api(cluster.client).patch_namespaced_service(
        name, "default", manifests.service(asked_for, "00000000-0000-0000-0000-000000000000"), **how
    )
    assert cluster.has_trainer() in (True, False)
    assert cluster.pods(name) == []
