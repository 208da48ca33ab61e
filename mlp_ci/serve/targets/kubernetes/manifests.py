"""What a cluster is asked for, as plain values. Pure: the same version gives the same manifests.

Per version a Deployment with its Service, PodDisruptionBudget and, where it may grow, HorizontalPodAutoscaler; or an
InferenceService of KServe. Per model and stage an HTTPRoute, which splits the traffic, or leads to the splitter.

Sources: the API reference of Kubernetes (apps/v1, core/v1, autoscaling/v1, policy/v1), Gateway API v1 (HTTPRoute) and
KServe (serving.kserve.io/v1beta1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mlp_ci.serve.state import SHADOW
from mlp_ci.serve.targets.kubernetes import pods
from mlp_ci.serve.targets.kubernetes.wanted import MANAGED, place_name, selector, version_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.serve.state import Arm, Place, State
    from mlp_ci.serve.targets.kubernetes.wanted import Manifest, Wanted
    from mlp_ci.spec.serve import KubernetesServing

GATEWAY_API, KSERVE_API = "gateway.networking.k8s.io/v1", "serving.kserve.io/v1beta1"
SERVICE_PORT = 80
STATE = "mlp-ci/state"
DEADLINE_SECONDS = 600


class Named(Protocol):
    """What has pods of its own: what its objects are called, and the labels of its pods."""

    @property
    def metadata(self) -> Manifest: ...
    @property
    def selector(self) -> dict[str, str]: ...


def of_version(wanted: Wanted) -> list[Manifest]:
    """Everything of one version, in the order in which it is applied."""
    if wanted.cluster.kserve:
        return [inference_service(wanted), disruption_budget(wanted)]
    scaled = [autoscaler(wanted)] if wanted.serve.replicas.max > wanted.serve.replicas.min else []
    return [service(wanted), deployment(wanted), *scaled, disruption_budget(wanted)]


def deployment(wanted: Wanted) -> Manifest:
    replicas = wanted.serve.replicas
    return deployed(wanted, pods.template(wanted), replicas.min if replicas.max == replicas.min else None)


def deployed(wanted: Named, template: Manifest, replicas: int | None) -> Manifest:
    """A Deployment that never has fewer pods than it should; without ``replicas`` they are the autoscaler's."""
    spec: Manifest = {
        "selector": {"matchLabels": wanted.selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "progressDeadlineSeconds": DEADLINE_SECONDS,
        "revisionHistoryLimit": 2,
        "template": template,
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": wanted.metadata, "spec": spec}


def service(wanted: Named) -> Manifest:
    port = {"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}
    spec = {"type": "ClusterIP", "selector": wanted.selector, "ports": [port]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": wanted.metadata, "spec": spec}


def autoscaler(wanted: Wanted) -> Manifest:
    """By load of the processors; autoscaling/v1 says all that is needed, and every cluster has it."""
    replicas = wanted.serve.replicas
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": wanted.metadata,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": wanted.name},
            "minReplicas": max(1, replicas.min),
            "maxReplicas": replicas.max,
            "targetCPUUtilizationPercentage": replicas.cpu_percent,
        },
    }


def disruption_budget(wanted: Named) -> Manifest:
    """Machines are emptied one pod at a time. A single pod may go: else no machine could ever be emptied."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": wanted.metadata,
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": wanted.selector}},
    }


def inference_service(wanted: Wanted) -> Manifest:
    """KServe runs the pods; the traffic is still split by our HTTPRoute, since KServe's canary is Knative's alone."""
    replicas = wanted.serve.replicas
    pod = pods.spec(wanted, pods.KSERVE_SERVER)
    predictor = {
        **pod,
        "minReplicas": replicas.min,
        "maxReplicas": replicas.max,
        "scaleMetric": "cpu",
        "scaleTarget": replicas.cpu_percent,
        "labels": wanted.labels,
        "annotations": pods.template(wanted)["metadata"]["annotations"],
    }
    mode = {"serving.kserve.io/deploymentMode": "Standard" if replicas.min else "Knative"}
    inside = {"networking.kserve.io/visibility": "cluster-local"}  # it is our route that leads to it
    metadata = {"annotations": {**wanted.notes, **mode}, "labels": {**wanted.labels, **inside}}
    return {
        "apiVersion": KSERVE_API,
        "kind": "InferenceService",
        "metadata": {**wanted.metadata, **metadata},
        "spec": {"predictor": predictor},
    }


def backend(place: Place, version: int, cluster: KubernetesServing) -> Manifest:
    """The Service that a version answers behind."""
    name = version_name(place.model, place.stage, version)
    name = f"{name}-predictor" if cluster.kserve else name  # KServe names it so
    return {"kind": "Service", "name": name, "port": SERVICE_PORT}


def arms_of(state: State) -> list[Arm]:
    """The arms that are to get traffic."""
    return [] if state.stopped else [arm for arm in state.arms if arm.version in state.servers]


def weighted(arms: Sequence[Arm]) -> list[Arm]:
    """The arms that answer people."""
    return [arm for arm in arms if arm.arm != SHADOW and arm.weight > 0]


def route(
    place: Place, cluster: KubernetesServing, arms: Sequence[Arm], notes: Mapping[str, str], through: str = ""
) -> Manifest:
    """The HTTPRoute: so many parts of the traffic to each arm, and copies to a shadow. Without arms nobody answers.

    ``through`` is the Service that splits the traffic instead.
    """
    backends = [{**backend(place, arm.version, cluster), "weight": arm.weight} for arm in weighted(arms)]
    if through:
        backends = [{"kind": "Service", "name": through, "port": SERVICE_PORT, "weight": 100}]
    mirrored = [
        {
            "type": "RequestMirror",
            "requestMirror": {"backendRef": backend(place, arm.version, cluster), "percent": arm.weight},
        }
        for arm in arms
        if arm.arm == SHADOW and arm.weight > 0
    ]
    path = path_of(place, cluster)
    rewritten = {
        "type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
    }
    rule: Manifest = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "filters": [*([rewritten] if path != "/" else []), *mirrored],
        "backendRefs": backends,
    }
    spec: Manifest = {"parentRefs": [parent(cluster)], "rules": [rule]}
    if cluster.hostname:
        spec["hostnames"] = [host_of(place, cluster.hostname)]
    metadata = {
        "name": place_name(place.model, place.stage),
        "namespace": cluster.namespace,
        "labels": {**MANAGED, **selector(place.model, place.stage)},
        "annotations": dict(notes),
    }
    return {"apiVersion": GATEWAY_API, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}


def parent(cluster: KubernetesServing) -> dict[str, Any]:
    """The Gateway that the route hangs on."""
    namespace, _, name = (cluster.gateway or "").rpartition("/")
    found = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name}
    return {**found, "namespace": namespace or cluster.namespace}


def path_of(place: Place, cluster: KubernetesServing) -> str:
    """Where the model is found at the Gateway: the root of a host of its own, else a path of its own."""
    own = cluster.hostname is not None and "{model}" in cluster.hostname and "{stage}" in cluster.hostname
    return "/" if own else f"/{place.model}/{place.stage}"


def host_of(place: Place, hostname: str) -> str:
    return hostname.replace("{model}", place.model).replace("{stage}", place.stage)
