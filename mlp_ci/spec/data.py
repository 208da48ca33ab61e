"""The ``data`` section of ``model.yaml``: files, columns, and every check that can be asked for."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlp_ci.spec.quantities import Duration, RepoPath, Share, Strict

Number = int | float
Bound = int | float | datetime | date
ColumnType = Literal["float", "int", "string", "bool", "timestamp", "date"]
Severity = Literal["error", "warn"]
# The names under which checks are reported, given a severity and suppressed.
Rule = Literal[
    "column",
    "type",
    "nulls",
    "finite",
    "min",
    "max",
    "in",
    "regex",
    "length",
    "unique",
    "mean",
    "quantiles",
    "references",
    "key",
    "rows",
    "duplicates",
    "freshness",
    "monotonic",
    "balance",
    "leakage",
    "predictive",
    "schema",
    "sql",
]


class Range(Strict):
    """A band in which a number must lie; at least one end."""

    min: Number | None = Field(None, description="Smallest value allowed.")
    max: Number | None = Field(None, description="Largest value allowed.")

    @model_validator(mode="after")
    def _is_a_band(self) -> Self:
        if self.min is None and self.max is None:
            msg = "give min, max or both"
            raise ValueError(msg)
        if self.min is not None and self.max is not None and self.min > self.max:
            msg = f"min {self.min} is larger than max {self.max}"
            raise ValueError(msg)
        return self


class QuantileBand(Range):
    """Where a quantile of a column must lie."""

    at: Annotated[float, Field(gt=0, lt=1)] = Field(description="Which quantile: 0.5 is the median.")


class Reference(Strict):
    """Another file that holds every value of this column."""

    file: RepoPath = Field(description="A file of the repository, tracked by DVC or by git.")
    column: str = Field(min_length=1, description="Its column with the known values.")


class Column(Strict):
    """One column of the data and what must hold for it."""

    type: ColumnType = Field(description="What the column holds.")
    min: Bound | None = Field(None, description="Smallest value allowed.")
    max: Bound | None = Field(None, description="Largest value allowed.")
    in_: tuple[str | int | bool, ...] | None = Field(None, alias="in", description="The only values allowed.")
    nulls: Share = Field(1.0, description="Largest share of missing values, 0 to 1.")
    unique: bool = Field(False, description="No value may occur twice.")
    regex: str | None = Field(None, description="Every value matches this regular expression (RE2) as a whole.")
    length: Range | None = Field(None, description="How many characters a value has.")
    mean: Range | None = Field(None, description="Where the mean of the finite values lies.")
    quantiles: tuple[QuantileBand, ...] = Field((), description="Where quantiles of the finite values lie.")
    references: Reference | None = Field(None, description="Every value occurs in a column of another file.")
    severity: Severity | dict[Rule, Severity] = Field(
        "error", description="error fails, warn shows; for all checks of the column, or by check: {nulls: warn}."
    )
    sensitive: bool = Field(False, description="Never shown in a report and never written to a log.")
    monitor: bool = Field(True, description="Watch this column for drift.")

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> Self:
        if self.min is not None and self.max is not None:
            if type(self.min) is not type(self.max) and not (
                isinstance(self.min, int | float) and isinstance(self.max, int | float)
            ):
                msg = "min and max must be of the same kind"
                raise ValueError(msg)
            if self.min > self.max:  # type: ignore[operator]
                msg = f"min {self.min} is larger than max {self.max}"
                raise ValueError(msg)
        if self.type in ("string", "bool") and (self.min is not None or self.max is not None):
            msg = f"min and max do not apply to a {self.type} column; use `in`"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _checks_fit_the_type(self) -> Self:
        if self.type != "string" and (self.regex is not None or self.length is not None):
            msg = f"regex and length apply to string columns, and this one is {self.type}"
            raise ValueError(msg)
        if self.type not in ("float", "int") and (self.mean is not None or self.quantiles):
            msg = f"mean and quantiles apply to numbers, and this column is {self.type}"
            raise ValueError(msg)
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                msg = f"{self.regex!r} is no regular expression: {error}"
                raise ValueError(msg) from error
        return self


class RowCount(Strict):
    """How many rows a file may have."""

    min: int = Field(1, ge=0, description="Fewest rows allowed.")
    max: int | None = Field(None, ge=0, description="Most rows allowed.")


class Leakage(Strict):
    """What training must not know of the held-out data, and features that give the target away."""

    rows: bool = Field(True, description="No key (or, without one, no whole row) is in both train and test.")
    predictive: Annotated[float, Field(gt=0.5, le=1)] | None = Field(
        0.99, description="No feature alone orders a two-class target better than this ROC AUC; null turns it off."
    )


class Query(Strict):
    """A check of your own, in SQL."""

    name: str = Field(min_length=1, max_length=80, description="What it checks, for the report.")
    query: str = Field(min_length=1, description="Selects the rows that are wrong FROM data; no row means it holds.")
    severity: Severity = Field("error", description="error fails, warn shows.")


class Suppression(Strict):
    """A failing check that is known and accepted for a while."""

    check: Rule = Field(description="The check, by the name that the report gives it.")
    column: str | None = Field(None, description="Only for this column (or this query's name).")
    reason: str = Field(min_length=8, description="Why it is accepted, for whoever reads the report.")
    until: date = Field(description="The last day on which it is accepted; afterwards the check counts again.")


class Checks(Strict):
    """Checks on whole files."""

    rows: RowCount = Field(RowCount(), description="Row count of every file.")  # type: ignore[call-arg]
    duplicates: int = Field(0, ge=0, description="How many rows may repeat another row exactly.")
    freshness: Duration | None = Field(None, description="The newest `time` is at most this old.")
    monotonic: bool = Field(False, description="`time` never goes back from one row to the next.")
    balance: Range | None = Field(None, description="Share of every class of the target, 0 to 1.")
    leakage: Leakage = Field(Leakage(), description="Between train and test.")  # type: ignore[call-arg]
    schema_: Literal["off", "warn", "error"] = Field(
        "warn", alias="schema", description="Columns or types that changed since the last committed data version."
    )
    sql: tuple[Query, ...] = Field((), description="Checks of your own, as SQL queries for wrong rows.")
    severity: dict[Rule, Severity] = Field(
        {}, description="error fails, warn shows, by check; a column's own severity counts more."
    )
    suppress: tuple[Suppression, ...] = Field((), description="Failing checks accepted for a while.")


class Refresh(Strict):
    """How to bring the data up to date before a retraining is proposed."""

    command: str = Field(min_length=1, description="Writes the files of `data` anew; gets MLP_NOW (ISO time).")
    timeout: Duration = Field(timedelta(hours=1), description="Stopped after this long.")


class Data(Strict):
    """The data of the model: DVC-tracked files, what identifies a row, and the checks."""

    train: RepoPath = Field(
        description="Training data, tracked by DVC: a Parquet, CSV, JSON-lines or Arrow file, or a folder of them."
    )
    test: RepoPath = Field(description="Held-out data, tracked by DVC; the training command never gets its path.")
    key: tuple[str, ...] = Field((), description="Columns that identify a row; unique together.")
    time: str | None = Field(None, description="Column with the time of a row.")
    target: str = Field(description="Column that the model predicts.")
    columns: dict[str, Column] = Field(
        min_length=1, description="The columns that the model reads, by name; key, time and target may stand here too."
    )
    checks: Checks = Field(Checks(), description="Checks on whole files.")  # type: ignore[call-arg]
    refresh: Refresh | None = Field(None, description="How `mlp-ci retrain` gets newer data.")

    @model_validator(mode="after")
    def _held_out_data_is_another_file(self) -> Self:
        if self.train == self.test:
            msg = "train and test are the same file; held-out data must be another one"
            raise ValueError(msg)
        return self

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that go into the model: all but key, time and target."""
        apart = {*self.key, self.time, self.target}
        return tuple(name for name in self.columns if name not in apart)

    def severity_of(self, rule: Rule, column: str = "") -> Severity:
        """What a broken check means: the column's own word, else that of ``checks.severity``, else the default."""
        named = self.columns.get(column)
        if named is not None and "severity" in named.model_fields_set:
            if isinstance(named.severity, str):
                return named.severity
            if rule in named.severity:
                return named.severity[rule]
        return self.checks.severity.get(rule, DEFAULT_SEVERITY.get(rule, "error"))


# What is more often an oversight than a mistake is shown, and fails only when a team says so.
DEFAULT_SEVERITY: dict[str, Severity] = {"predictive": "warn"}
