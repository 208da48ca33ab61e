"""What an engine measures: the seam between checks and whatever holds the data.

One engine is built in, DuckDB (:mod:`mlp_ci.data.duck`). Another one implements :class:`Engine` and gives the same
numbers for the same plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.data.plan import ColumnPlan, PhysicalColumn, Plan


class Fault(StrEnum):
    """A way in which one value can be wrong."""

    NULL = "null"
    UNREADABLE = "unreadable"
    NOT_WHOLE = "not whole"
    NOT_MIDNIGHT = "not midnight"
    INFINITE = "infinite"
    BELOW = "below"
    ABOVE = "above"
    OUTSIDE_SET = "outside set"


@dataclass(frozen=True, kw_only=True)
class ColumnFacts:
    """One column of one file. ``nulls`` counts NaN as well, ``nan`` says how many of them; bounds leave out infinities.

    ``smallest`` and ``largest`` are numbers (times as microseconds since 1970), None for text and when all is null.
    ``faults`` says how many rows are wrong in which way; only what the plan asks for is counted.
    """

    nulls: int
    nan: int
    smallest: int | float | None
    largest: int | float | None
    faults: dict[Fault, int]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One file."""

    rows: int
    columns: dict[str, ColumnFacts]


@dataclass(frozen=True, kw_only=True)
class Membership:
    """Values outside the allowed set: how many rows hold one, how many values they are, the five most frequent."""

    rows: int
    distinct: int
    distinct_outside: int
    values: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Rows that repeat an earlier row in some columns; ``examples`` are (first row, values, how often)."""

    rows: int
    examples: tuple[tuple[int, tuple[str, ...], int], ...]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One wrong row: its number from 1 (the header is not counted), its key, and the value."""

    row: int
    key: tuple[str, ...]
    value: str | None


class Engine(Protocol):
    """Measures one open file. Every method is at most a few passes over the columns it names."""

    def schema(self) -> tuple[PhysicalColumn, ...]:
        """The columns of the file, in order."""
        ...

    def facts(self, plan: Plan) -> Facts:
        """Rows, nulls, extremes and faults of all columns of the plan."""
        ...

    def membership(self, column: ColumnPlan) -> Membership:
        """What lies outside ``column.allowed``."""
        ...

    def repeats(self, columns: Sequence[str]) -> Repeats:
        """Rows that repeat another in these columns; rows with a null among them are left out. () is whole rows."""
        ...

    def examples(self, column: ColumnPlan, fault: Fault, key: Sequence[str]) -> tuple[Example, ...]:
        """The first five rows with this fault."""
        ...
