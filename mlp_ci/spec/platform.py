"""``platform.yaml``: what holds for the whole organisation. Lives in the org's ``.github`` repository."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from mlp_ci.spec.quantities import ApiVersion, Duration, Name, Strict

USD = Annotated[float, Field(ge=0)]


class Stage(Strict):
    """A place where versions run. The order of the list is the order of promotion."""

    name: Name = Field(description="Such as staging or production.")
    soak: Duration | None = Field(None, description="How long a version runs here before it may go on.")


class TierPolicy(Strict):
    """What approval a tier needs."""

    approvals: dict[Name, Annotated[int, Field(ge=0, le=10)]] = Field(
        description="Stage → how many people other than the author must approve."
    )
    merge: Annotated[str, Field(pattern="^(person|machine)$")] = Field(
        "person", description="Who merges an approved promotion; machine is for tier low only."
    )


class RunnerClass(Strict):
    """A kind of machine that trains."""

    labels: tuple[str, ...] = Field(min_length=1, description="Labels for runs-on.")
    usd_per_hour: USD = Field(0.0, description="Price of an hour.")


class Serving(Strict):
    """What serving costs."""

    usd_per_hour: USD = Field(0.0, description="Price of one running version for an hour.")


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
            "low": TierPolicy(approvals={"staging": 0, "production": 0}, merge="machine"),
            "standard": TierPolicy(approvals={"staging": 0, "production": 1}),  # type: ignore[call-arg]
            "critical": TierPolicy(approvals={"staging": 1, "production": 2}),  # type: ignore[call-arg]
        },
        description="Tier → what approval it needs.",
    )
    runners: dict[Name, RunnerClass] = Field({}, description="Runner classes, by name.")
    serving: Serving = Field(Serving(), description="What serving costs.")  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _stages_and_tiers_agree(self) -> Self:
        names = [s.name for s in self.stages]
        if len(set(names)) != len(names):
            msg = "a stage stands twice"
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

    def stage_before(self, stage: str) -> Stage | None:
        """The stage that a version must have been in before ``stage``; None for the first."""
        names = self.stage_names()
        index = names.index(stage)
        return self.stages[index - 1] if index else None
