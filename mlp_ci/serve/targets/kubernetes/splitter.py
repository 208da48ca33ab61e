"""Our own gateway in the cluster, which splits a model's traffic by user while versions share it. Pure.

An HTTPRoute splits by chance, so the same user would meet both. Each split has a Deployment and a Service of its own,
named by it, and never splits otherwise; to split the traffic anew is one write to the route, which then leads to
another. What it does is an annotation that its pods read as a file (downward API).

Sources: the API reference of Kubernetes (core/v1 DownwardAPIVolumeSource).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.routing import salt
from mlp_ci.serve.targets.kubernetes import manifests, pods
from mlp_ci.serve.targets.kubernetes.wanted import MANAGED, PART, selector, split_stage, splitter_name
from mlp_ci.spec.serve import Serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.state import Arm, Place, State
    from mlp_ci.serve.targets.kubernetes.wanted import Manifest
    from mlp_ci.spec.serve import KubernetesServing

NAME = "splitter"
SPLIT = "mlp-ci/split"  # the label that tells splits apart
CONFIG = "mlp-ci/gateway.yaml"  # the annotation with all of it
FOLDER, FILE = "/etc/mlp-ci", "gateway.yaml"
# One gateway carries at least what so many model servers answer.
SERVERS_EACH = 4


@dataclass(frozen=True, kw_only=True)
class Splitter:
    """What stands before the versions of a model in a stage. ``split`` is its gateway.yaml."""

    place: Place
    serve: Serve
    cluster: KubernetesServing
    split: str

    @property
    def mark(self) -> str:
        return hashlib.sha256(self.split.encode()).hexdigest()[:8]

    @property
    def name(self) -> str:
        return splitter_name(self.place.model, self.place.stage, self.mark)

    @property
    def selector(self) -> dict[str, str]:
        """Labels that its pods have, and no others."""
        return {**of_place(self.place), SPLIT: self.mark}

    @property
    def labels(self) -> dict[str, str]:
        return {**MANAGED, "app.kubernetes.io/name": self.place.model[:63], **self.selector}

    @property
    def metadata(self) -> Manifest:
        return {"name": self.name, "namespace": self.cluster.namespace, "labels": self.labels}

    @property
    def replicas(self) -> int:
        asked = self.serve.replicas
        return max(1, asked.min, math.ceil(asked.max / SERVERS_EACH))


def of_place(place: Place) -> dict[str, str]:
    """Labels of everything of all splitters of a place."""
    return {**selector(place.model, place.stage), PART: NAME}


def needed(state: State, cluster: KubernetesServing) -> bool:
    """Whether versions share the traffic now, and each user is to meet one of them."""
    sticky = (state.serve.get("rollout") or {}).get("sticky")
    return bool(sticky and cluster.image) and len(manifests.weighted(manifests.arms_of(state))) > 1


def of_state(place: Place, state: State, cluster: KubernetesServing) -> Splitter:
    """The one that splits as the state says, be it needed for that or not."""
    digest = state.progress.digest if state.progress else ""
    return of_arms(place, manifests.arms_of(state), Serve.model_validate(state.serve), cluster, digest)


def of_arms(place: Place, arms: Sequence[Arm], serve: Serve, cluster: KubernetesServing, digest: str) -> Splitter:
    """``digest`` is that of the version on its way in."""
    route: dict[str, Any] = {
        "model": place.model,
        # Each request is counted by the version that answers it too; sums over the stage must not have it twice.
        "stage": split_stage(place.stage),
        "arms": [
            {"version": arm.version, "arm": arm.arm, "weight": arm.weight, "url": _address(place, arm.version, cluster)}
            for arm in manifests.weighted(arms)
        ],
        "sticky": serve.rollout.sticky,
        "salt": salt(place.model, place.stage, digest),
    }
    text = json.dumps({"apiVersion": "mlp-ci/v1", "routes": [route]}, separators=(",", ":"), ensure_ascii=False)
    return Splitter(place=place, serve=serve, cluster=cluster, split=text)


def _address(place: Place, version: int, cluster: KubernetesServing) -> str:
    backend = manifests.backend(place, version, cluster)
    return f"http://{backend['name']}.{cluster.namespace}.svc:{backend['port']}"


def of_splitter(splitter: Splitter) -> list[Manifest]:
    """Everything of it, in the order in which it is applied; the Deployment is the last."""
    return [manifests.service(splitter), manifests.disruption_budget(splitter), deployment(splitter)]


def deployment(splitter: Splitter) -> Manifest:
    return manifests.deployed(splitter, _template(splitter), splitter.replicas)


def _template(splitter: Splitter) -> Manifest:
    notes = {"prometheus.io/scrape": "true", "prometheus.io/port": str(pods.PORT), CONFIG: splitter.split}
    arguments, mount = [f"--config={FOLDER}/{FILE}"], {"name": "split", "mountPath": FOLDER, "readOnly": True}
    said = {"path": FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{CONFIG}']"}}
    volumes: list[Manifest] = [{"name": "tmp", "emptyDir": {}}, {"name": "split", "downwardAPI": {"items": [said]}}]
    containers = [pods.gateway(splitter.cluster, arguments, mount)]
    spec = pods.around(splitter, containers, volumes, spread=splitter.replicas > 1)
    return {"metadata": {"labels": splitter.labels, "annotations": notes}, "spec": spec}


def led_to(place: Place, route: Manifest) -> str:
    """The name of the splitter that the place's HTTPRoute leads to; empty when it leads to versions."""
    rules = (route.get("spec") or {}).get("rules") or ()
    names = [str(backend.get("name")) for rule in rules for backend in rule.get("backendRefs") or ()]
    return next((n for n in names if n == splitter_name(place.model, place.stage, n.rpartition("-")[2])), "")
