"""What is asked of Kubernetes, held against the schemas of its API and of Kubeflow Trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from mlp_ci.spec import parse_model
from mlp_ci.spec.platform import Kubernetes
from mlp_ci.train.backends import manifests
from mlp_ci.train.backends.handing_over import Order
from mlp_ci.train.backends.manifests import Manifest, Wanted

KEY = "0123456789abcdef" * 4
NAME = f"mlp-ci-{KEY[:24]}"
MODEL = {
    "apiVersion": "mlp-ci/v1",
    "name": "flights",
    "team": "growth",
    "data": {"train": "a.csv", "test": "b.csv", "key": ["id"], "target": "y", "columns": {"x": {"type": "float"}}},
    "evaluate": {"gates": [{"metric": "accuracy", "min": 0.6}]},
}
# What trainer.kubeflow.org/v1alpha1 (v2.x) says of a TrainJob, as far as we write of it: read from the types of
# kubeflow/trainer, pkg/apis/trainer/v1alpha1/trainjob_types.go. What is not listed is not allowed here.
TEXT = {"type": "string", "maxLength": 253}
VARIABLE = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "value": {"type": "string"}, "valueFrom": {"type": "object"}},
}


def strictly(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


def listed(item: dict[str, Any], most: int) -> dict[str, Any]:
    return {"type": "array", "items": item, "maxItems": most}


CONTAINER_PATCH = strictly(
    {"name": TEXT, "env": listed(VARIABLE, 128), "volumeMounts": {"type": "array"}, "securityContext": {}}, "name"
)
POD_PATCH = strictly(
    {
        **{name: {} for name in ("serviceAccountName", "securityContext", "nodeSelector", "affinity")},
        "volumes": listed({"type": "object"}, 128),
        "initContainers": listed(CONTAINER_PATCH, 64),
        "containers": listed(CONTAINER_PATCH, 64),
        "terminationGracePeriodSeconds": {"type": "integer", "minimum": 0},
    }
)
INSIDE = strictly({"spec": strictly({"template": strictly({"spec": POD_PATCH})})})
REPLICATED = strictly({"name": TEXT, "template": INSIDE}, "name")
RUNTIME_PATCH = strictly(
    {
        "manager": {"type": "string", "minLength": 1, "maxLength": 253},
        "trainingRuntimeSpec": strictly(
            {"template": strictly({"spec": strictly({"replicatedJobs": listed(REPLICATED, 100)})})}
        ),
    },
    "manager",
)
TRAINER = strictly(
    {
        "image": {"type": "string", "maxLength": 500},
        "command": listed({"type": "string", "maxLength": 1_048_576}, 128),
        "args": listed({"type": "string"}, 128),
        "env": listed(VARIABLE, 128),
        "numNodes": {"type": "integer", "minimum": 0},
        "resourcesPerNode": {"type": "object"},
        "numProcPerNode": {"type": "integer", "minimum": 1},
    }
)
TRAIN_JOB = strictly(
    {
        "apiVersion": {"const": "trainer.kubeflow.org/v1alpha1"},
        "kind": {"const": "TrainJob"},
        "metadata": strictly(
            {
                "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
                **{name: {} for name in ("namespace", "labels", "annotations")},
            },
            "name",
        ),
        "spec": strictly(
            {
                "runtimeRef": strictly({"name": TEXT, "apiGroup": TEXT, "kind": TEXT}, "name"),
                "trainer": TRAINER,
                "runtimePatches": listed(RUNTIME_PATCH, 16),
                "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
            },
            "runtimeRef",
        ),
    },
    *("apiVersion", "kind", "metadata", "spec"),
)


def wanted(train: dict[str, Any] | None = None, **cluster: Any) -> Wanted:
    given = {"command": "python train.py", "backend": "kubernetes", **(train or {})}
    spec = parse_model(json.dumps({**MODEL, "train": given}).encode(), "model.yaml")
    order = Order(
        name=NAME,
        model="flights",
        commit="c" * 40,
        folder=".",
        variables={"MLP_CI_EXPECTED_KEY": KEY, "MLFLOW_TRACKING_URI": "http://mlflow:5000"},
        seconds=7200.5,
    )
    where = Kubernetes.model_validate(cluster)
    return Wanted(order=order, spec=spec, cluster=where, image="i@sha256:1", repository="https://github.com/a/m.git")


def valid(manifest: Manifest) -> Manifest:
    """Against the API's own schemas, of every version that still gets patches and of the newest."""
    for version in ("1.31", "1.33", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(manifest, version, strict=True)
    return manifest


FULL = {
    "nodes": 1,
    "resources": {"gpus": 2, "cpus": 3.5, "memory_gb": 15.5, "disk_gb": 20},
}
PLACE = {"namespace": "ml", "service_account": "trainer", "secret": "keys", "node_selector": {"gpu": "a100"}}


def test_a_job_for_one_machine() -> None:
    job = valid(manifests.job(wanted(FULL, **PLACE)))
    assert valid(manifests.job(wanted()))["metadata"]["namespace"] == "mlp-ci"
    spec = job["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 7201)
    pod = spec["template"]["spec"]
    container = pod["containers"][0]
    assert container["resources"] == {
        "limits": {"nvidia.com/gpu": "2", "memory": "15500M"},
        "requests": {"memory": "15500M", "cpu": "3500m", "ephemeral-storage": "20000M"},
    }
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert pod["nodeSelector"] == {"gpu": "a100"}
    assert pod["serviceAccountName"] == "trainer"
    assert manifests.job(wanted(FULL, **PLACE)) == job, "the same training gave other manifests"


def test_a_pod_keeps_the_restricted_standard() -> None:
    """Pod Security Standards, profile restricted."""
    pod = manifests.job(wanted())["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert pod["automountServiceAccountToken"] is False
    assert {next(k for k in v if k != "name") for v in pod["volumes"]} == {"emptyDir"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


def test_an_indexed_job_whose_pods_find_each_other() -> None:
    asked_for = wanted({**FULL, "nodes": 3})
    job = valid(manifests.job(asked_for))
    service = valid(manifests.service(asked_for, "1-2-3"))
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    variables = {v["name"]: v for v in spec["template"]["spec"]["containers"][0]["env"]}
    assert variables["PET_NNODES"]["value"] == "3"
    assert variables["PET_NPROC_PER_NODE"]["value"] == "2"
    # The name that the Service gives the pod with index 0.
    assert variables["PET_MASTER_ADDR"]["value"] == f"{NAME}-0.{service['metadata']['name']}"
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert service["spec"]["clusterIP"] == "None"
    assert "job-completion-index" in variables["PET_NODE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"]


def test_a_train_job_of_kubeflow() -> None:
    job = manifests.train_job(wanted({**FULL, "nodes": 3}, **PLACE))
    jsonschema.validate(job, TRAIN_JOB)
    jsonschema.validate(manifests.train_job(wanted({"nodes": 2})), TRAIN_JOB)
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 2)
    # What Kubeflow Trainer sets by itself, or forbids.
    assert not [v["name"] for v in trainer["env"] if v["name"].startswith("PET_")]
    # The rest of a pod is checked by the schema of pods.
    patch = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    pod = patch["template"]["spec"]["template"]["spec"]
    container = {**pod["containers"][0], "image": trainer["image"], "env": trainer["env"]}
    container |= {"command": trainer["command"], "resources": trainer["resourcesPerNode"]}
    valid({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {**pod, "containers": [container]}})


@pytest.mark.parametrize("make", [manifests.job, manifests.train_job])
def test_no_manifest_holds_a_secret(make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Secrets come by reference to what lies in the cluster already."""
    text = json.dumps(make(wanted(FULL, **PLACE)))
    assert '"keys"' in text
    values = [v.get("value", "") for v in variables_of(make(wanted(FULL, **PLACE)))]
    assert not [v for v in values if "secret" in v.lower() or "token" in v.lower()]


def variables_of(manifest: Manifest) -> list[dict[str, str]]:
    if manifest["kind"] == "TrainJob":
        return list(manifest["spec"]["trainer"]["env"])
    return list(manifest["spec"]["template"]["spec"]["containers"][0]["env"])
