"""The pod of a version: the server of its image, and beside it our gateway, which logs and measures. Pure.

What all pods of ours have in common is here as well.

Sources: the API reference of Kubernetes (core/v1 Pod), and its Pod Security Standards, profile "restricted".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mlp_ci.serve.targets.kubernetes.wanted import Manifest, Wanted
    from mlp_ci.spec.serve import KubernetesServing, Serve, ServeResources

SERVER, SIDECAR = "server", "gateway"
KSERVE_SERVER = "kserve-container"  # what KServe calls the container that answers
PORT = 8080  # where a pod answers
INNER_PORT = 8081  # where its server answers when the gateway stands before it
LOG_FOLDER = "/var/log/mlp-ci"
USER = 10001
GRACE_SECONDS = 45
# So long a pod that is being ended goes on answering: proxies need a moment to learn that it goes.
LEAVE_SECONDS = 5
START_LOOKS = 150  # every two seconds
# How nodes that may be taken away are marked by GKE, AKS, EKS and Karpenter: (taint, label, value).
SPOT = (
    ("cloud.google.com/gke-spot", "cloud.google.com/gke-spot", "true"),
    ("kubernetes.azure.com/scalesetpriority", "kubernetes.azure.com/scalesetpriority", "spot"),
    ("", "eks.amazonaws.com/capacityType", "SPOT"),
    ("", "karpenter.sh/capacity-type", "spot"),
)
# Of our gateway, beside a server or before all of them.
GATEWAY_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}}


class Served(Protocol):
    """Whose pods they are: the labels that no others have, and what is said of them."""

    @property
    def selector(self) -> dict[str, str]: ...
    @property
    def serve(self) -> Serve: ...
    @property
    def cluster(self) -> KubernetesServing: ...


def template(wanted: Wanted) -> Manifest:
    """The pod template of a Deployment."""
    notes = {**wanted.notes, "prometheus.io/scrape": "true", "prometheus.io/port": str(PORT)}
    return {"metadata": {"labels": wanted.labels, "annotations": notes}, "spec": spec(wanted, SERVER)}


def spec(wanted: Wanted, server: str) -> Manifest:
    """The pod's specification; ``server`` is the name of the container that answers."""
    # The first one's port is what KServe leads requests to.
    containers = [*([_sidecar(wanted)] if wanted.logged else []), _server(wanted, server)]
    pod = around(wanted, containers, _volumes(wanted), spread=wanted.serve.replicas.max > 1)
    if wanted.serve.resources.spot:
        pod["affinity"] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": _spot_first()}}
    return pod


def around(served: Served, containers: list[Manifest], volumes: list[Manifest], *, spread: bool) -> Manifest:
    """What holds for every pod of ours: nobody's rights, where it may run, how long it may take to go."""
    pod: Manifest = {
        "automountServiceAccountToken": False,  # a model has nothing to say to the cluster
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": volumes,
    }
    if served.cluster.node_selector:
        pod["nodeSelector"] = dict(served.cluster.node_selector)
    if served.cluster.pull_secret:
        pod["imagePullSecrets"] = [{"name": served.cluster.pull_secret}]
    if tolerations := _tolerations(served.serve.resources):
        pod["tolerations"] = tolerations
    if spread:
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": served.selector},
            }
        ]
    return pod


def _server(wanted: Wanted, name: str) -> Manifest:
    serve, port = wanted.serve, INNER_PORT if wanted.logged else PORT
    delay = serve.batching.max_delay.total_seconds() * 1000
    return {
        "name": name,
        "image": wanted.image,
        # The image says which model; what comes later on its command line counts.
        "args": [
            *("--host=$(POD_IP)", f"--port={port}", f"--workers={serve.workers}"),
            *(f"--max-rows={serve.batching.max_rows}", f"--max-delay-ms={delay:g}"),
        ],
        "env": _address(),
        "ports": [{"name": "inner" if wanted.logged else "http", "containerPort": port, "protocol": "TCP"}],
        "resources": _resources(wanted),
        **_probes("inner" if wanted.logged else "http"),
        "lifecycle": _leaving(),
        "securityContext": _confined(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


def _sidecar(wanted: Wanted) -> Manifest:
    return gateway(wanted.cluster, _gateway_arguments(wanted), {"name": "log", "mountPath": LOG_FOLDER})


def gateway(cluster: KubernetesServing, arguments: list[str], mount: Manifest) -> Manifest:
    """A container of our gateway, which has a volume beside its /tmp."""
    return {
        "name": SIDECAR,
        "image": cluster.image,
        "command": ["mlp-ci", "gateway"],
        "args": ["--host=$(POD_IP)", f"--port={PORT}", *arguments],
        "env": _address(),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": GATEWAY_RESOURCES,
        **_probes("http"),
        "lifecycle": _leaving(),
        "securityContext": _confined(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, mount],
    }


def _gateway_arguments(wanted: Wanted) -> list[str]:
    """One server behind it, the prediction log, and counts for all to read."""
    found = [
        *(f"--upstream=http://$(POD_IP):{INNER_PORT}", "--expose-measured"),
        *(f"--model={wanted.model}", f"--stage={wanted.stage}", f"--version={wanted.version}"),
    ]
    if wanted.log:
        columns = ",".join(f"{name}:{kind}" for name, kind in wanted.log.get("columns", {}).items())
        found += [f"--log={LOG_FOLDER}", f"--sample={wanted.serve.log_sample:g}", f"--columns={columns}"]
    return found


def _address() -> list[Manifest]:
    return [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]


def _probes(port: str) -> Manifest:
    """Time to start, then: traffic only when ready, a new start when it no longer answers at all."""
    alive = {"path": "/v2/health/live", "port": port, "scheme": "HTTP"}
    ready = {"path": "/v2/health/ready", "port": port, "scheme": "HTTP"}
    return {
        "startupProbe": {"httpGet": ready, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": START_LOOKS},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {"httpGet": alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
    }


def _leaving() -> Manifest:
    """Before SIGTERM: wait until no proxy sends anything any more. Slim images need not have `sleep`."""
    return {"preStop": {"exec": {"command": ["python3", "-c", f"import time; time.sleep({LEAVE_SECONDS})"]}}}


def _confined() -> Manifest:
    closed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    return {**closed, "capabilities": {"drop": ["ALL"]}}


def _resources(wanted: Wanted) -> Manifest:
    asked = wanted.serve.resources
    memory = f"{asked.memory_mb}M"
    limits = {"memory": memory}  # no limit of processors: what nobody else needs may be used
    if asked.gpus:
        limits["nvidia.com/gpu"] = str(asked.gpus)
    return {"requests": {"cpu": f"{math.ceil(asked.cpus * 1000)}m", "memory": memory}, "limits": limits}


def _tolerations(resources: ServeResources) -> list[Manifest]:
    found: list[Manifest] = []
    if resources.gpus:
        found.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    if resources.spot:
        found += [
            {"key": taint, "operator": "Equal", "value": value, "effect": "NoSchedule"}
            for taint, _, value in SPOT
            if taint
        ]
    return found


def _spot_first() -> list[Manifest]:
    terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]} for _, key, value in SPOT]
    return [{"weight": 100, "preference": term} for term in terms]


def _volumes(wanted: Wanted) -> list[Manifest]:
    found: list[Manifest] = [{"name": "tmp", "emptyDir": {}}]
    if wanted.logged:
        claim = wanted.cluster.log_claim
        kept = {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {"sizeLimit": "1Gi"}}
        found.append({"name": "log", **kept})
    return found
