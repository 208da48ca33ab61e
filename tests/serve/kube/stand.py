"""A cluster for tests: an API server (one that is not there, or a real one), and the node beside it."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from mlp_ci.serve.package.naming import reference
from mlp_ci.serve.state import Place
from mlp_ci.serve.targets import Release, Settings
from mlp_ci.serve.targets.kubernetes import manifests
from mlp_ci.serve.targets.kubernetes.api import Api
from mlp_ci.serve.targets.kubernetes.cluster import KubernetesTarget
from mlp_ci.spec.serve import KubernetesServing, Serve, Serving
from tests import api_server
from tests.conftest import OUR_NETS
from tests.serve.kube import stand_in
from tests.serve.kube.node import MERGE, Node
from tests.serve.schemas import crd

REGISTRY = "registry.example/models"
MODEL = Path(__file__).with_name("model.py")
NAMESPACE = "models"
OUR_IMAGE = "registry.example/mlp-ci:1"


@dataclass
class Stand:
    """A cluster that serves. ``server`` is the API server's own state where it is only a stand-in."""

    kubeconfig: Path
    node: Node
    api: Api
    server: stand_in.Cluster | None

    def serving(self, **fields: Any) -> Serving:
        kubernetes = {"namespace": NAMESPACE, "gateway": f"{NAMESPACE}/public", **fields}
        return Serving.model_validate({"docker": {"registry": REGISTRY}, "kubernetes": kubernetes})

    def target(self, **fields: Any) -> KubernetesTarget:
        return KubernetesTarget(self.serving(**fields))

    def place(self, model: str = "flight-delay", stage: str = "production") -> Place:
        return Place(self.node.folder, model, stage)

    def release(self, version: int, manner: str = "good", *, model: str = "flight-delay") -> Release:
        """A version whose image the node can run; see model.py for what else than good it may be."""
        digest = "sha256:" + f"{version:02x}" * 32
        image = reference(REGISTRY, model, version, digest)
        self.node.programs[image] = [sys.executable, "-S", str(MODEL), str(version), digest, manner]
        return Release(version, digest, self.node.folder, f"evidence of {version}")

    def settings(self, **fields: Any) -> Settings:
        serve = Serve.model_validate({"target": "kubernetes", **fields})
        return Settings(serve=serve, log={}, labels={"commit": "0123456789abcdef", "team": "growth"})

    def route(self, name: str = "flight-delay-production") -> dict[str, Any]:
        found = self.api.get(manifests.GATEWAY_API, "HTTPRoute", name)
        assert found is not None
        return found

    def names(self, api_version: str, kind: str) -> list[str]:
        return sorted(item["metadata"]["name"] for item in self.api.find(api_version, kind, {}))

    def ask_address(self, address: str, count: int, headers: Mapping[str, str] = MappingProxyType({})) -> list[int]:
        """The versions that answered so many requests at the clients' address."""
        body = json.dumps({"inputs": [[1.0]]}).encode()
        found = []
        for _ in range(count):
            given = {"Content-Type": "application/json", **headers}
            asked = urllib.request.Request(f"{address}/invocations", body, given)
            with urllib.request.urlopen(asked, timeout=10) as answer:
                found.append(json.load(answer)["predictions"][0])
        return found


@contextmanager
def stand_in_cluster(folder: Path, cluster: stand_in.Cluster | None = None) -> Iterator[Stand]:
    """A cluster whose API server is only a stand-in; its pods have addresses of the loopback network."""
    cluster = cluster or stand_in.Cluster()
    server = stand_in.serve(cluster)
    net = f"127.{random.randint(10, 250)}.{random.randint(1, 250)}"
    file = api_server.write_kubeconfig(folder, f"http://127.0.0.1:{server.server_port}", "a-token")
    try:
        with _with_node(folder, file, net, cluster) as stand:
            yield stand
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def real_cluster(folder: Path, kubeconfig: Path) -> Iterator[Stand]:
    """A cluster with a real API server, which refuses loopback addresses: pods have others, for a while."""
    net = f"10.{random.randint(128, 250)}.{random.randint(1, 250)}"
    if not shutil.which("ip") or os.getuid() != 0:
        pytest.skip("pods of a real API server need addresses of their own: run the tests as root, with iproute2")
    subprocess.run(["ip", "route", "add", "local", f"{net}.0/24", "dev", "lo"], check=True)
    OUR_NETS.append(f"{net}.")
    try:
        with _with_node(folder, kubeconfig, net, None) as stand:
            yield stand
    finally:
        OUR_NETS.remove(f"{net}.")
        subprocess.run(["ip", "route", "del", "local", f"{net}.0/24", "dev", "lo"], check=False)


@contextmanager
def _with_node(folder: Path, file: Path, net: str, cluster: stand_in.Cluster | None) -> Iterator[Stand]:
    before = os.environ.get("KUBECONFIG")
    os.environ["KUBECONFIG"] = str(file)
    try:
        api = Api.connect(KubernetesServing.model_validate({"namespace": NAMESPACE}))
        numbers = itertools.cycle(range(1, 255))
        node = Node(api, folder, lambda: f"{net}.{next(numbers)}")
        node.programs[OUR_IMAGE] = []  # the manifests name the program
        _make_gateway(api, node.port)
        node.start()
        try:
            yield Stand(file, node, api, cluster)
        finally:
            node.end()
    finally:
        os.environ.pop("KUBECONFIG", None)
        if before is not None:
            os.environ["KUBECONFIG"] = before


def install(api: Api) -> None:
    """The custom resources and the namespace that a real cluster needs."""
    for plural in ("httproutes", "gateways", "inferenceservices"):
        definition = json.dumps(_old_enough(crd(plural))).encode()
        answer = api.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", None, definition)
        assert answer.status in (201, 409), answer.body
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}}
    api.ask("POST", "/api/v1/namespaces", None, json.dumps(namespace).encode())
    paths = [
        *(
            f"/apis/{manifests.GATEWAY_API}/namespaces/{api.namespace}/{plural}"
            for plural in ("httproutes", "gateways")
        ),
        f"/apis/{manifests.KSERVE_API}/namespaces/{api.namespace}/inferenceservices",
    ]
    deadline = time.monotonic() + 60
    while not all(api.ask("GET", path).status == 200 for path in paths):
        assert time.monotonic() < deadline, "the custom resources are not served"
        time.sleep(0.2)


def _old_enough(node: Any) -> Any:
    """Without defaults that are empty texts: Kubernetes 1.20 takes them for null and refuses the definition."""
    if isinstance(node, list):
        return [_old_enough(item) for item in node]
    if isinstance(node, dict):
        return {key: _old_enough(value) for key, value in node.items() if not (key == "default" and value == "")}
    return node


def _make_gateway(api: Api, port: int) -> None:
    listener = {"name": "http", "protocol": "HTTP", "port": port}
    gateway = {
        "apiVersion": manifests.GATEWAY_API,
        "kind": "Gateway",
        "metadata": {"name": "public"},
        "spec": {"gatewayClassName": "tests", "listeners": [listener]},
    }
    api.delete(manifests.GATEWAY_API, "Gateway", "public")
    api.create(gateway)
    path = f"/apis/{manifests.GATEWAY_API}/namespaces/{api.namespace}/gateways/public/status"
    status = {"status": {"addresses": [{"type": "IPAddress", "value": "127.0.0.1"}]}}
    assert api.ask("PATCH", path, None, json.dumps(status).encode(), MERGE).status == 200
