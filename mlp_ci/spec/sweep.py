"""The section ``train.sweep`` of model.yaml: which parameters are searched, how, and within which budget."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlp_ci.spec.quantities import Duration, Strict

Scalar = bool | int | float | str
Finite = Annotated[float, Field(allow_inf_nan=False)]
Ends = tuple[Finite, Finite]
WholeEnds = tuple[int, int]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Range(Strict):
    """The values that one parameter may take; exactly one of float, int and choice."""

    float: Annotated[Ends, Field(description="Lowest and highest.")] | None = None
    int: Annotated[WholeEnds, Field(description="Lowest and highest.")] | None = None
    choice: Annotated[tuple[Scalar, ...], Field(min_length=1, description="One of these.")] | None = None
    log: bool = Field(False, description="Search on a logarithmic scale.")
    step: Positive | None = Field(None, description="Distance between values; whole numbers: 1 if not given.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [kind for kind in ("float", "int", "choice") if getattr(self, kind) is not None]
        if len(given) != 1:
            msg = "give exactly one of float: [low, high], int: [low, high] or choice: [...]"
            raise ValueError(msg)
        ends = self.float or self.int
        if ends and not ends[0] < ends[1]:
            msg = f"the lowest value {ends[0]} is not below the highest {ends[1]}"
            raise ValueError(msg)
        if ends and self.log and ends[0] <= 0:
            msg = "a logarithmic scale needs values above 0"
            raise ValueError(msg)
        if self.choice and len({(type(v), v) for v in self.choice}) < len(self.choice):
            msg = "a value stands twice in choice"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _scale_fits(self) -> Self:
        if self.choice and (self.log or self.step is not None):
            msg = "log and step go with float or int"
            raise ValueError(msg)
        if self.log and self.step is not None:
            msg = "give log or step, not both: the values of a logarithmic scale have no common distance"
            raise ValueError(msg)
        if self.int and self.step is not None and self.step != round(self.step):
            msg = f"step {self.step} is no whole number"
            raise ValueError(msg)
        ends = self.float or self.int
        if ends and self.step is not None and self.step > ends[1] - ends[0]:
            msg = f"step {self.step} is longer than the range"
            raise ValueError(msg)
        return self

    @property
    def countable(self) -> bool:
        """Whether it has a list of values, as a grid needs."""
        return self.choice is not None or (self.int is not None and not self.log) or self.step is not None


class Folds(Strict):
    """Cross-validation: every trial is trained and judged this many times on parts of the training data."""

    kind: Literal["k-fold", "group", "time"] = Field(
        "k-fold",
        description="How the rows are parted: by chance (each class alike), by a column whose equal values stay "
        "together, or in order of time, so that only the past trains.",
    )
    count: int = Field(5, ge=2, le=50, description="Number of parts that are judged.")
    column: str | None = Field(None, description="group: its rows stay together. time: data.time if not given.")
    gap: Duration = Field(timedelta(0), description="time: rows so shortly before the judged ones do not train.")

    @model_validator(mode="after")
    def _column_fits(self) -> Self:
        if self.kind == "group" and self.column is None:
            msg = "folds of kind group need `column`: rows with the same value in it stay together"
            raise ValueError(msg)
        if self.kind == "k-fold" and self.column is not None:
            msg = "`column` goes with kind group or time"
            raise ValueError(msg)
        if self.kind != "time" and self.gap:
            msg = "`gap` goes with kind time"
            raise ValueError(msg)
        return self


class Sweep(Strict):
    """A search for the best parameters. The model is then trained with them on all training data."""

    parameters: dict[str, Range] = Field(min_length=1, description="Name in the params file (dotted) -> its values.")
    metric: str = Field(
        min_length=1, description="What is searched for: with folds a metric of the evaluation, else of metrics.json."
    )
    direction: Literal["maximize", "minimize"] | None = Field(
        None, description="Which way is better; known for metrics of the evaluation."
    )
    sampler: Literal["tpe", "random", "grid", "gp"] = Field(
        "tpe", description="How values are proposed; grid tries all, gp needs torch."
    )
    pruner: Literal["none", "median", "hyperband", "successive-halving"] = Field(
        "none", description="How trials that fall behind are ended early."
    )
    folds: Folds | None = Field(None, description="Cross-validation of each trial.")
    trials: int = Field(20, ge=1, le=100_000, description="At most so many trials.")
    time: Duration | None = Field(
        None, description="No trial begins once the trials before it have trained for so long, all jobs together."
    )
    budget_usd: Positive | None = Field(
        None, description="No trial begins once the trials before it have cost so much, all jobs together."
    )
    jobs: int = Field(1, ge=1, le=256, description="Jobs of the workflow's matrix that run trials side by side.")

    @model_validator(mode="after")
    def _grid_is_countable(self) -> Self:
        endless = [name for name, values in self.parameters.items() if not values.countable]
        if self.sampler == "grid" and endless:
            msg = f"a grid needs a list of values: give {', '.join(endless)} a step, or use choice"
            raise ValueError(msg)
        return self
