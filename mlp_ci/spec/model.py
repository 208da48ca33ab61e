"""``model.yaml``: what a model is. One class per section; the field descriptions are the reference page."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from mlp_ci.spec.approval import Promote
from mlp_ci.spec.data import Data
from mlp_ci.spec.evaluate import Evaluate
from mlp_ci.spec.quantities import ApiVersion, Duration, Name, Rate, RepoPath, Strict, Tier
from mlp_ci.spec.serve import Serve
from mlp_ci.spec.train import Train

Number = int | float


class Drift(Strict):
    """When a change of the input data is an alarm."""

    false_alarms: Rate = Field(
        default=1 / 30.4375, description="How many false alarms the team accepts.", validate_default=False
    )
    min_rows: int = Field(500, ge=1, description="Fewer rows in a window decide nothing.")
    psi: float = Field(0.1, gt=0, description="Smallest population stability index that matters.")
    persistence: int = Field(2, ge=1, le=12, description="How many windows in a row must show it.")


class Performance(Strict):
    """When a loss of quality on labelled live data is an alarm."""

    metric: str = Field(description="A metric of the evaluation.")
    max_drop: Annotated[Number, Field(ge=0)] = Field(description="Worse than the evidence by at most this.")


WINDOWS = {"hourly": timedelta(days=1), "daily": timedelta(days=7), "weekly": timedelta(days=28)}


class Monitor(Strict):
    """What is watched once a version is live."""

    schedule: Literal["hourly", "daily", "weekly"] = Field("daily", description="How often the workflow runs.")
    window: Duration | None = Field(
        None,
        description="How much of the prediction log one verdict covers; if not given, a day for hourly, a week for "
        "daily, four weeks for weekly schedules.",
    )
    segments: tuple[str, ...] = Field((), description="Columns whose frequent values are also watched one by one.")
    drift: Drift = Field(Drift(), description="Drift of inputs and predictions.")  # type: ignore[call-arg]
    performance: Performance | None = Field(None, description="Quality once labels arrive.")
    labels: RepoPath | None = Field(None, description="DVC-tracked file with key and target, as labels arrive.")
    retrain: Literal["on_alarm", "never"] = Field("on_alarm", description="Whether an alarm opens a retraining PR.")

    @property
    def window_length(self) -> timedelta:
        """How much one verdict covers."""
        return self.window or WINDOWS[self.schedule]


class Cost(Strict):
    """What the model may cost."""

    budget_usd_per_month: Annotated[Number, Field(gt=0)] = Field(description="Training and serving together.")


class ModelSpec(Strict):
    """A whole ``model.yaml``."""

    api_version: ApiVersion = Field(alias="apiVersion", description="The version of this format: mlp-ci/v1.")
    name: Name = Field(description="Name of the model, of its experiment and of its registry entry.")
    team: Name = Field(description="The team that owns the model.")
    owners: tuple[str, ...] = Field((), description="Users or teams to ask, such as @acme/growth-ml.")
    tier: Tier = Field("standard", description="How much approval it needs; platform.yaml says what that is.")
    description: str = Field("", description="One sentence for people.")
    metadata: dict[str, Any] = Field({}, description="Anything of your own; mlp-ci does not read it.")
    data: Data = Field(description="The data of the model.")
    train: Train = Field(description="How the model is trained.")
    evaluate: Evaluate = Field(description="What a version must show.")
    promote: Promote = Field(
        Promote(),  # type: ignore[call-arg]
        description="Where its promotions need more than the platform asks for.",
    )
    serve: Serve = Field(Serve(), description="Where and how it answers.")  # type: ignore[call-arg]
    monitor: Monitor = Field(Monitor(), description="What is watched.")  # type: ignore[call-arg]
    cost: Cost | None = Field(None, description="What it may cost.")
