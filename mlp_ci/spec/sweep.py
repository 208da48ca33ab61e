"""The section ``train.sweep`` of model.yaml: which parameters are searched, how, and within which budget."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlp_ci.spec.quantities import Duration, Strict

Scalar = bool | int | float | str
Ends = tuple[float, float]
WholeEnds = tuple[int, int]
Positive = Annotated[float, Field(gt=0)]


class Range(Strict):
    """The values that one parameter may take; exactly one of float, int and choice."""

    float: Annotated[Ends, Field(description="Lowest and highest.")] | None = None
    int: Annotated[WholeEnds, Field(description="Lowest and highest.")] | None = None
    choice: Annotated[tuple[Scalar, ...], Field(min_length=1, description="One of these.")] | None = None
    log: bool = Field(False, description="Search on a logarithmic scale.")
    step: Positive | None = Field(None, description="Distance between values.")

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
        return self


class Folds(Strict):
    """Cross-validation: every trial is trained and judged this many times on parts of the training data."""

    kind: Literal["k-fold", "group", "time"] = Field("k-fold", description="How the rows are parted.")
    count: int = Field(5, ge=2, le=50, description="Number of parts.")
    column: str | None = Field(None, description="group: its rows stay together. time: data.time if not given.")


class Sweep(Strict):
    """A search for the best parameters."""

    parameters: dict[str, Range] = Field(min_length=1, description="Name in the params file (dotted) -> its values.")
    metric: str = Field(description="What is searched for: of the evaluation with folds, else of metrics.json.")
    direction: Literal["maximize", "minimize"] | None = Field(
        None, description="Which way is better; known for metrics of the evaluation."
    )
    sampler: Literal["tpe", "random", "grid", "cma-es", "gp"] = Field("tpe", description="How values are proposed.")
    pruner: Literal["none", "median", "hyperband", "successive-halving"] = Field(
        "none", description="How trials that fall behind are ended early."
    )
    folds: Folds | None = Field(None, description="Cross-validation of each trial.")
    trials: int = Field(20, ge=1, le=100_000, description="At most so many trials.")
    time: Duration | None = Field(None, description="No trial begins after so long, all jobs together.")
    budget_usd: Positive | None = Field(
        None, description="No trial begins once the trials before it have cost so much."
    )
    jobs: int = Field(1, ge=1, le=256, description="Jobs of the workflow's matrix that run trials side by side.")
