"""Clusters that refuse: one clear message each, the right exit code, and nothing moved."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.serve.targets.kubernetes import manifests, measuring
from mlp_ci.serve.targets.kubernetes.api import Api
from mlp_ci.spec.serve import KubernetesServing, Serving
from tests.api_server import write_kubeconfig
from tests.serve.kube import stand_in
from tests.serve.kube.stand import Stand, stand_in_cluster
from tests.serve.wanting import PLACE

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Stand]:
    with stand_in_cluster(tmp_path) as stand:
        yield stand


def test_what_a_cluster_may_say_no_to(kube: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, place, release, settings = kube.server, kube.place(), kube.release(3), kube.settings()
    assert server is not None

    def refused(kind: type[Exception], match: str, **fields: Any) -> Any:
        with pytest.raises(kind, match=match) as raised:
            kube.target(**fields).prepare(place, release, settings)
        assert kube.names("apps/v1", "Deployment") == []
        return raised.value

    good = (tmp_path / "kubeconfig-a-token").read_text()
    for token, said, fix in (("old", "does not know who asks", "log in again"), ("b-token", "refuses", "role")):
        address = json.loads(good)["clusters"][0]["cluster"]["server"]
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path, address, token)))
        error = refused(OutsideError, said)
        assert error.exit_code == 7
        assert fix in error.fix
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path, "http://127.0.0.1:9", "gone")))
    assert refused(OutsideError, "cannot be reached").exit_code == 7
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    assert "KUBECONFIG" in refused(InputError, "nothing says where the cluster is").fix
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig-a-token"))

    assert "kubectl create namespace" in refused(InputError, "no namespace elsewhere", namespace="elsewhere").fix
    server.missing.add("serving.kserve.io")
    assert "KServe" in str(refused(InputError, "knows no InferenceService", kserve=True))
    server.missing.add("gateway.networking.k8s.io")
    error = refused(InputError, "Gateway API is not installed")
    assert error.exit_code == 2
    assert "gateway-api" in error.fix
    server.missing.clear()
    server.most_pods = 0
    error = refused(OutsideError, "version 3 does not start")
    assert "exceeded quota" in error.why
    assert "ResourceQuota" in error.fix
    unnamed = Serving.model_validate({"kubernetes": {"namespace": "models", "gateway": "models/public"}})
    with pytest.raises(InputError, match="names no registry"):
        type(kube.target())(unnamed).prepare(place, release, settings)
    assert kube.target().live(place) is None


def test_a_route_of_somebody_else_and_a_gateway_that_does_not_follow(
    kube: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, place = kube.target(), kube.place()
    foreign = {
        "apiVersion": manifests.GATEWAY_API,
        "kind": "HTTPRoute",
        "metadata": {"name": "flight-delay-production"},
    }
    kube.api.create({**foreign, "spec": {}})
    with pytest.raises(InputError, match="is not of flight-delay in production"):
        target.prepare(place, kube.release(3), kube.settings())
    kube.api.delete(manifests.GATEWAY_API, "HTTPRoute", "flight-delay-production")
    assert kube.server is not None
    kube.server.missing.add("serving.kserve.io")  # most clusters have no KServe, and need none
    target.prepare(place, kube.release(3), kube.settings())
    kube.node.follows = False
    monkeypatch.setattr("mlp_ci.serve.targets.kubernetes.keeping.FOLLOW_SECONDS", 0.5)
    with pytest.raises(OutsideError, match="does not take the route") as raised:
        target.settle(place, kube.release(3), NOW)
    assert "describe httproute" in raised.value.fix
    sticky = kube.settings(rollout={"strategy": "ab", "sticky": "user_id"})
    for refusing in (target.prepare, target.plan):
        with pytest.raises(InputError, match="names no image of mlp-ci") as raised:
            refusing(place, kube.release(4), sticky)
        assert "serving: {kubernetes: {image:" in raised.value.fix
    assert kube.names("apps/v1", "Deployment") == ["flight-delay-production-v3"]


class Prometheus(http.server.BaseHTTPRequestHandler):
    """Answers as Prometheus does, from the samples of a page; labels that are not asked for are summed over."""

    samples: list[measuring.Series]
    asked: list[str]

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)["query"][0]
        self.asked.append(query)
        found = re.fullmatch(r"sum by \(([a-z,]+)\) \(max_over_time\(mlp_([a-z_]+)\{(.*)\}\[\d+s\]\)\)", query)
        assert found, query
        by, name = found[1].split(","), found[2]
        sums: dict[tuple[str, ...], float] = {}
        for one in self.samples:
            if one.name == name:
                key = tuple(one.labels.get(label, "") for label in by)
                sums[key] = sums.get(key, 0) + one.value
        result = [{"metric": dict(zip(by, key, strict=True)), "value": [0, str(v)]} for key, v in sums.items()]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def prometheus(samples: list[measuring.Series]) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Bound", (Prometheus,), {"samples": samples, "asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_prometheus_adds_up_what_pods_counted_that_are_gone() -> None:
    def one(name: str, value: float, **labels: str) -> measuring.Series:
        return measuring.Series(name, labels, value)

    samples = [
        one("requests_total", 70, version="3", pod="a"),
        one("requests_total", 30, version="3", pod="gone"),
        one("requests_total", 10, version="4", pod="c"),
        one("errors_total", 2, version="4", pod="c"),
        one("errors_total", float("nan"), version="5", pod="d"),
        one("request_seconds_bucket", 8, version="4", le="0.005"),
        one("request_seconds_bucket", 10, version="4", le="+Inf"),
    ]
    with prometheus(samples) as (address, asked):
        measured = measuring.by_prometheus(address, PLACE, NOW, NOW)
    assert 'model="flight-delay",stage="production"' in asked[0]
    assert measured.versions[3].requests == 100
    assert (measured.versions[4].requests, measured.versions[4].errors) == (10, 2)
    assert sum(measured.versions[4].latency.values()) == 10
    assert measured.versions[5].errors == 0
    with pytest.raises(OutsideError, match=r"Prometheus at .* does not answer"):
        measuring.by_prometheus("http://127.0.0.1:9", PLACE, NOW, NOW)


def test_an_api_server_that_answers_nonsense_is_an_outside_error(tmp_path: Path) -> None:
    cluster = stand_in.Cluster()
    with stand_in_cluster(tmp_path, cluster):
        api = Api.connect(KubernetesServing.model_validate({"namespace": "models"}))
        answer = api.through("GET", "pods/nobody:8080", "/measured")
        assert answer.status == 404
        with pytest.raises(OutsideError, match="refuses"):
            api._read(type(answer)(500, b"<html>"), "reading")
