"""``platform.yaml``: what holds for the whole organisation. Lives in the org's ``.github`` repository."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlp_ci.spec.approval import Approvals, Emergency, Freeze, Login, Team
from mlp_ci.spec.quantities import USD, ApiVersion, Duration, Name, Strict, Tier
from mlp_ci.spec.serve import Serving


class Stage(Strict):
    """A place where versions run. The order of the list is the order of promotion."""

    name: Name = Field(description="Such as staging or production.")
    soak: Duration | None = Field(None, description="How long a version runs here before it may go on.")


class TierPolicy(Strict):
    """What approval a tier needs."""

    approvals: dict[Name, Approvals] = Field(
        description="Stage → how many people other than its authors must approve, and from which teams."
    )
    merge: Annotated[str, Field(pattern="^(person|machine)$")] = Field(
        "person", description="Who merges an approved promotion; machine is for tier low only."
    )
    on_inconclusive: Literal["block", "ask", "pass"] = Field(
        "pass",
        description="The least that is asked of a version whose gates the rows could not decide; model.yaml may ask "
        "for more.",
    )


class RunnerClass(Strict):
    """A kind of machine that trains."""

    labels: tuple[str, ...] = Field(min_length=1, description="Labels for runs-on.")
    usd_per_hour: USD = Field(0.0, description="Price of an hour.")
    timeout: Duration | None = Field(None, description="No job on it may take longer.")
    gpus: int = Field(0, ge=0, le=1024, description="GPUs of such a machine.")
    cpus: Annotated[float, Field(gt=0)] | None = Field(None, description="Processors of such a machine.")
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(None, description="Memory of such a machine, in GB.")
    spot: bool = Field(False, description="Whether such a machine may be taken away at any time.")


class Kubernetes(Strict):
    """The cluster of `train.backend: kubernetes`."""

    namespace: Name = Field("mlp-ci", description="Where its jobs run.")
    service_account: Name | None = Field(None, description="Of the pods.")
    context: str | None = Field(None, description="Of the kubeconfig; the current one, if not given.")
    node_selector: dict[str, str] = Field({}, description="Which machines may train.")
    secret: Name | None = Field(None, description="A Secret; its keys become variables of the pod.")
    image: str | None = Field(
        None, description="An image with mlp-ci and git, for models whose environment is not an image themselves."
    )


class Ray(Strict):
    """The cluster of `train.backend: ray`."""

    address: str = Field(min_length=1, description="Of the job API; RAY_API_SERVER_ADDRESS wins over it.")


class Backends(Strict):
    """Where models train that do not train on the job's own machine."""

    kubernetes: Kubernetes | None = Field(None, description="A Kubernetes cluster.")
    ray: Ray | None = Field(None, description="A Ray cluster.")


class Floor(Strict):
    """What holds for one model, whatever its model.yaml says."""

    tier: Tier = Field(description="The least tier that the model may have.")


class Tracking(Strict):
    """Where MLflow is."""

    uri: str = Field(min_length=1, description="Address of the MLflow server; MLFLOW_TRACKING_URI wins over it.")


class PlatformSpec(Strict):
    """A whole ``platform.yaml``."""

    api_version: ApiVersion = Field(alias="apiVersion", description="The version of this format: mlp-ci/v1.")
    organisation: str = Field("", description="The GitHub organisation.")
    tracking: Tracking | None = Field(None, description="Where MLflow is.")
    stages: tuple[Stage, ...] = Field(
        (Stage(name="staging"), Stage(name="production")),  # type: ignore[call-arg]
        min_length=1,
        description="The stages, in the order of promotion.",
    )
    tiers: dict[Name, TierPolicy] = Field(
        {
            tier: TierPolicy.model_validate({"approvals": {"staging": first, "production": second}, "merge": merge})
            for tier, first, second, merge in (
                ("low", 0, 0, "machine"),
                ("standard", 0, 1, "person"),
                ("critical", 1, 2, "person"),
            )
        },
        description="Tier → what approval it needs.",
    )
    models: dict[Name, Floor] = Field({}, description="Model → the least tier that it may have.")
    platform_team: Team | None = Field(
        None, description="Slug of the team that must approve changes of the policy, of CODEOWNERS and of workflows."
    )
    cannot_approve: tuple[Login, ...] = Field((), description="Logins whose approval never counts.")
    freezes: tuple[Freeze, ...] = Field((), description="Times in which nothing is promoted.")
    emergency: Emergency | None = Field(None, description="Who may roll forward in an emergency; nobody, if not given.")
    runners: dict[Name, RunnerClass] = Field({}, description="Runner classes, by name.")
    backends: Backends = Field(Backends(), description="Clusters that train.")  # type: ignore[call-arg]
    serving: Serving = Field(Serving(), description="What serving costs.")  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _stages_and_tiers_agree(self) -> Self:
        names = [s.name for s in self.stages]
        if len(set(names)) != len(names):
            msg = "a stage stands twice"
            raise ValueError(msg)
        unknown = {s for freeze in self.freezes for s in freeze.stages} - set(names)
        if unknown:
            msg = f"a freeze names {', '.join(sorted(unknown))}; the stages are {', '.join(names)}"
            raise ValueError(msg)
        for tier, policy in self.tiers.items():
            missing = [n for n in names if n not in policy.approvals]
            if missing:
                msg = f"tier {tier} does not say how many approvals {', '.join(missing)} needs"
                raise ValueError(msg)
            if policy.merge == "machine" and tier != "low":
                msg = f"tier {tier} cannot merge by machine; only low can"
                raise ValueError(msg)
        return self

    def stage_names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    def class_called(self, wanted: str | tuple[str, ...]) -> str | None:
        """The runner class of this name, or the one with exactly these labels, in any order; None without one."""
        if isinstance(wanted, str):
            return wanted if wanted in self.runners else None
        return next((name for name, about in self.runners.items() if set(about.labels) == set(wanted)), None)

    def stage_before(self, stage: str) -> Stage | None:
        """The stage that a version must have been in before ``stage``; None for the first."""
        names = self.stage_names()
        index = names.index(stage)
        return self.stages[index - 1] if index else None
