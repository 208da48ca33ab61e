"""The manifests before a real API server: one of KUBEBUILDER_ASSETS (etcd and kube-apiserver), or of a kubeconfig.

Everything is asked as a dry run: the server judges, and nothing is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlp_ci.spec.platform import Kubernetes
from mlp_ci.train.backends import manifests
from mlp_ci.train.backends.cluster import APPLY, PLURALS, Cluster
from tests import api_server
from tests.unit.test_train_manifests import FULL, wanted

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A kubeconfig that leads to an API server."""
    if api_server.KUBECONFIG:
        yield Path(api_server.KUBECONFIG)
        return
    if not api_server.there_is_one():
        pytest.skip(api_server.NO_SERVER)
    with api_server.api_server(tmp_path_factory.mktemp("api-server")) as file:
        yield file


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
