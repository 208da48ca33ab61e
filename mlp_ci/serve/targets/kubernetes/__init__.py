"""The target ``kubernetes``: Deployments (or InferenceServices of KServe) and an HTTPRoute of the Gateway API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.spec.serve import Serving

if TYPE_CHECKING:
    from mlp_ci.serve.targets import Target
    from mlp_ci.spec import PlatformSpec


def target(platform: PlatformSpec | None) -> Target:
    """The cluster that platform.yaml names; InputError when it names no Gateway."""
    from mlp_ci.serve.targets.kubernetes.cluster import KubernetesTarget

    return KubernetesTarget(platform.serving if platform else Serving.model_validate({}))
