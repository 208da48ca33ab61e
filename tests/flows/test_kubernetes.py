"""Deploy and rollback, whole, on a cluster: a forge, a real MLflow, an API server's stand-in with pods as processes."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from mlp_ci import serve
from mlp_ci.report import Outcome
from mlp_ci.serve.package.naming import reference
from mlp_ci.serve.targets.kubernetes.pods import PORT
from tests import promotion
from tests.flows.served import BETTER, GOOD, UNASKED, Scene, messages, scene
from tests.serve.kube.stand import MODEL, NAMESPACE, REGISTRY, Stand, stand_in_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVING = f"""\
serving:
  docker: {{registry: {REGISTRY}}}
  kubernetes: {{namespace: {NAMESPACE}, gateway: {NAMESPACE}/public}}
"""


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    (tmp_path / "cluster").mkdir()
    with stand_in_cluster(tmp_path / "cluster") as made:
        yield made


@pytest.fixture
def flights(stand: Stand, tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(promotion, "PLATFORM_YAML", promotion.PLATFORM_YAML + SERVING)
    with scene(tmp_path, mlflow_server, rollout=f"{UNASKED}\n  target: kubernetes") as made:
        for version in (GOOD, BETTER):
            digest = made.digests[version]
            image = reference(REGISTRY, made.name, version, digest)
            stand.node.programs[image] = [sys.executable, "-S", str(MODEL), str(version), digest, "good"]
        yield made


@pytest.mark.slow
def test_a_merged_promotion_goes_live_in_the_cluster_and_comes_back(flights: Scene, stand: Stand) -> None:
    flights.promote(staging=GOOD)
    report = serve.deploy(flights.ctx, None)
    assert report.outcome is Outcome.PASS, messages(report)
    (deployed,) = json.loads(report.outputs["deployed"])
    assert (deployed["version"], deployed["digest"]) == (GOOD, flights.digests[GOOD])
    address = f"http://127.0.0.1:{stand.node.port}/{flights.name}/staging"
    assert report.outputs["address"] == address
    assert stand.ask_address(address, 3) == [GOOD] * 3
    assert flights.tracking.alias(flights.name, "staging") == GOOD
    (deployment,) = stand.api.find("apps/v1", "Deployment", {})
    assert deployment["metadata"]["annotations"]["mlp-ci/commit"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] == PORT

    flights.promote(staging=BETTER)
    report = serve.deploy(flights.ctx, None)
    assert report.outcome is Outcome.PASS, messages(report)
    assert stand.ask_address(address, 3) == [BETTER] * 3

    report = serve.rollback(flights.ctx, "staging", to="previous", reason="it is late")
    assert report.outcome is Outcome.PASS, messages(report)
    assert stand.ask_address(address, 3) == [GOOD] * 3
    assert flights.tracking.alias(flights.name, "staging") == GOOD
    assert [version for _, version, _ in flights.records()] == [GOOD, BETTER, GOOD]
