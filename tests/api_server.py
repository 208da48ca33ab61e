"""A Kubernetes API server of the tests' own: etcd and kube-apiserver of KUBEBUILDER_ASSETS, without nodes."""

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
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import free_port

# As they were before the tests took the environment away.
ASSETS = os.environ.get("KUBEBUILDER_ASSETS", "")
KUBECONFIG = os.environ.get("KUBECONFIG", "")
NO_SERVER = "no Kubernetes API server: set KUBEBUILDER_ASSETS (setup-envtest) or KUBECONFIG"


def there_is_one() -> bool:
    """Whether KUBEBUILDER_ASSETS leads to the programs."""
    return bool(ASSETS and (Path(ASSETS) / "kube-apiserver").exists() and shutil.which("openssl"))


@contextmanager
def api_server(folder: Path) -> Iterator[Path]:
    """Run one, with all that it has in ``folder``; gives a kubeconfig that leads to it."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(_run_etcd(folder, client := free_port(), free_port()))
        started.append(_run_server(folder, client, port := free_port()))
        _wait_for(f"https://127.0.0.1:{port}/readyz", folder / "kube-apiserver.log")
        yield write_kubeconfig(folder, f"https://127.0.0.1:{port}", "a-token")
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGKILL)
            process.wait()


def _run_etcd(folder: Path, client: int, peer: int) -> subprocess.Popen[bytes]:
    here, other = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    return _start(
        folder,
        *("etcd", f"--data-dir={folder / 'etcd'}", f"--listen-client-urls={here}", f"--advertise-client-urls={here}"),
        *(
            f"--listen-peer-urls={other}",
            f"--initial-advertise-peer-urls={other}",
            f"--initial-cluster=default={other}",
        ),
    )


def _run_server(folder: Path, etcd: int, port: int) -> subprocess.Popen[bytes]:
    key = folder / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text("a-token,admin,1,system:masters\nb-token,nobody,2,\n")
    return _start(
        folder,
        *("kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", f"--cert-dir={folder / 'certificates'}"),
        *("--bind-address=127.0.0.1", f"--secure-port={port}", "--authorization-mode=RBAC"),
        *(f"--token-auth-file={folder / 'tokens.csv'}", "--service-account-issuer=https://localhost/"),
        *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
        *("--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount"),
    )


def _start(folder: Path, program: str, *options: str) -> subprocess.Popen[bytes]:
    with (folder / f"{program}.log").open("wb") as log:
        return subprocess.Popen([str(Path(ASSETS) / program), *options], stdout=log, stderr=log, start_new_session=True)


def _wait_for(address: str, log: Path) -> None:
    trusting = ssl._create_unverified_context()  # it has just made its own certificate
    asked = urllib.request.Request(address, headers={"Authorization": "Bearer a-token"})
    for _ in range(300):
        try:
            with urllib.request.urlopen(asked, timeout=2, context=trusting):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the API server did not start:\n{log.read_text()[-2000:]}")


def write_kubeconfig(folder: Path, server: str, token: str) -> Path:
    """A kubeconfig in ``folder`` that leads to ``server``, as whom the token says."""
    cluster = {"server": server, **({"insecure-skip-tls-verify": True} if server.startswith("https") else {})}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "me", "user": {"token": token}}],
    }
    file = folder / f"kubeconfig-{token}"
    file.write_text(json.dumps(config))
    return file
