"""What the back end ``kubernetes`` asks a cluster for, as plain values: a Job, or for several machines an Indexed Job
with its Service, or a TrainJob of Kubeflow Trainer. Pure: the same training gives the same manifests.

Sources: the API reference of Kubernetes (batch/v1 Job, core/v1 Pod and Service; Pod Security Standards, "restricted"),
and trainer.kubeflow.org/v1alpha1 of Kubeflow Trainer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_ci.spec import ModelSpec
    from mlp_ci.spec.platform import Kubernetes
    from mlp_ci.train.backends.handing_over import Order

Manifest = dict[str, Any]

MANAGER = "mlp-ci"
WORKSPACE = "/workspace"
CONTAINER = "train"
NODE_CONTAINER = "node"  # what the runtimes of Kubeflow Trainer call it
RUNTIME = "torch-distributed"
TRAINER_API = "trainer.kubeflow.org/v1alpha1"
MASTER_PORT = 29500
GRACE_SECONDS = 60
KEPT_SECONDS = 86_400  # an ended job and its log stay for a day
USER = 1000
# A TrainJob cannot take all keys of a Secret, so these are named, each where it is there.
SECRET_KEYS = (
    "GITHUB_TOKEN",
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"),
)
# The token is read by git's helper from the variable, so it stands on no command line.
START = """\
set -eu
cd "$MLP_CI_WORKSPACE"
git init --quiet repo
cd repo
git remote add origin "$MLP_CI_REPOSITORY"
ask='!f() { echo username=x-access-token; echo "password=${GITHUB_TOKEN:-}"; }; f'
git -c credential.helper="$ask" fetch --quiet --depth 1 origin "$MLP_CI_COMMIT"
git checkout --quiet --force FETCH_HEAD
cd "$MLP_CI_FOLDER"
exec mlp-ci train
"""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One training on one cluster; ``repository`` is the address that the pod fetches the commit from."""

    order: Order
    spec: ModelSpec
    cluster: Kubernetes
    image: str
    repository: str

    @property
    def labels(self) -> dict[str, str]:
        return {
            "app.kubernetes.io/managed-by": MANAGER,
            "app.kubernetes.io/name": self.spec.name[:63],
            "mlp-ci/job": self.order.name,
        }

    @property
    def metadata(self) -> Manifest:
        notes = {"mlp-ci/commit": self.order.commit, "mlp-ci/train-key": self.order.variables["MLP_CI_EXPECTED_KEY"]}
        name, place = self.order.name, self.cluster.namespace
        return {"name": name, "namespace": place, "labels": self.labels, "annotations": notes}


def job(wanted: Wanted) -> Manifest:
    """A Job for one machine; an Indexed Job whose pods find each other for several."""
    spec: Manifest = {
        "backoffLimit": 0,  # mlp-ci itself goes on from checkpoints, at the next start
        "activeDeadlineSeconds": math.ceil(wanted.order.seconds),
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": {"metadata": {"labels": wanted.labels}, "spec": _pod(wanted)},
    }
    nodes = wanted.spec.train.nodes
    if nodes > 1:
        spec |= {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": wanted.metadata, "spec": spec}


def service(wanted: Wanted, owner: str) -> Manifest:
    """The headless Service that gives the pods of an Indexed Job names; it goes with the job of uid ``owner``."""
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": wanted.order.name, "uid": owner}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**wanted.metadata, "ownerReferences": [reference]},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # they must find each other before they are ready
            "selector": {"mlp-ci/job": wanted.order.name},
            # An older API server does not know the default of a key of the list.
            "ports": [{"name": "torchrun", "port": MASTER_PORT, "protocol": "TCP"}],
        },
    }


def train_job(wanted: Wanted) -> Manifest:
    """A TrainJob on the runtime ``torch-distributed``, which sets the variables of torchrun in each pod."""
    trainer = {
        "image": wanted.image,
        "command": ["sh", "-c", START],
        "env": [*_variables(wanted), *_secrets(wanted)],
        "numNodes": wanted.spec.train.nodes,
        "resourcesPerNode": _resources(wanted),
        "numProcPerNode": _processes(wanted),
    }
    container = {
        "name": NODE_CONTAINER,
        "volumeMounts": _volume_mounts(),
        "securityContext": _container_security(),
    }
    pod: Manifest = {
        "volumes": _volumes(),
        "securityContext": _pod_security(),
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [container],
    }
    if wanted.cluster.node_selector:
        pod["nodeSelector"] = wanted.cluster.node_selector
    if wanted.cluster.service_account:
        pod["serviceAccountName"] = wanted.cluster.service_account
    replicated = {"name": NODE_CONTAINER, "template": {"spec": {"template": {"spec": pod}}}}
    patch = {
        "manager": f"{MANAGER}/train",
        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [replicated]}}},
    }
    return {
        "apiVersion": TRAINER_API,
        "kind": "TrainJob",
        "metadata": wanted.metadata,
        "spec": {
            "runtimeRef": {"name": RUNTIME},
            "activeDeadlineSeconds": math.ceil(wanted.order.seconds),
            "trainer": trainer,
            "runtimePatches": [patch],
        },
    }


def _pod(wanted: Wanted) -> Manifest:
    container: Manifest = {
        "name": CONTAINER,
        "image": wanted.image,
        "command": ["sh", "-c", START],
        "env": [*_variables(wanted), *_torchrun(wanted)],
        "resources": _resources(wanted),
        "volumeMounts": _volume_mounts(),
        "securityContext": _container_security(),
    }
    if wanted.cluster.secret:
        container["envFrom"] = [{"secretRef": {"name": wanted.cluster.secret}}]
    pod: Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,  # training has nothing to say to the cluster
        "enableServiceLinks": False,
        "securityContext": _pod_security(),
        "containers": [container],
        "volumes": _volumes(),
    }
    if wanted.cluster.service_account:
        pod["serviceAccountName"] = wanted.cluster.service_account
    if wanted.cluster.node_selector:
        pod["nodeSelector"] = wanted.cluster.node_selector
    if wanted.spec.train.nodes > 1:
        pod["subdomain"] = wanted.order.name
    return pod


def _variables(wanted: Wanted) -> list[Manifest]:
    place = {
        "HOME": WORKSPACE,
        "MLP_CI_WORKSPACE": WORKSPACE,
        "MLP_CI_REPOSITORY": wanted.repository,
        "MLP_CI_COMMIT": wanted.order.commit,
        "MLP_CI_FOLDER": wanted.order.folder,
    }
    return [{"name": name, "value": value} for name, value in sorted({**wanted.order.variables, **place}.items())]


def _secrets(wanted: Wanted) -> list[Manifest]:
    """Variables from the Secret, by reference: no manifest holds a value of one."""
    if not wanted.cluster.secret:
        return []
    source = {"name": wanted.cluster.secret, "optional": True}
    return [{"name": key, "valueFrom": {"secretKeyRef": {**source, "key": key}}} for key in SECRET_KEYS]


def _torchrun(wanted: Wanted) -> list[Manifest]:
    """torchrun takes what is not on its command line from PET_…; Kubeflow Trainer sets the same."""
    nodes = wanted.spec.train.nodes
    if nodes == 1:
        return []
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    fixed = {
        "PET_NNODES": str(nodes),
        "PET_NPROC_PER_NODE": str(_processes(wanted)),
        "PET_MASTER_ADDR": f"{wanted.order.name}-0.{wanted.order.name}",
        "PET_MASTER_PORT": str(MASTER_PORT),
    }
    rank = {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": index}}}
    return [*({"name": name, "value": value} for name, value in fixed.items()), rank]


def _processes(wanted: Wanted) -> int:
    """Processes on each machine: one for each GPU."""
    return max(1, wanted.spec.train.resources.gpus or 1)


def _resources(wanted: Wanted) -> Manifest:
    asked = wanted.spec.train.resources
    limits: dict[str, str] = {}
    requests: dict[str, str] = {}
    if asked.gpus:
        limits["nvidia.com/gpu"] = str(asked.gpus)
    if asked.memory_gb:
        limits["memory"] = requests["memory"] = f"{math.ceil(asked.memory_gb * 1000)}M"
    if asked.cpus:  # no limit: what nobody else needs may be used
        requests["cpu"] = f"{math.ceil(asked.cpus * 1000)}m"
    if asked.disk_gb:
        requests["ephemeral-storage"] = f"{math.ceil(asked.disk_gb * 1000)}M"
    return {key: value for key, value in (("limits", limits), ("requests", requests)) if value}


def _pod_security() -> Manifest:
    ids = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    return {"runAsNonRoot": True, **ids, "seccompProfile": {"type": "RuntimeDefault"}}


def _container_security() -> Manifest:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _volumes() -> list[Manifest]:
    # Loaders of PyTorch hand batches over in /dev/shm, of which a pod has 64 MB unless it asks for more.
    return [{"name": "workspace", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory"}}]


def _volume_mounts() -> list[Manifest]:
    return [{"name": "workspace", "mountPath": WORKSPACE}, {"name": "shm", "mountPath": "/dev/shm"}]
