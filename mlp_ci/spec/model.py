"""``model.yaml``: what a model is. One class per section; the field descriptions are the reference page."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mlp_ci.spec.approval import Promote
from mlp_ci.spec.data import Data
from mlp_ci.spec.quantities import ApiVersion, Duration, Name, Rate, RepoPath, Strict, Tier

Number = int | float


class Environment(Strict):
    """What the training command runs in; exactly one of these."""

    uv: RepoPath | None = Field(None, description="A pyproject.toml (with uv.lock beside it, if there is one).")
    pip: RepoPath | None = Field(None, description="A requirements file.")
    conda: RepoPath | None = Field(None, description="An environment.yml.")
    image: str | None = Field(None, description="A container image, by digest.")
    inherit: bool | None = Field(None, description="The environment that mlp-ci itself runs in.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1 or self.inherit is False:
            msg = "give exactly one of uv, pip, conda, image or inherit: true"
            raise ValueError(msg)
        return self

    @property
    def kind(self) -> str:
        return next(iter(self.model_fields_set))

    @property
    def file(self) -> str | None:
        """The file that pins the environment, inside the repository."""
        return self.uv or self.pip or self.conda


class Train(Strict):
    """How the model is trained."""

    command: str = Field(min_length=1, description="Any command; DESIGN: see the training contract.")
    params: RepoPath | None = Field(None, description="A YAML or JSON file of parameters, given as MLP_PARAMS.")
    runner: Name | tuple[str, ...] = Field(
        "default", description="A runner class of platform.yaml, or a list of runner labels."
    )
    environment: Environment = Field(Environment(inherit=True), description="What the command runs in.")  # type: ignore[call-arg]
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Given as MLP_SEED.")
    timeout: Duration = Field(timedelta(hours=6), description="The command is stopped after this long.")


class Gate(Strict):
    """One condition that a version must meet."""

    metric: str = Field(min_length=1, description="A metric of the evaluation, such as roc_auc.")
    slice: str | None = Field(None, description="A column; the gate must hold for each of its values.")
    min: Number | None = Field(None, description="The metric is at least this.")
    max: Number | None = Field(None, description="The metric is at most this.")
    versus: Name | None = Field(None, description="Compare with the version of this stage on the same rows.")
    max_drop: Annotated[Number, Field(ge=0)] | None = Field(
        None, description="With versus: the metric may be worse by at most this."
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.min is None and self.max is None and self.versus is None:
            msg = "a gate needs min, max or versus"
            raise ValueError(msg)
        if (self.versus is None) != (self.max_drop is None):
            msg = "versus and max_drop go together"
            raise ValueError(msg)
        if self.min is not None and self.max is not None and self.min > self.max:
            msg = f"min {self.min} is larger than max {self.max}: nothing can pass"
            raise ValueError(msg)
        return self


class Evaluate(Strict):
    """What a version must show on held-out data before it may be registered."""

    task: Literal["auto", "binary", "multiclass", "regression"] = Field(
        "auto", description="What is predicted; auto looks at the target."
    )
    gates: tuple[Gate, ...] = Field(min_length=1, description="All must pass.")
    min_slice_rows: int = Field(50, ge=1, description="Smaller slices are inconclusive, not judged.")


class Rollout(Strict):
    """How traffic moves to a new version."""

    strategy: Literal["canary", "all-at-once"] = Field("all-at-once", description="How traffic moves.")
    steps: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        (100,), min_length=1, description="Per cent of traffic on the new version, step by step."
    )

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        if list(self.steps) != sorted(set(self.steps)) or self.steps[-1] != 100:
            msg = "steps must rise and end with 100"
            raise ValueError(msg)
        return self


class Serve(Strict):
    """Where and how a version answers requests."""

    target: Literal["local", "docker", "kubernetes"] = Field("local", description="Where it runs.")
    rollout: Rollout = Field(Rollout(), description="How traffic moves to a new version.")  # type: ignore[call-arg]


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
