"""Where a version answers, and how traffic moves to it: ``serve`` of model.yaml, ``serving`` of platform.yaml."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlp_ci.spec.quantities import USD, Duration, Name, RepoPath, Strict

Share = Annotated[float, Field(gt=0, lt=1)]
CANARY_STEPS = (1, 10, 50, 100)


class Check(Strict):
    """One metric that the new version is held against the old one by, while both answer.

    ``error_rate`` is the share of requests that got no answer or a 5xx, ``rejection_rate`` of those refused with a 4xx;
    ``latency_p50_ms`` and its like are quantiles, ``predictions`` is the distance of the two distributions of
    predictions; any other name is a metric of the evaluation, measured on the requests whose labels have come.
    """

    metric: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        description="error_rate, rejection_rate, latency_p50_ms, latency_p95_ms, latency_p99_ms, predictions, or a "
        "metric of the evaluation, once labels come.",
    )
    max_increase: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Harm begins here: an increase by so much (rates: a share; latency: milliseconds)."
    )
    max_ratio: Annotated[float, Field(gt=1)] | None = Field(
        None, description="Harm begins at so many times the old version's value."
    )
    max_distance: Share | None = Field(
        None, description="Of predictions: the largest distance of the two distributions (Kolmogorov-Smirnov, 0 to 1)."
    )
    max_drop: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Of a metric of the evaluation: worse by so much is harm."
    )

    @model_validator(mode="after")
    def _one_margin_that_fits(self) -> Self:
        fitting = {
            "error_rate": ("max_increase",),
            "rejection_rate": ("max_increase",),
            "predictions": ("max_distance",),
        }
        latency = self.metric in ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
        allowed = ("max_increase", "max_ratio") if latency else fitting.get(self.metric, ("max_drop",))
        given = [
            name
            for name in ("max_increase", "max_ratio", "max_distance", "max_drop")
            if getattr(self, name) is not None
        ]
        if len(given) != 1 or given[0] not in allowed:
            msg = f"{self.metric} takes exactly one of {', '.join(allowed)}"
            raise ValueError(msg)
        return self


DEFAULT_ANALYSIS = (
    Check.model_validate({"metric": "error_rate", "max_increase": 0.01}),
    Check.model_validate({"metric": "rejection_rate", "max_increase": 0.02}),
    Check.model_validate({"metric": "latency_p99_ms", "max_ratio": 2.0}),
)


class Rollout(Strict):
    """How traffic moves to a new version."""

    strategy: Literal["canary", "ab", "shadow", "blue-green", "all-at-once"] = Field(
        "all-at-once",
        description="canary: step by step. ab: two versions, each user always the same, until the difference is known. "
        "shadow: a copy of the traffic whose answers nobody gets. blue-green: tried beside, then switched, the old one "
        "kept warm. all-at-once: switched.",
    )
    steps: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        (),
        description="Per cent of traffic on the new version, step by step; if not given, 1, 10, 50, 100 for canary, "
        "50, 100 for ab, 100 otherwise.",
    )
    stages: tuple[Name, ...] | None = Field(
        None,
        description="Stages in which traffic moves like this; in the others it switches at once, after the checks. "
        "If not given, the last stage: the ones before seldom have the traffic that a decision needs.",
    )
    analysis: tuple[Check, ...] = Field(
        DEFAULT_ANALYSIS, description="What decides a step. An empty list decides by health checks and time alone."
    )
    false_abort: Share = Field(0.05, description="How often a rollout of a harmless version may be aborted.")
    power: Share = Field(0.8, description="How surely a harmful version is to be seen within a step's sample.")
    min_step: Duration = Field(timedelta(0), description="No step is shorter.")
    wait: Duration = Field(timedelta(hours=24), description="How long a step waits for the requests that it needs.")
    on_insufficient: Literal["pause", "advance", "abort"] = Field(
        "pause",
        description="What happens when a step has waited and still cannot tell: a person decides, go on, or back.",
    )
    sticky: str | None = Field(
        None,
        pattern=r"^(header:[A-Za-z0-9-]+|[^\s:]+)$",
        description="Column (or `header:X-User`) whose value decides the arm: a user always meets the same one.",
    )
    trust: Duration = Field(
        timedelta(hours=24),
        description="A version that was healthy here so recently skips the steps.",
    )

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        if self.steps and (list(self.steps) != sorted(set(self.steps)) or self.steps[-1] != 100):
            msg = "steps must rise and end with 100"
            raise ValueError(msg)
        if self.strategy == "ab" and self.sticky is None:
            msg = "ab needs `sticky`: the column or header that tells users apart"
            raise ValueError(msg)
        return self

    @property
    def weights(self) -> tuple[int, ...]:
        """The steps in per cent, those of the strategy where none are given; the last is 100."""
        if self.steps:
            return self.steps
        return {"canary": CANARY_STEPS, "ab": (50, 100)}.get(self.strategy, (100,))

    def of_stage(self, stage: str, last: str) -> Rollout:
        """How traffic moves in ``stage`` of a platform whose last stage is ``last``."""
        if stage in (self.stages or (last,)):
            return self
        return self.model_copy(update={"strategy": "all-at-once", "steps": ()})


class Batching(Strict):
    """Requests that are predicted together."""

    max_rows: int = Field(512, ge=1, le=100_000, description="Most rows of one prediction.")
    max_delay: Duration = Field(
        timedelta(milliseconds=5), description="No request waits longer than this for others to come."
    )


class Replicas(Strict):
    """How many copies of a version run; on Kubernetes between min and max, by load."""

    min: int = Field(1, ge=0, le=1000, description="At least. 0 scales to zero, where the cluster can.")
    max: int = Field(1, ge=1, le=1000, description="At most.")
    cpu_percent: int = Field(70, ge=1, le=100, description="Load at which another one starts.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            msg = "min is more than max"
            raise ValueError(msg)
        return self


class ServeResources(Strict):
    """What one copy of a version may use."""

    cpus: Annotated[float, Field(gt=0)] = Field(1.0, description="Processors.")
    memory_mb: int = Field(1024, ge=64, description="Memory, in MB.")
    gpus: int = Field(0, ge=0, le=64, description="GPUs.")
    spot: bool = Field(False, description="Whether machines that may be taken away will do.")


class Serve(Strict):
    """Where and how a version answers requests."""

    target: Literal["local", "docker", "kubernetes"] = Field("local", description="Where it runs.")
    rollout: Rollout = Field(Rollout(), description="How traffic moves to a new version.")  # type: ignore[call-arg]
    smoke: RepoPath | None = Field(
        None,
        description="File of requests that a version must answer before it gets traffic, and after: JSON lines with "
        "`request` and, if wanted, `predictions` and `tolerance`.",
    )
    keep_previous: bool = Field(True, description="Whether the version before stays warm, for a rollback in seconds.")
    workers: int = Field(1, ge=1, le=64, description="Processes that answer, for each copy of a version.")
    batching: Batching = Field(Batching(), description="Requests that are predicted together.")  # type: ignore[call-arg]
    replicas: Replicas = Field(Replicas(), description="Copies of a version.")  # type: ignore[call-arg]
    resources: ServeResources = Field(ServeResources(), description="What a copy may use.")  # type: ignore[call-arg]
    log_sample: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="Share of the requests that the prediction log keeps."
    )


class DockerServing(Strict):
    """Images of versions, and the engine that runs them."""

    base: str = Field("python:3.11-slim", min_length=1, description="Image that versions' images begin with.")
    registry: str | None = Field(
        None, description="Where images are pushed, as host/path; if not given they stay on the engine."
    )
    host: str | None = Field(None, description="Address of the engine; DOCKER_HOST, else the local one, if not given.")


class KubernetesServing(Strict):
    """The cluster that serves."""

    namespace: Name = Field("mlp-ci", description="Where versions run.")
    context: str | None = Field(None, description="Of the kubeconfig; the current one, if not given.")
    gateway: str | None = Field(
        None, description="Gateway of the Gateway API that HTTPRoutes hang on, as namespace/name."
    )
    kserve: bool = Field(False, description="Run versions as InferenceServices of KServe.")
    prometheus: str | None = Field(
        None, description="Address of a Prometheus that scrapes the pods; without it the pods are asked themselves."
    )
    node_selector: dict[str, str] = Field({}, description="Which machines may serve.")
    image: str | None = Field(
        None,
        description="Image of mlp-ci for the logging sidecar, and for what keeps users on their version (`sticky`); "
        "without it nothing is logged in the cluster, and there is no A/B.",
    )
    log_claim: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        description="PersistentVolumeClaim (ReadWriteMany) that the sidecars write the prediction log to; without "
        "it the log ends with its pod.",
    )
    hostname: str | None = Field(
        None,
        min_length=1,
        description="Host that clients call, with {model} and {stage} to be filled in; without it the path "
        "/model/stage of the Gateway.",
    )
    pull_secret: str | None = Field(
        None, min_length=1, max_length=253, description="Secret that images are pulled with."
    )
    gitops: str | None = Field(
        None,
        description="Folder that manifests are written to instead of being applied (Argo CD, Flux).",
    )


class Serving(Strict):
    """Where models are served, and what it costs."""

    usd_per_hour: USD = Field(0.0, description="Price of one running version for an hour.")
    docker: DockerServing = Field(DockerServing(), description="Images and their engine.")  # type: ignore[call-arg]
    kubernetes: KubernetesServing = Field(KubernetesServing(), description="The cluster.")  # type: ignore[call-arg]
