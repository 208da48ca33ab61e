"""Whether the pods of a version answer yet, and what keeps them from it. Pure: objects of the API in, words out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.targets.kubernetes.wanted import Manifest

# What a container waits for and does not get by waiting, and after how many seconds that is certain.
HOPELESS = {
    "InvalidImageName": 0,
    "ErrImageNeverPull": 0,
    "CreateContainerConfigError": 20,
    "CreateContainerError": 20,
    "ErrImagePull": 60,
    "ImagePullBackOff": 60,
}
CRASHES = 3


@dataclass(frozen=True)
class Trouble:
    """Why a version will not start. ``ours`` says that it is the version's own fault, not the cluster's."""

    why: str
    ours: bool = False
    pod: str = ""
    container: str = ""


def ready(workload: Manifest) -> bool:
    """Whether a Deployment, or an InferenceService, answers as its newest specification says."""
    status = workload.get("status") or {}
    if workload.get("kind") == "InferenceService":  # its observedGeneration is that of the Deployment below it
        return any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    if int(status.get("observedGeneration") or 0) < int(workload["metadata"].get("generation") or 0):
        return False
    wanted = int((workload.get("spec") or {}).get("replicas") or 1)
    fresh, available = int(status.get("updatedReplicas") or 0), int(status.get("availableReplicas") or 0)
    # An older pod that still is there may be what is available.
    return fresh >= max(wanted, int(status.get("replicas") or 0)) and available >= wanted


def answers(workload: Manifest) -> bool:
    """Whether at least one pod answers, of whatever specification."""
    if workload.get("kind") == "InferenceService":
        return ready(workload)
    return int((workload.get("status") or {}).get("availableReplicas") or 0) > 0


def trouble(workload: Manifest, pods: Sequence[Manifest], waited: float) -> Trouble | None:
    """What keeps the version from starting, if waiting longer does not help; ``waited`` is in seconds."""
    for condition in (workload.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return Trouble(f"{condition.get('reason', '')}: {condition.get('message', '')}")
    for pod in pods:
        for container in (pod.get("status") or {}).get("containerStatuses") or ():
            found = _container(pod["metadata"]["name"], container, waited)
            if found:
                return found
    return None


def waits_for(pods: Sequence[Manifest]) -> str:
    """What the first pod that is not ready waits for, as ``Reason: message``; empty when nothing says."""
    for pod in pods:
        status = pod.get("status") or {}
        for condition in status.get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return f"{condition.get('reason', '')}: {condition.get('message', '')}"
        for container in status.get("containerStatuses") or ():
            waiting = (container.get("state") or {}).get("waiting")
            if waiting:
                return f"{waiting.get('reason', '')}: {waiting.get('message', '')}"
    return ""


def _container(pod: str, container: Manifest, waited: float) -> Trouble | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in HOPELESS and waited >= HOPELESS[reason]:
        return Trouble(f"{reason}: {message}")
    if int(container.get("restartCount") or 0) < CRASHES:
        return None
    ended = (
        (container.get("lastState") or {}).get("terminated") or (container.get("state") or {}).get("terminated") or {}
    )
    how = ended.get("reason") or reason or "it ends"
    why = f"{container.get('name')} ended {container['restartCount']} times: {how}, exit {ended.get('exitCode', '?')}"
    return Trouble(why, ours=True, pod=pod, container=str(container.get("name", "")))
