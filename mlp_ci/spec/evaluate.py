"""The section ``evaluate`` of model.yaml: what a version must show on held-out data."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlp_ci.spec.quantities import Duration, Name, Strict

Number = int | Annotated[float, Field(allow_inf_nan=False)]
Task = Literal["auto", "binary", "multiclass", "multilabel", "regression", "ranking", "forecasting"]


class Gate(Strict):
    """One condition that a version must meet."""

    metric: str = Field(min_length=1, description="A metric of the evaluation, such as roc_auc.")
    slice: str | None = Field(None, description="A column; the gate must hold for each of its values.")
    gap: str | None = Field(
        None, description="A column; `max` bounds the largest difference of the metric between two of its values."
    )
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
        if self.gap is not None and (self.max is None or self.min is not None or self.slice or self.versus):
            msg = "gap goes with max alone: the largest difference that is allowed between two values of the column"
            raise ValueError(msg)
        if self.gap is not None and self.max is not None and self.max < 0:
            msg = f"max {self.max} of a gap: a gap is never less than 0, so nothing can pass"
            raise ValueError(msg)
        return self


class Evaluate(Strict):
    """What a version must show on held-out data before it may be registered."""

    task: Task = Field("auto", description="What is predicted; auto looks at the target.")
    gates: tuple[Gate, ...] = Field(min_length=1, description="All must pass.")
    on_inconclusive: Literal["block", "ask", "pass"] = Field(
        "ask",
        description="When the rows cannot decide a gate: no version, a version whose promotions need a person, or a "
        "version like any other.",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the intervals, and of each gate's yes and no.")
    replicates: int = Field(2000, ge=200, le=100_000, description="Bootstrap resamples.")
    group: str | None = Field(
        None, description="A column; rows of one value belong together (a patient, a query) and are drawn together."
    )
    block: Duration | None = Field(
        None, description="Rows so close in data.time are drawn together; forecasting: chosen if not given."
    )
    season: int = Field(
        1, ge=1, le=100_000, description="forecasting: rows per season of a series, for mase; 1: the value before."
    )
    slices: tuple[str, ...] = Field((), description="Columns whose values are reported one by one.")
    search_slices: bool = Field(True, description="Look for the slices on which the model is worst.")
    min_slice_rows: int = Field(50, ge=1, description="Smaller slices are inconclusive, not judged.")
    command: str | None = Field(
        None, description="Any command that writes metrics of its own to $MLP_OUTPUT/metrics.json."
    )
    command_timeout: Duration = Field(timedelta(hours=1), description="The command is stopped after this long.")
    reuse_warning: int = Field(50, ge=1, description="Warn once this many models were judged on the same rows.")
    runner: Name | tuple[str, ...] = Field(
        "default", description="A runner class of platform.yaml, or a list of labels, for judging."
    )

    @model_validator(mode="after")
    def _gates_agree(self) -> Self:
        for gate in self.gates:
            same = [g for g in self.gates if (g.metric, g.slice) == (gate.metric, gate.slice) and g.gap is None]
            least = max((g.min for g in same if g.min is not None), default=None)
            most = min((g.max for g in same if g.max is not None), default=None)
            if least is not None and most is not None and least > most:
                name = gate.metric + (f" per {gate.slice}" if gate.slice else "")
                msg = f"{name} is to be at least {least} and at most {most}: nothing can pass"
                raise ValueError(msg)
        return self
