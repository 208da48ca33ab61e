"""What is asked of a cluster that serves, held against the schemas of Kubernetes, the Gateway API and KServe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.errors import InputError
from mlp_ci.serve.measured import LATENCY_BOUNDS_MS
from mlp_ci.serve.rollout.progress import Look, Progress
from mlp_ci.serve.state import Arm, Place, State
from mlp_ci.serve.targets import target_of
from mlp_ci.serve.targets.kubernetes import addresses, keeping, manifests, measuring, starting
from mlp_ci.serve.targets.kubernetes.wanted import Manifest, version_name
from tests.serve.schemas import problem
from tests.serve.wanting import PLACE, cluster, serve, wanted

FULL: dict[str, Any] = {
    "workers": 2,
    "replicas": {"min": 2, "max": 5, "cpu_percent": 60},
    "resources": {"cpus": 1.5, "memory_mb": 2048, "gpus": 1, "spot": True},
    "batching": {"max_rows": 64, "max_delay": "3ms"},
    "log_sample": 0.25,
}
ON: dict[str, Any] = {
    "image": "registry.example/mlp-ci:1",
    "log_claim": "predictions",
    "node_selector": {"pool": "models"},
    "pull_secret": "registry",
}


@pytest.mark.parametrize("kserve", [False, True])
@pytest.mark.parametrize(("fields", "on"), [({}, {}), (FULL, ON), ({"replicas": {"min": 1, "max": 3}}, {"image": "x"})])
def test_the_schemas_take_what_is_asked(fields: dict[str, Any], on: dict[str, Any], kserve: bool) -> None:
    asked_for = wanted(on={**on, "kserve": kserve}, **fields)
    found = manifests.of_version(asked_for)
    assert [problem(manifest) for manifest in found] == [""] * len(found)
    assert manifests.of_version(asked_for) == found, "the same version gives the same manifests"
    kinds = [manifest["kind"] for manifest in found]
    grows = asked_for.serve.replicas.max > asked_for.serve.replicas.min
    if kserve:
        assert kinds == ["InferenceService", "PodDisruptionBudget"]
    else:
        scaler = ["HorizontalPodAutoscaler"] if grows else []
        assert kinds == ["Service", "Deployment", *scaler, "PodDisruptionBudget"]
        assert ("replicas" in found[1]["spec"]) is not grows, "replicas are the autoscaler's where there is one"
    for manifest in found:
        assert manifest["metadata"]["namespace"] == "models"
        assert manifest["metadata"]["labels"]["mlp-ci/version"] == "3"
        assert manifest["metadata"]["annotations"]["mlp-ci/commit"] == "0123456789abcdef"


def test_the_schemas_would_see_an_error() -> None:
    route = manifests.route(PLACE, cluster(), [Arm(version=3, weight=100)], {})
    route["spec"]["rules"][0]["backendRefs"][0]["wieght"] = 1
    assert "wieght" in problem(route)
    deployment = manifests.deployment(wanted())
    deployment["spec"]["template"]["spec"]["containers"][0]["imgae"] = "x"
    assert problem(deployment)


def test_pods_are_confined_and_placed_as_asked() -> None:
    pod = manifests.deployment(wanted(on=ON, **FULL))["spec"]["template"]["spec"]
    restricted(pod)
    sidecar, server = pod["containers"]
    assert server["args"] == [
        *("--host=$(POD_IP)", "--port=8081", "--workers=2", "--max-rows=64", "--max-delay-ms=3"),
    ]
    assert server["resources"]["limits"] == {"memory": "2048M", "nvidia.com/gpu": "1"}
    assert server["resources"]["requests"] == {"cpu": "1500m", "memory": "2048M"}
    assert sidecar["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert any("spot" in toleration["key"] for toleration in pod["tolerations"])
    assert pod["nodeSelector"] == {"pool": "models"}
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert {"name": "log", "persistentVolumeClaim": {"claimName": "predictions"}} in pod["volumes"]
    plain = manifests.deployment(wanted())["spec"]["template"]["spec"]
    restricted(plain)
    assert len(plain["containers"]) == 1
    assert plain["containers"][0]["args"][:2] == ["--host=$(POD_IP)", "--port=8080"]
    assert "tolerations" not in plain
    assert "affinity" not in plain


def restricted(pod: Manifest) -> None:
    """The rules of the Pod Security Standard "restricted", as far as a pod of ours could break them."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all(set(volume) & {"emptyDir", "persistentVolumeClaim"} for volume in pod["volumes"])
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True


def test_a_stage_of_zero_copies_needs_kserve() -> None:
    with pytest.raises(InputError, match="scaled to zero") as raised:
        wanted(replicas={"min": 0, "max": 2})
    assert "kserve" in raised.value.fix
    found = manifests.inference_service(wanted(on={"kserve": True}, replicas={"min": 0, "max": 2}))
    assert problem(found) == ""
    assert found["spec"]["predictor"]["minReplicas"] == 0
    assert found["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative"
    warm = manifests.inference_service(wanted(on={"kserve": True}))
    assert warm["spec"]["predictor"]["minReplicas"] == 1, "only where it is asked for"


def test_the_route_splits_and_mirrors() -> None:
    arms = [Arm(version=3, weight=90), Arm(version=4, weight=10, arm="canary"), Arm(version=5, weight=20, arm="shadow")]
    found = manifests.route(PLACE, cluster(), arms, {"a": "b"})
    assert problem(found) == ""
    rule = found["spec"]["rules"][0]
    assert [(b["name"], b["weight"]) for b in rule["backendRefs"]] == [
        *(("flight-delay-production-v3", 90), ("flight-delay-production-v4", 10)),
    ]
    rewrite, mirror = rule["filters"]
    assert rewrite["urlRewrite"]["path"] == {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}
    assert mirror["requestMirror"]["backendRef"]["name"] == "flight-delay-production-v5"
    assert mirror["requestMirror"]["percent"] == 20
    assert found["spec"]["parentRefs"][0]["namespace"] == "infra"
    served = cluster(hostname="{model}.{stage}.models.example", kserve=True)
    own = manifests.route(PLACE, served, arms[:2], {})
    assert problem(own) == ""
    assert own["spec"]["hostnames"] == ["flight-delay.production.models.example"]
    assert own["spec"]["rules"][0]["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert own["spec"]["rules"][0]["backendRefs"][0]["name"] == "flight-delay-production-v3-predictor"
    nothing = manifests.route(PLACE, cluster(), [], {})
    assert problem(nothing) == ""
    assert nothing["spec"]["rules"][0]["backendRefs"] == []


@settings(max_examples=40, deadline=None)
@given(
    model=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True),
    stage=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True),
    version=st.integers(1, 2**31 - 1),
)
def test_every_name_that_git_allows_is_a_name_in_the_cluster(model: str, stage: str, version: int) -> None:
    place = Place(Path("/nowhere"), model, stage)
    route = manifests.route(place, cluster(), [Arm(version=version, weight=100)], {})
    assert problem(route) == ""
    name = version_name(model, stage, version)
    assert len(name) <= 52
    assert name[0].isalpha()
    assert not name.endswith("-")
    assert all(c.isalnum() or c == "-" for c in name)
    assert version_name(model, stage, version + 1) != name


def test_the_facts_fit_into_an_annotation() -> None:
    look = Look(at="2026-11-21T12:00:00+00:00", metric="error_rate", verdict="insufficient", seen=1000, effect=0.1)
    begun: dict[str, Any] = {
        "version": 4,
        "digest": "sha256:x",
        "stable": 3,
        "strategy": "canary",
        "steps": (1, 100),
        "started": "",
    }
    progress = Progress(**begun, looks=(look,) * 5000)
    text = keeping.annotation(State(model="m", stage="s", progress=progress))
    assert len(text) <= keeping.MOST_BYTES
    kept = keeping.state_in({"metadata": {"annotations": {manifests.STATE: text}}})
    assert kept is not None
    assert kept.progress is not None
    assert 0 < len(kept.progress.looks) < 5000
    with pytest.raises(Exception, match="cannot be read") as raised:
        keeping.state_in({"metadata": {"name": "m-s", "annotations": {manifests.STATE: "{}"}}})
    assert "kubectl annotate" in str(getattr(raised.value, "fix", ""))


def test_a_gateway_takes_a_route_or_says_why_not() -> None:
    def route(*conditions: dict[str, Any]) -> Manifest:
        return {"metadata": {"generation": 3}, "status": {"parents": [{"conditions": list(conditions)}]}}

    accepted = {"type": "Accepted", "status": "True", "observedGeneration": 3}
    refused = {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": "no Service"}
    assert keeping.taken_by_gateway(route(accepted)) == (True, "")
    assert keeping.taken_by_gateway(route({**accepted, "observedGeneration": 2})) == (False, "")
    assert keeping.taken_by_gateway(route(accepted, refused)) == (False, "BackendNotFound: no Service")
    assert keeping.taken_by_gateway(route()) == (False, "")
    assert keeping.taken_by_gateway({}) == (False, "")


def test_what_keeps_a_version_from_starting() -> None:
    def pod(**container: Any) -> Manifest:
        return {"metadata": {"name": "p"}, "status": {"containerStatuses": [{"name": "server", **container}]}}

    quiet: Manifest = {"metadata": {"generation": 1}, "status": {}}
    pulling = pod(state={"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}, restartCount=0)
    assert starting.trouble(quiet, [pulling], 10) is None
    assert starting.trouble(quiet, [pulling], 90) == starting.Trouble("ImagePullBackOff: not found")
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    crashed = pod(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=ended, restartCount=3)
    found = starting.trouble(quiet, [crashed], 10)
    assert found is not None
    assert found.ours
    assert "OOMKilled, exit 137" in found.why
    failing = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small"}
    assert "exceeded quota" in str(starting.trouble({**quiet, "status": {"conditions": [failing]}}, [], 0))
    nowhere = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
    assert (
        starting.waits_for([{"metadata": {"name": "p"}, "status": {"conditions": [nowhere]}}])
        == "Unschedulable: no GPU"
    )


def test_ready_is_what_the_newest_specification_says() -> None:
    def deployment(generation: int, **status: int) -> Manifest:
        return {"kind": "Deployment", "metadata": {"generation": generation}, "spec": {"replicas": 2}, "status": status}

    full = {"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2}
    assert starting.ready(deployment(2, **full))
    assert not starting.ready(deployment(3, **full)), "it has not seen the newest one"
    assert not starting.ready(deployment(2, **{**full, "updatedReplicas": 1}))
    assert starting.answers(deployment(3, availableReplicas=1))
    service = {"kind": "InferenceService", "metadata": {"generation": 4}}
    told = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}
    assert starting.ready({**service, "status": told}), "KServe tells the generation of its Deployment"
    assert not starting.ready({**service, "status": {}})
    assert not starting.answers(deployment(3))


PAGE = """\
# TYPE mlp_server_requests_total counter
mlp_server_requests_total{model="m",version="4",code="200"} 90
mlp_server_requests_total{model="m",version="4",code="500"} 6
mlp_server_requests_total{model="m",version="4",code="429"} 1
mlp_server_requests_total{model="m",version="4",code="400"} 3
# TYPE mlp_server_errors_total counter
mlp_server_errors_total{model="m",version="4"} 10
# TYPE mlp_server_request_seconds histogram
mlp_server_request_seconds_bucket{le="0.00011000000000000002"} 60
mlp_server_request_seconds_bucket{le="0.005"} 99
mlp_server_request_seconds_bucket{le="+Inf"} 100
mlp_server_request_seconds_count 100
mlp_server_request_seconds_sum 0.2
# TYPE mlp_server_odd_total counter
mlp_server_odd_total NaN
"""


def test_counts_are_read_from_a_page_of_metrics() -> None:
    seen = measuring.seen_of(measuring.series_of(PAGE, measuring.SERVER))
    assert (seen.requests, seen.errors, seen.rejected) == (100, 10, 3)
    assert sum(seen.latency.values()) == 100
    assert seen.latency[1] == 60, "a bound of ours is the end of its bin"
    assert seen.latency[len(LATENCY_BOUNDS_MS)] == 1
    empty = measuring.seen_of([measuring.Series("requests_total", {}, float("nan"))])
    assert empty.requests == 0


def test_the_address_is_what_the_gateway_says() -> None:
    gateway = {
        "spec": {"listeners": [{"protocol": "HTTP", "port": 8000}]},
        "status": {"addresses": [{"value": "10.1.2.3"}]},
    }
    assert addresses.base(gateway, "") == "http://10.1.2.3:8000"
    assert addresses.base(gateway, "models.example") == "http://models.example:8000"
    assert addresses.base({"spec": {"listeners": [{"protocol": "HTTPS", "port": 443}]}}, "a.b") == "https://a.b"
    assert addresses.base(None, "") == ""
    assert addresses.base({"status": {"addresses": [{"value": "fd00::1"}]}}, "") == "http://[fd00::1]"


def test_platform_without_a_gateway() -> None:
    with pytest.raises(InputError, match="names no Gateway"):
        target_of(serve(), None)


def test_the_sidecar_is_told_everything_on_its_command_line() -> None:
    pod = manifests.deployment(wanted(on=ON, **FULL))["spec"]["template"]["spec"]
    sidecar = pod["containers"][0]
    assert sidecar["command"] == ["mlp-ci", "gateway"]
    assert sidecar["args"] == [
        *("--host=$(POD_IP)", "--port=8080", "--upstream=http://$(POD_IP):8081", "--expose-measured"),
        *("--model=flight-delay", "--stage=production", "--version=3"),
        *("--log=/var/log/mlp-ci", "--sample=0.25", "--columns=distance:float,carrier:string"),
    ]
    quiet = manifests.deployment(wanted(on=ON, log=False))["spec"]["template"]["spec"]
    assert not any(word.startswith("--log") for word in quiet["containers"][0]["args"])
