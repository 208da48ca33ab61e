"""What a cluster is to run for one version, and what everything of it is called there."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.serve.state import Place
    from mlp_ci.serve.targets import Release, Settings
    from mlp_ci.spec.serve import KubernetesServing, Serve

Manifest = dict[str, Any]

MANAGER = "mlp-ci"
MANAGED = {"app.kubernetes.io/managed-by": MANAGER}
MODEL, STAGE, VERSION = "mlp-ci/model", "mlp-ci/stage", "mlp-ci/version"
DIGEST, PART = "mlp-ci/digest", "mlp-ci/part"
LONGEST_NAME = 52  # of 63: KServe and Deployments append to it
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One version in one stage. ``log`` is as in Settings; ``lineage`` are short texts such as commit and run."""

    model: str
    stage: str
    version: int
    digest: str
    image: str
    serve: Serve
    cluster: KubernetesServing
    log: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return version_name(self.model, self.stage, self.version)

    @property
    def selector(self) -> dict[str, str]:
        """Labels that pods of this version have, and no others."""
        return {**selector(self.model, self.stage), VERSION: str(self.version)}

    @property
    def labels(self) -> dict[str, str]:
        return {
            **MANAGED,
            "app.kubernetes.io/name": self.model[:63],
            "app.kubernetes.io/version": str(self.version),
            **self.selector,
        }

    @property
    def notes(self) -> dict[str, str]:
        """Annotations: what has more characters than a label may have."""
        return {DIGEST: self.digest, **{f"mlp-ci/{key}": text for key, text in sorted(self.lineage.items()) if text}}

    @property
    def metadata(self) -> Manifest:
        place = self.cluster.namespace
        return {"name": self.name, "namespace": place, "labels": self.labels, "annotations": self.notes}

    @property
    def logged(self) -> bool:
        """Whether a gateway stands beside each server, and writes the prediction log."""
        return self.cluster.image is not None


def wanted(place: Place, release: Release, settings: Settings, cluster: KubernetesServing, image: str) -> Wanted:
    """What is wanted of the cluster; raises InputError for what no cluster can do."""
    serve = settings.serve
    if serve.replicas.min == 0 and not cluster.kserve:
        msg = "serve.replicas.min is 0, and a Deployment cannot be scaled to zero by its load"
        why = "a HorizontalPodAutoscaler goes down to one pod: nothing would start the first one again"
        raise InputError(msg, why=why, fix="set `min: 1`, or `serving: {kubernetes: {kserve: true}}` in platform.yaml")
    if shared_by_user(serve) and cluster.image is None:
        msg = f"serve.rollout.sticky is {serve.rollout.sticky}, and platform.yaml names no image of mlp-ci"
        why = "an HTTPRoute splits by chance; mlp-ci's own gateway, which knows users again, runs from that image"
        fix = "write `serving: {kubernetes: {image: …}}` in platform.yaml, or leave `sticky` out (canary instead of ab)"
        raise InputError(msg, why=why, fix=fix)
    return Wanted(
        model=place.model,
        stage=place.stage,
        version=release.version,
        digest=release.digest,
        image=image,
        serve=serve,
        cluster=cluster,
        log=settings.log,
        lineage=settings.labels,
    )


def shared_by_user(serve: Serve) -> bool:
    """Whether versions share the traffic in this rollout, and each user is to meet one of them."""
    return bool(serve.rollout.sticky) and serve.rollout.strategy in ("canary", "ab") and serve.rollout.weights[0] < 100


def place_name(model: str, stage: str) -> str:
    """The name of what there is once for a model in a stage; short enough for a host name."""
    return _short(f"{model}-{stage}")


def version_name(model: str, stage: str, version: int) -> str:
    """The name of everything of one version."""
    return _short(f"{model}-{stage}-v{version}")


def splitter_name(model: str, stage: str, mark: str) -> str:
    """The name of everything of what splits the traffic by user in one way."""
    return f"{_short(f'{model}-{stage}-split')}-{mark}"


def split_stage(stage: str) -> str:
    """The stage that what splits the traffic says it is in, for its metrics."""
    return _short(f"{stage}-split")


def selector(model: str, stage: str) -> dict[str, str]:
    """Labels of everything that serves a model in a stage."""
    return {MODEL: label(model), STAGE: label(stage)}


def label(text: str) -> str:
    """``text`` as the value of a label: itself where that is allowed."""
    if _LABEL.fullmatch(text):
        return text
    return f"x{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _short(name: str) -> str:
    """A DNS label: it begins with a letter, and a long one ends with a digest of the whole."""
    name = name if name[0].isalpha() else f"m-{name}"
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
