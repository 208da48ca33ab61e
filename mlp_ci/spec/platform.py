"""``platform.yaml``: what holds for the whole organisation. Lives in the org's ``.github`` repository."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from mlp_ci.spec.approval import Approvals, Emergency, Freeze, Login, Team
from mlp_ci.spec.quantities import ApiVersion, Duration, Name, Strict, Tier

USD = Annotated[float, Field(ge=0)]


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


class RunnerClass(Strict):
    """A kind of machine that trains."""

    labels: tuple[str, ...] = Field(min_length=1, description="Labels for runs-on.")
    usd_per_hour: USD = Field(0.0, description="Price of an hour.")


class Floor(Strict):
    """What holds for one model, whatever its model.yaml says."""

    tier: Tier = Field(description="The least tier that the model may have.")


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

    def stage_before(self, stage: str) -> Stage | None:
        """The stage that a version must have been in before ``stage``; None for the first."""
        names = self.stage_names()
        index = names.index(stage)
        return self.stages[index - 1] if index else None
